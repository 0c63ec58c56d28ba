"""Reason to HTTP status: the contract's table, and what a newer credentiald may send."""

import re
from pathlib import Path

import pytest

from bridged.errors import REFUSALS, row_of, status_of
from bridged.model import Refused

CONTRACT = Path(__file__).parents[3] / "protos" / "drawbridge" / "v1" / "error_reason.proto"

STATUSES = {
    401: "ACCESS_TOKEN_MISSING ACCESS_TOKEN_INVALID ACCESS_TOKEN_EXPIRED USER_SUSPENDED",
    404: "PROVIDER_NOT_FOUND OPERATION_NOT_ALLOWED GATEWAY_DISABLED ROUTE_NOT_FOUND",
    403: "PROVIDER_DISABLED USER_KEY_REQUIRED USER_KEYS_NOT_ALLOWED",
    503: "SERVICE_TOKEN_MISSING SERVICE_TOKEN_INVALID SERVICE_TOKEN_EXPIRED CALLER_NOT_ALLOWED CENTRAL_KEY_MISSING "
    "AWS_CREDENTIALS_INCOMPLETE ROLE_NOT_ASSUMABLE REGION_REQUIRED AMBIENT_CREDENTIALS_UNAVAILABLE STORE_UNAVAILABLE "
    "SEALED AUDIT_UNAVAILABLE ASK_SINGLY CAPACITY CREDENTIALD_UNREACHABLE BREAKER_OPEN INTERNAL "
    "RECORDS_UNAVAILABLE UPSTREAM_NOT_ALLOWED",
    429: "RATE_LIMITED KEY_POOL_EXHAUSTED",
    502: "UPSTREAM_UNREACHABLE UPSTREAM_KEY_REFUSED",
    504: "UPSTREAM_TIMEOUT",
    413: "BODY_TOO_LARGE",
    400: "INVALID_BODY INVALID_PATH INVALID_REQUEST INVALID_ARGUMENT",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    426: "UPGRADE_NOT_SUPPORTED",
    431: "HEAD_TOO_LARGE",
}
# Only administration meets these (contract.md, "Refusals").
ADMINISTRATION = {
    "INVALID_KEY_POLICY",
    "TOO_MANY_REFUSED_ACTS",
    "INTERCEPTION_NOT_FOUND",
    "KEY_REQUIRED",
    "KEY_TOO_LARGE",
    "INVALID_NAME",
    "PROVIDER_READ_ONLY",
    "ALREADY_EXISTS",
    "ETAG_MISMATCH",
    "USER_NOT_FOUND",
    "TOKEN_NOT_FOUND",
    "SERVICE_NOT_FOUND",
    "MODEL_NOT_FOUND",
    "SEALING_SOURCE_UNAVAILABLE",
}


def test_each_reason_has_the_status_of_the_contract() -> None:
    expected = {reason: status for status, reasons in STATUSES.items() for reason in reasons.split()}
    assert {reason: status_of(reason) for reason in REFUSALS} == expected


def test_the_table_has_every_reason_of_the_contract_but_those_of_administration() -> None:
    named = set(re.findall(r"^\s*ERROR_REASON_(\w+) = [1-9]", CONTRACT.read_text(), re.MULTILINE))
    assert set(REFUSALS) == named - ADMINISTRATION


@pytest.mark.parametrize(
    ("reason", "seconds"),
    [
        ("CREDENTIALD_UNREACHABLE", 1),
        ("SERVICE_TOKEN_INVALID", 1),
        ("STORE_UNAVAILABLE", 5),
        ("SEALED", 5),
        ("AUDIT_UNAVAILABLE", 5),
        ("RECORDS_UNAVAILABLE", 5),
        ("AMBIENT_CREDENTIALS_UNAVAILABLE", 5),
        ("CENTRAL_KEY_MISSING", None),
        ("USER_KEY_REQUIRED", None),
        ("UPSTREAM_TIMEOUT", None),
    ],
)
def test_trouble_that_passes_says_when_to_come_back(reason: str, seconds: int | None) -> None:
    assert Refused(reason, "x").retry_after_seconds == seconds


def test_a_given_wait_wins_over_the_default() -> None:
    assert Refused("STORE_UNAVAILABLE", "x", retry_after_seconds=9).retry_after_seconds == 9


def test_an_exhausted_pool_is_429_with_a_wait_and_502_without() -> None:
    assert Refused("KEY_POOL_EXHAUSTED", "x", retry_after_seconds=3).http_status == 429
    assert Refused("KEY_POOL_EXHAUSTED", "x").http_status == 502


@pytest.mark.parametrize("reason", ["SERVICE_TOKEN_INVALID", "CALLER_NOT_ALLOWED", "SERVICE_TOKEN_OF_THE_FUTURE"])
def test_a_refused_bridge_is_not_the_clients_fault(reason: str) -> None:
    refused = Refused(reason, "the service token is not valid", grpc_code=16)
    assert refused.http_status == 503
    assert "token" not in refused.message


@pytest.mark.parametrize("code", [*range(18), None])
def test_an_unknown_reason_is_judged_by_its_code_and_trouble_is_never_401(code: int | None) -> None:
    known = {3: 400, 5: 404, 7: 403, 8: 429, 9: 403, 16: 401}
    assert row_of("REASON_OF_THE_FUTURE", code).status == known.get(code if code is not None else -1, 503)


def test_a_known_reason_does_not_depend_on_the_code() -> None:
    assert Refused("STORE_UNAVAILABLE", "x", grpc_code=16).http_status == 503
