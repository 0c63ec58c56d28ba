"""What an upstream's answer says of the key that it was asked with: one table of statuses, and how its errors are read.

Only a 401 and a 429 are about a key, and what AWS says with a 403 and a name of its own; everything else is the
caller's answer. Which kind of 429 it is, and how long it lasts, stands in headers and body.

Sources: RFC 9110, 10.2.3 (Retry-After); platform.openai.com, "Rate limits" and "Error codes"; platform.claude.com,
"Rate limits" and "Errors"; google.rpc.QuotaFailure and RetryInfo (ai.google.dev, "Rate limits"); bedrock/errors.py.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from bridged.adapters.bedrock import WIRE_TYPE as BEDROCK
from bridged.bedrock.errors import error_name, refused_credential
from bridged.model import Headers, header_values
from bridged.taps.content_coding import codings_of, decoded_body
from daemonkit.secret import masked


class Kind(StrEnum):
    """What an answer means for the key, as in the contract."""

    ACCEPTED = "ACCEPTED"
    UNAUTHORIZED = "UNAUTHORIZED"
    RATE_LIMITED = "RATE_LIMITED"
    SPEND_LIMITED = "SPEND_LIMITED"
    UNKNOWN = "UNKNOWN"


class KeyOutcome(NamedTuple):
    """`asked_seconds` is how long the upstream asks to be left alone, None where it does not say; `error` is its type
    of the error."""

    kind: Kind
    status: int = 0
    asked_seconds: float | None = None
    error: str = ""


# An outcome with the receipt of the answer that brought the key.
ToldOutcome = tuple[bytes, KeyOutcome]

# What is held back until it is known what it says of the key.
_HELD = frozenset({401, 429})
_HELD_OF_BEDROCK = frozenset({400, 401, 403, 429})
_BY_STATUS = {401: Kind.UNAUTHORIZED, 429: Kind.RATE_LIMITED}
_FIRST_SERVER_ERROR = 500

# How long a key rests where the upstream does not say, and at most and at least where it does.
_DEFAULT_SECONDS = {Kind.UNAUTHORIZED: 60.0, Kind.RATE_LIMITED: 60.0, Kind.SPEND_LIMITED: 3600.0}
_MOST_SECONDS = {Kind.UNAUTHORIZED: 60.0, Kind.RATE_LIMITED: 3600.0, Kind.SPEND_LIMITED: 86_400.0}
_LEAST_SECONDS = {Kind.SPEND_LIMITED: 3600.0}
# The longest that an upstream is believed.
_LONGEST_SECONDS = 7 * 86_400.0

# Codes and types of errors that say that money or a quota by the day is used up.
# Sequences, because what stands in a body may be anything, also what has no hash.
_SPENT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error")
# Anthropic has no code for it: these are parts of its own sentence, in lower case.
_ANTHROPICS_SPENT = ("credit balance is too low", "spend limit", "reached your specified api usage limits")
_ANTHROPICS_TYPES = ("rate_limit_error", "invalid_request_error")
_GOOGLES_STATUS = "RESOURCE_EXHAUSTED"
_BY_THE_DAY = re.compile(r"PerDay|PerMonth")

# OpenAI's, about a request that no key of this account could make go through: it names another organisation or project
# in a header, or is as a whole above a limit by the minute. Any client can bring these about, so no key rests for them.
_OF_THE_REQUEST = ("mismatched_organization", "mismatched_project")
_TOO_LARGE = ("rate_limit_exceeded", "Request too large for ")

_MOST_PLAIN_BYTES = 256 * 1024
_ERROR_CHARACTERS = 128
_NAME = re.compile(r"[\w.:/-]+", re.ASCII)
# 6m0s, 1h2m3.5s, 20ms
_SPAN = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?", re.ASCII)
_SECONDS = re.compile(r"\d{1,12}(?:\.\d{1,9})?", re.ASCII)
# OpenAI's and Anthropic's: what is left, and when it is full again.
_LIMITS = (
    *((f"x-ratelimit-remaining-{one}", f"x-ratelimit-reset-{one}") for one in ("requests", "tokens")),
    *(
        (f"anthropic-ratelimit-{one}-remaining", f"anthropic-ratelimit-{one}-reset")
        for one in ("requests", "tokens", "input-tokens", "output-tokens")
    ),
)


def is_held(wire_type: str, status: int) -> bool:
    """Whether an answer with this status may be about the key."""
    return status in (_HELD_OF_BEDROCK if wire_type == BEDROCK else _HELD)


def outcome_at_head(status: int) -> KeyOutcome:
    """What the head of an answer says that is not held back."""
    return KeyOutcome(Kind.UNKNOWN if status >= _FIRST_SERVER_ERROR else Kind.ACCEPTED, status)


NO_ANSWER = KeyOutcome(Kind.UNKNOWN)


def outcome_of(wire_type: str, status: int, headers: Headers, body: bytes, *, now: datetime) -> KeyOutcome:
    """What an answer that is held back says. `body` may be a part of it, and coded as the headers say."""
    codings = codings_of(", ".join(header_values(headers, "content-encoding")))
    plain = decoded_body(body, codings, max_bytes=_MOST_PLAIN_BYTES) or b""
    kind = _BY_STATUS.get(status)
    if wire_type == BEDROCK and refused_credential(headers, plain) is not None:
        kind = Kind.UNAUTHORIZED
    if kind is None:
        return KeyOutcome(Kind.ACCEPTED, status)
    error = _error_of(plain)
    if _is_of_the_request(kind, error):
        return KeyOutcome(Kind.ACCEPTED, status)
    name = (error_name(headers, plain) if wire_type == BEDROCK else "") or _name_of(error)
    if kind is not Kind.RATE_LIMITED:
        return KeyOutcome(kind, status, None, name)
    if _is_spent(error):
        kind = Kind.SPEND_LIMITED
    return KeyOutcome(kind, status, _asked_seconds(headers, error, now), name)


def rest_seconds(outcome: KeyOutcome) -> float:
    """How long a key rests after this."""
    kind, asked_seconds = outcome.kind, outcome.asked_seconds
    if asked_seconds is None or kind is Kind.UNAUTHORIZED:
        return _DEFAULT_SECONDS[kind]
    return min(max(asked_seconds, _LEAST_SECONDS.get(kind, 0.0)), _MOST_SECONDS[kind])


def _is_of_the_request(kind: Kind, error: Mapping[str, Any]) -> bool:
    code, message = error.get("code"), error.get("message")
    if kind is Kind.UNAUTHORIZED:
        return code in _OF_THE_REQUEST
    limited, beginning = _TOO_LARGE
    return code == limited and isinstance(message, str) and message.startswith(beginning)


def _is_spent(error: Mapping[str, Any]) -> bool:
    if error.get("code") in _SPENT or error.get("type") in _SPENT:
        return True
    if error.get("status") == _GOOGLES_STATUS:
        return any(_BY_THE_DAY.search(quota) for quota in _googles_quotas(error))
    message = error.get("message")
    if error.get("type") not in _ANTHROPICS_TYPES or not isinstance(message, str):
        return False
    return any(words in message.lower() for words in _ANTHROPICS_SPENT)


def _googles_quotas(error: Mapping[str, Any]) -> list[str]:
    violations = [one.get("violations") for one in _details(error)]
    every = [one for several in violations if isinstance(several, list) for one in several if isinstance(one, dict)]
    return [one["quotaId"] for one in every if isinstance(one.get("quotaId"), str)]


def _details(error: Mapping[str, Any]) -> list[dict[str, Any]]:
    details = error.get("details")
    return [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []


def _error_of(body: bytes) -> Mapping[str, Any]:
    """The error of the body, whichever API's; nothing where there is none."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    # Google's streams are lists.
    if isinstance(found, list) and found:
        found = found[0]
    if not isinstance(found, dict):
        return {}
    error = found.get("error", found)
    return error if isinstance(error, dict) else {}


