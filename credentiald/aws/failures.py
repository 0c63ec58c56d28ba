"""What went wrong at AWS, in our own words. Decisions only.

An error's text is never repeated: it may hold what a credential process printed, an answer's body or a token. What
counts is its type, and for an answer of AWS its code, if that is one of those we know.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PROCESS_OVERDUE = "the process did not end in time and was killed"


class ProcessOverdue(Exception):
    """A credential_process that was killed."""


class HalfAPair(Exception):
    """A secret access key without its id, which botocore would pass over, or an empty half."""


class HalfARole(Exception):
    """A source without a role, or a role without its token file, which botocore would pass over."""


class MfaNeeded(Exception):
    """A profile wants a one-time code, which nobody can type in here."""


# By the name of the class or of one it descends from, the most special first: botocore's exceptions share no base.
_WORDS = {
    "ProcessOverdue": PROCESS_OVERDUE,
    "MfaNeeded": "the profile asks for a one-time code (mfa_serial), which nobody can type in here",
    "HalfAPair": "incomplete: one half of the credential is missing or empty",
    "HalfARole": "incomplete: a role or what belongs to it is missing",
    "PartialCredentialsError": "incomplete: one half of the credential, or its source, is missing",
    "ProfileNotFound": "the profile that AWS_PROFILE names does not exist: correct AWS_PROFILE or the file",
    "ConfigParseError": "AWS's configuration file cannot be read",
    "ConfigNotFound": "AWS's configuration file does not exist",
    "InfiniteLoopConfigError": "the profiles refer to each other in a circle",
    "SSOTokenLoadError": "nobody is logged in: run 'aws sso login'",
    "UnauthorizedSSOTokenError": "the login has expired: run 'aws sso login'",
    "TokenRetrievalError": "the login has expired: run 'aws sso login'",
    "SSOError": "the login could not be used: run 'aws sso login'",
    "LoginError": "the login could not be used: run 'aws login'",
    "MissingDependencyException": "botocore lacks a package for this step (botocore[crt])",
    "InvalidConfigError": "the profile is not configured rightly",
    "UnknownCredentialError": "the profile names a source that does not exist",
    "NoRegionError": "it needs a region: set AWS_REGION",
    "InvalidRegionError": "its region is not the name of one",
    "CredentialRetrievalError": "it gave no credentials",
    "MetadataRetrievalError": "it gave no credentials",
    "InvalidIMDSEndpointError": "the address of the metadata service is not valid",
    "ConnectTimeoutError": "no connection in time",
    "ReadTimeoutError": "no answer in time",
    "EndpointConnectionError": "no connection",
    "ConnectionClosedError": "the connection was closed",
    "ProxyConnectionError": "no connection to the proxy",
    "SSLError": "the TLS certificate was not accepted",
    "HTTPClientError": "no connection",
    "ParamValidationError": "a parameter is not valid",
    "RuntimeError": "it gave credentials that have expired",
    "FileNotFoundError": "a file that it names does not exist",
    "PermissionError": "a file that it names must not be read",
    "OSError": "a file or program that it names cannot be used",
    "JSONDecodeError": "its answer is not JSON",
    "KeyError": "its answer lacks a part",
    "ValueError": "its address or its answer is not valid",
}
_STEP_WORDS = {
    ("profile", "FileNotFoundError"): "a file that AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE names does not exist",
    ("profile", "PermissionError"): "AWS's configuration or credentials file must not be read",
    ("assume-role", "HalfARole"): "incomplete: the profile has source_profile or credential_source and no role_arn",
    ("assume-role-with-web-identity", "HalfARole"): "incomplete: a role is named and no token file",
    ("env", "HalfAPair"): "incomplete: AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY is missing or empty",
    ("env", "PartialCredentialsError"): "incomplete: AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not",
    ("shared-credentials-file", "PartialCredentialsError"): "incomplete: the profile has one half of a pair",
    ("config-file", "PartialCredentialsError"): "incomplete: the profile has one half of a pair",
    ("custom-process", "CredentialRetrievalError"): (
        "the process failed, or did not print credentials: run it by hand, as the user that runs credentiald"
    ),
    ("custom-process", "FileNotFoundError"): "the program that credential_process names does not exist",
    ("container-role", "CredentialRetrievalError"): "the container endpoint did not give credentials",
    ("container-role", "FileNotFoundError"): "the file of AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE does not exist",
    ("container-role", "ValueError"): (
        "not valid: its address (no container endpoint, or not https), its token (no line end) or its answer"
    ),
    ("assume-role-with-web-identity", "FileNotFoundError"): (
        "the token file does not exist: check that the service account's token is mounted"
    ),
    ("iam-role", "MetadataRetrievalError"): "the metadata service gave no token, and version 1 is off",
}
# Codes of AWS STS and SSO ("API Reference", Common Errors and AssumeRole): what we repeat, and what it means.
_CODES = {
    "AccessDenied": "AWS denied it: check the role's trust policy, the external id and the caller's rights",
    "AccessDeniedException": "AWS denied it",
    "ExpiredToken": "the credential that it was asked with has expired",
    "ExpiredTokenException": "the credential that it was asked with has expired",
    "ForbiddenException": "AWS denied it",
    "IDPCommunicationError": "AWS could not reach the identity provider",
    "IDPRejectedClaim": "the identity provider rejected the token",
    "InvalidClientTokenId": "AWS does not know the access key",
    "InvalidIdentityToken": "AWS did not accept the web identity token",
    "MalformedPolicyDocument": "the session policy is not a valid policy",
    "PackedPolicyTooLarge": "session policy and tags are too large together",
    "RegionDisabledException": "STS is switched off in this region",
    "RequestExpired": "AWS found the time of the request wrong: check this machine's clock",
    "ResourceNotFoundException": "the account or role of the login does not exist",
    "SignatureDoesNotMatch": "AWS found the signature wrong: check the secret access key",
    "UnauthorizedException": "the login has expired: run 'aws sso login'",
    "UnrecognizedClientException": "AWS does not know the access key",
    "ValidationError": "AWS found a value not valid: check role, session name and duration",
    "ServiceUnavailable": "AWS is not available",
    "InternalFailure": "AWS failed",
    "InternalError": "AWS failed",
    "Throttling": "AWS throttled it",
    "ThrottlingException": "AWS throttled it",
    "TooManyRequestsException": "AWS throttled it",
}
# What may pass by itself, of AWS's codes and of our own causes.
_PASSING_CODES = frozenset(
    {
        "IDPCommunicationError",
        "InternalError",
        "InternalFailure",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_FIRST_SERVER_STATUS = 500
# What says for good that a credential is none, whatever it is used for.
_NO_CREDENTIAL = frozenset({"ExpiredToken", "InvalidClientTokenId", "SignatureDoesNotMatch"})
# botocore's error for an answer of a container endpoint; the answer's body follows, and is not ours to repeat.
_ENDPOINT_STATUS = re.compile(r"Received non 200 response (\d{3}) ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """An answer of AWS that is an error: its code if we know it, and whether trying again may help."""

    code: str
    words: str
    may_pass: bool


def denial_of(error: BaseException) -> Denial | None:
    """What AWS answered; None for an error that is no answer of AWS."""
    if not _is_a(error, "ClientError"):
        return None
    response: Mapping[str, Any] = getattr(error, "response", {})
    code = str(response.get("Error", {}).get("Code", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    known = code if code in _CODES else ""
    words = f"{_CODES[known]} ({known})" if known else "AWS refused it"
    return Denial(code=known, words=words, may_pass=code in _PASSING_CODES or status >= _FIRST_SERVER_STATUS)


def words_of(error: BaseException, step: str = "") -> str:
    """One clause that says what happened and repeats nothing of the error's text."""
    denial = denial_of(error)
    if denial is not None:
        return denial.words
    for name in _names(error):
        words = _STEP_WORDS.get((step, name)) or _WORDS.get(name)
        if words:
            return f"{words}: {why}" if (why := _why_of_endpoint(error, step)) else words
    return f"it failed ({type(error).__name__})"


def _why_of_endpoint(error: BaseException, step: str) -> str:
    """Why a container endpoint gave nothing; empty where that is not known. botocore wraps the error twice."""
    inner = error.__context__
    if step != "container-role" or inner is None or not _is_a(inner, "MetadataRetrievalError"):
        return ""
    answered = _ENDPOINT_STATUS.match(str(getattr(inner, "kwargs", {}).get("error_msg", "")))
    if answered is not None:
        return f"it answered {answered[1]}"
    return words_of(inner.__context__) if inner.__context__ is not None else ""


def denies_credential(error: BaseException) -> bool:
    """Whether AWS answered that the credential itself is unknown, wrong or at its end."""
    denial = denial_of(error)
    return denial is not None and denial.code in _NO_CREDENTIAL


def may_pass(error: BaseException) -> bool:
    """Whether an error of AssumeRole may go away by itself: whatever is no definite answer of AWS."""
    denial = denial_of(error)
    return denial.may_pass if denial is not None else not _is_a(error, "ParamValidationError")


def _names(error: BaseException) -> list[str]:
    return [each.__name__ for each in type(error).__mro__]


def _is_a(error: BaseException, name: str) -> bool:
    return name in _names(error)
