"""Records from the resolve to the question about them, over real sockets and a real file."""

import asyncio
import json
import logging
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import grpc
import pytest
from drawbridge.v1 import admin_service_pb2 as admin
from drawbridge.v1 import credential_service_pb2 as credentials
from drawbridge.v1 import record_pb2
from drawbridge.v1 import record_service_pb2 as pb
from drawbridge.v1 import usage_service_pb2 as usage
from google.protobuf.timestamp_pb2 import Timestamp

from credentiald import receipts
from credentiald.cli.connection import connected
from credentiald.cli.target import Target
from credentiald.errors import StoreUnavailable
from credentiald.ids import uuid7
from credentiald.metrics import Metrics
from credentiald.record_rounds import Rounds
from credentiald.record_rules import KeepRule, KeepRules
from daemonkit.logs import json_line
from daemonkit.secret import Secret
from tests.support.credentiald import Running, bearer, reason_of, running
from tests.support.records import a_report
from tests.support.reports import COMPLETED, INSTANCE, Bridge, whole

SECONDS = 5


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def impatient(monkeypatch) -> None:
    """A store that waits for locks of others for a moment only."""
    monkeypatch.setattr("credentiald.store.sqlite.BUSY_TIMEOUT_SECONDS", 0.05)


async def with_provider(one: Running, name: str = "corp") -> None:
    await one.make_provider(name, key="sk-1234567890")


async def interceptions(one: Running, token: str = "", **fields) -> list[usage.Interception]:
    request = usage.ListInterceptionsRequest(filter=usage.UsageFilter(**fields))
    answer = await one.usage.ListInterceptions(request, metadata=bearer(token or one.admin_token))
    return list(answer.interceptions)


async def detail(one: Running, interception_id: str, token: str = "") -> usage.GetInterceptionResponse:
    return await one.usage.GetInterception(
        usage.GetInterceptionRequest(id=interception_id), metadata=bearer(token or one.admin_token)
    )


async def test_an_interception_is_open_from_its_resolve_and_complete_when_its_bridge_has_reported(tmp_path):
    async with running(tmp_path) as one:
        user_id, token = await one.make_user("ann")
        await with_provider(one)
        bridge = Bridge(one)
        interception_id, receipt = await bridge.resolve(token)
        await one.book.flush()
        [row] = await interceptions(one)
        assert (row.id, row.user_id, row.username, row.provider, row.provider_type) == (
            interception_id, user_id, "ann", "corp", "openai",
        )  # fmt: skip
        assert (row.operation, row.model, row.client) == ("openai.chat_completions", "gpt-5", "Codex")
        assert not row.HasField("end_time")

        assert await bridge.report(whole(receipt)) == {}
        found = await detail(one, interception_id)
        assert found.interception.outcome == COMPLETED
        assert (found.interception.session_id, found.interception.http_status) == ("s-1", 200)
        assert (found.interception.duration_micros, found.interception.first_byte_micros) == (1234, 99)
        assert found.interception.tokens == usage.TokenTotals(
            input_tokens=10, output_tokens=20, cache_read_input_tokens=30
        )
        [whole_thread] = found.thread
        assert whole_thread.interception == found.interception
        assert dict(whole_thread.token_usages[0].metadata) == {"output_reasoning": 7}
        assert (whole_thread.prompts[0].text, whole_thread.prompts[0].text_bytes) == ("list the files", 14)
        assert (whole_thread.tool_calls[0].tool, whole_thread.tool_calls[0].tool_call_id) == ("shell", "call_1")
        assert whole_thread.model_thoughts[0].source == "reasoning_summary"


