"""G9: stopping a bridge drops no stream within its grace; stopping credentiald fails no stream already begun.

Proved on a pair that runs, with 200 streams and 40 answers that have not begun: the bridge gets SIGTERM in the
middle, everything ends whole with every byte that the upstream sent, and the bridge ends by itself with exit status
0, after the last of them and not later. Nobody new gets in meanwhile. Likewise credentiald is stopped, and killed,
under streams that have begun. What is longer than the grace is ended in the way of its API, so no stream that was cut
looks whole.

Wider: tests/daemons/bridged/test_draining.py, tests/daemons/pair/test_workers.py (several workers), docs/operations.md.
"""

import asyncio
import json
import signal
import time

import pytest

from tests.fakes.scripted_upstream import SSE, STALL, Exchange, stream
from tests.support.bridge import until
from tests.support.pair import Pair, running_pair, status_of
from tests.support.raw_http import RawAnswer, raw_client, raw_exchange, request

STREAMS, BLOCKING = 200, 40
KEY = "sk-central-canary-91"
PROVIDERS = {"anthropic": {"TYPE": "anthropic", "KEY": KEY, "BASE_URL": "{upstream}"}}
TIMEOUT_SECONDS = 30
PIECES = 5


def ask(pair: Pair, *, streamed: bool) -> bytes:
    body = json.dumps({"model": "m", "stream": streamed, "messages": []}).encode()
    return request("POST", "/anthropic/v1/messages", headers=[("x-api-key", pair.token)], body=body)


def port_of(pair: Pair) -> int:
    return int(pair.bridged.addresses["http"].rpartition(":")[2])


def event(number: int) -> bytes:
    return b'event: ping\ndata: {"number": %d}\n\n' % number


class Upstream:
    """Begins each stream at once, and goes on, piece by piece, when told to; other answers begin then."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.begun = 0

    async def __call__(self, exchange: Exchange) -> None:
        streamed = b'"stream": true' in exchange.request.body
        if streamed:
            exchange.send_head(200, SSE, chunked=True)
            exchange.send(event(0))
            await exchange.drain()
        self.begun += 1
        await self.go_on.wait()
        if not streamed:
            exchange.send_head(200, [("Content-Length", "4")])
            exchange.send(b"late")
            return
        for number in range(1, PIECES):
            # Streams that end at different moments of the drain.
            await asyncio.sleep(0.002 * (self.begun % 50))
            exchange.send(event(number))
            await exchange.drain()
        exchange.end()


WHOLE = b"".join(event(number) for number in range(PIECES))


async def all_begun(pair: Pair, upstream: Upstream, blocking: int) -> list[asyncio.Task[RawAnswer]]:
    pair.upstream.default = upstream
    asking = [
        asyncio.create_task(
            raw_exchange(port_of(pair), ask(pair, streamed=number < STREAMS), timeout_seconds=TIMEOUT_SECONDS)
        )
        for number in range(STREAMS + blocking)
    ]
    await until(lambda: upstream.begun == STREAMS + blocking)
    return asking


def told_apart(answers: list[RawAnswer]) -> set[tuple[int, bool, bytes]]:
    return {(answer.status, answer.complete, answer.body) for answer in answers}


async def test_a_bridge_that_is_stopped_drops_none_of_its_requests(tmp_path):
    upstream = Upstream()
    async with running_pair(tmp_path, PROVIDERS, "--grace", "30s") as pair:
        asking = await all_begun(pair, upstream, BLOCKING)
        async with raw_client(port_of(pair)) as kept_alive:
            stopping = asyncio.create_task(asyncio.to_thread(pair.bridged.stop, signal.SIGTERM))
            await until(lambda: any(line["msg"] == "draining" for line in pair.bridged.lines))
            ready = f"http://{pair.bridged.addresses['metrics']}/readyz"
            assert await asyncio.to_thread(status_of, ready) == 503
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", port_of(pair))
            await kept_alive.send(ask(pair, streamed=True))
            refused = await kept_alive.read_answer()
            assert (refused.status, refused.header("retry-after")) == (503, "1")
            assert not stopping.done()
            upstream.go_on.set()
            answers = await asyncio.gather(*asking)
            ended = time.monotonic()
        assert await stopping == 0
        assert time.monotonic() - ended < 10
    assert told_apart(answers) == {(200, True, WHOLE), (200, True, b"late")}
    assert len(answers) == STREAMS + BLOCKING


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_streams_that_have_begun_do_not_notice_that_credentiald_goes(tmp_path, number):
    upstream = Upstream()
    async with running_pair(tmp_path, PROVIDERS) as pair:
        asking = await all_begun(pair, upstream, 0)
        code = await asyncio.to_thread(pair.credentiald.stop, number)
        assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        upstream.go_on.set()
        answers = await asyncio.gather(*asking)
    assert told_apart(answers) == {(200, True, WHOLE)}


async def test_a_stream_that_is_longer_than_the_grace_is_told_so_and_never_looks_whole(tmp_path):
    async with running_pair(tmp_path, PROVIDERS, "--grace", "200ms") as pair:
        pair.upstream.default = stream(event(0), STALL)
        async with raw_client(port_of(pair)) as client:
            await client.send(ask(pair, streamed=True))
            assert (await client.read_head()).status == 200
            body = await client.read_some()
            began = time.monotonic()
            assert await asyncio.to_thread(pair.bridged.stop, signal.SIGTERM) == 0
            assert time.monotonic() - began < 10
            while piece := await client.read_some():
                body += piece
    assert body.startswith(event(0))
    assert json.loads(body.split(b"event: error\ndata: ")[1])["error"]["message"]
