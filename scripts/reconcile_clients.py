"""The clients of scripts/reconcile: each asks what its plan says, and leaves when its plan says so."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from reconcile_answers import leave_of, steps_of
from reconcile_plan import Ending, Plan

# Of requests that arrive while credentiald is away, or their bridge.
AGAIN_SECONDS = 0.25
DEADLINE_SECONDS = 60.0
# After what a client waited for, it leaves at once or a little later.
LONGEST_STAY_SECONDS = 0.3
# How soon a client leaves that waits for nothing: before, while and after the bridge asks credentiald.
LONGEST_EARLY_SECONDS = 0.1
# A refusal that comes after a resolve.
_RESOLVED = frozenset({"KEY_POOL_EXHAUSTED", "UPSTREAM_KEY_REFUSED", "UPSTREAM_UNREACHABLE", "UPSTREAM_TIMEOUT"})


@dataclass(slots=True, kw_only=True)
class Seen:
    """What the clients saw. Ids are of interceptions, as the bridge told them."""

    ids: dict[str, int] = field(default_factory=dict)
    # Whole answers, by number of the request: status and bytes of the body.
    whole: dict[int, tuple[int, int]] = field(default_factory=dict)
    left: set[int] = field(default_factory=set)
    # Connections that broke with their bridge, and where that listened.
    broken: dict[int, str] = field(default_factory=dict)
    # The ids of requests that were refused before they were resolved, and why.
    refused: set[str] = field(default_factory=set)
    reasons: Counter[str] = field(default_factory=Counter)
    unconnected: int = 0


class Clients:
    """`addresses` tells where bridges listen now."""

    def __init__(self, addresses: Callable[[], Sequence[str]], token: str) -> None:
        self._addresses = addresses
        self._token = token
        self.seen = Seen()

    async def ask(self, plan: Plan) -> None:
        """One request, again and again until it was resolved."""
        while True:
            if await self._ask_once(plan):
                return
            await asyncio.sleep(random.uniform(AGAIN_SECONDS / 2, AGAIN_SECONDS))

    async def _ask_once(self, plan: Plan) -> bool:
        addresses = self._addresses()
        if not addresses:
            return False
        address = random.choice(addresses)
        host, _, port = address.rpartition(":")
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            self.seen.unconnected += 1
            return False
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await self._exchange(plan, reader, writer)
        except (OSError, EOFError):
            self.seen.broken[plan.number] = address
            return True
        finally:
            writer.transport.abort()

    async def _exchange(self, plan: Plan, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        seen, body = self.seen, plan.body()
        lines = [f"POST {plan.path()} HTTP/1.1", "Host: bridge", f"Authorization: Bearer {self._token}"]
        lines += [f"User-Agent: {plan.agent}", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        if plan.ending is Ending.LEAVES_EARLY:
            head = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
            stay_seconds = random.uniform(0, LONGEST_EARLY_SECONDS)
            await asyncio.wait([head], timeout=stay_seconds)
            if not head.done():
                head.cancel()
                seen.left.add(plan.number)
                _leave(plan, writer)
                return True
            fields = _fields(await head)
        else:
            fields = _fields(await reader.readuntil(b"\r\n\r\n"))
        interception_id, reason = fields["x-interception-id"], fields.get("x-drawbridge-error", "")
        if reason and reason not in _RESOLVED:
            seen.refused.add(interception_id)
            seen.reasons[reason] += 1
            return False
        seen.ids[interception_id] = plan.number
        if plan.ending is Ending.LEAVES:
            await self._read_and_leave(plan, fields, reader, writer)
            return True
        size_bytes = 0
        async for data in _body(fields, reader):
            size_bytes += len(data)
        seen.whole[plan.number] = (int(fields[":status"]), size_bytes)
        return True

    async def _read_and_leave(
        self, plan: Plan, fields: dict[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        steps = steps_of(plan)
        left_bytes = sum(len(step.data) for step in steps[: leave_of(plan, steps)[0] + 1])
        async for data in _body(fields, reader):
            left_bytes -= len(data)
            if left_bytes <= 0:
                break
        else:
            raise EOFError("the answer ended before its client left")
        if plan.number % 2:
            await asyncio.sleep(random.uniform(0, LONGEST_STAY_SECONDS))
        self.seen.left.add(plan.number)
        _leave(plan, writer)


def _leave(plan: Plan, writer: asyncio.StreamWriter) -> None:
    """Close, every third time with a reset."""
    if plan.number % 3 == 0:
        connection: socket.socket = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _fields(head: bytes) -> dict[str, str]:
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {**fields, ":status": first.split(" ")[1]}


async def _body(fields: dict[str, str], reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The pieces of a body."""
    if "content-length" in fields:
        yield await reader.readexactly(int(fields["content-length"]))
        return
    while size_bytes := int(await reader.readuntil(b"\r\n"), 16):
        yield (await reader.readexactly(size_bytes + 2))[:-2]
    await reader.readexactly(2)
