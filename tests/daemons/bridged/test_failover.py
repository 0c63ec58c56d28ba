"""Several keys of one provider: what an upstream says of a key is no client's business while there is another one."""

import asyncio
import gzip
import json
from typing import Any

import grpc
import pytest
from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import provider_pb2, record_pb2

from bridged.held_answer import MAX_HELD_BYTES
from tests.fakes.credentiald import FakeCredentiald, Refuse, pool, provider
from tests.fakes.scripted_upstream import CUT, JSON, STALL, Script, ScriptedUpstream, hang_up, raw, reply, stream
from tests.support.bridge import AUTH, RunningBridge, running_bridge, until
from tests.support.bridge_reports import CHAT_ANSWER, CHUNKS, DONE, USAGE, ask, chat, outcome, reported
from tests.support.raw_http import raw_client, raw_exchange, request

POOL = "/pool/v1/chat/completions"
BODY = chat()
LIMITED = b'{"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}}'
SPENT = b'{"error":{"message":"You exceeded your quota","type":"insufficient_quota","code":"insufficient_quota"}}'
WRONG = b'{"error":{"message":"Incorrect API key: sk-1","type":"invalid_request_error","code":"invalid_api_key"}}'


def limited(seconds: int = 30, body: bytes = LIMITED) -> Script:
    return reply(429, body, [*JSON, ("Retry-After", str(seconds)), ("x-request-id", f"req-{seconds}")])


def wrong() -> Script:
    return reply(401, WRONG)


def good() -> Script:
    return reply(200, CHAT_ANSWER)


def keys_of(upstream: ScriptedUpstream) -> list[str]:
    return [str(one.header("authorization")).removeprefix("Bearer ") for one in upstream.requests]


def kinds(credentiald: FakeCredentiald) -> list[tuple[bytes, str]]:
    return [
        (one.receipt, pb.CredentialOutcomeKind.Name(one.kind).removeprefix("CREDENTIAL_OUTCOME_KIND_"))
        for one in credentiald.outcomes
    ]


@pytest.fixture
def three(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> list[pb.ResolveProviderResponse]:
    keys = credentiald.pools["pool"] = pool(3, "openai", upstream.url + "/v1")
    return keys


async def test_another_key_answers_and_the_record_names_each_attempt(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any
) -> None:
    upstream.script(limited(), wrong(), good())
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ask(BODY, POOL))
        (report,) = await reported(credentiald)
        await until(lambda: len(credentiald.outcomes) == 2)
    assert (answer.status, answer.body, answer.complete) == (200, CHAT_ANSWER, True)
    assert keys_of(upstream) == ["sk-1", "sk-2", "sk-3"]
    assert {one.body for one in upstream.requests} == {BODY}
    assert [list(one.failed_credential_ids) for one in credentiald.resolves] == [[], ["cred-1"], ["cred-1", "cred-2"]]
    assert len({one.interception_id for one in credentiald.resolves}) == 1
    assert kinds(credentiald) == [(b"receipt-1", "RATE_LIMITED"), (b"receipt-2", "UNAUTHORIZED")]
    first, second = credentiald.outcomes
    assert (first.retry_after.seconds, first.http_status, first.error) == (30, 429, "rate_limit_exceeded")
    assert (second.HasField("retry_after"), second.http_status, second.error) == (False, 401, "invalid_api_key")
    assert (report.receipt, outcome(report)) == (b"receipt-3", ("COMPLETED", "UNSPECIFIED", "", 200))
    assert [(one.receipt, one.http_status, one.error_reason) for one in report.attempts] == [
        (b"receipt-1", 429, "rate_limit_exceeded"),
        (b"receipt-2", 401, "invalid_api_key"),
    ]
    assert [record_pb2.UpstreamErrorCategory.Name(one.error_category) for one in report.attempts] == [
        "UPSTREAM_ERROR_CATEGORY_RATE_LIMITED",
        "UPSTREAM_ERROR_CATEGORY_UNAUTHORIZED",
    ]
    assert report.attempts[0].upstream_request_id == "req-30"
    assert len({one.id for one in report.attempts}) == 2
    assert all(one.duration_micros > 0 and one.create_time.seconds for one in report.attempts)


