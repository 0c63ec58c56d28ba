"""The upstream of scripts/reconcile, a process of its own: prints its port, then serves until it is killed.

It keeps its own count of what it told, request by request: GET /account gives it as JSON.

    python scripts/reconcile_upstream.py SEED true|false       whether each request has a model of its own
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Kept out of the installed package, like everything of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from reconcile_answers import Step, Told, leave_of, steps_of
from reconcile_plan import Ending, Kind, Plan, plan_of

_NUMBER = re.compile(rb"this is request (\d+)\.")
_CREDENTIAL = re.compile(r"(?i)\r\n(?:authorization: *Bearer|x-api-key:|x-goog-api-key:|api-key:) *([^\r]*)")
# Before it hangs up instead of an answer: longer than a bridge takes a closed connection for one that was never read.
_SILENCE_SECONDS = 0.3
_STREAM_TYPE = {Kind.CONVERSE: b"application/vnd.amazon.eventstream"}


class Gone(Exception):
    """The bridge has hung up."""


class Account:
    """What the upstream knows of one request."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.calls = 0
        self.told = Told()
        # complete, cut, refused, silent, fails; or left, because the bridge hung up.
        self.end = "open"
        self.said_bytes = self.extra_bytes = 0
        self.asked_usage = False
        # What the requests carried in the headers that credentials come in.
        self.credentials: list[str] = []

    def said(self, step: Step) -> None:
        """A step is out."""
        self.told = step.told
        self.said_bytes += len(step.data)
        self.extra_bytes += len(step.data) if step.extra else 0

    def as_json(self) -> dict[str, Any]:
        """For whoever reconciles."""
        return {
            "number": self.plan.number, "calls": self.calls, **asdict(self.told), "end": self.end,
            "said_bytes": self.said_bytes, "extra_bytes": self.extra_bytes, "credentials": self.credentials,
        }  # fmt: skip


class Upstream:
    """Answers by plans, and counts."""

    def __init__(self, seed: int, *, own_models: bool) -> None:
        self._seed = seed
        self._own_models = own_models
        self._accounts: dict[int, Account] = {}

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._serve(reader, writer):
                    pass
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        if head.startswith("GET /account "):
            body = json.dumps([one.as_json() for one in self._accounts.values()]).encode()
            self._send(writer, 200, body, b"")
            await writer.drain()
            return False
        lengths = re.findall(r"(?i)\r\ncontent-length: *(\d+)", head)
        body = await reader.readexactly(int(lengths[0]))
        found = _NUMBER.search(body)
        if found is None:
            raise ValueError("a request without a number")
        plan = plan_of(self._seed, int(found[1]), own_models=self._own_models)
        account = self._accounts.setdefault(plan.number, Account(plan))
        account.calls += 1
        account.credentials += _CREDENTIAL.findall(head)
        account.asked_usage = b'"include_usage": true' in body or b'"include_usage":true' in body
        gone = asyncio.ensure_future(reader.read(1))
        try:
            return await self._answer(account, writer, gone)
        except (Gone, ConnectionError):
            account.end = "left"
            return False
        finally:
            gone.cancel()
            # What it ended with is of no interest, a reset least of all.
            await asyncio.gather(gone, return_exceptions=True)

    async def _answer(self, account: Account, writer: asyncio.StreamWriter, gone: asyncio.Future[bytes]) -> bool:
        plan = account.plan
        if plan.ending is Ending.LEAVES_EARLY:
            await asyncio.wait([gone])
            raise Gone
        if plan.ending is Ending.SILENT:
            await self._pause(gone, _SILENCE_SECONDS)
            account.end = "silent"
            return False
        if plan.ending is Ending.REFUSED:
            await self._pause(gone, plan.pause_seconds)
            self._send(writer, plan.status, _refusal(plan), _request_id(plan))
            await writer.drain()
            account.end = "refused"
            return True
        steps = [one for one in steps_of(plan) if not one.extra or account.asked_usage]
        if not plan.streaming:
            await self._pause(gone, plan.pause_seconds * plan.words / 4)
            self._send(writer, 200, steps[0].data, _request_id(plan))
            account.said(steps[0])
            await writer.drain()
            account.end = "complete"
            return True
        return await self._stream(account, steps, writer, gone)

    async def _stream(
        self, account: Account, steps: list[Step], writer: asyncio.StreamWriter, gone: asyncio.Future[bytes]
    ) -> bool:
        plan = account.plan
        kind = _STREAM_TYPE.get(plan.kind, b"text/event-stream; charset=utf-8")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n" % kind)
        writer.write(_request_id(plan) + b"\r\n")
        said = leave_of(plan, steps)[1] if plan.ending is Ending.LEAVES else len(steps) - 1
        for place, step in enumerate(steps[: said + 1]):
            await self._pause(gone, plan.pause_seconds if place else 0)
            writer.write(b"%x\r\n%b\r\n" % (len(step.data), step.data))
            account.said(step)
            await writer.drain()
        if plan.ending is Ending.LEAVES:
            await asyncio.wait([gone])
            raise Gone
        if plan.ending is Ending.CUT:
            account.end = "cut"
            return False
        writer.write(b"0\r\n\r\n")
        account.end = "fails" if plan.ending is Ending.FAILS else "complete"
        await writer.drain()
        return True

    @staticmethod
    async def _pause(gone: asyncio.Future[bytes], seconds: float) -> None:
        if (await asyncio.wait([gone], timeout=seconds))[0]:
            raise Gone

    @staticmethod
    def _send(writer: asyncio.StreamWriter, status: int, body: bytes, more: bytes) -> None:
        head = b"HTTP/1.1 %d Said\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % (status, len(body))
        writer.write(head + more + b"\r\n" + body)


def _request_id(plan: Plan) -> bytes:
    return b"X-Request-Id: up-%d\r\n" % plan.number


def _refusal(plan: Plan) -> bytes:
    return json.dumps({"type": "error", "error": {"type": "some_error", "message": f"status {plan.status}"}}).encode()


async def main(seed: int, *, own_models: bool) -> None:
    upstream = Upstream(seed, own_models=own_models)
    server = await asyncio.start_server(upstream.connected, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main(int(sys.argv[1]), own_models=sys.argv[2] == "true"))
