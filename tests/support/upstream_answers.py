"""Calls to upstreams for tests: send a request, wait for what comes, look at all of it.

answer = Answer()
answer.call = pool.send(post(upstream.port, b"{}"), answer)
await answer.over()
assert (answer.status, answer.body) == (200, b"{}")
"""

import asyncio
import socket
from typing import Any

from bridged.http1.pool import UpstreamPool
from bridged.http1.request_head import OutgoingRequest
from bridged.http1.response_head import BodyFraming
from bridged.http1.upstream import UpstreamCall, UpstreamError
from bridged.model import Headers

DEADLINE_SECONDS = 10


class Answer:
    """A ResponseReceiver that keeps all it hears, and holds the upstream to the order of its calls."""

    def __init__(self, *, pause_at_head: bool = False) -> None:
        self.call: UpstreamCall
        self.status = 0
        self.headers: Headers = ()
        self.framing: BodyFraming | None = None
        self.body = bytearray()
        self.pieces = 0
        self.error: UpstreamError | None = None
        self.is_complete = False
        self.body_paused: list[bool] = []
        self._pause_at_head = pause_at_head
        self._changed = asyncio.Event()
        self._owed = False
        self._broken_promises = 0

    def _promise(self, more: bool) -> None:
        """Note that something else follows before the loop does anything else; `over` sees to it that it did."""
        self._owed = more
        asyncio.get_running_loop().call_soon(self._look_at_promise)

    def _look_at_promise(self) -> None:
        self._broken_promises += self._owed

    @property
    def is_over(self) -> bool:
        return self.is_complete or self.error is not None

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)

    async def over(self) -> "Answer":
        """Itself, when it is complete or failed."""
        await self.until(lambda: self.is_over)
        assert not self._broken_promises
        return self

    async def until(self, condition: Any) -> None:
        """When something was heard that makes `condition()` true."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def response_head(self, status: int, headers: Headers, body: BodyFraming, *, more: bool) -> None:
        self._promise(more)
        assert self.framing is None
        assert not self.is_over
        self.status, self.headers, self.framing = status, headers, body
        if self._pause_at_head:
            self.call.pause()
        self._changed.set()

    def response_data(self, data: bytes, *, more: bool) -> None:
        self._promise(more)
        assert self.framing is not None
        assert data
        assert not self.is_over
        self.body += data
        self.pieces += 1
        self._changed.set()

    def response_end(self) -> None:
        assert self.framing is not None
        assert not self.is_over
        self.is_complete = True
        self._owed = False
        self._changed.set()

    def response_failed(self, error: UpstreamError) -> None:
        assert not self.is_over
        self.error = error
        self._owed = False
        self._changed.set()

    def pause_body(self) -> None:
        self.body_paused.append(True)
        self._changed.set()

    def resume_body(self) -> None:
        self.body_paused.append(False)
        self._changed.set()


def outgoing(port: int, **changes: Any) -> OutgoingRequest:
    """A GET of /x at 127.0.0.1, but for the changes."""
    values = {"method": "GET", "scheme": "http", "host": "127.0.0.1", "port": port, "target": "/x", "headers": ()}
    return OutgoingRequest(**(values | changes))


def post(port: int, body: bytes, **changes: Any) -> OutgoingRequest:
    """A POST with a buffered body."""
    return outgoing(port, **({"method": "POST", "body": body} | changes))


def begin(
    pool: UpstreamPool, request: OutgoingRequest, *, pause_at_head: bool = False, may_be_plain: bool = False
) -> Answer:
    """The answer to come."""
    answer = Answer(pause_at_head=pause_at_head)
    answer.call = pool.send(request, answer, may_be_plain=may_be_plain)
    return answer


async def ask(pool: UpstreamPool, request: OutgoingRequest, *, may_be_plain: bool = False) -> Answer:
    """The answer, complete or failed."""
    return await begin(pool, request, may_be_plain=may_be_plain).over()


class Names:
    """What names stand for, one answer after the other, the last for ever; `asked` has what was looked up."""

    def __init__(self, answers: dict[str, list[list[str]]]) -> None:
        self.asked: list[str] = []
        self._answers = answers

    async def __call__(self, host: str, port: int) -> list[tuple[int, str]]:
        self.asked.append(host)
        answers = self._answers[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET6 if ":" in one else socket.AF_INET, one) for one in found]
