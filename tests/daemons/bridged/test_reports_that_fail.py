"""Reports that bring out a bug, here or at credentiald: they are lost alone, counted and named."""

import asyncio
from collections.abc import Sequence

import grpc
import pytest

from bridged import losses, recorder
from bridged.metrics import Metrics
from bridged.model import Refused
from bridged.report_messages import NO_PROMPT, Row, new_row
from bridged.resolver_unary import append
from bridged.waiting_reports import MAX_BATCH_ITEMS, TRIES_OF_A_SUSPECT
from tests.fakes.credentiald import FakeCredentiald, Refuse
from tests.fakes.scripted_upstream import ScriptedUpstream, reply
from tests.support.bridge import running_bridge, until
from tests.support.bridge_reports import CHAT_ANSWER, ask, chat, reported, sample
from tests.support.raw_http import raw_exchange

# Others that it takes to give up a report that fails.
ENOUGH = TRIES_OF_A_SUSPECT + 1
FACTS = ("client", "", "", "", "openai.chat_completions", "m", "m", False)
LOST = "records of interceptions are lost"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once, and the end does not wait for long."""
    monkeypatch.setattr(recorder, "GATHER_SECONDS", 0.001)
    monkeypatch.setattr(recorder, "_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(recorder, "_LONGEST_PAUSE_SECONDS", 0.002)
    monkeypatch.setattr(recorder, "LAST_SECONDS", 2.0)


class Peer:
    """Stores what comes, but for what it `fails` at, and what begins with `rejected`."""

    def __init__(self, *fails: bytes) -> None:
        self.fails = set(fails)
        self.is_failing = False
        self.tries = 0
        self.batches: list[set[bytes]] = []
        self.stored: list[bytes] = []

    async def send(self, parts: Sequence[bytes]) -> Sequence[tuple[int, str]] | Refused:
        self.tries += 1
        self.batches.append(set(parts))
        # As a socket would.
        await asyncio.sleep(0)
        if self.is_failing or self.fails.intersection(parts):
            return Refused("INTERNAL", "failed")
        rejected = [(place, "RECEIPT_INVALID") for place, one in enumerate(parts) if one.startswith(b"rejected")]
        self.stored += [one for one in parts if not one.startswith(b"rejected")]
        return rejected


async def give_others(running: recorder.Recorder, peer: Peer, name: str = "other") -> None:
    """As many as it takes to give up a report that fails while each of these goes well by itself."""
    for number in range(ENOUGH):
        report = f"{name}-{number}".encode()
        running.add([(f"{name}-{number}", report)])
        await until(lambda report=report: report in peer.stored)  # type: ignore[misc]


def named(caplog: pytest.LogCaptureFixture) -> list[tuple[str, list[str]]]:
    """Why and of which interceptions records are lost, line by line."""
    told = [vars(one) for one in caplog.records if one.message == LOST]
    assert all(one["interceptions"] == len(one["interception_ids"]) for one in told)
    return [(one["reason"], one["interception_ids"]) for one in told]


async def test_a_report_that_cannot_be_put_into_a_message_is_lost_alone(caplog: pytest.LogCaptureFixture) -> None:
    entries = (b"receipt", 1, 200, 1, 1, "", "", 1, 1, 0, 0, "", *NO_PROMPT)
    good = new_row(FACTS, entries)
    # No count that a message takes.
    bad = Row(good.size_bytes, good.known, (*entries[:1], 1 << 70, *entries[2:]))
    metrics, peer = Metrics(), Peer()
    async with recorder.running_recorder(peer.send, metrics, bound_bytes=100_000) as running:
        running.add([(f"id-{number}", bad if number == 5 else good) for number in range(20)])
    assert sample(metrics.registry, "bridged_interceptions_reported_total") == 19
    assert sample(metrics.registry, "bridged_records_lost_total", reason="unreadable") == 1
    assert named(caplog) == [("unreadable", ["id-5"])]
    assert "a report could not be made" in caplog.text


async def test_a_report_at_which_the_peer_fails_is_lost_alone(caplog: pytest.LogCaptureFixture) -> None:
    metrics, peer = Metrics(), Peer(b"poison")
    async with recorder.running_recorder(peer.send, metrics, bound_bytes=100_000) as running:
        running.add([(f"id-{number}", b"poison" if number == 5 else b"good-%d" % number) for number in range(20)])
        await give_others(running, peer)
        await until(lambda: running.oldest_id() is None)
    assert len({one for one in peer.stored if one.startswith(b"good")}) == 19
    assert named(caplog) == [("refused", ["id-5"])]
    assert sample(metrics.registry, "bridged_records_lost_total", reason="refused") == 1


async def test_a_peer_that_fails_at_everything_for_a_while_costs_nothing() -> None:
    metrics, peer = Metrics(), Peer()
    peer.is_failing = True
    async with recorder.running_recorder(peer.send, metrics, bound_bytes=100_000) as running:
        running.add([(f"id-{number}", b"%d" % number) for number in range(10)])
        await until(lambda: peer.tries > 100)
        assert sample(metrics.registry, "bridged_records_waiting") == 10
        peer.is_failing = False
    assert sorted(peer.stored) == [b"%d" % number for number in range(10)]
    assert [sample(metrics.registry, "bridged_records_lost_total", reason=one) for one in losses.REASONS] == [0] * 5


async def test_one_that_fails_and_waits_alone_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "OVERDUE_SECONDS", 0.0)
    peer = Peer(b"poison")
    async with recorder.running_recorder(peer.send, Metrics(), bound_bytes=100_000) as running:
        running.add([("id-1", b"poison")])
        keeping = [running.is_keeping]
        await until(lambda: peer.tries > 10)
        assert [*keeping, running.is_keeping] == [False, True]
        assert running.oldest_id() == "id-1"
        await give_others(running, peer)
        await until(lambda: running.oldest_id() is None)
    assert len(set(peer.stored)) == ENOUGH


async def test_what_is_sent_again_to_see_whether_it_still_goes_well_counts_once() -> None:
    metrics, peer = Metrics(), Peer(b"poison")
    async with recorder.running_recorder(peer.send, metrics, bound_bytes=100_000) as running:
        running.add([("id-1", b"poison")])
        await give_others(running, peer)
        await until(lambda: running.oldest_id() is None)
    assert len(peer.stored) > len(set(peer.stored)) == ENOUGH
    assert sample(metrics.registry, "bridged_interceptions_reported_total") == ENOUGH
    assert sample(metrics.registry, "bridged_records_waiting_bytes") == 0


async def test_that_others_are_rejected_is_no_sign_that_the_peer_stores_anything(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "LAST_SECONDS", 0.01)
    metrics, peer = Metrics(), Peer(b"good")
    async with recorder.running_recorder(peer.send, metrics, bound_bytes=100_000) as running:
        running.add([("id-0", b"good")])
        for number in range(2 * ENOUGH):
            running.add([(f"id-{number}", b"rejected")])
            await until(lambda number=number: rejections(metrics) > number)  # type: ignore[misc]
    assert peer.stored == []
    assert [one for one in named(caplog) if one[0] != "rejected"] == [("stopped", ["id-0"])]


async def test_what_is_rejected_when_it_is_sent_again_is_no_sign_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "LAST_SECONDS", 0.01)

    async def send(parts: Sequence[bytes]) -> Sequence[tuple[int, str]] | Refused:
        if set(parts) <= set(peer.stored):
            return [(0, "RECEIPT_INVALID")]
        return await peer.send(parts)

    metrics, peer = Metrics(), Peer(b"poison")
    async with recorder.running_recorder(send, metrics, bound_bytes=100_000) as running:
        running.add([("id-1", b"poison")])
        await give_others(running, peer)
        await give_others(running, peer, "more")
        assert running.oldest_id() == "id-1"
    assert rejections(metrics) == 0


async def test_what_is_sent_again_is_none_of_those_that_were_rejected() -> None:
    metrics, peer = Metrics(), Peer(b"poison")
    async with recorder.running_recorder(peer.send, metrics, bound_bytes=100_000) as running:
        running.add([("id-1", b"poison")])
        for number in range(ENOUGH):
            running.add([(f"good-{number}", b"good-%d" % number), (f"bad-{number}", b"rejected")])
            await until(lambda number=number: rejections(metrics) > number)  # type: ignore[misc]
        await until(lambda: running.oldest_id() is None)
    assert rejections(metrics) == ENOUGH


def rejections(metrics: Metrics) -> float:
    return sample(metrics.registry, "bridged_records_lost_total", reason="rejected")


async def test_suspects_that_fill_the_queue_refuse_nobody_for_ever() -> None:
    peer = Peer(*(b"poison-%d" % number + bytes(80) for number in range(10)))
    async with recorder.running_recorder(peer.send, Metrics(), bound_bytes=970) as running:
        running.add([(f"id-{number}", report) for number, report in enumerate(sorted(peer.fails))])
        keeping = [running.is_keeping]
        await until(lambda: running.is_keeping)
        await give_others(running, peer)
        await until(lambda: running.oldest_id() is None)
    assert keeping == [False]


async def test_at_the_end_all_others_are_brought_before_a_suspect_is_tried() -> None:
    peer = Peer(b"poison")
    async with recorder.running_recorder(peer.send, Metrics(), bound_bytes=100_000) as running:
        running.add([("id-1", b"poison")])
        await until(lambda: peer.tries > 10)
        running.add([(f"id-{number}", b"%d" % number) for number in range(3 * MAX_BATCH_ITEMS)])
    first, *_, last = (place for place, batch in enumerate(peer.batches) if batch != {b"poison"})
    assert {b"poison"} not in peer.batches[first:last]
    assert len(peer.stored) == 3 * MAX_BATCH_ITEMS


async def test_one_that_finds_no_room_beside_suspects_alone_goes_in_all_the_same() -> None:
    metrics = Metrics()
    peer = Peer(*(b"poison-%d" % number + bytes(92) for number in range(10)))
    async with recorder.running_recorder(peer.send, metrics, bound_bytes=1000) as running:
        running.add([(f"id-{number}", report) for number, report in enumerate(sorted(peer.fails))])
        await until(lambda: running.is_keeping)
        await give_others(running, peer)
        await until(lambda: running.oldest_id() is None)
    assert sample(metrics.registry, "bridged_records_lost_total", reason="queue_full") == 0


async def test_others_do_not_wait_for_the_next_try_of_one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "LAST_SECONDS", 0.01)
    peer = Peer(b"poison")
    async with recorder.running_recorder(peer.send, Metrics(), bound_bytes=100_000) as running:
        running.add([("id-1", b"poison")])
        await until(lambda: peer.tries > 10)
        # Longer than the test.
        monkeypatch.setattr(recorder, "_PAUSE_SECONDS", 1000.0)
        monkeypatch.setattr(recorder, "_LONGEST_PAUSE_SECONDS", 1000.0)
        running.add([("id-2", b"good")])
        await until(lambda: set(peer.stored) == {b"good"})
        tries = peer.tries
        running.add([("id-3", b"also good")])
        await until(lambda: set(peer.stored) == {b"good", b"also good"})
        assert peer.tries > tries


async def test_a_connection_that_is_closed_under_a_report_ends_the_try_and_not_the_recorder() -> None:
    closed: list[Sequence[bytes]] = []

    async def send(parts: Sequence[bytes]) -> Sequence[tuple[int, str]] | Refused:
        if not closed:
            closed.append(parts)
            # As gRPC's calls do.
            raise asyncio.CancelledError
        return await peer.send(parts)

    peer, metrics = Peer(), Metrics()
    async with recorder.running_recorder(send, metrics, bound_bytes=100_000) as running:
        running.add([("id-1", b"report")])
        await until(lambda: running.oldest_id() is None)
    assert (len(closed), peer.stored) == (1, [b"report"])
    assert [sample(metrics.registry, "bridged_records_lost_total", reason=one) for one in losses.REASONS] == [0] * 5


async def test_that_records_are_stored_again_is_said_when_one_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recorder, "OVERDUE_SECONDS", 0.0)
    monkeypatch.setattr(recorder, "LAST_SECONDS", 0.01)
    caplog.set_level("INFO")
    peer = Peer(b"poison")
    async with recorder.running_recorder(peer.send, Metrics(), bound_bytes=100_000) as running:
        running.add([("id-1", b"poison")])
        await until(lambda: peer.tries > 10)
        assert running.is_keeping
        assert said(caplog) == ["credentiald does not store records"]
        running.add([("id-2", b"good")])
        await until(lambda: len(said(caplog)) == 2)
        assert said(caplog)[1] == "credentiald stores records again"


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What operators are told of whether records are stored."""
    return [one.message.partition(":")[0] for one in caplog.records if "store" in one.message]


