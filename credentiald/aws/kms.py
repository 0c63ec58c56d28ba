"""The two questions to AWS KMS. They run in a worker thread and block, within the limits of `client_settings`.

The credential is that of the machine's chain, as botocore walks it. Proxies of the environment are not used.
"""

from collections.abc import Mapping
from typing import Any

from credentiald.aws.chain import client_settings
from credentiald.aws.failures import denial_of, words_of
from credentiald.aws.quiet import new_session

# AWS KMS API Reference, Decrypt and Encrypt, "Errors": what we repeat, and what it means.
_CODES = {
    "AccessDeniedException": "AWS denied it: check the key's policy and the rights of credentiald",
    "DisabledException": "the key is disabled",
    "IncorrectKeyException": "another key encrypted it",
    "InvalidCiphertextException": "what is stored was not encrypted like this: another database or key, or changed",
    "InvalidGrantTokenException": "AWS did not accept the grant",
    "InvalidKeyUsageException": "the key is not one for encryption",
    "KMSInvalidStateException": "the key cannot be used as it is: perhaps it is pending deletion",
    "NotFoundException": "there is no such key",
}
_PASSING = frozenset({"DependencyTimeoutException", "KMSInternalException", "KeyUnavailableException"})
_FAILS = {
    "DependencyTimeoutException": "AWS KMS waited in vain for another service",
    "KMSInternalException": "AWS KMS failed",
    "KeyUnavailableException": "the key is not available now",
}


class KmsFailed(Exception):
    """What went wrong, in our own words. `is_refused`: AWS has said so for good."""

    def __init__(self, cause: str, *, is_refused: bool) -> None:
        super().__init__(cause)
        self.is_refused = is_refused


def encrypt(arn: str, region: str, plaintext: bytes, context: Mapping[str, str]) -> bytes:
    """The ciphertext under this key, bound to the context. KmsFailed."""
    return bytes(_asked(region, "encrypt", KeyId=arn, Plaintext=plaintext, EncryptionContext=context)["CiphertextBlob"])


def decrypt(arn: str, region: str, ciphertext: bytes, context: Mapping[str, str]) -> bytes:
    """What was encrypted with this key and context. KmsFailed."""
    return bytes(
        _asked(region, "decrypt", KeyId=arn, CiphertextBlob=ciphertext, EncryptionContext=context)["Plaintext"]
    )


def _asked(region: str, operation: str, **arguments: Any) -> Any:
    failed = None
    try:
        return getattr(_client(region), operation)(**arguments)
    except Exception as error:
        failed = _failed(error)
    raise failed


def _failed(error: Exception) -> KmsFailed:
    denial = denial_of(error)
    if denial is None:
        return KmsFailed(words_of(error), is_refused=False)
    code = str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
    words = _CODES.get(code) or _FAILS.get(code)
    is_refused = code not in _PASSING and not denial.may_pass
    return KmsFailed(f"{words} ({code})" if words else denial.words, is_refused=is_refused)


def _client(region: str) -> Any:
    from botocore.config import Config

    return new_session().create_client("kms", region_name=region, config=client_settings().merge(Config(proxies={})))
