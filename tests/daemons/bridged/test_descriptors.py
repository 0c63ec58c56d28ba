"""A bridge that has no file descriptors left: it says so where it can, serves whom it has, and recovers."""

import asyncio
import contextlib
import itertools
import os
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.fakes.credentiald import SERVICE_TOKEN, FakeCredentiald
from tests.fakes.scripted_upstream import ScriptedUpstream, reply, stream
from tests.support.bridge import AUTH
from tests.support.processes import Daemon, bridged
from tests.support.raw_http import RawAnswer, RawClient, raw_client, raw_exchange, request

ASK = request("POST", "/anthropic/v1/messages", headers=[AUTH], body=b'{"model":"m"}')


def port_of(running: Daemon) -> int:
    return int(running.addresses["http"].rpartition(":")[2])


def open_descriptors(running: Daemon) -> set[int]:
    return {int(name) for name in os.listdir(f"/proc/{running.process.pid}/fd")}


def leave_descriptors(running: Daemon, count: int) -> None:
    """From now on this process may have only so many more open than it has. The limit is on their numbers."""
    taken = open_descriptors(running)
    free = (number for number in itertools.count() if number not in taken)
    limit = next(itertools.islice(free, count, None))
    resource.prlimit(
        running.process.pid, resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )


def has_clients(running: Daemon) -> bool:
    """Whether there is any connection to it that it has not closed (proc(5), /proc/net/tcp: 01 stands, 08 was left)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1].endswith(f":{port_of(running):04X}") and row[3] in ("01", "08") for row in rows)


@asynccontextmanager
async def warm(folder: Path, credentiald: FakeCredentiald) -> AsyncIterator[Daemon]:
    """A bridge that has answered a request, so that it has all that it opens but once."""
    environ = {"BRIDGED_CREDENTIALD_TOKEN": SERVICE_TOKEN}
    # Its descriptors are a folder of /proc.
    with bridged(folder, credentiald.target, environ, "--debuggable") as running:
        assert (await raw_exchange(port_of(running), ASK)).status == 200
        last: set[int] = set()
        async with asyncio.timeout(20):
            while last != (last := open_descriptors(running)) or has_clients(running):
                await asyncio.sleep(0.2)  # what it opens beside that has been opened when this has not changed
        yield running


async def asked(client: RawClient) -> RawAnswer | None:
    """The answer; None where the connection was closed without one."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        await client.send(ASK)
        return await client.read_answer()
    return None


async def test_clients_without_a_descriptor_harm_nobody_and_the_next_ones_are_served(
    tmp_path: Path, credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.default = reply()
    async with warm(tmp_path, credentiald) as running:
        leave_descriptors(running, 4)
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(raw_client(port_of(running))) for _ in range(12)]
            answers = [await asked(client) for client in clients]
            served = [answer.status for answer in answers if answer is not None]
            assert None in answers
            assert served == [200] * len(served)
            assert len(served) >= 4
            assert (await asked(clients[0])) is not None
        answer = None
        async with asyncio.timeout(5):
            while answer is None:
                async with raw_client(port_of(running)) as client:
                    answer = await asked(client)
        assert answer.status == 200


async def test_a_request_without_a_descriptor_for_its_upstream_is_refused_and_the_next_one_is_not(
    tmp_path: Path, credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    gate = asyncio.Event()
    upstream.default = reply()
    async with warm(tmp_path, credentiald) as running:
        upstream.default = stream(b"data: {}\n\n", gate)
        leave_descriptors(running, 2)
        async with raw_client(port_of(running)) as first, raw_client(port_of(running)) as second:
            await first.send(ASK)
            await first.read_head()
            # The one connection that waited is taken, and both descriptors are their clients'.
            refused = await asked(second)
            assert refused is not None
            assert (refused.status, refused.error) == (502, "UPSTREAM_UNREACHABLE")
            gate.set()
            while await first.read_some():
                pass
            upstream.default = reply()
            again = await asked(second)
            assert again is not None
            assert again.status == 200
