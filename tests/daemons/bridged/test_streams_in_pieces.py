"""What is recorded of a stream is the same however its pieces arrive: the bridge shows short ones to taps together."""

import asyncio
import random
from typing import Any

import pytest
from drawbridge.v1 import record_service_pb2 as pb

from tests.daemons.bridged.test_bytes_with_taps import TARGETS, body_for, pieces_of
from tests.fakes.credentiald import FakeCredentiald
from tests.fakes.scripted_upstream import SSE, Exchange, Script, ScriptedUpstream
from tests.support.bridge import AUTH, running_bridge
from tests.support.bridge_reports import reported
from tests.support.raw_http import raw_exchange, request
from tests.support.taps import STREAMS, Recorded


def ways_to_arrive(body: bytes) -> list[list[bytes]]:
    chance = random.Random(7)
    events = [event + b"\n\n" for event in body.split(b"\n\n") if event]
    long_comment = b": " + b"x" * 5000 + b"\n\n"
    return [
        [body],
        events,
        # A long piece before each, which is looked at by itself; and behind each, in the same piece.
        [piece for event in events for piece in (long_comment, event)],
        [event + long_comment for event in events],
        *[pieces_of(body, chance) for _ in range(3)],
    ]


def one_by_one(pieces: list[bytes]) -> Script:
    async def script(exchange: Exchange) -> None:
        exchange.send_head(200, SSE, chunked=True)
        for piece in pieces:
            exchange.send(piece)
            # The bridge is in the same loop, and reads each before the next is there.
            for _ in range(4):
                await asyncio.sleep(0)
        exchange.end()

    return script


def content_of(report: pb.InterceptionRecords) -> list[object]:
    """Without what is another one in each report."""
    kept: list[Any] = [*report.token_usages, *report.prompts, *report.tool_calls, *report.model_thoughts]
    for one in kept:
        one.ClearField("id")
    return [report.end.outcome, *(one.SerializeToString(deterministic=True) for one in kept)]


@pytest.mark.parametrize("answer", STREAMS, ids=str)
async def test_however_the_pieces_of_a_stream_arrive_its_records_are_the_same(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, answer: Recorded
) -> None:
    ways = ways_to_arrive(answer.body)
    body = body_for(answer.operation, stream=True)
    async with running_bridge(credentiald) as bridge:
        for pieces in ways:
            upstream.script(one_by_one(pieces))
            sent = request("POST", TARGETS[answer.operation], headers=[AUTH], body=body)
            assert (await raw_exchange(bridge.port, sent)).complete
        reports = await reported(credentiald, len(ways))
    assert answer.expected.usage is not None
    assert [one.output_tokens for one in reports[0].token_usages] == [answer.expected.usage.output_tokens]
    assert [content_of(report) for report in reports] == [content_of(reports[0])] * len(ways)
