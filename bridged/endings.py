"""How an interception ended, as its record says it: one decision over what both sides saw."""

import re

from bridged.records import NO_ANSWER, AnswerRecords, Ending, ErrorCategory, Outcome

# Not a refusal: the client left, and nobody is there to be refused.
CLIENT_GONE = "CLIENT_GONE"
# Not one of the table of refusals either, but why a request was refused as CAPACITY.
STOPPED = "BRIDGE_STOPPED"

_COMPLETED = Ending(Outcome.COMPLETED)
_CLIENT_GONE = Ending(Outcome.CLIENT_GONE)
_STOPPED = Ending(Outcome.BRIDGE_STOPPED)

# Refusals of the bridge that are the upstream's doing.
_UPSTREAMS = {
    "UPSTREAM_UNREACHABLE": ErrorCategory.UNREACHABLE,
    "UPSTREAM_TIMEOUT": ErrorCategory.TIMEOUT,
    "UPSTREAM_KEY_REFUSED": ErrorCategory.UNAUTHORIZED,
    # After a resolve: each key that was tried was refused.
    "KEY_POOL_EXHAUSTED": ErrorCategory.RATE_LIMITED,
}
_BY_STATUS = {
    401: ErrorCategory.UNAUTHORIZED,
    403: ErrorCategory.UNAUTHORIZED,
    408: ErrorCategory.TIMEOUT,
    429: ErrorCategory.RATE_LIMITED,
    503: ErrorCategory.OVERLOADED,
    504: ErrorCategory.TIMEOUT,
    # Anthropic's, for overloaded_error.
    529: ErrorCategory.OVERLOADED,
}
# What types of errors within a good answer are called, without separators and in lower case. Anthropic ("Errors"),
# OpenAI ("Error codes"), google.rpc.Code, and the exceptions of Bedrock's streams.
_BY_TYPE = {
    "accessdeniedexception": ErrorCategory.UNAUTHORIZED,
    "apierror": ErrorCategory.SERVER_ERROR,
    "authenticationerror": ErrorCategory.UNAUTHORIZED,
    "badrequesterror": ErrorCategory.BAD_REQUEST,
    "biopolicy": ErrorCategory.BAD_REQUEST,
    "contextlengthexceeded": ErrorCategory.BAD_REQUEST,
    "cyberpolicy": ErrorCategory.BAD_REQUEST,
    "deadlineexceeded": ErrorCategory.TIMEOUT,
    "failedprecondition": ErrorCategory.BAD_REQUEST,
    "imageparseerror": ErrorCategory.BAD_REQUEST,
    "imagetoolarge": ErrorCategory.BAD_REQUEST,
    "insufficientquota": ErrorCategory.RATE_LIMITED,
    "internal": ErrorCategory.SERVER_ERROR,
    "internalerror": ErrorCategory.SERVER_ERROR,
    "internalservererror": ErrorCategory.SERVER_ERROR,
    "internalserverexception": ErrorCategory.SERVER_ERROR,
    "invalidapikey": ErrorCategory.UNAUTHORIZED,
    "invalidargument": ErrorCategory.BAD_REQUEST,
    "invalidbase64image": ErrorCategory.BAD_REQUEST,
    "invalidimage": ErrorCategory.BAD_REQUEST,
    "invalidimageformat": ErrorCategory.BAD_REQUEST,
    "invalidimageurl": ErrorCategory.BAD_REQUEST,
    "invalidprompt": ErrorCategory.BAD_REQUEST,
    "invalidrequesterror": ErrorCategory.BAD_REQUEST,
    "modelstreamerrorexception": ErrorCategory.SERVER_ERROR,
    "modeltimeoutexception": ErrorCategory.TIMEOUT,
    "notfound": ErrorCategory.BAD_REQUEST,
    "notfounderror": ErrorCategory.BAD_REQUEST,
    "outofrange": ErrorCategory.BAD_REQUEST,
    "overloadederror": ErrorCategory.OVERLOADED,
    "permissiondenied": ErrorCategory.UNAUTHORIZED,
    "permissionerror": ErrorCategory.UNAUTHORIZED,
    "ratelimiterror": ErrorCategory.RATE_LIMITED,
    "ratelimitexceeded": ErrorCategory.RATE_LIMITED,
    "requesttoolarge": ErrorCategory.BAD_REQUEST,
    "resourceexhausted": ErrorCategory.RATE_LIMITED,
    "servererror": ErrorCategory.SERVER_ERROR,
    "serverisoverloaded": ErrorCategory.OVERLOADED,
    "serviceunavailableexception": ErrorCategory.OVERLOADED,
    "slowdown": ErrorCategory.OVERLOADED,
    "throttlingexception": ErrorCategory.RATE_LIMITED,
    "timeouterror": ErrorCategory.TIMEOUT,
    "unauthenticated": ErrorCategory.UNAUTHORIZED,
    "unavailable": ErrorCategory.OVERLOADED,
    "usagelimitreached": ErrorCategory.RATE_LIMITED,
    "validationexception": ErrorCategory.BAD_REQUEST,
    "vectorstoretimeout": ErrorCategory.TIMEOUT,
}
# What some upstreams tell instead of a type, OpenRouter for one.
_STATUS = re.compile(r"[45][0-9][0-9]")
_FIRST_ERROR = 400
_FIRST_SERVER_ERROR = 500


def ending_of(error: str, *, upstream_status: int | None, answer: AnswerRecords = NO_ANSWER) -> Ending:
    """How it ended. `error` is why the bridge ended it, empty where the upstream's answer came to its end.

    `upstream_status` is that of the answer that the client got from the upstream, None where it got none.
    """
    if error == CLIENT_GONE:
        return _CLIENT_GONE
    if error == STOPPED:
        return _STOPPED
    if error:
        category = _UPSTREAMS.get(error)
        if category is None:
            return Ending(Outcome.BRIDGE_FAILED, reason=error)
        return Ending(Outcome.UPSTREAM_ERROR, category, answer.error_type or error, answer.error_message)
    if upstream_status is not None and upstream_status >= _FIRST_ERROR:
        return Ending(
            Outcome.UPSTREAM_ERROR,
            category_of_status(upstream_status),
            answer.error_type or f"HTTP {upstream_status}",
            answer.error_message,
        )
    if answer.error_type:
        category = category_of_type(answer.error_type)
        return Ending(Outcome.UPSTREAM_ERROR, category, answer.error_type, answer.error_message)
    return _COMPLETED


def category_of_status(status: int) -> ErrorCategory:
    """What kind of trouble an error status is."""
    known = _BY_STATUS.get(status)
    if known is not None:
        return known
    return ErrorCategory.SERVER_ERROR if status >= _FIRST_SERVER_ERROR else ErrorCategory.BAD_REQUEST


def category_of_reason(reason: str) -> ErrorCategory:
    """What kind of trouble of the upstream a refusal of the bridge tells of."""
    return _UPSTREAMS.get(reason, ErrorCategory.OVERLOADED if reason == "BREAKER_OPEN" else ErrorCategory.UNKNOWN)


def category_of_type(error_type: str) -> ErrorCategory:
    """What kind of trouble a type of error is that an upstream told within a good answer."""
    if _STATUS.fullmatch(error_type):
        return category_of_status(int(error_type))
    return _BY_TYPE.get("".join(filter(str.isalnum, error_type)).lower(), ErrorCategory.UNKNOWN)
