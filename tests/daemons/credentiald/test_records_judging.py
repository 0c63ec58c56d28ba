"""A bug that one report brings out while it is judged is no trouble of its neighbours."""

import time
from uuid import uuid4

import grpc
import pytest
from drawbridge.v1 import record_pb2
from drawbridge.v1 import record_service_pb2 as pb
from drawbridge.v1 import usage_service_pb2 as usage

from bridged.report_messages import new_row, request_parts
from credentiald.record_rules import KeepRule, KeepRules
from tests.support.credentiald import Running, bearer, running
from tests.support.reports import INSTANCE, Bridge, whole


class Failing(KeepRule):
    """A rule with a bug."""

    def kept(self, text: str, provider: str) -> str:
        if text == "poison":
            raise RuntimeError("a bug")
        return text


# A rule that keeps all is not asked.
RULES = KeepRules(prompts=Failing(most_bytes=1000))
FACTS = ("Codex", "", "", "", "openai.chat_completions", "gpt-5", "gpt-5", False)


def prompting(receipt: bytes, text: str) -> pb.InterceptionRecords:
    return whole(receipt, prompts=[record_pb2.Prompt(id=str(uuid4()), text=text)])


def in_columns(*told: tuple[bytes, str]) -> pb.AppendRecordsRequest:
    now_micros = time.time_ns() // 1000
    rows = [
        new_row(FACTS, (receipt, now_micros, 200, 5, 2, "", "", 1, 2, 0, 0, "", text, len(text)))
        for receipt, text in told
    ]
    request = pb.AppendRecordsRequest.FromString(b"".join(request_parts([], rows)))
    request.bridge_instance_id = INSTANCE
    return request


async def ended(one: Running) -> set[str]:
    answer = await one.usage.ListInterceptions(usage.ListInterceptionsRequest(), metadata=bearer(one.admin_token))
    return {row.id for row in answer.interceptions if row.HasField("end_time")}


async def asked(one: Running, bridge: Bridge, count: int) -> list[tuple[str, bytes]]:
    _, token = await one.make_user("ann")
    await one.make_provider("corp", key="sk-1234567890")
    return [await bridge.resolve(token) for _ in range(count)]


async def test_a_message_that_cannot_be_judged_is_rejected_alone(tmp_path, caplog):
    async with running(tmp_path, rules=RULES) as one:
        bridge = Bridge(one)
        opened = await asked(one, bridge, 4)
        texts = ["a", "poison", "poison", "b"]
        told = [prompting(receipt, text) for (_, receipt), text in zip(opened, texts, strict=True)]
        assert await bridge.report(*told) == {1: "RECORD_INVALID", 2: "RECORD_INVALID"}
        assert await ended(one) == {opened[0][0], opened[3][0]}
    [line] = [record for record in caplog.records if record.message == "a report cannot be judged"]
    assert line.exc_info


@pytest.mark.parametrize("are_noted", [True, False])
async def test_a_row_that_cannot_be_judged_is_rejected_alone(tmp_path, are_noted):
    async with running(tmp_path, rules=RULES) as one:
        bridge = Bridge(one)
        opened = await asked(one, bridge, 9)
        if not are_noted:
            await one.book.flush()
        texts = ["poison" if place in (3, 8) else "fine" for place in range(9)]
        request = in_columns(*((receipt, text) for (_, receipt), text in zip(opened, texts, strict=True)))
        answer = await one.records.AppendRecords(request, metadata=bridge.metadata)
        invalid = pb.RECORD_REJECTION_RECORD_INVALID
        assert [(bad.index, bad.rejection) for bad in answer.rejected] == [(3, invalid), (8, invalid)]
        assert await ended(one) == {one_id for place, (one_id, _) in enumerate(opened) if place not in (3, 8)}


async def test_where_none_can_be_judged_none_is_rejected_for_good(tmp_path):
    async with running(tmp_path, rules=RULES) as one:
        bridge = Bridge(one)
        opened = await asked(one, bridge, 3)
        told = [prompting(receipt, "poison") for _, receipt in opened]
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await bridge.report(*told)
        assert failed.value.code() is grpc.StatusCode.INTERNAL
        request = in_columns(*((receipt, "poison") for _, receipt in opened))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await one.records.AppendRecords(request, metadata=bridge.metadata)
        assert failed.value.code() is grpc.StatusCode.INTERNAL
        assert await bridge.report(*(prompting(receipt, "a") for _, receipt in opened)) == {}
