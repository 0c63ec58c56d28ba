"""Every refusal: the class is the fact, its code and message stand beside it.

A refusal is an error that the caller is meant to see. It becomes a gRPC status with one ErrorInfo in one place
(rpc/status.py); any other exception becomes a bare INTERNAL there. The reason is the class name in upper snake
case, so it cannot drift; a test holds the classes against the enum ErrorReason.
"""

import re
from enum import IntEnum
from typing import ClassVar

from daemonkit.secret import masked


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[:longest] + "…"


class Code(IntEnum):
    """The gRPC status codes that refusals use (grpc.io, "Status codes and their use in gRPC")."""

    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class Refusal(Exception):
    """Base of the errors a caller is meant to see.

    The keyword arguments are the facts: they become ErrorInfo.metadata, and they are the only values that
    `message` may mention. Never pass key or token material.
    """

    code: ClassVar[Code]
    message: ClassVar[str]
    longest_fact: ClassVar[int] = 200

    def __init__(self, **facts: str) -> None:
        # A fact may be what a caller sent: it must not fill the status (gRPC limits its metadata), nor repeat a token.
        self.facts = {name: masked(_cut(value, self.longest_fact)) for name, value in facts.items()}
        super().__init__(self.message.format_map(self.facts))

    @classmethod
    def reason(cls) -> str:
        """`USER_KEY_REQUIRED` for `UserKeyRequired`."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).upper()


class AccessTokenMissing(Refusal):
    code = Code.UNAUTHENTICATED
    message = "no access token was sent: send the token an administrator made for you as 'Authorization: Bearer dbu_…'"


class AccessTokenInvalid(Refusal):
    code = Code.UNAUTHENTICATED
    message = "the access token is not valid: it is malformed, unknown or revoked; ask an administrator for a new one"


class AccessTokenExpired(Refusal):
    code = Code.UNAUTHENTICATED
    message = "the access token expired at {expire_time}: ask an administrator for a new one"


class UserSuspended(Refusal):
    code = Code.UNAUTHENTICATED
    message = "the user is suspended: ask an administrator"


class ServiceTokenMissing(Refusal):
    code = Code.UNAUTHENTICATED
    message = (
        "no service token was sent, and no client certificate that is a service: configure the calling program's token"
    )


class ServiceTokenInvalid(Refusal):
    code = Code.UNAUTHENTICATED
    message = "the service token is not valid: it is malformed, unknown or was replaced by a rotation"


class ServiceTokenExpired(Refusal):
    code = Code.UNAUTHENTICATED
    message = "the service token expired at {expire_time}: rotate it with 'credentiald services rotate'"


class CallerNotAllowed(Refusal):
    code = Code.PERMISSION_DENIED
    message = "a caller with the role {role} may not call {rpc}"


class ProviderNotFound(Refusal):
    code = Code.NOT_FOUND
    message = "there is no provider named '{provider}': check the name in the URL"


class OperationNotAllowed(Refusal):
    code = Code.PERMISSION_DENIED
    message = "provider '{provider}' has no operation '{operation}': check the path against the provider's type"


class GatewayDisabled(Refusal):
    code = Code.FAILED_PRECONDITION
    message = "the gateway is switched off: an administrator may set CODER_AIBRIDGE_ENABLED=true"


class ProviderDisabled(Refusal):
    code = Code.FAILED_PRECONDITION
    message = "provider '{provider}' is switched off: ask an administrator"


class UserKeyRequired(Refusal):
    code = Code.FAILED_PRECONDITION
    message = (
        "provider '{provider}' needs a key of your own, and none is stored: "
        "add one with 'credentiald keys set {provider} --mine'"
    )


class UserKeysNotAllowed(Refusal):
    code = Code.FAILED_PRECONDITION
    message = "provider '{provider}' does not take a key of the user's own: {cause}"


class CentralKeyMissing(Refusal):
    code = Code.FAILED_PRECONDITION
    message = (
        "provider '{provider}' should use a central key and none is stored: "
        "an administrator may add one with 'credentiald keys set {provider}'"
    )


class AwsCredentialsIncomplete(Refusal):
    code = Code.FAILED_PRECONDITION
    message = "the AWS credential of provider '{provider}' is incomplete: {missing} is missing; nothing else was tried"


class RoleNotAssumable(Refusal):
    code = Code.FAILED_PRECONDITION
    message = "the role '{role_arn}' of provider '{provider}' could not be assumed: {cause}; nothing else was tried"


class RegionRequired(Refusal):
    code = Code.FAILED_PRECONDITION
    message = "no AWS region is known for provider '{provider}': set one of {settings}"


class AmbientCredentialsUnavailable(Refusal):
    code = Code.UNAVAILABLE
    message = "AWS credentials could not be had for provider '{provider}'; steps tried: {steps}"
    longest_fact = 600


class KeyPoolExhausted(Refusal):
    code = Code.RESOURCE_EXHAUSTED
    message = "every key of provider '{provider}' was refused or is waiting: try again in {retry_after_seconds} s"


class StoreUnavailable(Refusal):
    code = Code.UNAVAILABLE
    message = "credentiald's store does not answer: try again; the operator finds more in credentiald's log"


class Sealed(Refusal):
    code = Code.UNAVAILABLE
    message = (
        "a stored secret cannot be opened with the sealing keys at hand; the operator finds more in credentiald's log"
    )


class SealingKeyUnknown(Sealed):
    """The store names a key that is not at hand; another process may have made it: look where keys are kept."""

    @classmethod
    def reason(cls) -> str:
        """To callers it is SEALED."""
        return Sealed.reason()


class SealingSourceUnavailable(Refusal):
    code = Code.UNAVAILABLE
    message = "a new sealing key could not be encrypted: {cause}"


class AuditUnavailable(Refusal):
    code = Code.UNAVAILABLE
    message = "the audit is off, or cannot be written; the operator finds more in credentiald's log"


class TooManyRefusedActs(Refusal):
    """In strict mode each act is written down before it begins: refused ones must not fill the disk."""

    code = Code.RESOURCE_EXHAUSTED
    message = "too many acts of this caller were refused within a few seconds: try again in {retry_after_seconds} s"


class InvalidKeyPolicy(Refusal):
    code = Code.INVALID_ARGUMENT
    message = "the key policy of provider '{provider}' has no source: turn the central key or user keys on"


class KeyRequired(Refusal):
    code = Code.INVALID_ARGUMENT
    message = "a key is required for provider '{provider}': give one, or turn the central key off"


class KeyTooLarge(Refusal):
    code = Code.INVALID_ARGUMENT
    message = "the key is too large: at most {limit_bytes} bytes"


class InvalidName(Refusal):
    code = Code.INVALID_ARGUMENT
    message = "the name '{name}' is not allowed: {rule}"


class ProviderReadOnly(Refusal):
    code = Code.FAILED_PRECONDITION
    message = (
        "provider '{provider}' comes from the environment of credentiald and cannot be changed here: "
        "change the CODER_AIBRIDGE_ setting and restart credentiald"
    )


class AlreadyExists(Refusal):
    code = Code.ALREADY_EXISTS
    message = "{resource} '{name}' already exists"


class EtagMismatch(Refusal):
    code = Code.ABORTED
    message = "{resource} '{name}' has changed since you read it: read it again and repeat the change"


class UserNotFound(Refusal):
    code = Code.NOT_FOUND
    message = "there is no user '{user}'"


class TokenNotFound(Refusal):
    code = Code.NOT_FOUND
    message = "there is no token with the id '{id}'"


class ServiceNotFound(Refusal):
    code = Code.NOT_FOUND
    message = "there is no service named '{service}'"


class ModelNotFound(Refusal):
    code = Code.NOT_FOUND
    message = "there are no prices of a model named '{model}' at provider '{provider}'"


class InterceptionNotFound(Refusal):
    code = Code.NOT_FOUND
    message = "there is no interception '{interception}', or its records are not kept any more"


class InvalidArgument(Refusal):
    code = Code.INVALID_ARGUMENT
    message = "{field}: {problem}"


class UpstreamNotAllowed(Refusal):
    code = Code.INVALID_ARGUMENT
    message = "'{base_url}' {problem}"


class AskSingly(Refusal):
    """Raised only for questions of a batch, by what would keep their neighbours waiting; a single question waits."""

    code = Code.UNAVAILABLE
    message = "the credential has to be fetched first, for longer than a batch may wait: ask with ResolveProvider"


REFUSALS: dict[str, type[Refusal]] = {cls.reason(): cls for cls in Refusal.__subclasses__()}
