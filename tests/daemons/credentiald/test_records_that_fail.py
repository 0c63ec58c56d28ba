"""Records that the store has a bug for: how many there may be, and whose trouble they are."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
from drawbridge.v1 import record_pb2
from drawbridge.v1 import record_service_pb2 as pb
from drawbridge.v1 import usage_service_pb2 as usage

from credentiald.storing_apart import MOST_UNSTORABLE
from credentiald.usual_report import Matched, Told
from credentiald.waiting_reports import Call, told_in
from tests.support.credentiald import Running, bearer, running
from tests.support.reports import Bridge, whole

MANY = MOST_UNSTORABLE + 1


def poisoned(folder: Path, trigger: str) -> None:
    """From now on the store fails at what the trigger is for."""
    with closing(sqlite3.connect(folder / "credentiald.records.db")) as other:
        other.execute(f"CREATE TRIGGER no BEFORE INSERT ON {trigger} BEGIN SELECT RAISE(ABORT, 'no'); END")


def prompting(receipt: bytes, text: str) -> pb.InterceptionRecords:
    return whole(receipt, prompts=[record_pb2.Prompt(id=str(uuid4()), text=text)])


async def ended(one: Running) -> set[str]:
    request = usage.ListInterceptionsRequest(page_size=250)
    answer = await one.usage.ListInterceptions(request, metadata=bearer(one.admin_token))
    return {row.id for row in answer.interceptions if row.HasField("end_time")}


async def prepared(one: Running) -> str:
    """A user's token; there is a provider."""
    _, token = await one.make_user("ann")
    await one.make_provider("corp", key="sk-1234567890")
    return token


async def test_many_of_a_call_that_cannot_be_stored_are_its_own_trouble_and_found_by_halves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as one:
        token = await prepared(one)
        bridges = [Bridge(one), Bridge(one)]
        bad = [await bridges[0].resolve(token) for _ in range(2 * MANY)]
        good = [await bridges[0].resolve(token) for _ in range(3)]
        others = [await bridges[1].resolve(token) for _ in range(3)]
        poisoned(tmp_path, "prompts WHEN NEW.text = 'poison'")
        told = [prompting(receipt, "poison") for _, receipt in bad] + [whole(receipt) for _, receipt in good]
        failed, stored = await asyncio.gather(
            bridges[0].report(*told),
            bridges[1].report(*(whole(receipt) for _, receipt in others)),
            return_exceptions=True,
        )
        assert isinstance(failed, grpc.aio.AioRpcError)
        assert (failed.code(), stored) == (grpc.StatusCode.INTERNAL, {})
        # Not all are tried.
        assert sum(each.message == "a record cannot be stored" for each in caplog.records) == MANY
        # What a bridge does then. Where there is no good one beside them, it goes on so.
        with pytest.raises(grpc.aio.AioRpcError) as half:
            await bridges[0].report(*told[: MANY // 2])
        assert half.value.code() is grpc.StatusCode.INTERNAL
        rest = told[-3 - MOST_UNSTORABLE :]
        assert await bridges[0].report(*rest) == dict.fromkeys(range(MOST_UNSTORABLE), "RECORD_INVALID")
        assert await ended(one) == {one_id for one_id, _ in good + others}


@pytest.mark.parametrize("many", [MOST_UNSTORABLE, MANY, 2 * MANY])
async def test_where_nothing_is_stored_no_call_loses_anything_however_many_another_brings(
    tmp_path: Path, many: int
) -> None:
    async with running(tmp_path) as one:
        token = await prepared(one)
        bridges = [Bridge(one), Bridge(one)]
        told = [
            [whole((await bridge.resolve(token))[1]) for _ in range(count)]
            for bridge, count in zip(bridges, (many, 3), strict=True)
        ]
        await one.book.flush()
        poisoned(tmp_path, "prompts")
        calls = (bridge.report(*some) for bridge, some in zip(bridges, told, strict=True))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [one.code() for one in answers if isinstance(one, grpc.aio.AioRpcError)] == [
            grpc.StatusCode.INTERNAL
        ] * 2


async def test_reports_that_cannot_be_told_apart_are_their_calls_own_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(calls: Sequence[Call]) -> tuple[list[Told], Matched]:
        if any(one.size_bytes > 3000 for one in calls):
            raise RuntimeError("a bug")
        return told_in(calls)

    for module in ("record_book", "storing_apart"):
        monkeypatch.setattr(f"credentiald.{module}.told_in", told)
    async with running(tmp_path) as one:
        token = await prepared(one)
        bridges = [Bridge(one), Bridge(one)]
        asked = [await bridge.resolve(token) for bridge in bridges]
        large, small = (prompting(receipt, text) for (_, receipt), text in zip(asked, ("a" * 3000, "b"), strict=True))
        failed, stored = await asyncio.gather(
            bridges[0].report(large), bridges[1].report(small), return_exceptions=True
        )
        assert isinstance(failed, grpc.aio.AioRpcError)
        assert (failed.code(), stored) == (grpc.StatusCode.INTERNAL, {})
        assert await ended(one) == {asked[1][0]}


async def test_many_openings_that_cannot_be_stored_keep_no_report_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as one:
        token = await prepared(one)
        bridge = Bridge(one)
        poisoned(tmp_path, "interceptions WHEN NEW.model = 'poison'")
        for _ in range(MANY):
            await bridge.resolve(token, model="poison")
        for _ in range(3):
            # One that nobody reports, and one that somebody does.
            await bridge.resolve(token)
            interception_id, receipt = await bridge.resolve(token)
            rejected, _ = await asyncio.gather(bridge.report(whole(receipt)), one.book.flush())
            assert rejected == {}
            assert interception_id in await ended(one)
        # They wait for a store that takes them.
        assert one.book.waiting() == MANY
        with closing(sqlite3.connect(tmp_path / "credentiald.records.db")) as other:
            other.execute("DROP TRIGGER no")
        await one.book.flush()
        assert one.book.waiting() == 0
    assert sum(each.message == "a record cannot be stored" for each in caplog.records) >= MANY


async def test_a_few_openings_that_cannot_be_stored_are_dropped(tmp_path: Path) -> None:
    async with running(tmp_path) as one:
        token = await prepared(one)
        bridge = Bridge(one)
        poisoned(tmp_path, "interceptions WHEN NEW.model = 'poison'")
        await bridge.resolve(token, model="poison")
        interception_id, receipt = await bridge.resolve(token)
        await one.book.flush()
        assert one.book.waiting() == 0
        assert await bridge.report(whole(receipt)) == {}
        assert await ended(one) == {interception_id}
