"""What an answer says of the key, by its status, its headers and the typed part of its body."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.key_outcomes import KeyOutcome, Kind, is_held, outcome_at_head, outcome_of, rest_seconds
from daemonkit.secret import masked

NOW = datetime(2026, 11, 22, 7, 0, tzinfo=UTC)


def judged(status: int, body: object = None, *headers: tuple[str, str], wire: str = "openai") -> KeyOutcome:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return outcome_of(wire, status, headers, raw, now=NOW)


OPENAI_LIMIT = {"error": {"message": "Rate limit", "type": "tokens", "param": None, "code": "rate_limit_exceeded"}}
OPENAI_QUOTA = {"error": {"message": "…", "type": "insufficient_quota", "code": "insufficient_quota"}}
ANTHROPIC_LIMIT = {"type": "error", "error": {"type": "rate_limit_error", "message": "This request would exceed …"}}


def openai(code: str, message: str = "…") -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def anthropic(message: str, kind: str = "rate_limit_error") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


def google(*quotas: str, delay: str = "") -> dict[str, Any]:
    details: list[dict[str, Any]] = [
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaMetric": "m", "quotaId": one} for one in quotas],
        }
    ]
    if delay:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    return {"error": {"code": 429, "message": "…", "status": "RESOURCE_EXHAUSTED", "details": details}}


@pytest.mark.parametrize(
    ("status", "body", "kind", "error"),
    [
        (401, {"error": {"type": "authentication_error"}}, Kind.UNAUTHORIZED, "authentication_error"),
        (401, OPENAI_QUOTA, Kind.UNAUTHORIZED, "insufficient_quota"),
        (401, b"<html>", Kind.UNAUTHORIZED, ""),
        # What any client can bring about with a header or a long conversation says nothing of the key.
        (401, openai("mismatched_organization"), Kind.ACCEPTED, ""),
        (401, openai("mismatched_project"), Kind.ACCEPTED, ""),
        (429, openai("mismatched_project"), Kind.RATE_LIMITED, "mismatched_project"),
        (429, openai("rate_limit_exceeded", "Request too large for gpt-4o in organization o on …"), Kind.ACCEPTED, ""),
        (401, openai("invalid_api_key", "Request too large for gpt-4o"), Kind.UNAUTHORIZED, "invalid_api_key"),
        (429, openai("insufficient_quota", "Request too large for gpt-4o"), Kind.SPEND_LIMITED, "insufficient_quota"),
        (
            429,
            openai("rate_limit_exceeded", "Rate limit reached. Request too large for"),
            Kind.RATE_LIMITED,
            "rate_limit_exceeded",
        ),
        (429, OPENAI_LIMIT, Kind.RATE_LIMITED, "rate_limit_exceeded"),
        (429, OPENAI_QUOTA, Kind.SPEND_LIMITED, "insufficient_quota"),
        (429, {"error": {"code": "billing_hard_limit_reached"}}, Kind.SPEND_LIMITED, "billing_hard_limit_reached"),
        (429, ANTHROPIC_LIMIT, Kind.RATE_LIMITED, "rate_limit_error"),
        (429, anthropic("Your credit balance is too low to access …"), Kind.SPEND_LIMITED, "rate_limit_error"),
        (429, anthropic("You have reached your specified API usage limits."), Kind.SPEND_LIMITED, "rate_limit_error"),
        (429, anthropic("x", "billing_error"), Kind.SPEND_LIMITED, "billing_error"),
        # Words that a client may have made the upstream repeat.
        (429, {"error": {"type": "tokens", "message": "credit balance is too low"}}, Kind.RATE_LIMITED, "tokens"),
        (429, {"error": {"type": "requests", "message": "insufficient_quota"}}, Kind.RATE_LIMITED, "requests"),
        (429, google("GenerateRequestsPerMinutePerProject"), Kind.RATE_LIMITED, "RESOURCE_EXHAUSTED"),
        (429, google("GenerateRequestsPerDayPerProject-FreeTier"), Kind.SPEND_LIMITED, "RESOURCE_EXHAUSTED"),
        (429, [google("TokensPerDay")], Kind.SPEND_LIMITED, "RESOURCE_EXHAUSTED"),
        (429, b"", Kind.RATE_LIMITED, ""),
        (429, b"[" * 1000, Kind.RATE_LIMITED, ""),
        (429, {"error": {"type": "a b\n", "code": 7}}, Kind.RATE_LIMITED, ""),
        (429, {"error": {"code": "dbu_" + "a" * 50}}, Kind.RATE_LIMITED, masked("dbu_" + "a" * 50)),
    ],
)
def test_kinds_go_by_status_and_typed_errors(status: int, body: object, kind: Kind, error: str) -> None:
    found = judged(status, body)
    assert (found.kind, found.status, found.error) == (kind, status, error)


@pytest.mark.parametrize(
    ("status", "name", "kind"),
    [
        (403, "UnrecognizedClientException", Kind.UNAUTHORIZED),
        (403, "ExpiredTokenException:http://internal", Kind.UNAUTHORIZED),
        (403, "InvalidSignatureException", Kind.UNAUTHORIZED),
        (403, "MissingAuthenticationTokenException", Kind.UNAUTHORIZED),
        (400, "InvalidClientTokenId", Kind.UNAUTHORIZED),
        (403, "AccessDeniedException", Kind.ACCEPTED),
        (400, "ValidationException", Kind.ACCEPTED),
        (429, "ThrottlingException", Kind.RATE_LIMITED),
        (401, "", Kind.UNAUTHORIZED),
    ],
)
def test_what_aws_says_of_a_credential_counts_like_a_401(status: int, name: str, kind: Kind) -> None:
    found = judged(status, {"message": "…"}, ("x-amzn-ErrorType", name), wire="bedrock")
    assert (found.kind, found.error) == (kind, name.partition(":")[0] if kind is not Kind.ACCEPTED else "")
    assert is_held("bedrock", status)
    assert judged(403, {"message": "…"}, ("x-amzn-ErrorType", name)).kind is Kind.ACCEPTED


def test_what_is_held_back_is_what_may_be_about_the_key() -> None:
    assert [status for status in range(100, 600) if is_held("openai", status)] == [401, 429]
    assert [status for status in range(100, 600) if is_held("bedrock", status)] == [400, 401, 403, 429]
    assert outcome_at_head(200).kind is outcome_at_head(404).kind is outcome_at_head(499).kind is Kind.ACCEPTED
    assert outcome_at_head(500).kind is outcome_at_head(529).kind is Kind.UNKNOWN


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        ([("Retry-After", "17")], 17),
        ([("Retry-After", "0.5")], 0.5),
        ([("Retry-After", format_datetime(NOW + timedelta(seconds=90), usegmt=True))], 90),
        ([("Retry-After", format_datetime(NOW - timedelta(seconds=90), usegmt=True))], 0),
        ([("Retry-After", "soon")], None),
        ([("Retry-After", "-5")], None),
        ([("Retry-After", "1e9")], None),
        ([("Retry-After", "9" * 12)], 7 * 86_400),
        ([("retry-after-ms", "1500"), ("retry-after", "2")], 1.5),
        ([("x-ratelimit-reset-requests", "6m0s")], 360),
        ([("x-ratelimit-reset-tokens", "20ms"), ("x-ratelimit-reset-requests", "1h2m3.5s")], 3723.5),
        (
            [
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "2s"),
                ("x-ratelimit-remaining-requests", "50"),
                ("x-ratelimit-reset-requests", "8s"),
            ],
            2,
        ),
        (
            [
                ("anthropic-ratelimit-input-tokens-remaining", "0"),
                ("anthropic-ratelimit-input-tokens-reset", "2026-11-22T07:00:41Z"),
                ("anthropic-ratelimit-requests-remaining", "3"),
                ("anthropic-ratelimit-requests-reset", "2026-11-22T08:00:00Z"),
            ],
            41,
        ),
        ([("Retry-After", "3"), ("x-ratelimit-reset-requests", "6m0s")], 3),
    ],
)
def test_how_long_the_upstream_asks_to_be_left_alone(headers: list[tuple[str, str]], seconds: float | None) -> None:
    assert judged(429, OPENAI_LIMIT, *headers).asked_seconds == seconds
    assert judged(401, OPENAI_LIMIT, *headers).asked_seconds is None


def test_googles_delay_is_in_the_body() -> None:
    assert judged(429, google("PerMinute", delay="36.5s")).asked_seconds == 36.5
    assert judged(429, google("PerMinute", delay="later")).asked_seconds is None


@pytest.mark.parametrize(
    ("outcome", "seconds"),
    [
        (KeyOutcome(Kind.UNAUTHORIZED, 401, 5), 60),
        (KeyOutcome(Kind.RATE_LIMITED, 429, None), 60),
        (KeyOutcome(Kind.RATE_LIMITED, 429, 2.5), 2.5),
        (KeyOutcome(Kind.RATE_LIMITED, 429, 86_400), 3600),
        (KeyOutcome(Kind.SPEND_LIMITED, 429, 20), 3600),
        (KeyOutcome(Kind.SPEND_LIMITED, 429, 7200), 7200),
        (KeyOutcome(Kind.SPEND_LIMITED, 429, 7 * 86_400), 86_400),
    ],
)
def test_how_long_a_key_rests(outcome: KeyOutcome, seconds: float) -> None:
    assert rest_seconds(outcome) == seconds


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "code", "type", "status", "message", "details", "violations", "quotaId", "retryDelay"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.sampled_from([400, 401, 403, 429]),
    values.map(lambda one: json.dumps(one).encode()) | st.binary(max_size=64),
    st.lists(
        st.tuples(
            st.sampled_from(
                ["retry-after", "retry-after-ms", "x-ratelimit-reset-tokens", "anthropic-ratelimit-tokens-reset",
                 "content-encoding", "x-amzn-errortype"]
            ),
            st.text(max_size=40)
            | st.sampled_from(["gzip", "Sun, 22 Nov 9999999 07:00:00 +9999", "9999-12-31T23:59:59Z"]),
        ),
        max_size=4,
    ),
    st.sampled_from(["openai", "bedrock"]),
)  # fmt: skip
def test_nothing_that_an_upstream_sends_is_more_than_a_kind_and_a_wait(
    status: int, body: bytes, headers: list[tuple[str, str]], wire: str
) -> None:
    found = outcome_of(wire, status, tuple(headers), body, now=NOW)
    assert found.asked_seconds is None or 0 <= found.asked_seconds <= 7 * 86_400
    assert len(found.error) <= 128
    if found.kind is not Kind.ACCEPTED:
        assert 0 <= rest_seconds(found) <= 86_400