@pytest.mark.parametrize(
    ("scripts", "status", "wait"),
    [
        ([limited(30), limited(7), limited(20)], 429, "7"),
        ([wrong(), limited(9), wrong()], 429, "9"),
        ([wrong(), wrong(), wrong()], 502, None),
        ([limited(5, SPENT)] * 3, 429, "3600"),
    ],
)
async def test_an_empty_pool_is_a_wait_or_a_fault_behind_the_gateway(
    credentiald: FakeCredentiald,
    upstream: ScriptedUpstream,
    three: Any,
    scripts: list[Script],
    status: int,
    wait: str | None,
) -> None:
    upstream.script(*scripts)
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ask(BODY, POOL))
        again = await raw_exchange(bridge.port, ask(BODY, POOL))
        reports = await reported(credentiald)
    assert (answer.status, answer.header("retry-after")) == (status, wait)
    assert answer.header("x-drawbridge-error") == "KEY_POOL_EXHAUSTED"
    assert b"sk-" not in answer.body
    assert b"quota" not in answer.body
    # The bridge has told credentiald of them all by then, or names them itself.
    assert again.header("x-drawbridge-error") == "KEY_POOL_EXHAUSTED"
    assert len(upstream.requests) == 3
    assert outcome(reports[0])[0] == "UPSTREAM_ERROR"
    assert outcome(reports[0])[2:] == ("KEY_POOL_EXHAUSTED", status)
    assert len(reports[0].attempts) == 3


@pytest.mark.parametrize(
    ("cause", "status", "wait"),
    [("rate_limited", 429, "60"), ("unauthorized", 502, None), ("failed", 502, None)],
)
async def test_a_pool_that_was_empty_before_says_whether_waiting_helps(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, cause: str, status: int, wait: str | None
) -> None:
    credentiald.pools["pool"] = []
    credentiald.pool_cause = cause
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ask(BODY, POOL))
    assert (answer.status, answer.header("retry-after")) == (status, wait)
    assert answer.header("x-drawbridge-error") == "KEY_POOL_EXHAUSTED"


async def test_credentialds_shorter_wait_is_told(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any
) -> None:
    # One of three rests for a reason that only credentiald knows.
    del credentiald.pools["pool"][2]
    credentiald.pool_retry_seconds, credentiald.pool_cause = 4, "rate_limited"
    upstream.script(limited(30), limited(20))
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ask(BODY, POOL))
    assert (answer.status, answer.header("retry-after")) == (429, "4")
    assert len(credentiald.resolves) == 3


TOO_LARGE = b'{"error":{"message":"Request too large for gpt-5 in organization org-x","code":"rate_limit_exceeded"}}'
OTHERS_ORGANIZATION = (
    b'{"error":{"message":"OpenAI-Organization header should match","code":"mismatched_organization"}}'
)


@pytest.mark.parametrize(("refusal", "status"), [(reply(429, TOO_LARGE), 429), (reply(401, OTHERS_ORGANIZATION), 502)])
async def test_what_a_client_can_bring_about_takes_no_key_from_others(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any, refusal: Script, status: int
) -> None:
    upstream.script(refusal, good())
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ask(BODY, POOL))
        next_one = await raw_exchange(bridge.port, ask(BODY, POOL))
    assert (answer.status, next_one.status) == (status, 200)
    assert keys_of(upstream) == ["sk-1", "sk-1"]
    assert credentiald.outcomes == []


