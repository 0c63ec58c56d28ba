"""Reports while credentiald is away or does not want them, and what happens to those that nobody takes."""

import asyncio
import json
import logging
from typing import Any

import grpc
import pytest
from drawbridge.v1 import record_service_pb2 as record_pb

from bridged import recorder
from bridged.metrics import Metrics
from bridged.model import Refused
from bridged.report_messages import NO_PROMPT, new_row
from bridged.waiting_reports import MAX_BATCH_ITEMS
from tests.fakes.credentiald import FakeCredentiald, Refuse, provider, running_credentiald
from tests.fakes.scripted_upstream import STALL, ScriptedUpstream, reply, stream
from tests.support.bridge import AUTH, RunningBridge, running_bridge, until
from tests.support.bridge_reports import CHAT_ANSWER, CHUNKS, DONE, USAGE, ask, chat, outcome, reported, sample
from tests.support.raw_http import raw_client, raw_exchange, request

AWAY = Refuse(code=grpc.StatusCode.UNAVAILABLE, reason="STORE_UNAVAILABLE")


async def test_reports_are_sent_again_until_they_are_stored(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.default = reply(200, CHAT_ANSWER)
    credentiald.report_refuse = AWAY
    async with running_bridge(credentiald) as bridge:
        for _ in range(3):
            await raw_exchange(bridge.port, ask(chat()))
        await until(lambda: credentiald.reports >= 2)
        registry = bridge.metrics.registry
        await until(lambda: sample(registry, "bridged_records_waiting") == 3)
        assert sample(registry, "bridged_records_waiting_bytes") > 3 * 100
        assert sample(registry, "bridged_record_reports_failed_total") >= 1
        credentiald.report_refuse = None
        reports = await reported(credentiald, 3)
        assert sample(registry, "bridged_records_lost_total", reason="rejected") == 0
    assert len({one.token_usages[0].id for one in reports}) == 3


async def test_reports_outlive_a_credentiald_that_restarts(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    gate = asyncio.Event()
    upstream.script(stream(CHUNKS[0], gate, CHUNKS[1], USAGE, DONE))
    async with running_bridge(credentiald) as bridge, raw_client(bridge.port) as client:
        await client.send(ask(chat(stream=True)))
        await client.read_head()
        await credentiald.stop()
        gate.set()
        await until(lambda: bridge.bridge.under_way == 0)
        await credentiald.start()
        (report,) = await reported(credentiald)
    assert outcome(report) == ("COMPLETED", "UNSPECIFIED", "", 200)


async def test_a_credentiald_that_returns_is_told_what_is_under_way(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    gate = asyncio.Event()
    upstream.script(stream(CHUNKS[0], gate, CHUNKS[1], USAGE, DONE))
    async with running_bridge(credentiald) as bridge, raw_client(bridge.port) as client:
        await client.send(ask(chat(stream=True)))
        head = await client.read_head()
        await credentiald.stop()
        await credentiald.start()
        (opening,) = await reported(credentiald)
        assert (opening.facts.model, opening.facts.user_agent) == ("gpt-5", "codex_cli_rs/0.169")
        assert opening.facts.streaming
        assert {field.name for field, _ in opening.ListFields()} == {"receipt", "facts"}
        registry = bridge.metrics.registry
        await until(lambda: sample(registry, "bridged_records_waiting") == 0)
        assert sample(registry, "bridged_interceptions_reported_total") == 0
        assert bridge.bridge.reporting.oldest_id() == head.header("x-interception-id")
        gate.set()
        _, report = await reported(credentiald, 2)
        await until(lambda: sample(registry, "bridged_interceptions_reported_total") == 1)
    assert report.receipt == opening.receipt
    assert outcome(report) == ("COMPLETED", "UNSPECIFIED", "", 200)


async def test_what_waits_for_the_next_try_is_sent_when_credentiald_is_there_again(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As after a long time without credentiald, but for the time.
    monkeypatch.setattr(recorder, "_PAUSE_SECONDS", 300.0)
    monkeypatch.setattr(recorder, "_LONGEST_PAUSE_SECONDS", 300.0)
    upstream.default = reply(200, CHAT_ANSWER)
    async with running_bridge(credentiald) as bridge:
        credentiald.report_refuse = AWAY
        await raw_exchange(bridge.port, ask(chat()))
        registry = bridge.metrics.registry
        # The second try is soon, because credentiald was found when the bridge began.
        await until(lambda: sample(registry, "bridged_record_reports_failed_total") == 2)
        await credentiald.stop()
        credentiald.report_refuse = None
        monkeypatch.setattr(recorder, "_PAUSE_SECONDS", 0.1)
        await credentiald.start()
        (report,) = await reported(credentiald)
    assert outcome(report) == ("COMPLETED", "UNSPECIFIED", "", 200)


async def test_an_opening_that_is_rejected_is_no_lost_record(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    gate = asyncio.Event()
    upstream.script(stream(CHUNKS[0], gate, CHUNKS[1], DONE))
    async with running_bridge(credentiald) as bridge, raw_client(bridge.port) as client:
        await client.send(ask(chat(stream=True)))
        await client.read_head()
        await credentiald.stop()
        credentiald.reject = {"gpt-5"}
        await credentiald.start()
        registry = bridge.metrics.registry
        await until(lambda: credentiald.reports >= 1 and sample(registry, "bridged_records_waiting") == 0)
        credentiald.reject = set()
        gate.set()
        await reported(credentiald)
        await until(lambda: sample(registry, "bridged_interceptions_reported_total") == 1)
        assert sample(registry, "bridged_records_lost_total", reason="rejected") == 0


async def test_what_is_rejected_is_lost_alone_and_said(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.default = reply(200, CHAT_ANSWER)
    credentiald.reject = {"bad"}
    async with running_bridge(credentiald) as bridge:
        answers = [await raw_exchange(bridge.port, ask(chat(model=model))) for model in ("good", "bad", "fine")]
        await reported(credentiald, 2)
        registry = bridge.metrics.registry
        await until(lambda: sample(registry, "bridged_records_lost_total", reason="rejected") == 1)
        assert sample(registry, "bridged_interceptions_reported_total") == 2
    assert [one.facts.model for one in credentiald.reported] == ["good", "fine"]
    assert answers[1].header("x-interception-id") in str([vars(one) for one in caplog.records])


async def test_a_reason_that_only_a_newer_credentiald_knows_holds_up_nothing(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.default = reply(200, CHAT_ANSWER)
    credentiald.reject, credentiald.rejection = {"bad"}, 99
    async with running_bridge(credentiald) as bridge:
        await raw_exchange(bridge.port, ask(chat(model="bad")))
        registry = bridge.metrics.registry
        await until(lambda: sample(registry, "bridged_records_lost_total", reason="rejected") == 1)
        await raw_exchange(bridge.port, ask(chat(model="after")))
        await reported(credentiald)
    assert [vars(one)["why"] for one in caplog.records if "why" in vars(one)] == ["99"]


async def test_a_rejection_of_what_was_not_reported_stops_no_reports(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.default = reply(200, CHAT_ANSWER)
    credentiald.odd_rejections = [record_pb.RejectedRecords(index=7)]
    async with running_bridge(credentiald) as bridge:
        for count in (1, 2):
            await raw_exchange(bridge.port, ask(chat()))
            await reported(credentiald, count)
        registry = bridge.metrics.registry
        await until(lambda: sample(registry, "bridged_interceptions_reported_total") == 2)
        assert sample(registry, "bridged_records_lost_total", reason="rejected") == 0


async def test_a_batch_that_is_refused_for_good_is_taken_apart(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.default = reply(200, CHAT_ANSWER)
    credentiald.report_refuse = Refuse(code=grpc.StatusCode.INVALID_ARGUMENT, reason="INVALID_ARGUMENT")
    async with running_bridge(credentiald) as bridge:
        for _ in range(4):
            await raw_exchange(bridge.port, ask(chat()))
        registry = bridge.metrics.registry
        await until(lambda: sample(registry, "bridged_records_lost_total", reason="refused") == 4)
        credentiald.report_refuse = None
        await raw_exchange(bridge.port, ask(chat(model="after")))
        (report,) = await reported(credentiald)
    assert report.facts.model == "after"


async def test_the_queue_has_a_bound_and_what_is_over_it_is_counted(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.default = reply(200, CHAT_ANSWER)
    credentiald.report_refuse = AWAY
    async with running_bridge(credentiald, record_queue_bytes=1500) as bridge:
        answers = [await raw_exchange(bridge.port, ask(chat())) for _ in range(6)]
        registry = bridge.metrics.registry

        def counts() -> tuple[float, float]:
            lost = sample(registry, "bridged_records_lost_total", reason="queue_full")
            return lost, sample(registry, "bridged_records_waiting")

        await until(lambda: sum(counts()) == 6)
        lost, waiting = counts()
        assert (lost > 0, waiting > 0) == (True, True)
        assert sample(registry, "bridged_records_waiting_bytes") <= 1500
        credentiald.report_refuse = None
        await reported(credentiald, int(waiting))
    assert {one.status for one in answers} == {200}


async def test_a_bridge_that_must_record_refuses_while_it_cannot(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "OVERDUE_SECONDS", 0.3)
    upstream.default = reply(200, CHAT_ANSWER)
    credentiald.report_refuse = AWAY
    async with running_bridge(credentiald, needs_records=True) as bridge:
        assert (await raw_exchange(bridge.port, ask(chat()))).status == 200
        refused = await _until_status(bridge, 503)
        assert refused.header("x-drawbridge-error") == "RECORDS_UNAVAILABLE"
        assert refused.header("retry-after") == "5"
        # What is not recorded goes on.
        models = await raw_exchange(bridge.port, request("GET", "/openai/v1/models", headers=[AUTH]))
        assert models.status == 200
        credentiald.report_refuse = None
        assert (await _until_status(bridge, 200)).status == 200


async def test_the_log_says_once_that_records_are_not_stored_and_once_that_they_are_again(
    credentiald: FakeCredentiald,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(recorder, "OVERDUE_SECONDS", 0.3)
    caplog.set_level("INFO", logger=recorder.log.name)

    def said() -> list[tuple[str, str | None]]:
        return [
            (one.levelname, getattr(one, "reason", None)) for one in caplog.records if one.name == recorder.log.name
        ]

    upstream.default = reply(200, CHAT_ANSWER)
    credentiald.report_refuse = AWAY
    async with running_bridge(credentiald) as bridge:
        await raw_exchange(bridge.port, ask(chat()))
        await until(lambda: len(said()) == 1)
        failed = credentiald.reports
        await until(lambda: credentiald.reports > failed + 1)
        credentiald.report_refuse = None
        await reported(credentiald)
        await until(lambda: len(said()) == 2)
    assert said() == [("WARNING", AWAY.reason), ("INFO", None)]


async def _until_status(bridge: RunningBridge, status: int) -> Any:
    async with asyncio.timeout(10):
        while (answer := await raw_exchange(bridge.port, ask(chat()))).status != status:
            await asyncio.sleep(0.02)
    return answer


async def test_what_is_left_at_the_end_is_lost_and_said(
    credentiald: FakeCredentiald,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(recorder, "LAST_SECONDS", 0.2)
    caplog.set_level(logging.ERROR)
    upstream.default = reply(200, CHAT_ANSWER)
    credentiald.report_refuse = AWAY
    async with running_bridge(credentiald) as bridge:
        await raw_exchange(bridge.port, ask(chat()))
    assert sample(bridge.metrics.registry, "bridged_records_lost_total", reason="stopped") == 1
    assert "records of interceptions are lost" in caplog.text


async def test_reports_that_are_large_go_in_several_batches(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.default = reply(200, CHAT_ANSWER)
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 900_000}]}).encode()
    async with running_bridge(credentiald, record_queue_bytes=64_000_000) as bridge:
        credentiald.report_refuse = AWAY
        for _ in range(6):
            await raw_exchange(bridge.port, ask(body))
        credentiald.report_refuse = None
        reports = await reported(credentiald, 6)
    assert {len(one.prompts[0].text) for one in reports} == {900_000}


async def test_reports_go_to_whichever_credentiald_answers(upstream: ScriptedUpstream) -> None:
    async with running_credentiald() as credentiald:
        credentiald.providers["openai"] = provider("openai", upstream.url + "/v1/", api_key="sk-x")
        credentiald.has_stream = False
        await credentiald.stop()
        await credentiald.start()
        upstream.default = reply(200, CHAT_ANSWER)
        async with running_bridge(credentiald) as bridge:
            await raw_exchange(bridge.port, ask(chat()))
            (report,) = await reported(credentiald)
    assert outcome(report) == ("COMPLETED", "UNSPECIFIED", "", 200)


# -- the mark below which nothing is under way ------------------------------------------------------------------------


async def test_the_oldest_id_is_that_of_what_is_under_way_or_waits(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    credentiald.report_refuse = AWAY
    upstream.script(reply(200, CHAT_ANSWER), stream(CHUNKS[0], STALL))
    async with running_bridge(credentiald) as bridge:
        before = bridge.bridge.reporting.oldest_id()
        answer = await raw_exchange(bridge.port, ask(chat()))
        reported_id = answer.header("x-interception-id")
        assert before <= reported_id == bridge.bridge.reporting.oldest_id()
        credentiald.report_refuse = None
        await reported(credentiald)
        await until(lambda: bridge.bridge.reporting.oldest_id() > reported_id)
        async with raw_client(bridge.port) as client:
            await client.send(ask(chat(stream=True)))
            head = await client.read_head()
            under_way = head.header("x-interception-id")
            assert bridge.bridge.reporting.oldest_id() == under_way
            # credentiald is told with each ping, so that it ends what it has opened and nobody will report.
            await until(
                lambda: credentiald.last_ping is not None and credentiald.last_ping.oldest_interception_id == under_way
            )
            assert credentiald.last_ping is not None
            assert credentiald.last_ping.bridge_instance_id == credentiald.resolves[0].bridge_instance_id


# -- the recorder alone ----------------------------------------------------------------------------------------------


async def test_a_way_that_raises_is_a_way_that_failed() -> None:

    metrics, sent = Metrics(), list[list[bytes]]()

    async def send(items: Any) -> Any:
        sent.append(list(items))
        if len(sent) == 1:
            raise RuntimeError("a bug")
        return Refused("STORE_UNAVAILABLE", "away") if len(sent) == 2 else []

    async with recorder.running_recorder(send, metrics, bound_bytes=100) as running:
        running.add([("id-1", b"one")])
        await until(lambda: len(sent) >= 2)
        running.add([("id-2", b"two")])
    assert sent[:2] == [[b"one"], [b"one"]]
    assert sent[-1][-1] == b"two"
    assert sample(metrics.registry, "bridged_interceptions_reported_total") == 2


async def test_a_full_batch_that_nobody_takes_holds_up_nothing_else() -> None:
    metrics, tries = Metrics(), 0

    async def send(items: Any) -> Any:
        nonlocal tries
        tries += 1
        # Without waiting for anything, as where no credentiald has a connection.
        return Refused("CREDENTIALD_UNREACHABLE", "away") if tries < 5 else []

    async with recorder.running_recorder(send, metrics, bound_bytes=1_000_000) as running:
        for number in range(MAX_BATCH_ITEMS + 1):
            running.add([(f"id-{number}", b"one")])
        began, turns = asyncio.get_running_loop().time(), 0
        while tries < 5:
            await asyncio.sleep(0)
            turns += 1
        took_seconds = asyncio.get_running_loop().time() - began
    # Each of the four pauses is at least half as long as the shortest.
    assert took_seconds > 0.05 * 4
    assert turns > 10
    assert sample(metrics.registry, "bridged_records_lost_total", reason="stopped") == 0


async def test_of_reports_that_come_together_only_those_are_lost_that_find_no_room() -> None:
    metrics, sent = Metrics(), list[bytes]()

    async def send(items: Any) -> Any:
        sent.extend(items)
        return []

    async with recorder.running_recorder(send, metrics, bound_bytes=10) as running:
        running.add(
            [("id-1", b"one"), ("id-2", b"too long by far"), ("id-3", b"three"), ("id-4", b"four"), ("id-5", b"5")]
        )
    assert sent == [b"one", b"three", b"5"]
    assert sample(metrics.registry, "bridged_records_lost_total", reason="queue_full") == 2


@pytest.mark.parametrize(("place", "rejected_id"), [(0, "id-item"), (1, "id-row"), (2, "id-row-too")])
async def test_places_in_an_answer_count_rows_behind_items(
    caplog: pytest.LogCaptureFixture, place: int, rejected_id: str
) -> None:
    facts = ("client", "", "", "", "openai.chat_completions", "m", "m", False)
    row = new_row(facts, (b"receipt", 1, 200, 1, 1, "", "", 1, 1, 0, 0, "", *NO_PROMPT))

    async def send(_: Any) -> Any:
        return [(place, "for a reason")]

    async with recorder.running_recorder(send, Metrics(), bound_bytes=10_000) as running:
        running.add([("id-row", row), ("id-item", b"one"), ("id-row-too", row)])
    told = [vars(one).get("interception_ids") for one in caplog.records if one.message.startswith("records of")]
    assert told == [[rejected_id]]