async def test_interceptions_of_a_stream_of_questions_are_opened_too_kept_answer_or_not(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        call = one.credentials.ResolveProviderStream(metadata=bearer(one.bridge_token))
        ids = [str(uuid4()) for _ in range(6)]
        for asked in (ids[:3], ids[3:]):
            await call.write(
                credentials.ResolveProviderStreamRequest(
                    items=[
                        credentials.ResolveProviderRequest(
                            provider="corp", access_token=token, interception_id=each, model="gpt-5", client="Codex",
                            operation="openai.responses", bridge_instance_id=INSTANCE,
                        )
                        for each in asked
                    ]
                    + [credentials.ResolveProviderRequest(provider="none", interception_id=str(uuid4()))]
                )
            )  # fmt: skip
            results = (await call.read()).results
            receipts_of = [receipts.read(one.plane.receipt_key, each.response.receipt) for each in results[:3]]
            assert [each.interception_id for each in receipts_of] == asked
        # Interceptions are noted behind the answers, and before the next batch is read.
        await call.write(credentials.ResolveProviderStreamRequest())
        assert await call.read() == credentials.ResolveProviderStreamResponse()
        call.cancel()
        await one.book.flush()
        rows = await interceptions(one)
        assert sorted(row.id for row in rows) == sorted(ids)
        assert {(row.operation, row.model, row.client, row.bridge_instance_id) for row in rows} == {
            ("openai.responses", "gpt-5", "Codex", INSTANCE)
        }


async def test_an_interception_whose_opening_died_with_credentiald_is_complete_all_the_same(tmp_path):
    async with running(tmp_path) as one:
        user_id, token = await one.make_user("ann")
        await with_provider(one)
        interception_id, receipt = await Bridge(one).resolve(token)
        # What would have been written is forgotten, as kill -9 forgets it.
        one.book._openings._noted.clear()
    async with running(tmp_path) as one:
        facts = pb.InterceptionFacts(client="Codex", operation="openai.chat_completions", model="gpt-5")
        assert await Bridge(one).report(whole(receipt, facts=facts)) == {}
        [row] = await interceptions(one)
        assert (row.id, row.user_id, row.provider, row.model) == (interception_id, user_id, "corp", "gpt-5")
        assert row.outcome == COMPLETED


async def test_reports_that_are_sent_again_are_stored_once(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        bridge = Bridge(one)
        interception_id, receipt = await bridge.resolve(token)
        report = whole(receipt)
        await asyncio.gather(*(bridge.report(report, report) for _ in range(5)))
        await bridge.report(report)
        [only] = (await detail(one, interception_id)).thread
        counts = [len(each) for each in (only.token_usages, only.prompts, only.tool_calls, only.model_thoughts)]
        assert counts == [1, 1, 1, 1]
        answer = await one.usage.QueryUsage(usage.QueryUsageRequest(), metadata=bearer(one.admin_token))
        [row] = answer.rows
        assert (row.interceptions, row.token_usages, row.tokens.output_tokens) == (1, 1, 20)


async def test_reports_that_no_receipt_of_ours_stands_behind_are_rejected_and_their_neighbours_stored(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        _, other_token = await one.make_user("bob")
        await with_provider(one)
        bridge, other = Bridge(one), Bridge(one, await one.make_service("second", "BRIDGE"))
        interception_id, receipt = await bridge.resolve(token)
        _, taken = await bridge.resolve(other_token, interception_id=interception_id)
        _, of_another = await other.resolve(token)
        forged = bytearray(receipt)
        forged[10] ^= 1
        no_id = whole(receipt, prompts=[record_pb2.Prompt(id="1", text="?")])
        no_outcome = whole(receipt, end=pb.InterceptionEnd())
        presumed = whole(receipt, end=pb.InterceptionEnd(outcome=record_pb2.INTERCEPTION_OUTCOME_BRIDGE_VANISHED))
        negative = whole(receipt, token_usages=[record_pb2.TokenUsage(id=str(uuid4()), input_tokens=-1)])
        countless = whole(receipt, token_usages=[record_pb2.TokenUsage(id=str(uuid4()), output_tokens=1 << 62)])
        rejected = await bridge.report(
            whole(bytes(forged)), whole(b""), whole(of_another), no_id, no_outcome, presumed, negative, countless,
            whole(receipt), whole(taken),
        )  # fmt: skip
        assert rejected == {
            0: "RECEIPT_INVALID",
            1: "RECEIPT_INVALID",
            2: "RECEIPT_OF_ANOTHER_SERVICE",
            **dict.fromkeys(range(3, 8), "RECORD_INVALID"),
            9: "INTERCEPTION_TAKEN",
        }
        found = await detail(one, interception_id)
        assert (found.interception.username, found.interception.outcome) == ("ann", COMPLETED)
        [only] = found.thread
        # The two that nothing was wrong with, and what nothing was wrong with of five others.
        assert [len(each) for each in (only.prompts, only.token_usages, only.tool_calls)] == [5, 4, 6]


async def test_an_interception_does_not_lose_its_end_to_a_record_that_no_store_takes(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        bridge = Bridge(one)
        interception_id, receipt = await bridge.resolve(token)
        usages = [
            record_pb2.TokenUsage(id="none", input_tokens=1),
            record_pb2.TokenUsage(id=str(uuid4()), input_tokens=(1 << 63) - 1),
            record_pb2.TokenUsage(
                id=str(uuid4()), input_tokens=7, metadata={f"kind-{each}": each for each in range(99)}
            ),
        ]
        assert await bridge.report(whole(receipt, token_usages=usages)) == {0: "RECORD_INVALID"}
        found = await detail(one, interception_id)
        assert found.interception.outcome == COMPLETED
        [usage_row] = found.thread[0].token_usages
        assert (usage_row.input_tokens, len(usage_row.metadata)) == (7, 64)


async def test_times_and_numbers_of_an_end_that_cannot_be_are_the_nearest_that_can(tmp_path):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        bridge = Bridge(one)
        began = clock.now
        asked = [await bridge.resolve(token) for _ in range(3)]
        clock.now += timedelta(seconds=5)
        ends = [
            {"end_time": Timestamp(seconds=-5), "duration_micros": -1, "http_status": -1},
            {"end_time": Timestamp(seconds=1 << 60), "duration_micros": (1 << 63) - 1, "http_status": 1 << 30},
            {"end_time": Timestamp(seconds=1, nanos=-1), "first_byte_micros": -7},
        ]
        reports = [
            whole(receipt, end=pb.InterceptionEnd(outcome=COMPLETED, **end))
            for (_, receipt), end in zip(asked, ends, strict=True)
        ]
        assert await bridge.report(*reports) == {}
        rows = {row.id: row for row in await interceptions(one)}
        first, second, third = (rows[interception_id] for interception_id, _ in asked)
        assert [abs(row.end_time.ToDatetime(UTC) - began) < timedelta(milliseconds=1) for row in (first, third)] == [
            True
        ] * 2
        assert abs(second.end_time.ToDatetime(UTC) - clock.now) < timedelta(milliseconds=1)
        assert (first.duration_micros, first.http_status, third.first_byte_micros) == (0, 0, 0)
        assert (second.duration_micros, second.http_status) == (1 << 53, 999)


async def test_texts_with_any_characters_are_kept_and_cut_between_characters(tmp_path):
    rules = KeepRules(prompts=KeepRule(most_bytes=6))
    async with running(tmp_path, rules=rules, writes_log=True) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        bridge = Bridge(one)
        interception_id, receipt = await bridge.resolve(token)
        odd = "\0\x1b\u2028\ud7ff\U0010ffff" * 1000
        report = whole(
            receipt,
            facts=pb.InterceptionFacts(client="C" * 5000, user_agent=odd, client_session_id=odd),
            prompts=[record_pb2.Prompt(id=str(uuid4()), text="a" + "\U0001f600" * 2)],
            model_thoughts=[record_pb2.ModelThought(id=str(uuid4()), content=odd, source=odd)],
        )
        assert await bridge.report(report) == {}
        found = await detail(one, interception_id)
        assert (found.thread[0].prompts[0].text, found.thread[0].prompts[0].text_bytes) == ("a\U0001f600", 9)
        assert found.thread[0].model_thoughts[0].content == odd
        assert found.interception.session_id == odd[:256]


async def test_a_rule_for_a_provider_holds_for_what_is_reported_when_it_was_renamed_or_deleted(tmp_path):
    rules = KeepRules(prompts=KeepRule(by_provider={"corp": 0}))
    async with running(tmp_path, rules=rules) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        bridge = Bridge(one)
        interception_id, receipt = await bridge.resolve(token)
        one.book._openings._noted.clear()
        await one.admin.DeleteProvider(admin.DeleteProviderRequest(name="corp"), metadata=bearer(one.admin_token))
        assert await bridge.report(whole(receipt)) == {}
        found = await detail(one, interception_id)
        assert (found.interception.provider, found.interception.provider_type) == ("corp", "openai")
        assert [each.text for each in found.thread[0].prompts] == [""]


async def test_one_interception_has_one_name_in_whatever_case_its_bridge_writes_it(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        bridge = Bridge(one)
        shouted = str(uuid4()).upper()
        call = one.credentials.ResolveProviderStream(metadata=bearer(one.bridge_token))
        for _ in range(2):
            item = credentials.ResolveProviderRequest(
                provider="corp", access_token=token, interception_id=shouted, operation="openai.responses",
                bridge_instance_id=INSTANCE,
            )  # fmt: skip
            await call.write(credentials.ResolveProviderStreamRequest(items=[item]))
            [result] = (await call.read()).results
        call.cancel()
        _, receipt = await bridge.resolve(token, interception_id=shouted)
        await one.book.flush()
        for each in (receipt, result.response.receipt):
            assert await bridge.report(whole(each)) == {}
        assert [row.id for row in await interceptions(one)] == [shouted.lower()]


@pytest.mark.parametrize("by_stream", [True, False])
async def test_only_turns_that_a_bridge_names_itself_for_open_an_interception(tmp_path, by_stream):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        internal = await one.make_service("jobs", "INTERNAL")
        turn = str(uuid4())
        asked = [
            (one.bridge_token, {"operation": "openai.responses", "interception_id": turn}),
            (one.bridge_token, {"operation": "openai.embeddings"}),
            (one.bridge_token, {"operation": "openai.models"}),
            (one.bridge_token, {"operation": ""}),
            (one.bridge_token, {"operation": "openai.responses", "interception_id": ""}),
            (one.bridge_token, {"operation": "openai.responses", "bridge_instance_id": ""}),
            (one.bridge_token, {"operation": "openai.responses", "bridge_instance_id": "x" * 65}),
            (internal, {"operation": "openai.responses"}),
        ]
        for service, fields in asked * 2:
            values = {"provider": "corp", "access_token": token, "bridge_instance_id": INSTANCE}
            values["interception_id"] = str(uuid4())
            item = credentials.ResolveProviderRequest(**values | fields)
            if not by_stream:
                await one.credentials.ResolveProvider(item, metadata=bearer(service))
                continue
            call = one.credentials.ResolveProviderStream(metadata=bearer(service))
            for items in ([item, item], []):
                await call.write(credentials.ResolveProviderStreamRequest(items=items))
                assert not any(each.HasField("refusal") for each in (await call.read()).results)
            call.cancel()
        await one.book.flush()
        assert [row.id for row in await interceptions(one)] == [turn]


@pytest.mark.parametrize("by_stream", [True, False])
async def test_an_interception_that_is_resolved_again_has_the_first_time_and_the_last_credential(
    tmp_path, by_stream, impatient
):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        made = await one.make_provider("corp", key="sk-1234567890")
        interception_id, began = str(uuid4()), clock.now
        key = one.credentials.ResolveProviderStream(metadata=bearer(one.bridge_token))
        resolutions = []
        for failed in ([], ["another"]):
            item = credentials.ResolveProviderRequest(
                provider="corp", access_token=token, interception_id=interception_id, operation="openai.responses",
                bridge_instance_id=INSTANCE, failed_credential_ids=failed, model="gpt-5",
            )  # fmt: skip
            if by_stream:
                await key.write(credentials.ResolveProviderStreamRequest(items=[item]))
                resolutions.append((await key.read()).results[0].response.resolution_id)
                await key.write(credentials.ResolveProviderStreamRequest())
                await key.read()
            else:
                answer = await one.credentials.ResolveProvider(item, metadata=bearer(one.bridge_token))
                resolutions.append(answer.resolution_id)
            clock.now += timedelta(seconds=3)
        key.cancel()
        with closing(sqlite3.connect(tmp_path / "credentiald.records.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            # The store is away for a moment: nothing of the two gets lost over that.
            await one.book.flush()
            other.execute("ROLLBACK")
        await one.book.flush()
        [row] = await interceptions(one)
        assert (row.id, row.resolution_id, row.model) == (interception_id, resolutions[1], "gpt-5")
        assert row.credential_id == made.central_keys[0].credential_id
        assert abs(row.start_time.ToDatetime(UTC) - began) < timedelta(milliseconds=1)


async def test_what_a_bridge_knows_nothing_of_any_more_is_ended_while_it_lives_and_nothing_else(tmp_path):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        other_service = await one.make_service("second", "BRIDGE")
        bridge, liar = Bridge(one), Bridge(one, other_service)
        rounds = Rounds(one.stored, one.book, Metrics("test"), clock, retention=timedelta())
        ids = [uuid7(clock.now + timedelta(seconds=each)) for each in range(4)]
        receipts_of = [(await bridge.resolve(token, interception_id=each))[1] for each in ids]

        async def ping(of: Bridge, mark: str) -> None:
            asked = credentials.PingRequest(bridge_instance_id=of.instance, oldest_interception_id=mark)
            await one.credentials.Ping(asked, metadata=of.metadata)

        async def open_ones() -> set[str]:
            return {row.id for row in await interceptions(one) if not row.HasField("end_time")}

        await ping(liar, ids[3])
        await ping(bridge, ids[2])
        assert await rounds.end_left_behind() == 0
        await one.book.flush()
        assert await open_ones() == set(ids)
        # A clock that was set back: what is said now counts where it is less.
        await ping(bridge, ids[1].upper())
        assert await rounds.end_left_behind() == 1
        assert await open_ones() == set(ids[1:])
        await ping(bridge, "")
        assert await rounds.end_left_behind() == 0
        await ping(bridge, ids[3])
        assert await rounds.end_left_behind() == 0
        await ping(bridge, ids[3])
        assert await rounds.end_left_behind() == 2
        assert await open_ones() == {ids[3]}
        ended = (await detail(one, ids[0])).interception
        assert ended.outcome == record_pb2.INTERCEPTION_OUTCOME_BRIDGE_VANISHED
        # It turns up after all.
        assert await bridge.report(whole(receipts_of[0])) == {}
        assert (await detail(one, ids[0])).interception.outcome == COMPLETED
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ping(bridge, "no id")
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_bridge_that_lives_loses_nothing_while_what_was_heard_of_it_cannot_be_written_down(tmp_path, impatient):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        bridge = Bridge(one)
        await bridge.resolve(token)
        await one.book.flush()
        rounds = Rounds(one.stored, one.book, Metrics("test"), clock, retention=timedelta())
        ping = credentials.PingRequest(bridge_instance_id=bridge.instance)
        clock.now += timedelta(seconds=9)
        await one.credentials.Ping(ping, metadata=bridge.metadata)
        clock.now += timedelta(seconds=55)
        # Its last word is not in the file, which is not written for each of them.
        assert await rounds.end_vanished() == 0
        clock.now += timedelta(seconds=30)
        rounds.was_away()
        assert await rounds.end_vanished() == 0
        with closing(sqlite3.connect(tmp_path / "credentiald.records.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await bridge.resolve(token)
            await one.book.flush()
            other.execute("ROLLBACK")
        # Another worker may have heard of it, and could not write it down.
        clock.now += timedelta(seconds=59)
        assert await rounds.end_vanished() == 0
        clock.now += timedelta(seconds=2)
        assert await rounds.end_vanished() >= 1


async def test_a_bridge_must_name_itself_to_report(tmp_path):
    async with running(tmp_path) as one:
        for name in ("", "x" * 65):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await Bridge(one, instance=name).report()
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        ({"filter": usage.UsageFilter(session_id="s-1")}, "filter.session_id"),
        ({"filter": usage.UsageFilter(provider_type="openai")}, "filter.provider_type"),
        ({"group_by": [77]}, "group_by"),
        ({"group_by": [usage.USAGE_DIMENSION_DAY] * 2}, "group_by"),
        ({"group_by": [usage.USAGE_DIMENSION_UNSPECIFIED]}, "group_by"),
    ],
)
async def test_sums_that_are_not_kept_are_refused_and_never_those_of_something_else(tmp_path, request_fields, field):
    async with running(tmp_path) as one:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await one.usage.QueryUsage(usage.QueryUsageRequest(**request_fields), metadata=bearer(one.admin_token))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details().startswith(f"{field}: ")


@pytest.mark.parametrize("field", ["provider", "provider_type", "model", "client", "session_id"])
async def test_a_filter_for_a_text_that_is_longer_than_any_that_is_kept_is_refused_by_its_name(tmp_path, caplog, field):
    async with running(tmp_path) as one:
        await with_provider(one)
        _, token = await one.make_user("ann")
        _, receipt = await Bridge(one).resolve(token)
        assert await Bridge(one).report(whole(receipt)) == {}
        for rpc, request_type in (
            (one.usage.ListSessions, usage.ListSessionsRequest),
            (one.usage.ListInterceptions, usage.ListInterceptionsRequest),
            (one.usage.QueryUsage, usage.QueryUsageRequest),
        ):
            for characters in (257, 60_000):
                request = request_type(filter=usage.UsageFilter(**{field: "模" * characters}))
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await rpc(request, metadata=bearer(one.admin_token))
                assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert refused.value.details() == f"filter.{field}: is longer than 256 characters"
        longest = usage.ListSessionsRequest(filter=usage.UsageFilter(**{field: "模" * 256}))
        assert not (await one.usage.ListSessions(longest, metadata=bearer(one.admin_token))).sessions
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


async def test_a_user_sees_its_own_rows_only_and_an_administrator_all(tmp_path):
    async with running(tmp_path) as one:
        await with_provider(one)
        bridge, ids, tokens = Bridge(one), {}, {}
        for name in ("ann", "bob"):
            _, tokens[name] = await one.make_user(name)
            ids[name], receipt = await bridge.resolve(tokens[name])
            await bridge.report(whole(receipt))
        assert [row.id for row in await interceptions(one, tokens["ann"])] == [ids["ann"]]
        assert [row.id for row in await interceptions(one, tokens["ann"], user="ANN")] == [ids["ann"]]
        assert [row.id for row in await interceptions(one, user="bob")] == [ids["bob"]]
        assert len(await interceptions(one)) == 2
        own = bearer(tokens["ann"])
        sessions = await one.usage.ListSessions(usage.ListSessionsRequest(), metadata=own)
        assert [each.username for each in sessions.sessions] == ["ann"]
        by_user = usage.QueryUsageRequest(group_by=[usage.USAGE_DIMENSION_USER])
        rows = (await one.usage.QueryUsage(by_user, metadata=own)).rows
        assert [each.username for each in rows] == ["ann"]
        for asked in (interceptions(one, tokens["ann"], user="bob"), detail(one, ids["bob"], tokens["ann"])):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await asked
            assert reason_of(refused.value) in ("CALLER_NOT_ALLOWED", "INTERCEPTION_NOT_FOUND")


async def test_an_administrator_who_asks_for_its_own_rows_sees_no_others(tmp_path):
    async with running(tmp_path) as one:
        await with_provider(one)
        bridge, user_ids, tokens = Bridge(one), {}, {}
        for name in ("ann", "bob"):
            user_ids[name], tokens[name] = await one.make_user(name, is_admin=name == "ann")
            _, receipt = await bridge.resolve(tokens[name])
            await bridge.report(whole(receipt))
        asks = (
            (one.usage.ListSessions, usage.ListSessionsRequest()),
            (one.usage.ListInterceptions, usage.ListInterceptionsRequest()),
            (one.usage.QueryUsage, usage.QueryUsageRequest(group_by=[usage.USAGE_DIMENSION_USER])),
            (one.usage.QueryUsage, usage.QueryUsageRequest()),
        )
        for rpc, request in asks:
            everybody = await rpc(request, metadata=bearer(tokens["ann"]))
            assert everybody.user_id == ""
            request.filter.mine = True
            for name in ("ann", "bob"):
                answer = await rpc(request, metadata=bearer(tokens[name]))
                [row] = getattr(answer, answer.DESCRIPTOR.fields[0].name)
                assert answer.user_id == user_ids[name]
                assert row.user_id in ("", answer.user_id)
                assert getattr(row, "interceptions", 1) == 1


@pytest.mark.parametrize(("user", "field"), [("", "filter.mine"), ("ann", "filter.user")])
async def test_what_is_nobodys_own_is_refused(tmp_path, user, field):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        request = usage.ListSessionsRequest(filter=usage.UsageFilter(mine=True, user=user))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await one.usage.ListSessions(request, metadata=bearer(token if user else one.admin_token))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert refused.value.details().startswith(f"{field}: ")


async def test_pages_of_any_filter_have_each_row_once_from_the_newest_to_the_oldest(tmp_path, monkeypatch):
    monkeypatch.setattr("credentiald.store.record_queries.SCANNED_ROWS", 7)
    monkeypatch.setattr("credentiald.store.record_queries.SCANNED_ENTRIES", 7)
    monkeypatch.setattr("credentiald.store.record_queries.MOST_OF_A_PAGE", 6)
    monkeypatch.setattr("credentiald.store.usage_queries.SCANNED_DAYS", 2)
    now = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    clock = [now]
    async with running(tmp_path, clock=lambda: clock[0]) as one:
        _, token = await one.make_user("ann")
        for name in ("corp", "lab"):
            await with_provider(one, name)
        bridge, ids = Bridge(one), []
        for number in range(40):
            clock[0] = now + timedelta(minutes=number // 2)
            name = "lab" if number % 10 == 0 else "corp"
            interception_id, receipt = await bridge.resolve(token, provider=name, model=f"m-{number % 2}")
            await bridge.report(whole(receipt, facts=pb.InterceptionFacts(client_session_id=f"s-{number % 5}")))
            ids.append((interception_id, name, f"m-{number % 2}", f"s-{number % 5}"))

        async def listed(rpc, request_type, field: str, page_size: int, **fields) -> list:
            found, request = [], request_type(filter=usage.UsageFilter(**fields), page_size=page_size)
            while True:
                answer = await rpc(request, metadata=bearer(one.admin_token))
                assert len(getattr(answer, field)) <= min(page_size, 6)
                found += getattr(answer, field)
                if not answer.next_page_token:
                    return found
                request.page_token = answer.next_page_token

        async def list_all(page_size: int, **fields) -> list[str]:
            rpc = one.usage.ListInterceptions
            return [
                each.id
                for each in await listed(rpc, usage.ListInterceptionsRequest, "interceptions", page_size, **fields)
            ]

        newest = ids[::-1]
        for size in (1, 3, 40, 100):
            assert await list_all(size) == [each[0] for each in newest]
        assert await list_all(2, provider="lab") == [each[0] for each in newest if each[1] == "lab"]
        assert await list_all(3, provider="lab", model="m-1") == []
        assert await list_all(3, session_id="s-2", model="m-1") == [
            each[0] for each in newest if each[2:] == ("m-1", "s-2")
        ]
        since, until = Timestamp(), Timestamp()
        since.FromDatetime(now + timedelta(minutes=5))
        until.FromDatetime(now + timedelta(minutes=10))
        assert await list_all(4, start_after=since, start_before=until) == [each[0] for each in ids[10:20][::-1]]
        sessions = await listed(one.usage.ListSessions, usage.ListSessionsRequest, "sessions", 2)
        assert [each.session_id for each in sessions] == ["s-4", "s-3", "s-2", "s-1", "s-0"]
        assert [each.interceptions for each in sessions] == [8] * 5
        in_lab = await listed(one.usage.ListSessions, usage.ListSessionsRequest, "sessions", 2, provider="lab")
        assert [each.session_id for each in in_lab] == ["s-0"]
        assert await listed(one.usage.ListSessions, usage.ListSessionsRequest, "sessions", 2, provider="LAB") == []
        by = [usage.USAGE_DIMENSION_PROVIDER, usage.USAGE_DIMENSION_MODEL]
        sums = usage.QueryUsageRequest(group_by=by, page_size=2)
        first = await one.usage.QueryUsage(sums, metadata=bearer(one.admin_token))
        sums.page_token = first.next_page_token
        second = await one.usage.QueryUsage(sums, metadata=bearer(one.admin_token))
        rows = [(each.provider, each.model, each.interceptions) for each in (*first.rows, *second.rows)]
        assert rows == [("corp", "m-0", 16), ("corp", "m-1", 20), ("lab", "m-0", 4)]
        assert not second.next_page_token


async def test_pages_of_usage_go_on_behind_the_longest_and_oddest_names(tmp_path):
    async with running(tmp_path) as one:
        await with_provider(one)
        bridge = Bridge(one)
        names = sorted(first + last * 255 for first in '\0 "' for last in "%模\U0010ffff")
        for user in ("ann", "bob"):
            _, token = await one.make_user(user)
            for name in names:
                _, receipt = await bridge.resolve(token, model=name, client=name)
                assert await bridge.report(whole(receipt, facts=pb.InterceptionFacts(client=name, model=name))) == {}
        request = usage.QueryUsageRequest(group_by=usage.UsageDimension.values()[1:], page_size=1)
        rows = []
        while not rows or request.page_token:
            page = await one.usage.QueryUsage(request, metadata=bearer(one.admin_token))
            rows += page.rows
            request.page_token = page.next_page_token
        assert [(each.username, each.model, each.client) for each in rows] == [
            (user, name, name) for user in ("ann", "bob") for name in names
        ]


async def test_a_long_thread_of_an_agent_is_shown_with_what_its_newest_turns_wrote(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        bridge, ids = Bridge(one), []
        for turn in range(80):
            interception_id, receipt = await bridge.resolve(token, interception_id=uuid7(datetime.now(UTC)))
            facts = pb.InterceptionFacts(correlating_tool_call_id=f"call_{turn - 1}" if turn else "")
            call = record_pb2.ToolCall(id=str(uuid4()), tool_call_id=f"call_{turn}", input="x" * 60_000)
            assert await bridge.report(whole(receipt, facts=facts, tool_calls=[call])) == {}
            ids.append(interception_id)
        for asked in (0, 79):
            # As any client has it, with gRPC's own limit.
            found = await detail(one, ids[asked])
            assert [each.interception.id for each in found.thread] == ids
            shown = [place for place, each in enumerate(found.thread) if not each.records_left_out]
            assert shown == sorted({asked, *range(80 - len(shown) + (asked == 0), 80)})
            assert 40 <= len(shown) <= 41
            assert all(each.tool_calls[0].input for each in found.thread if not each.records_left_out)
            assert not any(each.tool_calls for each in found.thread if each.records_left_out)


async def test_the_command_takes_all_of_one_that_was_told_of_in_as_much_as_a_report_may_have(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        bridge = Bridge(one)
        interception_id, receipt = await bridge.resolve(token)
        calls = [record_pb2.ToolCall(id=str(uuid4()), input="x" * 990) for _ in range(4_000)]
        assert await bridge.report(whole(receipt, tool_calls=calls)) == {}
        target = Target(address=f"unix:{tmp_path}/admin.sock", token=Secret(one.admin_token), tls=None)

        def ask() -> usage.GetInterceptionResponse:
            with connected(target) as connection:
                return connection.call(
                    connection.usage.GetInterception, usage.GetInterceptionRequest(id=interception_id)
                )

        answer = await asyncio.to_thread(ask)
        assert answer.ByteSize() > 4 * 1024 * 1024
        [only] = answer.thread
        assert (len(only.tool_calls), only.records_left_out) == (4_000, False)


async def test_what_is_not_kept_is_not_in_the_file_nor_in_the_log(tmp_path, caplog):
    off, short = KeepRule(most_bytes=0), KeepRule(by_provider={"corp": 4})
    rules = KeepRules(prompts=off, tool_inputs=short, thoughts=off)
    async with running(tmp_path, rules=rules, writes_log=True) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        bridge = Bridge(one)
        interception_id, receipt = await bridge.resolve(token)
        call = record_pb2.ToolCall(id=str(uuid4()), tool="shell", input="CANARY-input")
        thought = record_pb2.ModelThought(id=str(uuid4()), content="CANARY-thought")
        prompt = record_pb2.Prompt(id=str(uuid4()), text="CANARY-prompt")
        await bridge.report(whole(receipt, prompts=[prompt], tool_calls=[call], model_thoughts=[thought]))
        [found] = (await detail(one, interception_id)).thread
        assert (found.prompts[0].text, found.prompts[0].text_bytes) == ("", 13)
        assert (found.tool_calls[0].input, found.tool_calls[0].input_bytes) == ("CANA", 12)
        assert (found.model_thoughts[0].content, found.model_thoughts[0].content_bytes) == ("", 14)
    assert "CANARY" not in "".join(json_line(record) for record in caplog.records)
    assert all(b"CANARY" not in file.read_bytes() for file in tmp_path.glob("credentiald.records.db*"))


async def test_every_record_is_a_line_of_the_log_once_and_the_end_comes_last(tmp_path, caplog):
    async with running(tmp_path, writes_log=True) as one:
        user_id, token = await one.make_user("ann")
        await with_provider(one)
        bridge = Bridge(one)
        interception_id, receipt = await bridge.resolve(token)
        await one.book.flush()
        report = whole(receipt)
        # As of an upstream that says so of one call in an answer that is whole.
        report.tool_calls[0].partial = True
        await bridge.report(report)
        await bridge.report(report)
        lines = [json.loads(json_line(each)) for each in caplog.records if each.msg == "interception log"]
    kinds = [line["record_type"] for line in lines]
    assert kinds[0] == "interception_start"
    assert kinds[-1] == "interception_end"
    assert sorted(kinds[1:-1]) == ["model_thought", "prompt_usage", "token_usage", "tool_usage"]
    assert {line["interception_id"] for line in lines} == {interception_id}
    by_kind = {line["record_type"]: line for line in lines}
    start, end = by_kind["interception_start"], by_kind["interception_end"]
    assert (start["initiator_id"], start["provider"], start["provider_name"]) == (user_id, "openai", "corp")
    assert (start["model"], start["upstream_model"], start["client"]) == ("gpt-5", "", "Codex")
    assert (end["outcome"], end["presumed"], end["error_type"]) == ("COMPLETED", False, "")
    assert datetime.fromisoformat(start["started_at"]) <= datetime.fromisoformat(end["ended_at"])
    # The end has all that the beginning could not have, which was stored before the report.
    asked = ("provider", "provider_name", "model", "upstream_model", "source", "initiator_id", "client")
    assert [end[name] for name in asked] == [start[name] for name in asked]
    assert (start["metadata"], end["metadata"]) == (
        {"request_user_agent": ""},
        {"request_user_agent": "codex_cli_rs/1.0"},
    )
    assert (start["thread_root_id"], end["thread_root_id"], end["thread_parent_id"]) == ("", interception_id, "")
    tokens = by_kind["token_usage"]
    assert (tokens["provider"], tokens["provider_name"], tokens["model"]) == ("openai", "corp", "gpt-5")
    assert (tokens["input_tokens"], tokens["cache_read_input_tokens"], tokens["msg_id"]) == (10, 30, "resp_1")
    tool = by_kind["tool_usage"]
    assert (tool["tool"], tool["input"], tool["server_url"], tool["injected"]) == ("shell", "{}", "", False)
    assert by_kind["prompt_usage"]["prompt"] == "list the files"
    assert by_kind["model_thought"]["source"] == "reasoning_summary"
    assert [by_kind[one]["partial"] for one in ("token_usage", "tool_usage", "model_thought")] == [False, True, False]
    assert {line["level"] for line in lines} == {"info"}


async def test_records_do_not_make_kept_answers_count_no_more(tmp_path):
    metrics = Metrics("test")
    async with running(tmp_path, metrics=metrics) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        call = one.credentials.ResolveProviderStream(metadata=bearer(one.bridge_token))
        for _ in range(3):
            item = credentials.ResolveProviderRequest(
                provider="corp", access_token=token, interception_id=str(uuid4()), operation="openai.responses"
            )
            await call.write(credentials.ResolveProviderStreamRequest(items=[item]))
            [result] = (await call.read()).results
            assert await Bridge(one).report(whole(result.response.receipt)) == {}
        call.cancel()
        labels = {"outcome": "miss"}
        assert metrics.registry.get_sample_value("credentiald_answer_cache_total", labels) == 1
        labels = {"kind": "interception", "provider": "corp"}
        stored = metrics.registry.get_sample_value("credentiald_records_stored_total", labels)
        assert stored == 3


async def test_while_the_records_cannot_be_written_questions_are_answered_and_reports_are_told_to_come_again(
    tmp_path, impatient
):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        bridge = Bridge(one)
        with closing(sqlite3.connect(tmp_path / "credentiald.records.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            interception_id, receipt = await bridge.resolve(token)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await bridge.report(whole(receipt))
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            assert reason_of(refused.value) == "STORE_UNAVAILABLE"
            second, _ = await bridge.resolve(token)
            other.execute("ROLLBACK")
        assert await bridge.report(whole(receipt)) == {}
        await one.book.flush()
        assert {row.id for row in await interceptions(one)} == {interception_id, second}


async def test_a_report_that_cannot_be_stored_is_not_acknowledged_and_no_trouble_of_its_neighbours(tmp_path, caplog):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        bridges = [Bridge(one), Bridge(one)]
        ids = [await bridge.resolve(token) for bridge in bridges]
        with closing(sqlite3.connect(tmp_path / "credentiald.records.db")) as other:
            other.execute(
                "CREATE TRIGGER no BEFORE INSERT ON prompts WHEN NEW.text = 'poison'"
                " BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        poison = whole(ids[0][1], prompts=[record_pb2.Prompt(id=str(uuid4()), text="poison")])
        bad, good = await asyncio.gather(
            bridges[0].report(poison), bridges[1].report(whole(ids[1][1])), return_exceptions=True
        )
        assert (bad, good) == ({0: "RECORD_INVALID"}, {})
        rows = {row.id: row.HasField("end_time") for row in await interceptions(one)}
        assert rows == {ids[0][0]: False, ids[1][0]: True}
        # With nobody beside it, it may be our trouble: it may come again.
        with pytest.raises(grpc.aio.AioRpcError) as alone:
            await bridges[0].report(poison)
        assert alone.value.code() is grpc.StatusCode.INTERNAL
        # In one call with others, too.
        more = [await bridges[0].resolve(token) for _ in range(5)]
        assert await bridges[0].report(poison, *(whole(receipt) for _, receipt in more)) == {0: "RECORD_INVALID"}
        assert {row.id: row.HasField("end_time") for row in await interceptions(one)}[more[4][0]]
    assert "a record cannot be stored" in caplog.text


async def test_where_nothing_can_be_stored_nothing_is_rejected_for_good(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        bridge = Bridge(one)
        asked = [await bridge.resolve(token) for _ in range(40)]
        with closing(sqlite3.connect(tmp_path / "credentiald.records.db")) as other:
            other.execute("CREATE TRIGGER no BEFORE INSERT ON interceptions BEGIN SELECT RAISE(ABORT, 'no'); END")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await bridge.report(*(whole(receipt) for _, receipt in asked))
            # Not STORE_UNAVAILABLE, with which the bridge would bring them together again.
            assert refused.value.code() is grpc.StatusCode.INTERNAL
            other.execute("DROP TRIGGER no")
        assert await bridge.report(*(whole(receipt) for _, receipt in asked)) == {}
        assert len(await interceptions(one)) == 40


async def test_records_that_cannot_be_logged_are_stored_and_acknowledged_all_the_same(tmp_path, monkeypatch, caplog):
    def fails(_: object) -> None:
        raise RuntimeError("no log")

    monkeypatch.setattr("credentiald.record_log.write", fails)
    async with running(tmp_path, writes_log=True) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        bridge = Bridge(one)
        interception_id, receipt = await bridge.resolve(token)
        assert await bridge.report(whole(receipt)) == {}
        assert [row.id for row in await interceptions(one)] == [interception_id]
    assert [each.msg for each in caplog.records if each.levelname == "ERROR"] == [
        "records are stored but could not be logged"
    ]


async def test_what_waits_at_the_stop_is_on_the_disk_afterwards(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        bridge = Bridge(one)
        opened, _ = await bridge.resolve(token)
        ended, receipt = await bridge.resolve(token)
        request = pb.AppendRecordsRequest(bridge_instance_id=INSTANCE, interceptions=[whole(receipt)])
        call = one.records.AppendRecords(request, metadata=bridge.metadata)
        async with asyncio.timeout(SECONDS):
            while not one.book._reports.some_wait:
                await asyncio.sleep(0)
        call.cancel()
    with pytest.raises(StoreUnavailable):
        await one.book.append([])
    async with running(tmp_path) as one:
        rows = {row.id: row.outcome for row in await interceptions(one)}
        assert rows == {opened: 0, ended: COMPLETED}


async def test_reports_wait_for_others_until_there_are_enough(tmp_path, monkeypatch):
    monkeypatch.setattr("credentiald.waiting_reports.REPORT_SECONDS", 3600.0)
    monkeypatch.setattr("credentiald.waiting_reports.ENOUGH_REPORTS", 3)
    async with running(tmp_path) as one:
        few = asyncio.ensure_future(one.book.append([a_report(1), a_report(2)]))
        await one.book.write_heard()
        assert not few.done()
        async with asyncio.timeout(SECONDS):
            assert [await one.book.append([a_report(3)]), await few] == [{}, {}]
        assert len(await interceptions(one)) == 3


async def test_openings_wait_up_to_a_bound_and_are_stored_in_parts_when_the_store_is_back(
    tmp_path, monkeypatch, impatient
):
    monkeypatch.setattr("credentiald.waiting_openings.MOST_OPENINGS", 50)
    monkeypatch.setattr("credentiald.waiting_openings.OPENINGS_AT_ONCE", 20)
    metrics = Metrics("test")
    async with running(tmp_path, metrics=metrics) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        bridge = Bridge(one)
        with closing(sqlite3.connect(tmp_path / "credentiald.records.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            ids = [(await bridge.resolve(token))[0] for _ in range(60)]
            await one.book.flush()
            other.execute("ROLLBACK")
        await one.book.flush()
        answer = await one.usage.ListInterceptions(
            usage.ListInterceptionsRequest(page_size=100), metadata=bearer(one.admin_token)
        )
        assert {row.id for row in answer.interceptions} == set(ids[10:])
        assert metrics.registry.get_sample_value("credentiald_openings_dropped_total") == 10
        batches = metrics.registry.get_sample_value("credentiald_records_commit_duration_seconds_count")
        assert batches >= 3


async def test_reports_that_would_fill_the_memory_are_told_to_come_again(tmp_path, monkeypatch):
    monkeypatch.setattr("credentiald.waiting_reports.MOST_REPORT_BYTES", 10_000)
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        bridge = Bridge(one)
        _, receipt = await bridge.resolve(token)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await bridge.report(whole(receipt, prompts=[record_pb2.Prompt(id=str(uuid4()), text="x" * 10_000)]))
        assert reason_of(refused.value) == "STORE_UNAVAILABLE"
        assert await bridge.report(whole(receipt)) == {}
        assert await bridge.report(whole(receipt)) == {}


async def test_a_round_that_fails_is_not_the_last(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("credentiald.record_rounds._PRESUMED_ROUND_SECONDS", 0.01)
    rounds = []

    async def fails(_: Rounds) -> int:
        rounds.append(1)
        raise RuntimeError("a bug")

    monkeypatch.setattr(Rounds, "end_presumed", fails)
    async with running(tmp_path), asyncio.timeout(SECONDS):
        while len(rounds) < 3:
            await asyncio.sleep(0.01)
    assert "a round failed" in caplog.text


async def test_time_in_which_the_machine_slept_is_no_silence_of_a_bridge(tmp_path, monkeypatch):
    monkeypatch.setattr("credentiald.record_rounds._PRESUMED_ROUND_SECONDS", 0.01)
    away, clock = [], Clock()
    monkeypatch.setattr(Rounds, "was_away", lambda _: away.append(1))
    async with running(tmp_path, clock=clock), asyncio.timeout(SECONDS):
        await asyncio.sleep(0.05)
        assert not away
        clock.now += timedelta(seconds=20)
        while not away:
            await asyncio.sleep(0.01)


async def test_a_bridge_that_is_not_heard_of_any_more_leaves_nothing_open_and_one_that_pings_keeps_its_own(tmp_path):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        gone, alive = Bridge(one), Bridge(one, instance="22222222-2222-4333-8444-555555555555")
        left_open, receipt = await gone.resolve(token)
        kept_open, _ = await alive.resolve(token)
        await one.book.flush()
        metrics = Metrics("test")
        rounds = Rounds(one.stored, one.book, metrics, clock, retention=timedelta())
        clock.now += timedelta(seconds=59)
        assert await rounds.end_vanished() == 0
        ping = credentials.PingRequest(bridge_instance_id=alive.instance)
        await one.credentials.Ping(ping, metadata=alive.metadata)
        await one.book.flush()
        clock.now += timedelta(seconds=2)
        assert await rounds.end_vanished() == 1
        assert await rounds.end_vanished() == 0
        rows = {row.id: row for row in await interceptions(one)}
        assert rows[left_open].outcome == record_pb2.INTERCEPTION_OUTCOME_BRIDGE_VANISHED
        assert not rows[kept_open].HasField("end_time")
        # It was only cut off.
        assert await gone.report(whole(receipt)) == {}
        assert (await detail(one, left_open)).interception.outcome == COMPLETED


async def test_silence_while_credentiald_was_away_is_nobodys_end(tmp_path):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        await Bridge(one).resolve(token)
    clock.now += timedelta(hours=3)
    async with running(tmp_path, clock=clock) as one:
        rounds = Rounds(one.stored, one.book, Metrics("test"), clock, retention=timedelta())
        assert await rounds.end_vanished() == 0
        clock.now += timedelta(seconds=61)
        assert await rounds.end_vanished() == 1


async def test_retention_removes_what_is_older_and_none_is_for_ever(tmp_path, caplog):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        bridge = Bridge(one)
        for _ in range(250):
            _, receipt = await bridge.resolve(token)
            await bridge.report(whole(receipt))
        clock.now += timedelta(days=60, seconds=1)
        young, receipt = await bridge.resolve(token)
        await bridge.report(whole(receipt))
        metrics = Metrics("test")
        assert await Rounds(one.stored, one.book, metrics, clock, retention=timedelta()).purge() == 0
        assert await Rounds(one.stored, one.book, metrics, clock, retention=timedelta(days=60)).purge() == 250
        assert [row.id for row in await interceptions(one)] == [young]
        assert metrics.registry.get_sample_value("credentiald_interceptions_purged_total") == 250
    assert [record.interceptions for record in caplog.records if record.msg == "removed old records"] == [250]


async def test_short_requests_are_written_once_whole_within_a_second(tmp_path, caplog):
    async with running(tmp_path, writes_log=True) as one:
        _, token = await one.make_user("ann")
        await with_provider(one)
        bridge = Bridge(one)
        interception_id, receipt = await bridge.resolve(token)
        async with asyncio.timeout(1.0):
            await bridge.report(whole(receipt))
        other, _ = await bridge.resolve(token)
        async with asyncio.timeout(SECONDS):
            while len(await interceptions(one)) < 2:
                await asyncio.sleep(0.02)
        starts = [each for each in caplog.records if getattr(each, "record_type", "") == "interception_start"]
        assert [each.interception_id for each in starts] == [interception_id, other]
        assert starts[0].session_id == "s-1"
        assert logging.getLogger("credentiald.records").level == logging.NOTSET