@pytest.mark.parametrize("status", [200, 400, 403, 404, 500, 503, 529])
async def test_any_other_answer_is_the_clients(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any, status: int
) -> None:
    upstream.script(reply(status, LIMITED))
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ask(BODY, POOL))
        (report,) = await reported(credentiald)
    assert (answer.status, answer.body) == (status, LIMITED)
    assert len(upstream.requests) == len(credentiald.resolves) == 1
    assert not report.attempts
    assert not credentiald.outcomes


async def test_a_broken_connection_is_no_other_keys_business(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any
) -> None:
    upstream.script(hang_up())
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ask(BODY, POOL))
    assert (answer.status, answer.header("x-drawbridge-error")) == (502, "UPSTREAM_UNREACHABLE")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        stream(LIMITED[:20], LIMITED[20:], status=429, headers=JSON),
        stream(LIMITED[:20], CUT, status=429, headers=JSON),
        raw(b"HTTP/1.1 429 Too Many Requests\r\n\r\n" + LIMITED),
        reply(429, gzip.compress(LIMITED), [*JSON, ("Content-Encoding", "gzip")]),
        reply(429, b""),
        reply(429, b"[" * 60_000),
    ],
)
async def test_however_the_refusal_comes_the_client_hears_of_the_second_answer_only(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any, refusal: Script
) -> None:
    upstream.script(refusal, stream(*CHUNKS, DONE))
    async with running_bridge(credentiald, asks_for_usage=False) as bridge:
        answer = await raw_exchange(bridge.port, ask(chat(stream=True), POOL))
    assert (answer.status, answer.body, answer.complete) == (200, b"".join([*CHUNKS, DONE]), True)
    assert keys_of(upstream) == ["sk-1", "sk-2"]


async def test_an_error_that_is_longer_than_what_is_held_back_passes_and_is_told(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any
) -> None:
    long = LIMITED + b" " * MAX_HELD_BYTES
    upstream.script(stream(long, b"end", status=429, headers=JSON))
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ask(BODY, POOL))
        (report,) = await reported(credentiald)
        await until(lambda: bool(credentiald.outcomes))
    assert (answer.status, answer.body, answer.complete) == (429, long + b"end", True)
    assert kinds(credentiald) == [(b"receipt-1", "RATE_LIMITED")]
    assert not report.attempts
    assert outcome(report)[:2] == ("UPSTREAM_ERROR", "RATE_LIMITED")


def asks(body: bytes) -> bool:
    return json.loads(body).get("stream_options") == {"include_usage": True}


AZURE = b'{"error":{"message":"Unrecognized request argument supplied: stream_options"}}'


@pytest.mark.parametrize(
    ("scripts", "keys", "asked"),
    [
        # The key first, then the edit; the edit first, then the key; and once more.
        ([wrong(), reply(400, AZURE), "good"], [1, 2, 2], [True, True, False]),
        ([reply(400, AZURE), wrong(), "good"], [1, 1, 2], [True, False, False]),
        ([limited(), reply(400, AZURE), wrong(), "good"], [1, 2, 2, 3], [True, True, False, False]),
        ([reply(400, AZURE), limited(), wrong(), "good"], [1, 1, 2, 3], [True, False, False, False]),
    ],
)
async def test_keys_and_the_question_for_usage_go_together(
    credentiald: FakeCredentiald,
    upstream: ScriptedUpstream,
    three: Any,
    scripts: list[Any],
    keys: list[int],
    asked: list[bool],
) -> None:
    upstream.script(*(stream(*CHUNKS, DONE) if one == "good" else one for one in scripts), stream(*CHUNKS, DONE))
    body = chat(stream=True)
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ask(body, POOL))
        await raw_exchange(bridge.port, ask(body, POOL))
        (report, _) = await reported(credentiald, 2)
    assert (answer.status, answer.body, answer.complete) == (200, b"".join([*CHUNKS, DONE]), True)
    assert keys_of(upstream)[:-1] == [f"sk-{number}" for number in keys]
    # The last one: it is known now that this upstream takes no such edit.
    assert [asks(one.body) for one in upstream.requests] == [*asked, False]
    assert len(report.attempts) == len(set(keys)) - 1