def _name_of(error: Mapping[str, Any]) -> str:
    """The upstream's type of the error; empty where it has none that looks like one."""
    for key in ("code", "status", "type", "__type"):
        name = error.get(key)
        # None is cut: of a key that stands there, the first part would be no key to whoever looks for one.
        if isinstance(name, str) and len(name) <= _ERROR_CHARACTERS and _NAME.fullmatch(name):
            return masked(name)
    return ""


def _asked_seconds(headers: Headers, error: Mapping[str, Any], now: datetime) -> float | None:
    millis = _number(_first(headers, "retry-after-ms"))
    if millis is not None:
        return _believed(millis / 1000)
    told = _first(headers, "retry-after")
    seconds = _number(told)
    if seconds is None and told:
        seconds = _until(told, now)
    if seconds is None:
        seconds = next((span for one in _details(error) if (span := _span(one.get("retryDelay"))) is not None), None)
    if seconds is None:
        seconds = _reset_seconds(headers, now)
    return None if seconds is None else _believed(seconds)


def _reset_seconds(headers: Headers, now: datetime) -> float | None:
    """When the last of the limits is full again of which nothing is left; of any, where the headers do not say."""
    resets: list[tuple[bool, float]] = []
    for remaining, reset in _LIMITS:
        text = _first(headers, reset)
        seconds = _span(text) if text else None
        if seconds is None and text:
            seconds = _until(text, now)
        if seconds is not None:
            resets.append((_number(_first(headers, remaining)) == 0, seconds))
    used_up = [seconds for is_used_up, seconds in resets if is_used_up]
    return max(used_up or [seconds for _, seconds in resets], default=None)


def _first(headers: Headers, name: str) -> str:
    return next(iter(header_values(headers, name)), "")


def _number(text: str) -> float | None:
    return float(text) if _SECONDS.fullmatch(text) else None


def _span(text: object) -> float | None:
    if not isinstance(text, str) or len(text) > _ERROR_CHARACTERS or not (found := _SPAN.fullmatch(text)) or not text:
        return None
    hours, minutes, seconds, millis = (float(one or 0) for one in found.groups())
    return hours * 3600 + minutes * 60 + seconds + millis / 1000


def _until(text: str, now: datetime) -> float | None:
    """Seconds until a time as HTTP or RFC 3339 writes it; none where it is over."""
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
    except OverflowError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _believed(seconds: float) -> float:
    return min(seconds, _LONGEST_SECONDS) if math.isfinite(seconds) else _LONGEST_SECONDS
