"""The two questions to a transit secrets engine of Vault or OpenBao. They block; call them in a thread.

developer.hashicorp.com/vault/api-docs/secret/transit, "Encrypt data" and "Decrypt data". What is encrypted is bound to
a context in both ways that the engine knows: `associated_data` for its AEAD keys, `context` where the key is derived.
Redirects are not followed, proxies of the environment are not used, and the text of an error is not repeated.
"""

import base64
import binascii
import http.client
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from credentiald.sealing_source import VaultSource
from daemonkit.secret import Secret

TIMEOUT_SECONDS = 5.0
_MOST_BYTES = 64 * 1024
_STATUS = {
    400: "Vault refused it: there is no such key, its type does not fit, or what is stored was not encrypted like this",
    403: "Vault denied it: the token is not valid any more, or its policy does not allow this",
    404: "Vault has no such mount: check the path",
    412: "the Vault server is behind the others",
    429: "Vault throttled it",
    472: "the Vault server is a disaster recovery standby",
    473: "the Vault server is a performance standby",
    501: "Vault is not initialised",
    502: "the Vault server cannot reach another one",
    503: "Vault is sealed, or in maintenance",
}
_REFUSED = frozenset({400, 403, 404, 405})


class VaultFailed(Exception):
    """What went wrong, in our own words. `is_refused`: Vault has said so for good."""

    def __init__(self, cause: str, *, is_refused: bool) -> None:
        super().__init__(cause)
        self.is_refused = is_refused


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultAccess:
    """How to ask: `token` reads the present one, `ca_file` is empty for the system's authorities."""

    token: Callable[[], Secret | None]
    ca_file: str = ""
    namespace: str = ""


def read_token(given: Secret | None, path: str) -> Secret | None:
    """The token: what the file at `path` holds now, else what was given."""
    if not path:
        return given
    try:
        return Secret(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        # What was read at the start may still be good; if it is not, Vault says so.
        return given


def encrypt(source: VaultSource, access: VaultAccess, plaintext: bytes, context: bytes) -> bytes:
    """The ciphertext under this key, bound to the context. VaultFailed."""
    data = _asked(source, access, "encrypt", {"plaintext": _encoded(plaintext), **_bound(context)})
    ciphertext = data.get("ciphertext")
    if not isinstance(ciphertext, str) or not ciphertext.startswith("vault:"):
        raise VaultFailed("Vault's answer is not one of a transit engine", is_refused=False)
    return ciphertext.encode("ascii", "replace")


def decrypt(source: VaultSource, access: VaultAccess, ciphertext: bytes, context: bytes) -> bytes:
    """What was encrypted with this key and context. VaultFailed."""
    data = _asked(source, access, "decrypt", {"ciphertext": ciphertext.decode("ascii", "replace"), **_bound(context)})
    try:
        return base64.b64decode(data["plaintext"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        # Not chained: the exception may carry the plaintext.
        failed = VaultFailed("Vault's answer is not one of a transit engine", is_refused=False)
    raise failed


def _bound(context: bytes) -> dict[str, str]:
    return {"context": _encoded(context), "associated_data": _encoded(context)}


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _asked(source: VaultSource, access: VaultAccess, operation: str, body: Mapping[str, str]) -> Mapping[str, Any]:
    failed = None
    try:
        token = access.token()
        if token is None:
            raise VaultFailed("there is no token: set CREDENTIALD_VAULT_TOKEN_FILE", is_refused=True)
        return _answer(source, access, token, f"/v1/{source.mount}/{operation}/{source.key}", body)
    except VaultFailed:
        raise
    except ssl.SSLError:
        failed = "Vault's certificate was not accepted, or it does not speak TLS"
    except TimeoutError:
        failed = "no answer in time"
    except OSError as error:
        failed = f"no connection ({error.strerror})" if error.errno else "no connection"
    except (http.client.HTTPException, ValueError, AttributeError):
        failed = "its answer is not Vault's"
    # Not chained: the exceptions may carry an answer with them.
    raise VaultFailed(failed, is_refused=False)


def _answer(
    source: VaultSource, access: VaultAccess, token: Secret, path: str, body: Mapping[str, str]
) -> Mapping[str, Any]:
    headers = {
        "X-Vault-Token": token.stripped().reveal(),
        "X-Vault-Request": "true",
        "Content-Type": "application/json",
    }
    if access.namespace:
        headers["X-Vault-Namespace"] = access.namespace
    connection = _connection(source, access)
    try:
        connection.request("POST", path, body=json.dumps(body), headers=headers)
        answer = connection.getresponse()
        status, content = answer.status, answer.read(_MOST_BYTES)
    finally:
        connection.close()
    if status != 200:
        if 300 <= status < 400:
            raise VaultFailed("the Vault server sends elsewhere: name the active one", is_refused=False)
        raise VaultFailed(f"{_STATUS.get(status, 'Vault failed')} ({status})", is_refused=status in _REFUSED)
    data: Mapping[str, Any] = json.loads(content)["data"]
    return data if isinstance(data, dict) else {}


def _connection(source: VaultSource, access: VaultAccess) -> http.client.HTTPConnection:
    if not source.is_tls:
        return http.client.HTTPConnection(source.host, source.port, timeout=TIMEOUT_SECONDS)
    try:
        trust = ssl.create_default_context(cafile=access.ca_file or None)
    except OSError as error:
        problem = "no valid PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise VaultFailed(f"CREDENTIALD_VAULT_CA cannot be read: {problem}", is_refused=True) from None
    trust.minimum_version = ssl.TLSVersion.TLSv1_2
    return http.client.HTTPSConnection(source.host, source.port, timeout=TIMEOUT_SECONDS, context=trust)