async def test_the_usage_that_the_bridge_asked_for_is_taken_out_of_the_second_keys_answer(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any
) -> None:
    upstream.script(wrong(), stream(*CHUNKS, USAGE, DONE))
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ask(chat(stream=True), POOL))
        (report,) = await reported(credentiald)
    assert answer.body == b"".join([*CHUNKS, DONE])
    assert [asks(one.body) for one in upstream.requests] == [True, True]
    assert len(report.token_usages) == 1


@pytest.mark.parametrize("is_known", [False, True])
async def test_another_address_meanwhile_is_asked_for_usage_by_its_own_rules(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any, is_known: bool
) -> None:
    three[1].provider.base_url = upstream.url + "/moved"
    before: list[Script] = [wrong()] if is_known else [reply(400, AZURE), wrong()]
    upstream.script(*before, stream(*CHUNKS, USAGE, DONE))
    async with running_bridge(credentiald) as bridge:
        if is_known:
            bridge.bridge.not_to_ask.add(upstream.url + "/moved", "gpt-5", provider="pool")
        answer = await raw_exchange(bridge.port, ask(chat(stream=True), POOL))
    assert asks(upstream.requests[-1].body) is not is_known
    # What nobody asked for on the client's behalf is the client's.
    assert answer.body == b"".join([*CHUNKS, *([USAGE] if is_known else []), DONE])


async def test_a_key_is_not_asked_for_again_however_soon_the_next_question_comes(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any
) -> None:
    credentiald.outcome_refuse = Refuse(code=grpc.StatusCode.UNAVAILABLE)
    upstream.script(limited(), good(), good())
    async with running_bridge(credentiald) as bridge:
        await raw_exchange(bridge.port, ask(BODY, POOL))
        await raw_exchange(bridge.port, ask(BODY, POOL))
        assert list(credentiald.resolves[-1].failed_credential_ids) == ["cred-1"]
        credentiald.outcome_refuse = None
        await until(lambda: bool(credentiald.outcomes))
        await until(lambda: not bridge.bridge.outcomes.untold)
        upstream.script(good())
        await raw_exchange(bridge.port, ask(BODY, POOL))
    assert not credentiald.resolves[-1].failed_credential_ids
    assert keys_of(upstream) == ["sk-1", "sk-2", "sk-2", "sk-2"]


async def test_a_credentiald_of_before_there_were_outcomes_is_told_once_and_the_key_is_named_on(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any
) -> None:
    credentiald.outcome_refuse = Refuse(code=grpc.StatusCode.UNIMPLEMENTED)
    upstream.script(limited(), good(), good())
    async with running_bridge(credentiald) as bridge:
        await raw_exchange(bridge.port, ask(BODY, POOL))
        lost = "bridged_key_outcomes_lost_total"
        await until(lambda: bridge.metrics.registry.get_sample_value(lost) == 1)
        await raw_exchange(bridge.port, ask(BODY, POOL))
        refused = bridge.metrics.registry.get_sample_value("bridged_keys_refused_total", {"kind": "RATE_LIMITED"})
    assert list(credentiald.resolves[-1].failed_credential_ids) == ["cred-1"]
    assert refused == 1


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (good(), "ACCEPTED"),
        (reply(400, LIMITED), "ACCEPTED"),
        (reply(403, LIMITED), "ACCEPTED"),
        (reply(529, LIMITED), "UNKNOWN"),
        (hang_up(), "UNKNOWN"),
        (wrong(), "UNAUTHORIZED"),
    ],
)
async def test_what_becomes_of_a_probe_is_told_whatever_it_is(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any, script: Script, kind: str
) -> None:
    three[0].probe = True
    upstream.script(script)
    async with running_bridge(credentiald) as bridge:
        await raw_exchange(bridge.port, ask(BODY, POOL))
        await until(lambda: bool(credentiald.outcomes))
    assert kinds(credentiald) == [(b"receipt-1", kind)]


