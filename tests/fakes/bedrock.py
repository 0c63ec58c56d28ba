"""A Bedrock for tests: judges every request as AWS does, records it, and answers from a script.

    async with running_bedrock() as bedrock:
        bedrock.accept("AKIDEXAMPLE", "secret")                   # a pair; with session_token and expire_time if told
        bedrock.accept_bearer("bedrock-api-key-1")
        bedrock.script(says(Thinking("hm"), ToolUse("get_weather", {"city": "Oslo"})), error("ThrottlingException"))
        ...                                                       # the first request gets the turn, the second the 429
        assert bedrock.requests[0].signer.access_key_id == "AKIDEXAMPLE"

Signatures are reckoned by botocore, never by code of ours. A turn comes out in the form of the operation that was
called: InvokeModel, Converse, their streams, Mantle's Messages. Each request takes the next script; when none is left,
`bedrock.default` answers. What no script decides (who may, whether the body is one that Bedrock takes, what there is at
all) is the same for all. `bedrock.url` is the runtime's endpoint and answers everything; `bedrock.control_url` is the
control plane's and has only its own lists, and `at` of a request says which of them it came to.
"""

import asyncio
import json
import re
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from tests.fakes import bedrock_turns as turns
from tests.fakes.bedrock_auth import Accepted, NotAuthenticated, Presented, Signer, judge
from tests.fakes.bedrock_rules import BETAS, what_is_wrong
from tests.fakes.bedrock_turns import Block, Text, Turn, compact
from tests.support import event_stream

__all__ = [
    "BETAS",
    "CUT",
    "STALL",
    "FakeBedrock",
    "Recorded",
    "broken",
    "error",
    "exception",
    "frames",
    "reply",
    "running_bedrock",
    "says",
]

EVENT_STREAM = "application/vnd.amazon.eventstream"

# Exceptions of the API reference of Bedrock Runtime with their statuses; a test compares them with botocore's model.
STATUSES = {
    "AccessDeniedException": 403,
    "InternalServerException": 500,
    "ModelErrorException": 424,
    "ModelNotReadyException": 429,
    "ModelStreamErrorException": 424,
    "ModelTimeoutException": 408,
    "ResourceNotFoundException": 404,
    "ServiceQuotaExceededException": 400,
    "ServiceUnavailableException": 503,
    "ThrottlingException": 429,
    "ValidationException": 400,
}

_MODEL_PATH = re.compile(
    r"/model/(?P<model>.+)/(?P<operation>invoke|invoke-with-response-stream|converse|converse-stream|count-tokens)"
)
_LISTS = {"/inference-profiles": "list_inference_profiles", "/foundation-models": "list_foundation_models"}
_MANTLE = {
    "/anthropic/v1/messages": "mantle_messages",
    "/v1/chat/completions": "mantle_chat_completions",
    "/v1/responses": "mantle_responses",
}


class End(Enum):
    """How a stream ends, where it does not end properly."""

    CUT = "cut"
    STALL = "stall"


CUT, STALL = End.CUT, End.STALL
Step = bytes | asyncio.Event | End


@dataclass(slots=True, kw_only=True)
class Recorded:
    """One request as it arrived, and what was made of it.

    `target` and `headers` are as on the wire. `model` is the id or ARN, decoded; `operation` is the last part of the
    path, `list_…` or `mantle_…`. `signer` is None and `refused` the exception's name where AWS would not have it.
    """

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    at: str
    operation: str = ""
    model: str = ""
    signer: Signer | None = None
    refused: str | None = None
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the peer went away before the answer was complete."""

    def all(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The value of a header that occurs at most once."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)


class Exchange:
    """One request with the means to answer it."""

    def __init__(self, request: Recorded, incoming: web.Request) -> None:
        self.request = request
        self._incoming = incoming

    @property
    def streams(self) -> bool:
        """Whether the answer of the operation is an event stream."""
        return self.request.operation in ("invoke-with-response-stream", "converse-stream")

    def reply(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> web.StreamResponse:
        known = {"Content-Type": "application/json", "x-amzn-RequestId": "req-bdrk-1"}
        return web.Response(status=status, body=body, headers={**known, **(headers or {})})

    async def stream(self, steps: Sequence[Step], content_type: str = EVENT_STREAM) -> web.StreamResponse:
        """A chunked answer: bytes are a chunk each, an Event is waited for, CUT closes there, STALL says no more."""
        headers = {"Content-Type": content_type, "x-amzn-RequestId": "req-bdrk-1"}
        if self.request.operation == "invoke-with-response-stream":
            headers["X-Amzn-Bedrock-Content-Type"] = "application/json"
        response = web.StreamResponse(headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(self._incoming)
        for step in steps:
            if isinstance(step, bytes):
                await response.write(step)
            elif isinstance(step, asyncio.Event):
                await step.wait()
            elif step is End.CUT:
                assert self._incoming.transport is not None
                self._incoming.transport.close()
                return response
            else:
                await asyncio.Event().wait()  # until the peer goes, which cancels this
        await response.write_eof()
        return response


Script = Callable[[Exchange], Awaitable[web.StreamResponse]]


def says(*blocks: Block, **turn: Any) -> Script:
    """The model's turn, in the form of the operation. `turn` are further fields of Turn."""
    said = Turn(blocks or (Text(),), **turn)

    async def script(exchange: Exchange) -> web.StreamResponse:
        steps = _steps(said, exchange.request)
        if steps is not None:
            return await exchange.stream(steps, _content_type(exchange.request))
        return exchange.reply(200, compact(_whole(said, exchange.request)), _usage_headers(said, exchange.request))

    return script


