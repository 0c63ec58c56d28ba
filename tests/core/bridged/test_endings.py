"""How an interception ended: one row for each way."""

import pytest

from bridged.endings import CLIENT_GONE, STOPPED, category_of_status, category_of_type, ending_of
from bridged.errors import REFUSALS
from bridged.records import AnswerRecords, ErrorCategory, Outcome

OVERLOADED = AnswerRecords(error_type="overloaded_error", error_message="Overloaded")

ROWS = [
    # why the bridge ended it, upstream's status, what its answer said; outcome, category, reason, message
    ("", 200, AnswerRecords(), (Outcome.COMPLETED, ErrorCategory.NONE, "", "")),
    ("", 204, AnswerRecords(), (Outcome.COMPLETED, ErrorCategory.NONE, "", "")),
    ("", 200, OVERLOADED, (Outcome.UPSTREAM_ERROR, ErrorCategory.OVERLOADED, "overloaded_error", "Overloaded")),
    ("", 429, AnswerRecords(), (Outcome.UPSTREAM_ERROR, ErrorCategory.RATE_LIMITED, "HTTP 429", "")),
    ("", 400, OVERLOADED, (Outcome.UPSTREAM_ERROR, ErrorCategory.BAD_REQUEST, "overloaded_error", "Overloaded")),
    (CLIENT_GONE, None, AnswerRecords(), (Outcome.CLIENT_GONE, ErrorCategory.NONE, "", "")),
    (CLIENT_GONE, 200, OVERLOADED, (Outcome.CLIENT_GONE, ErrorCategory.NONE, "", "")),
    (STOPPED, 200, AnswerRecords(), (Outcome.BRIDGE_STOPPED, ErrorCategory.NONE, "", "")),
    (
        "UPSTREAM_UNREACHABLE",
        None,
        AnswerRecords(),
        (Outcome.UPSTREAM_ERROR, ErrorCategory.UNREACHABLE, "UPSTREAM_UNREACHABLE", ""),
    ),
    (
        "UPSTREAM_UNREACHABLE",
        200,
        OVERLOADED,
        (Outcome.UPSTREAM_ERROR, ErrorCategory.UNREACHABLE, "overloaded_error", "Overloaded"),
    ),
    (
        "UPSTREAM_TIMEOUT",
        None,
        AnswerRecords(),
        (Outcome.UPSTREAM_ERROR, ErrorCategory.TIMEOUT, "UPSTREAM_TIMEOUT", ""),
    ),
    (
        "KEY_POOL_EXHAUSTED",
        None,
        AnswerRecords(),
        (Outcome.UPSTREAM_ERROR, ErrorCategory.RATE_LIMITED, "KEY_POOL_EXHAUSTED", ""),
    ),
    (
        "UPSTREAM_KEY_REFUSED",
        None,
        AnswerRecords(),
        (Outcome.UPSTREAM_ERROR, ErrorCategory.UNAUTHORIZED, "UPSTREAM_KEY_REFUSED", ""),
    ),
    ("INTERNAL", None, AnswerRecords(), (Outcome.BRIDGE_FAILED, ErrorCategory.NONE, "INTERNAL", "")),
    ("INVALID_BODY", 200, AnswerRecords(), (Outcome.BRIDGE_FAILED, ErrorCategory.NONE, "INVALID_BODY", "")),
]


@pytest.mark.parametrize(("error", "status", "answer", "expected"), ROWS)
def test_each_end_has_its_outcome(
    error: str, status: int | None, answer: AnswerRecords, expected: tuple[object, ...]
) -> None:
    assert tuple(ending_of(error, upstream_status=status, answer=answer)) == expected


@pytest.mark.parametrize("reason", REFUSALS)
def test_every_refusal_is_an_end_that_is_no_good_one(reason: str) -> None:
    assert ending_of(reason, upstream_status=None).outcome in (Outcome.UPSTREAM_ERROR, Outcome.BRIDGE_FAILED)


@pytest.mark.parametrize(
    ("status", "category"),
    [
        (400, "BAD_REQUEST"),
        (401, "UNAUTHORIZED"),
        (403, "UNAUTHORIZED"),
        (404, "BAD_REQUEST"),
        (408, "TIMEOUT"),
        (422, "BAD_REQUEST"),
        (429, "RATE_LIMITED"),
        (500, "SERVER_ERROR"),
        (502, "SERVER_ERROR"),
        (503, "OVERLOADED"),
        (504, "TIMEOUT"),
        (529, "OVERLOADED"),
    ],
)
def test_each_status_has_its_category(status: int, category: str) -> None:
    assert category_of_status(status).value == category


@pytest.mark.parametrize(
    ("error_type", "category"),
    [
        ("overloaded_error", "OVERLOADED"),
        ("rate_limit_exceeded", "RATE_LIMITED"),
        ("RESOURCE_EXHAUSTED", "RATE_LIMITED"),
        ("throttlingException", "RATE_LIMITED"),
        ("server_error", "SERVER_ERROR"),
        ("modelTimeoutException", "TIMEOUT"),
        ("invalid_request_error", "BAD_REQUEST"),
        ("PERMISSION_DENIED", "UNAUTHORIZED"),
        ("server_is_overloaded", "OVERLOADED"),
        ("slow_down", "OVERLOADED"),
        ("context_length_exceeded", "BAD_REQUEST"),
        ("vector_store_timeout", "TIMEOUT"),
        ("InternalError", "SERVER_ERROR"),
        ("NOT_FOUND", "BAD_REQUEST"),
        ("502", "SERVER_ERROR"),
        ("429", "RATE_LIMITED"),
        ("200", "UNKNOWN"),
        ("", "UNKNOWN"),
        ("something_new", "UNKNOWN"),
    ],
)
def test_each_type_of_error_has_its_category(error_type: str, category: str) -> None:
    assert category_of_type(error_type).value == category
