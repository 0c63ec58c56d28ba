"""Every refusal that a client can meet, with its HTTP status: one table.

Reasons, codes and statuses are those of the contract (protos/drawbridge/v1/error_reason.proto). The two rules behind
the table: trouble of ours is 503 and never 401 or 403, because a client would throw its token away; and a
refusal of the bridge itself (its service token) is trouble of ours.
"""

from dataclasses import dataclass

# What a client may do about a refused bridge is nothing, so the message says whose it is.
_BRIDGE_REFUSED = (
    "the bridge and credentiald do not agree at the moment: try again; the operator finds more in both logs"
)

# interfaces.md: 1 s for trouble with credentiald, 5 s for its store or the AWS chain.
_CREDENTIALD_RETRY_SECONDS = 1
_STORE_RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a reason means in HTTP.

    `retry_after_seconds` is the default for the Retry-After header, None for no header. `message`, where set,
    replaces the words of whoever refused. `status_without_wait` is for a refusal whose status depends on whether
    waiting helps.
    """

    status: int
    retry_after_seconds: int | None = None
    message: str | None = None
    status_without_wait: int | None = None


_UNAUTHORIZED = Row(status=401)
_FORBIDDEN = Row(status=403)
_NOT_FOUND = Row(status=404)
_BAD_REQUEST = Row(status=400)
_MISCONFIGURED = Row(status=503)
_BRIDGE = Row(status=503, retry_after_seconds=_CREDENTIALD_RETRY_SECONDS, message=_BRIDGE_REFUSED)
_CREDENTIALD_TROUBLE = Row(status=503, retry_after_seconds=_CREDENTIALD_RETRY_SECONDS)
_STORE_TROUBLE = Row(status=503, retry_after_seconds=_STORE_RETRY_SECONDS)

REFUSALS: dict[str, Row] = {
    # credentiald's, about the caller
    "ACCESS_TOKEN_MISSING": _UNAUTHORIZED,
    "ACCESS_TOKEN_INVALID": _UNAUTHORIZED,
    "ACCESS_TOKEN_EXPIRED": _UNAUTHORIZED,
    "USER_SUSPENDED": _UNAUTHORIZED,
    # credentiald's, about this bridge
    "SERVICE_TOKEN_MISSING": _BRIDGE,
    "SERVICE_TOKEN_INVALID": _BRIDGE,
    "SERVICE_TOKEN_EXPIRED": _BRIDGE,
    "CALLER_NOT_ALLOWED": _BRIDGE,
    # credentiald's, about the request
    "PROVIDER_NOT_FOUND": _NOT_FOUND,
    "OPERATION_NOT_ALLOWED": _NOT_FOUND,
    "GATEWAY_DISABLED": _NOT_FOUND,
    "PROVIDER_DISABLED": _FORBIDDEN,
    "USER_KEY_REQUIRED": _FORBIDDEN,
    "USER_KEYS_NOT_ALLOWED": _FORBIDDEN,
    "INVALID_ARGUMENT": _BAD_REQUEST,
    # credentiald's, about what an operator has to mend
    "CENTRAL_KEY_MISSING": _MISCONFIGURED,
    "AWS_CREDENTIALS_INCOMPLETE": _MISCONFIGURED,
    "ROLE_NOT_ASSUMABLE": _MISCONFIGURED,
    "REGION_REQUIRED": _MISCONFIGURED,
    # of the bridge: where its settings do not let it go
    "UPSTREAM_NOT_ALLOWED": _MISCONFIGURED,
    "AMBIENT_CREDENTIALS_UNAVAILABLE": _STORE_TROUBLE,
    # Without a wait, all keys failed authentication: that is the upstream's word about the operator's keys.
    "KEY_POOL_EXHAUSTED": Row(status=429, status_without_wait=502),
    "STORE_UNAVAILABLE": _STORE_TROUBLE,
    "SEALED": _STORE_TROUBLE,
    "AUDIT_UNAVAILABLE": _STORE_TROUBLE,
    # never a client's: the bridge asks again by itself
    "ASK_SINGLY": _CREDENTIALD_TROUBLE,
    # the bridge's own
    "RATE_LIMITED": Row(status=429, retry_after_seconds=1),
    "CAPACITY": Row(status=503, retry_after_seconds=1),
    "CREDENTIALD_UNREACHABLE": _CREDENTIALD_TROUBLE,
    "UPSTREAM_UNREACHABLE": Row(status=502),
    "UPSTREAM_TIMEOUT": Row(status=504),
    "UPSTREAM_KEY_REFUSED": Row(status=502),
    "BODY_TOO_LARGE": Row(status=413),
    "INVALID_BODY": _BAD_REQUEST,
    "INVALID_PATH": _BAD_REQUEST,
    "INVALID_REQUEST": _BAD_REQUEST,
    "ROUTE_NOT_FOUND": _NOT_FOUND,
    "METHOD_NOT_ALLOWED": Row(status=405),
    "REQUEST_TIMEOUT": Row(status=408),
    "UPGRADE_NOT_SUPPORTED": Row(status=426),
    "HEAD_TOO_LARGE": Row(status=431),
    "RECORDS_UNAVAILABLE": _STORE_TROUBLE,
    "BREAKER_OPEN": Row(status=503, retry_after_seconds=1),
    "INTERNAL": Row(status=503, retry_after_seconds=1),
}

# A newer credentiald may know reasons that this bridge does not: its gRPC code says enough
# (numbers: grpc.io, "Status codes and their use in gRPC"). Every code that is not listed is trouble.
_BY_GRPC_CODE: dict[int, Row] = {
    3: _BAD_REQUEST,  # INVALID_ARGUMENT
    5: _NOT_FOUND,  # NOT_FOUND
    7: _FORBIDDEN,  # PERMISSION_DENIED
    8: Row(status=429, retry_after_seconds=1),  # RESOURCE_EXHAUSTED
    9: _FORBIDDEN,  # FAILED_PRECONDITION
    14: _STORE_TROUBLE,  # UNAVAILABLE
    16: _UNAUTHORIZED,  # UNAUTHENTICATED
}


def row_of(reason: str, grpc_code: int | None = None) -> Row:
    """The row of a reason; for an unknown one, what its gRPC code says, and without a code trouble (503)."""
    known = REFUSALS.get(reason)
    if known is not None:
        return known
    if reason.startswith("SERVICE_"):
        return _BRIDGE
    return _BY_GRPC_CODE.get(grpc_code if grpc_code is not None else -1, _CREDENTIALD_TROUBLE)


def status_of(reason: str) -> int:
    """The HTTP status of a reason that this bridge knows, 503 for others."""
    return row_of(reason).status
