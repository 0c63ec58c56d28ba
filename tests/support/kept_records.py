"""What credentiald has kept of the traffic of a pair, as plain values: to be compared with what the upstream sent.

    async with kept_records(pair) as kept:
        ...
        await kept.equal({"m-1": expected(...), "m-2": expected(...)})

Each case of a test asks for a model of its own, so that its record is found by it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pprint import pformat
from typing import Any

import grpc
from drawbridge.v1 import record_pb2
from drawbridge.v1 import usage_service_pb2 as pb
from drawbridge.v1.usage_service_pb2_grpc import UsageServiceStub

from tests.support.credentiald import bearer
from tests.support.pair import Pair

KEPT_SECONDS = 15.0
Facts = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What an upstream has said in an answer, or in as much of it as it got to send.

    `tokens` are input, output, cache read and cache write, with no token in two of them; None where it told none.
    `tools` are (name, id of the call, id of the item, input). `thoughts` are (source, text). `over`: it said its end.
    """

    response_id: str = ""
    tokens: tuple[int, int, int, int] | None = None
    metadata: Mapping[str, int] = field(default_factory=dict)
    tools: tuple[tuple[str, str, str, str], ...] = ()
    thoughts: tuple[tuple[str, str], ...] = ()
    over: bool = True


def expected(
    sent: Sent,
    *,
    provider: str,
    operation: str,
    user_agent: str,
    streaming: bool = False,
    prompts: Iterable[str] = ("Hi",),
    request_id: str = "",
    outcome: str = "COMPLETED",
    category: str = "",
    reason: str = "",
    message: str = "",
    status: int = 200,
    client: str = "Unknown",
    correlating: str = "",
) -> Facts:
    """The facts that are to be kept of an answer."""
    usage = [] if sent.tokens is None else [(sent.response_id, *sent.tokens, dict(sent.metadata), not sent.over)]
    return {
        "provider": provider,
        "operation": operation,
        "upstream_model": "",
        "client": client,
        "user_agent": user_agent,
        "correlating": correlating,
        "streaming": streaming,
        "end": (outcome, category, reason, message, status),
        "request_id": request_id,
        "first_byte": True,
        "prompts": [(sent.response_id, text) for text in prompts],
        "usage": usage,
        "tools": [(sent.response_id, *tool) for tool in sent.tools],
        "thoughts": [(sent.response_id, *thought) for thought in sent.thoughts],
    }


def facts_of(detail: pb.InterceptionDetail) -> Facts:
    """The same of what is kept."""
    one = detail.interception
    sums = one.tokens
    columns = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")
    for column in columns:
        assert getattr(sums, column) == sum(getattr(usage, column) for usage in detail.token_usages)
    assert 0 <= one.first_byte_micros <= one.duration_micros
    assert one.source
    assert one.credential_id
    assert one.username == "ann"
    return {
        "provider": one.provider,
        "operation": one.operation,
        "upstream_model": one.upstream_model,
        "client": one.client,
        "user_agent": one.user_agent,
        "correlating": one.correlating_tool_call_id,
        "streaming": one.streaming,
        "end": (
            record_pb2.InterceptionOutcome.Name(one.outcome).removeprefix("INTERCEPTION_OUTCOME_"),
            record_pb2.UpstreamErrorCategory.Name(one.error_category)
            .removeprefix("UPSTREAM_ERROR_CATEGORY_")
            .removeprefix("UNSPECIFIED"),
            one.error_reason,
            one.error_message,
            one.http_status,
        ),
        "request_id": one.upstream_request_id,
        "first_byte": one.HasField("first_byte_micros"),
        "prompts": [(prompt.response_id, prompt.text) for prompt in detail.prompts],
        "usage": [
            (
                usage.response_id,
                *(getattr(usage, column) for column in columns),
                dict(usage.metadata),
                usage.partial,
            )
            for usage in detail.token_usages
        ],
        "tools": [(tool.response_id, tool.tool, tool.tool_call_id, tool.item_id, tool.input)
                  for tool in detail.tool_calls],
        "thoughts": [(one.response_id, one.source, one.content) for one in detail.model_thoughts],
    }  # fmt: skip


class KeptRecords:
    """What the user of a pair sees of its own."""

    def __init__(self, stub: UsageServiceStub, token: str) -> None:
        self._stub = stub
        self._metadata = bearer(token)

    async def interceptions(self, count: int, *, within_seconds: float = KEPT_SECONDS) -> list[pb.Interception]:
        """All of them, the oldest first, once there are so many and each has ended; more than that never come."""
        async with asyncio.timeout(within_seconds):
            while True:
                found = await self._listed()
                if len(found) >= count and all(one.HasField("end_time") for one in found):
                    assert len(found) == count
                    return found[::-1]
                await asyncio.sleep(0.05)

    async def _listed(self) -> list[pb.Interception]:
        request, found = pb.ListInterceptionsRequest(), list[pb.Interception]()
        while True:
            page = await self._stub.ListInterceptions(request, metadata=self._metadata)
            found += page.interceptions
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def detail(self, interception_id: str) -> pb.InterceptionDetail:
        """One of them, with its records."""
        answer = await self._stub.GetInterception(
            pb.GetInterceptionRequest(id=interception_id), metadata=self._metadata
        )
        (found,) = (one for one in answer.thread if one.interception.id == interception_id)
        return found

    async def equal(self, wanted: Mapping[str, Facts]) -> None:
        """What is kept is this, once each, and nothing else."""
        different = differences(await self.by_model(len(wanted)), wanted)
        assert not different, pformat(different)

    async def by_model(self, count: int) -> dict[str, Facts]:
        """The facts of all of them, by the model that was asked for; no model was asked for twice."""
        found = await self.interceptions(count)
        facts = {one.model: facts_of(await self.detail(one.id)) for one in found}
        assert len(facts) == count
        return facts


def differences(found: Mapping[str, Facts], wanted: Mapping[str, Facts]) -> dict[str, object]:
    """What is not the same: wanted and kept of each field, by model."""
    different: dict[str, object] = {
        model: {name: (value, found[model][name]) for name, value in facts.items() if found[model][name] != value}
        for model, facts in wanted.items()
        if model in found and found[model] != facts
    }
    return (
        different
        | dict.fromkeys(wanted.keys() - found, "not kept")
        | dict.fromkeys(found.keys() - wanted, "not wanted")
    )


@asynccontextmanager
async def kept_records(pair: Pair) -> AsyncIterator[KeptRecords]:
    """A look at the records of a pair, with the token of its user."""
    async with grpc.aio.insecure_channel(pair.credentiald.addresses["main"]) as channel:
        yield KeptRecords(UsageServiceStub(channel), pair.token)


def body(value: object) -> bytes:
    """JSON as an upstream writes it."""
    return json.dumps(value, ensure_ascii=False).encode()


def named_events(events: Iterable[Mapping[str, Any]]) -> list[bytes]:
    """Events with their type as their name, as Anthropic and OpenAI Responses have them."""
    return [b"event: %b\ndata: %b\n\n" % (event["type"].encode(), body(event)) for event in events]