async def test_a_probe_is_told_of_at_the_head_of_its_answer_and_also_where_the_client_leaves(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any
) -> None:
    three[0].probe = True
    upstream.script(stream(CHUNKS[0], STALL), stream(STALL, status=429))
    async with running_bridge(credentiald) as bridge:
        async with raw_client(bridge.port) as client:
            await client.send(ask(chat(stream=True), POOL))
            await client.read_head()
            await until(lambda: len(credentiald.outcomes) == 1)
        async with raw_client(bridge.port) as client:
            await client.send(ask(chat(stream=True), POOL))
            await upstream.wait_for_request(1)
        await until(lambda: len(credentiald.outcomes) == 2)
    assert [kind for _, kind in kinds(credentiald)] == ["ACCEPTED", "UNKNOWN"]


async def test_where_credentiald_is_away_meanwhile_the_client_gets_what_the_upstream_said(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any
) -> None:
    async def taken_away(exchange: Any) -> None:
        credentiald.refuse = Refuse(code=grpc.StatusCode.UNAVAILABLE)
        await limited(30)(exchange)

    async def taken_away_too(exchange: Any) -> None:
        credentiald.refuse = Refuse(code=grpc.StatusCode.UNAVAILABLE)
        await wrong()(exchange)

    async with running_bridge(credentiald) as bridge:
        upstream.script(taken_away)
        waits = await raw_exchange(bridge.port, ask(BODY, POOL))
        credentiald.refuse = None
        upstream.script(taken_away_too)
        fails = await raw_exchange(bridge.port, ask(BODY, POOL))
        reports = await reported(credentiald, 2)
    assert (waits.status, waits.body, waits.header("retry-after")) == (429, LIMITED, "30")
    assert (fails.status, fails.header("x-drawbridge-error")) == (502, "UPSTREAM_KEY_REFUSED")
    assert b"sk-" not in fails.body
    assert [len(one.attempts) for one in reports] == [0, 0]
    assert outcome(reports[0]) == ("UPSTREAM_ERROR", "RATE_LIMITED", "requests", 429)


async def test_what_credentiald_says_meanwhile_counts(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any
) -> None:
    async def suspended(exchange: Any) -> None:
        credentiald.refuse = Refuse(code=grpc.StatusCode.UNAUTHENTICATED, reason="USER_SUSPENDED")
        await limited(30)(exchange)

    upstream.script(suspended)
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ask(BODY, POOL))
        (report,) = await reported(credentiald)
    assert (answer.status, answer.header("x-drawbridge-error")) == (401, "USER_SUSPENDED")
    assert [one.receipt for one in report.attempts] == [b"receipt-1"]


async def test_another_source_and_another_address_meanwhile_count(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any
) -> None:
    # The second answer is a user's own key at another base URL: its 429 is the user's.
    other = provider("openai", upstream.url + "/moved", api_key="sk-users")
    other.source = provider_pb2.CREDENTIAL_SOURCE_USER_KEY
    other.receipt = b"receipt-of-user"
    other.credential.credential_id = "cred-of-user"
    credentiald.pools["pool"] = [three[0], other]
    upstream.script(limited(), limited(8))
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ask(BODY, POOL))
        (report,) = await reported(credentiald)
        await until(lambda: bool(credentiald.outcomes))
    assert (answer.status, answer.body, answer.header("retry-after")) == (429, LIMITED, "8")
    assert [one.target for one in upstream.requests] == ["/v1/chat/completions", "/moved/chat/completions"]
    assert kinds(credentiald) == [(b"receipt-1", "RATE_LIMITED")]
    assert (report.receipt, len(report.attempts)) == (b"receipt-of-user", 1)


