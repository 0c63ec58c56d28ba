"""The listener for operators: `/healthz`, `/readyz`, `/metrics`. Answers hold nothing of the request."""

import inspect
import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from daemonkit.binding import bind
from daemonkit.http_server import QuietServer
from daemonkit.listen import Address
from daemonkit.logs import announce
from daemonkit.tls import Listener

log = logging.getLogger(__name__)

Reasons = Callable[[], Sequence[str] | Awaitable[Sequence[str]]]
Registry = CollectorRegistry | Callable[[], Awaitable[CollectorRegistry]]

_CLOSE_SECONDS = 1.0


def readiness_body(reasons: Sequence[str]) -> bytes:
    """The JSON body of `/readyz`; ready is having no reasons why not."""
    return json.dumps({"ready": not reasons, "reasons": list(reasons)}).encode() + b"\n"


async def why_not_ready(reasons: Reasons) -> Sequence[str]:
    """What `reasons` says; where it fails, that."""
    try:
        found = reasons()
        return await found if inspect.isawaitable(found) else found
    except Exception:
        log.exception("readiness could not be found out")
        return ["readiness could not be found out"]


@asynccontextmanager
async def health_listener(
    listener: Listener,
    *,
    reasons: Reasons,
    registry: Registry,
    tls: ssl.SSLContext | None,
    announced: bool = True,
) -> AsyncIterator[tuple[Address, ...]]:
    """Serve for the length of the block; the real addresses. AddressTaken if it cannot.

    `reasons` says why the daemon is not ready, nothing if it is; it may be a coroutine function. Where it fails, the
    daemon is not ready. `registry` may be a coroutine function that makes one for each question. A listener that
    nobody shall look for is not `announced`. `tls` is for all addresses but unix sockets.
    """
    paths = _paths(reasons, registry)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        # raw_path is what the client sent; the rest would be decoded and normalised.
        path = request.raw_path.partition("?")[0]
        found = paths.get(path)
        if found is None:
            return _text(404, "not found\n")
        if request.method not in ("GET", "HEAD"):
            return _text(405, "method not allowed\n", allow="GET, HEAD")
        return await found()

    server = QuietServer(answer, access_log=None)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.shutdown, _CLOSE_SECONDS)
        addresses = []
        for wanted in listener.addresses:
            sockets, address = await bind(server, wanted, setting_name=listener.name, tls=tls)
            stack.callback(sockets.close)
            addresses.append(address)
            if announced:
                announce(listener.name.removesuffix("_listen"), address)
        yield tuple(addresses)


def _paths(reasons: Reasons, registry: Registry) -> dict[str, Callable[[], Awaitable[web.Response]]]:
    async def healthz() -> web.Response:
        return _text(200, "ok\n")

    async def readyz() -> web.Response:
        why = await why_not_ready(reasons)
        return web.Response(
            status=503 if why else 200, body=readiness_body(why), content_type="application/json", headers=_HEADERS
        )

    async def metrics() -> web.Response:
        found = registry if isinstance(registry, CollectorRegistry) else await registry()
        return web.Response(body=generate_latest(found), headers={**_HEADERS, "Content-Type": CONTENT_TYPE_LATEST})

    return {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}


_HEADERS = {"Server": "drawbridge", "Cache-Control": "no-store"}


def _text(status: int, text: str, *, allow: str = "") -> web.Response:
    return web.Response(status=status, text=text, headers={**_HEADERS, **({"Allow": allow} if allow else {})})