def broken(*blocks: Block, after_frames: int, by: Step | Sequence[Step], **turn: Any) -> Script:
    """A turn whose stream goes so far, then something else comes: an exception(), CUT, STALL, an Event, any bytes."""
    said = Turn(blocks or (Text(),), **turn)

    async def script(exchange: Exchange) -> web.StreamResponse:
        steps = _steps(said, exchange.request)
        assert steps is not None, "only a stream can break"
        rest = [by] if isinstance(by, bytes | asyncio.Event | End) else by
        return await exchange.stream([*steps[:after_frames], *rest], _content_type(exchange.request))

    return script


def frames(*steps: Step, content_type: str = EVENT_STREAM) -> Script:
    """A stream of these steps, whatever was asked for."""

    async def script(exchange: Exchange) -> web.StreamResponse:
        return await exchange.stream(steps, content_type)

    return script


def exception(kind: str, message: str = "as scripted", **members: Any) -> bytes:
    """An exception inside a stream: `throttlingException`, with a small letter, and further members of its body."""
    return event_stream.exception(kind, compact({"message": message, **members}))


def error(
    kind: str,
    message: str = "as scripted",
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    member: str = "message",
    with_uri: bool = False,
) -> Script:
    """An error answer of AWS. `with_uri` is the long form of x-amzn-ErrorType, which front ends of AWS use."""

    async def script(exchange: Exchange) -> web.StreamResponse:
        return _error(exchange, kind, message, status or STATUSES[kind], headers, member=member, with_uri=with_uri)

    return script


def reply(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Script:
    """These bytes."""

    async def script(exchange: Exchange) -> web.StreamResponse:
        return exchange.reply(status, body, headers)

    return script


class FakeBedrock:
    """What `running_bedrock` yields."""

    def __init__(self) -> None:
        self.requests: list[Recorded] = []
        self.default: Script = says()
        self.region = "us-east-1"
        self.betas: frozenset[str] | None = BETAS
        """The beta flags that are taken; None for any."""
        self.given: Callable[[str], Accepted | None] = lambda _: None
        """The pair of an access key id that was not accepted here but given out by somebody else, such as an STS."""
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.url = ""
        self.control_url = ""
        self._scripts: deque[Script] = deque()
        self._keys: dict[str, Accepted] = {}
        self._bearers: set[str] = set()
        self._arrived = asyncio.Condition()

    def script(self, *scripts: Script) -> None:
        """What the next requests get, one each."""
        self._scripts.extend(scripts)

    def accept(
        self, access_key_id: str, secret: str, session_token: str | None = None, expire_time: datetime | None = None
    ) -> None:
        """Know a pair. The same id again replaces it."""
        self._keys[access_key_id] = Accepted(secret=secret, session_token=session_token, expire_time=expire_time)

    def accept_bearer(self, token: str) -> None:
        self._bearers.add(token)

    def forget(self, credential: str) -> None:
        """Know this access key id or bearer token no longer."""
        self._keys.pop(credential, None)
        self._bearers.discard(credential)

    async def request(self, index: int, *, timeout_seconds: float = 10) -> Recorded:
        """The request of this number, as soon as it has come."""
        async with asyncio.timeout(timeout_seconds), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) > index)
        return self.requests[index]

    async def _answer(self, incoming: web.Request, at: str) -> web.StreamResponse:
        request = Recorded(
            method=incoming.method,
            target=incoming.raw_path,
            headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in incoming.raw_headers],
            body=await incoming.read(),
            at=at,
        )
        _recognise(request)
        async with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
        try:
            return await self._judged(Exchange(request, incoming))
        except (asyncio.CancelledError, ConnectionError):
            request.closed.set()
            raise

    async def _judged(self, exchange: Exchange) -> web.StreamResponse:
        request = exchange.request
        presented = Presented(method=request.method, target=request.target, headers=request.headers, body=request.body)
        service = "bedrock-mantle" if request.operation.startswith("mantle_") else "bedrock"
        try:
            request.signer = judge(
                presented,
                known=lambda access_key_id: self._keys.get(access_key_id) or self.given(access_key_id),
                bearers=self._bearers,
                regions={self.region},
                service=service,
                now=self.now(),
            )
        except NotAuthenticated as refused:
            request.refused = refused.kind
            return _error(exchange, refused.kind, refused.message, refused.status, with_uri=True)
        if not request.operation or (request.at == "control" and not request.operation.startswith("list_")):
            return _error(exchange, "UnknownOperationException", "there is no such operation", 404)
        if request.method == "POST":
            wrong = what_is_wrong(request.operation, request.model, request.body, self.betas)
            if wrong is not None:
                return _error(exchange, "ValidationException", wrong, 400)
        script = self._scripts.popleft() if self._scripts else self.default
        return await script(exchange)