async def test_a_credentiald_that_gives_out_the_same_key_is_not_asked_for_ever(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    one = pool(1, "openai", upstream.url)[0]
    one.pool_size = 5
    credentiald.providers["pool"] = one
    upstream.default = limited(12)
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ask(BODY, POOL))
    assert (answer.status, answer.header("retry-after")) == (429, "12")
    assert len(upstream.requests) == 1


async def test_a_body_that_is_streamed_is_sent_once_and_the_key_is_told_of(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any
) -> None:
    upstream.script(limited(3), wrong())
    upload = request("POST", "/pool/v1/embeddings", headers=[AUTH], body=b"x" * 1000)
    async with running_bridge(credentiald) as bridge:
        first = await raw_exchange(bridge.port, upload)
        second = await raw_exchange(bridge.port, upload)
        await until(lambda: len(credentiald.outcomes) == 2)
    assert (first.status, first.body, first.header("retry-after")) == (429, LIMITED, "3")
    assert (second.status, second.header("x-drawbridge-error")) == (502, "UPSTREAM_KEY_REFUSED")
    assert keys_of(upstream) == ["sk-1", "sk-2"]
    assert [one.body for one in upstream.requests] == [b"x" * 1000] * 2


async def test_a_request_without_a_body_is_sent_again(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any
) -> None:
    upstream.script(limited(3), reply(200, b'{"data":[]}'))
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, request("GET", "/pool/v1/models", headers=[AUTH]))
    assert (answer.status, answer.body) == (200, b'{"data":[]}')
    assert keys_of(upstream) == ["sk-1", "sk-2"]


@pytest.mark.parametrize("where", ["held", "asking", "second"])
async def test_a_client_that_leaves_ends_it_wherever_it_is(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any, where: str
) -> None:
    async def hold_questions(exchange: Any) -> None:
        credentiald.hang(unary=False)
        await limited()(exchange)

    first = {"held": stream(LIMITED, STALL, status=429), "asking": hold_questions, "second": limited()}[where]
    upstream.script(first, stream(CHUNKS[0], STALL))
    async with running_bridge(credentiald) as bridge:
        async with raw_client(bridge.port) as client:
            await client.send(ask(BODY, POOL))
            last = await upstream.wait_for_request(1 if where == "second" else 0)
            if where == "second":
                await client.read_head()
            if where == "asking":
                await until(lambda: len(credentiald.resolves) == 2)
        if where != "asking":
            async with asyncio.timeout(5):
                await last.closed.wait()
        await until(lambda: not bridge.bridge.under_way)
        credentiald.go_on()
        (report,) = await reported(credentiald)
        await _still(bridge, credentiald)
    assert outcome(report)[0] == "CLIENT_GONE"
    assert len(upstream.requests) == (2 if where == "second" else 1)
    assert len(report.attempts) == (0 if where == "held" else 1)


async def _still(bridge: RunningBridge, credentiald: FakeCredentiald) -> None:
    """Everything that is said afterwards has been said: nothing is reported twice."""
    pings = credentiald.pings
    await until(lambda: credentiald.pings > pings)
    assert len(credentiald.reported) == 1


async def test_a_bridge_that_stops_meanwhile_tells_the_client(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any
) -> None:
    async def hold_questions(exchange: Any) -> None:
        credentiald.hang(unary=False)
        await limited()(exchange)

    upstream.script(hold_questions)
    async with running_bridge(credentiald, credentiald_timeout_seconds=5) as bridge, raw_client(bridge.port) as client:
        await client.send(ask(BODY, POOL))
        await until(lambda: len(credentiald.resolves) == 2)
        bridge.bridge.drain()
        bridge.bridge.end_requests()
        answer = await client.read_answer()
        credentiald.go_on()
        (report,) = await reported(credentiald)
    assert (answer.status, answer.header("x-drawbridge-error")) == (503, "CAPACITY")
    assert (outcome(report)[0], len(report.attempts)) == ("BRIDGE_STOPPED", 1)


