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
from drawbridge.v1 import credential_service_pb2 as credentials
from drawbridge.v1 import record_pb2
from drawbridge.v1 import record_service_pb2 as pb
from drawbridge.v1 import usage_service_pb2 as usage
from google.protobuf.timestamp_pb2 import Timestamp

from credentiald import receipts
from credentiald.metrics import Metrics
from credentiald.record_rounds import Rounds
from credentiald.record_rules import KeepRule, KeepRules
from daemonkit.logs import json_line
from tests.support.credentiald import Running, bearer, reason_of, running
from tests.support.reports import COMPLETED, INSTANCE, Bridge, whole

SECONDS = 5


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
        one.book._openings.clear()
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
        no_time = whole(receipt, end=pb.InterceptionEnd(outcome=COMPLETED, end_time=Timestamp(seconds=1 << 60)))
        rejected = await bridge.report(
            whole(bytes(forged)), whole(b""), whole(of_another), no_id, no_outcome, presumed, negative, no_time,
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
        assert len(found.thread[0].prompts) == 1


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


async def test_pages_of_any_filter_have_each_row_once_from_the_newest_to_the_oldest(tmp_path, monkeypatch):
    monkeypatch.setattr("credentiald.store.record_queries.SCANNED_ROWS", 7)
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
                assert len(getattr(answer, field)) <= page_size
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
    tokens = by_kind["token_usage"]
    assert (tokens["input_tokens"], tokens["cache_read_input_tokens"], tokens["msg_id"]) == (10, 30, "resp_1")
    tool = by_kind["tool_usage"]
    assert (tool["tool"], tool["input"], tool["server_url"], tool["injected"]) == ("shell", "{}", "", False)
    assert by_kind["prompt_usage"]["prompt"] == "list the files"
    assert by_kind["model_thought"]["source"] == "reasoning_summary"
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


async def test_while_the_records_cannot_be_written_questions_are_answered_and_reports_are_told_to_come_again(tmp_path):
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
        assert isinstance(bad, grpc.aio.AioRpcError)
        assert reason_of(bad) == "STORE_UNAVAILABLE"
        assert good == {}
        rows = {row.id: row.HasField("end_time") for row in await interceptions(one)}
        assert rows == {ids[0][0]: False, ids[1][0]: True}
    assert "reports could not be stored" in caplog.text


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


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
        await one.book.flush()
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