def _recognise(request: Recorded) -> None:
    path = request.target.partition("?")[0]
    if request.method == "GET":
        request.operation = _LISTS.get(path, "")
    elif request.method == "POST" and (found := _MODEL_PATH.fullmatch(path)):
        request.model, request.operation = unquote(found["model"]), found["operation"]
    elif request.method == "POST":
        request.operation = _MANTLE.get(path, "")


def _steps(turn: Turn, request: Recorded) -> Sequence[Step] | None:
    """The chunks of a stream, None where the operation does not stream."""
    match request.operation:
        case "invoke-with-response-stream":
            return turns.invoke_frames(turn, request.model)
        case "converse-stream":
            return turns.converse_frames(turn)
        case "mantle_messages" if request.json().get("stream"):
            events = turns.message_events(turn, request.json()["model"])
            return [f"event: {one['type']}\n".encode() + b"data: " + compact(one) + b"\n\n" for one in events]
        case _:
            return None


def _content_type(request: Recorded) -> str:
    return "text/event-stream" if request.operation.startswith("mantle_") else EVENT_STREAM


def _whole(turn: Turn, request: Recorded) -> dict[str, Any]:
    match request.operation:
        case "invoke":
            return turns.message(turn, request.model)
        case "converse":
            return turns.converse(turn)
        case "count-tokens":
            return {"inputTokens": turn.input_tokens}
        case "list_inference_profiles":
            return {"inferenceProfileSummaries": [turns.INFERENCE_PROFILE]}
        case "list_foundation_models":
            return {"modelSummaries": [turns.FOUNDATION_MODEL]}
        case "mantle_messages":
            return turns.message(turn, request.json()["model"])
        case "mantle_chat_completions":
            return _chat_completion(turn, request.json()["model"])
        case _:
            return _response(turn, request.json()["model"])


def _usage_headers(turn: Turn, request: Recorded) -> dict[str, str]:
    if request.operation != "invoke":
        return {}
    return {
        "X-Amzn-Bedrock-Input-Token-Count": str(turn.input_tokens),
        "X-Amzn-Bedrock-Output-Token-Count": str(turn.output_tokens),
        "X-Amzn-Bedrock-Invocation-Latency": "320",
    }


def _text(turn: Turn) -> str:
    return "".join(block.text for block in turn.blocks if isinstance(block, Text))


def _chat_completion(turn: Turn, model: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": _text(turn)}
    usage = {
        "prompt_tokens": turn.input_tokens,
        "completion_tokens": turn.output_tokens,
        "total_tokens": turn.input_tokens + turn.output_tokens,
    }
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": usage}


def _response(turn: Turn, model: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": _text(turn), "annotations": []}]
    message = {"id": "m1", "type": "message", "role": "assistant", "status": "completed", "content": content}
    return {
        "id": "resp_1", "object": "response", "created_at": 1, "model": model, "status": "completed",
        "output": [message], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    }  # fmt: skip


def _error(
    exchange: Exchange,
    kind: str,
    message: str,
    status: int,
    headers: Mapping[str, str] | None = None,
    *,
    member: str = "message",
    with_uri: bool = False,
) -> web.StreamResponse:
    uri = ":http://internal.amazon.com/coral/com.amazon.coral.service/" if with_uri else ""
    return exchange.reply(status, compact({member: message}), {"x-amzn-ErrorType": kind + uri, **(headers or {})})


@asynccontextmanager
async def running_bedrock(*, tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeBedrock]:
    """A Bedrock on two loopback ports for the length of the block."""
    bedrock = FakeBedrock()

    def server(at: str) -> web.ServerRunner:
        # The body is judged as it came, so nothing may be decompressed. A peer that goes cancels its answer.
        handler = web.Server(
            lambda incoming: bedrock._answer(incoming, at),  # type: ignore[arg-type]
            auto_decompress=False,
            handler_cancellation=True,
            access_log=None,
        )
        return web.ServerRunner(handler, shutdown_timeout=0.1)

    runners = {at: server(at) for at in ("runtime", "control")}
    try:
        urls = {}
        for at, runner in runners.items():
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
            urls[at] = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
        bedrock.url, bedrock.control_url = urls["runtime"], urls["control"]
        yield bedrock
    finally:
        for runner in runners.values():
            await _stop(runner)


async def _stop(runner: web.ServerRunner) -> None:
    """Ends every connection, and waits until the loop is done with it: aiohttp's own cleanup does not."""
    for site in list(runner.sites):
        await site.stop()
    if runner.server is not None:
        for connection in runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        async with asyncio.timeout(10):
            while runner.server.connections:
                await asyncio.sleep(0)
    await runner.cleanup()