@pytest.mark.parametrize("is_stale", [False, True])
async def test_what_an_administrator_takes_away_meanwhile_ends_nothing_that_does_not_run_on_it(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, three: Any, is_stale: bool
) -> None:
    """The key that was refused is removed while another one is asked for; or that answer was on its way before."""

    async def hold_questions(exchange: Any) -> None:
        credentiald.hang(unary=False)
        await limited()(exchange)

    class LaterRevision(list[pb.ResolveProviderResponse]):
        """Answers that are of the new revision only when they are looked at for the third time."""

        looks = 0

        def __iter__(self) -> Any:
            self.looks += 1
            for one in super().__iter__():
                one.revision = credentiald.revision if self.looks > 2 else 7
                yield one

    credentiald.has_watch = True
    upstream.script(hold_questions, good())
    async with (
        running_bridge(credentiald, credentiald_timeout_seconds=5) as bridge,
        raw_client(bridge.port) as client,
    ):
        await until(lambda: bool(credentiald.acknowledged))
        await client.send(ask(BODY, POOL))
        await until(lambda: len(credentiald.resolves) == 2)
        credentiald.pools["pool"] = three[1:]
        revision = credentiald.change("provider.updated", three[0].provider.id, answers_too=not is_stale)
        await until(lambda: revision in credentiald.acknowledged)
        assert bridge.bridge.under_way == 1
        if is_stale:
            credentiald.pools["pool"] = LaterRevision(three[1:])
        credentiald.go_on()
        answer = await client.read_answer()
        (report,) = await reported(credentiald)
    assert (answer.status, answer.body) == (200, CHAT_ANSWER)
    assert keys_of(upstream) == ["sk-1", "sk-2"]
    assert len(credentiald.resolves) == (4 if is_stale else 2)
    assert [list(one.failed_credential_ids) for one in credentiald.resolves[1:]] == [["cred-1"]] * (
        3 if is_stale else 1
    )
    assert [one.receipt for one in report.attempts] == [b"receipt-1"]


@pytest.mark.parametrize(
    ("source", "status", "expected"),
    [
        (provider_pb2.CREDENTIAL_SOURCE_CENTRAL_KEY, 401, (502, "UPSTREAM_KEY_REFUSED")),
        (provider_pb2.CREDENTIAL_SOURCE_AMBIENT, 401, (502, "UPSTREAM_KEY_REFUSED")),
        (provider_pb2.CREDENTIAL_SOURCE_USER_KEY, 401, (401, None)),
        (provider_pb2.CREDENTIAL_SOURCE_CENTRAL_KEY, 429, (429, None)),
        (provider_pb2.CREDENTIAL_SOURCE_AMBIENT, 429, (429, None)),
        (provider_pb2.CREDENTIAL_SOURCE_USER_KEY, 429, (429, None)),
        (provider_pb2.CREDENTIAL_SOURCE_CENTRAL_KEY, 403, (403, None)),
    ],
)
async def test_a_single_key_has_nothing_to_spare(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, source: Any, status: int, expected: tuple[int, str | None]
) -> None:
    answer = credentiald.providers["pool"] = provider("openai", upstream.url, api_key="sk-1")
    answer.source = source
    answer.pool_size = 1 if source == provider_pb2.CREDENTIAL_SOURCE_CENTRAL_KEY else 0
    upstream.script(reply(status, WRONG, [*JSON, ("Retry-After", "11")]))
    async with running_bridge(credentiald) as bridge:
        got = await raw_exchange(bridge.port, ask(BODY, POOL))
        (report,) = await reported(credentiald)
    assert (got.status, got.header("x-drawbridge-error")) == expected
    if expected[1] is None:
        assert (got.body, got.header("retry-after")) == (WRONG, "11")
    else:
        assert b"sk-1" not in got.body
        assert outcome(report) == ("UPSTREAM_ERROR", "UNAUTHORIZED", "UPSTREAM_KEY_REFUSED", 502)
    assert not credentiald.outcomes
    assert len(upstream.requests) == len(credentiald.resolves) == 1