async def test_a_bare_internal_of_credentiald_is_about_one_report(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.default = reply(200, CHAT_ANSWER)
    credentiald.fail_at = {"bad"}
    async with running_bridge(credentiald) as bridge:
        answers = [await raw_exchange(bridge.port, ask(chat(model=model))) for model in ("good", "bad", "fine")]
        registry = bridge.metrics.registry
        for number in range(ENOUGH):
            await raw_exchange(bridge.port, ask(chat(model="good")))
            count = 3 + number
            await until(lambda count=count: sample(registry, "bridged_interceptions_reported_total") == count)  # type: ignore[misc]
        await until(lambda: sample(registry, "bridged_records_lost_total", reason="refused") == 1)
        await until(lambda: sample(registry, "bridged_records_waiting") == 0)
    assert {one.facts.model for one in credentiald.reported} == {"fine", "good"}
    assert named(caplog) == [("refused", [str(answers[1].header("x-interception-id"))])]


# -- RESOURCE_EXHAUSTED ----------------------------------------------------------------------------------------------


async def test_a_limit_that_is_over_in_a_while_costs_no_report(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.default = reply(200, CHAT_ANSWER)
    credentiald.report_refuse = Refuse(code=grpc.StatusCode.RESOURCE_EXHAUSTED, message="too many requests")
    async with running_bridge(credentiald) as bridge:
        for _ in range(3):
            await raw_exchange(bridge.port, ask(chat()))
        await until(lambda: credentiald.reports > 20)
        credentiald.report_refuse = None
        await reported(credentiald, 3)
        assert sample(bridge.metrics.registry, "bridged_records_lost_total", reason="refused") == 0


async def test_a_peer_that_says_that_a_report_is_too_large_is_believed(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.default = reply(200, CHAT_ANSWER)
    words = "SERVER: Received message larger than max (900 vs. 100)"
    credentiald.report_refuse = Refuse(code=grpc.StatusCode.RESOURCE_EXHAUSTED, message=words)
    async with running_bridge(credentiald) as bridge:
        await raw_exchange(bridge.port, ask(chat()))
        registry = bridge.metrics.registry
        await until(lambda: sample(registry, "bridged_records_lost_total", reason="refused") == 1)


@pytest.mark.parametrize(
    ("size_bytes", "reason"), [(1_000_000, "CREDENTIALD_UNREACHABLE"), (4_200_000, "RESOURCE_EXHAUSTED")]
)
async def test_without_such_words_only_what_is_larger_than_any_message_is_too_large(
    size_bytes: int, reason: str
) -> None:
    async def call(*_: object, **__: object) -> None:
        none = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, none, none, "no more")

    refused = await append(call, bytes(size_bytes), metadata=())
    assert isinstance(refused, Refused)
    assert refused.reason == reason


# -- what the log says -----------------------------------------------------------------------------------------------


async def test_what_finds_no_room_is_named_together_and_in_full(caplog: pytest.LogCaptureFixture) -> None:
    metrics, ids = Metrics(), [f"id-{number}" for number in range(250)]
    async with recorder.running_recorder(Peer().send, metrics, bound_bytes=3) as running:
        for one in ids:
            running.add([(one, b"long")])
        assert named(caplog) == []
        assert sample(metrics.registry, "bridged_records_lost_total", reason="queue_full") == 250
    assert [(why, len(some)) for why, some in named(caplog)] == [("queue_full", n) for n in (100, 100, 50)]
    assert [one for _, some in named(caplog) for one in some] == ids


async def test_what_finds_no_room_is_named_within_a_second(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(losses, "GATHER_SECONDS", 0.01)
    async with recorder.running_recorder(Peer().send, Metrics(), bound_bytes=3) as running:
        for count in (1, 2):
            running.add([("id-1", b"long"), ("id-2", b"longer")])
            await until(lambda count=count: len(named(caplog)) == count)  # type: ignore[misc]
    assert named(caplog) == [("queue_full", ["id-1", "id-2"])] * 2


async def test_all_that_is_left_at_the_end_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recorder, "LAST_SECONDS", 0.01)
    peer, ids = Peer(), [f"id-{number:03}" for number in range(230)]
    peer.is_failing = True
    async with recorder.running_recorder(peer.send, Metrics(), bound_bytes=100_000) as running:
        running.add([(one, b"report") for one in ids])
    assert sorted(one for _, some in named(caplog) for one in some) == ids
    assert [(why, len(some)) for why, some in named(caplog)] == [("stopped", n) for n in (100, 100, 30)]
