"""The demo upstream's HTTP: routes, pace, errors. Any key is accepted, none is looked at."""

import asyncio
import base64
import hashlib
import json
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from aiohttp import web

from bridged.demo import anthropic_messages, openai_chat, openai_responses
from bridged.demo.conversation import count_tokens, reply_to
from bridged.demo.wire import Event
from daemonkit.binding import AddressTaken
from daemonkit.listen import Address

_MAX_BODY_BYTES = 64 * 1024 * 1024
_MODELS = ("demo-large", "demo-small")
_CREATED = 1_760_000_000
_DIMENSIONS = 8


class DemoUpstream:
    """Answers; a stream rests for `pace` between its events."""

    def __init__(self, pace: timedelta) -> None:
        self._pace_seconds = pace.total_seconds()

    def app(self) -> web.Application:
        """Every route with and without /v1, so that any provider type may point here."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        for prefix in ("", "/v1"):
            app.add_routes(
                [
                    web.post(prefix + "/messages", self._messages),
                    web.post(prefix + "/messages/count_tokens", _count_tokens),
                    web.post(prefix + "/chat/completions", self._chat),
                    web.post(prefix + "/responses", self._responses),
                    web.post(prefix + "/embeddings", _embeddings),
                    web.get(prefix + "/models", _models),
                    web.get(prefix + "/models/{model}", _model),
                ]
            )
        return app

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        turn = anthropic_messages.read(await _json_object(request))
        reply = reply_to(turn)
        if turn.stream:
            return await self._stream(request, anthropic_messages.events(reply))
        return web.json_response(anthropic_messages.answer(reply, json.loads(reply.arguments or "{}")))

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await _json_object(request)
        turn = openai_chat.read(body)
        reply = reply_to(turn)
        if turn.stream:
            return await self._stream(request, openai_chat.events(reply, usage=openai_chat.wants_usage(body)))
        return web.json_response(openai_chat.answer(reply))

    async def _responses(self, request: web.Request) -> web.StreamResponse:
        turn = openai_responses.read(await _json_object(request))
        reply = reply_to(turn)
        if turn.stream:
            return await self._stream(request, openai_responses.events(reply))
        return web.json_response(openai_responses.answer(reply))

    async def _stream(self, request: web.Request, events: Iterator[Event]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        for event in events:
            await response.write(event.encoded)
            await asyncio.sleep(self._pace_seconds)
        await response.write_eof()
        return response


async def _json_object(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.read())
    except ValueError:
        body = None
    if isinstance(body, dict):
        return body
    # One shape that both families of clients find a message in.
    problem = {"type": "invalid_request_error", "message": "the body is not a JSON object", "code": "invalid_body"}
    raise web.HTTPBadRequest(text=json.dumps({"type": "error", "error": problem}), content_type="application/json")


async def _count_tokens(request: web.Request) -> web.StreamResponse:
    turn = anthropic_messages.read(await _json_object(request))
    return web.json_response({"input_tokens": count_tokens(turn.size_characters)})


async def _models(request: web.Request) -> web.StreamResponse:
    rows = [_model_row(request, name) for name in _MODELS]
    if "anthropic-version" in request.headers:
        return web.json_response(
            {"data": rows, "has_more": False, "first_id": rows[0]["id"], "last_id": rows[-1]["id"]}
        )
    return web.json_response({"object": "list", "data": rows})


async def _model(request: web.Request) -> web.StreamResponse:
    return web.json_response(_model_row(request, request.match_info["model"]))


def _model_row(request: web.Request, name: str) -> dict[str, Any]:
    if "anthropic-version" in request.headers:
        return {"type": "model", "id": name, "display_name": name, "created_at": "2025-10-09T08:53:20Z"}
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "drawbridge"}


async def _embeddings(request: web.Request) -> web.StreamResponse:
    body = await _json_object(request)
    given = body.get("input", "")
    texts = given if isinstance(given, list) and given and isinstance(given[0], str | list) else [given]
    as_base64 = body.get("encoding_format") == "base64"
    rows = [
        {"object": "embedding", "index": index, "embedding": _embedding(str(text), as_base64=as_base64)}
        for index, text in enumerate(texts)
    ]
    tokens = sum(count_tokens(len(str(text))) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return web.json_response({"object": "list", "data": rows, "model": body.get("model", "demo"), "usage": usage})


def _embedding(text: str, *, as_base64: bool) -> str | list[float]:
    """A point that depends on the text alone; the base64 form is little-endian 32-bit floats, as the API's."""
    digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
    numbers = [byte / 255 for byte in digest[:_DIMENSIONS]]
    if as_base64:
        return base64.b64encode(struct.pack(f"<{_DIMENSIONS}f", *numbers)).decode()
    return numbers


@asynccontextmanager
async def running_demo_upstream(address: Address, pace: timedelta) -> AsyncIterator[Address]:
    """The demo upstream on a TCP address for the length of the block; yields the real address, or AddressTaken."""
    runner = web.AppRunner(DemoUpstream(pace).app(), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address.host, address.port)
        try:
            await site.start()
        except OSError as error:
            raise AddressTaken(f"listen: cannot listen on {address}: {error.strerror}") from error
        port: int = runner.addresses[0][1]
        yield address.with_port(port)
    finally:
        await runner.cleanup()
