"""Keeps a peer for each credentiald that the target names, for as long as it names it.

Where the bridge is known by something else from now on (resolver_identity.py), each gets a second peer on a channel of
its own. The first one leaves when the second answers, and its channel is closed when nothing is under way on it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import final

import grpc
import grpc.aio

from bridged.resolver_addresses import Lookup, Name, name_of, target_of
from bridged.resolver_identity import ClientTls, Identities, Identity
from bridged.resolver_peer import Peer
from bridged.resolver_pool import Pool
from bridged.resolver_unary import APPEND_TIMEOUT_SECONDS

log = logging.getLogger(__name__)

# How soon a name is looked up again: after trouble, and in any case, since replicas that are added make no trouble.
_LOOKUP_PAUSE_SECONDS = 1.0
# Questions wait for the first answer of the name service; TimeoutError is an OSError.
_LOOKUP_SECONDS = 2.0
_LOOKUP_INTERVAL_SECONDS = 30.0
# Healed within 2 s of credentiald's return: gRPC's own back-off would wait up to 120 s, and would give an attempt to
# connect 20 s, which a stopped process, whose kernel still accepts, uses up. The keepalive finds peers that vanished
# without a word; the pings' answers keep the server from taking it amiss. A reply to a batch may hold 256 keys of
# 10 KiB and their receipts, more than the 4 MiB that gRPC would take.
_CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.max_receive_message_length", 32 * 1024 * 1024),
)


# For calls that are under way on a channel whose peer has left: longer than the longest takes, which brings reports.
_CLOSE_SECONDS = APPEND_TIMEOUT_SECONDS + 2.0


@asynccontextmanager
async def running_peers(pool: Pool, target: str, identities: Identities, lookup: Lookup) -> AsyncIterator[None]:
    """Peers for the length of the block: one, or one for each address of a `dns:///` target."""
    name = name_of(target)
    one = _Replica(pool, identities, target)
    work = one.run() if name is None else _Replicas(pool, name, identities, lookup).keep()
    keeping = asyncio.create_task(work, name="credentiald")
    try:
        yield
        await pool.say_goodbye()
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        pool.refuse_all()


@final
class _Replica:
    """One credentiald: its peer, and while the bridge's identity changes, the one that takes over."""

    def __init__(
        self,
        pool: Pool,
        identities: Identities,
        target: str,
        *,
        address: str = "",
        options: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._pool = pool
        self._identities = identities
        self._target = target
        self._address = address
        self._options = options
        # In the order of their beginning.
        self._peers: dict[Peer, asyncio.Task[None]] = {}
        self._answering: Peer | None = None
        self._wake = asyncio.Event()
        self._leaves = False

    async def run(self) -> None:
        """Have a peer until told to leave, or until one ends by itself."""
        unfollow = self._identities.follow(self._wake.set)
        begun: Identity | None = None
        try:
            while self._peers or not self._leaves:
                self._wake.clear()
                if not self._leaves and begun is not self._identities.current:
                    begun = self._identities.current
                    self._begin(begun.tls)
                await self._wake.wait()
                for peer in [peer for peer, task in self._peers.items() if task.done()]:
                    self._peers.pop(peer).result()
                    if not peer.has_left:
                        return
        finally:
            unfollow()
            for task in self._peers.values():
                task.cancel()
            if self._peers:
                await asyncio.wait(self._peers.values())

    def leave(self) -> None:
        """Take no more questions; `run` ends when what is under way is settled."""
        self._leaves = True
        for peer in self._peers:
            peer.leave()
        self._wake.set()

    def _begin(self, tls: ClientTls | None) -> None:
        channel = _channel(self._target, tls, self._options)
        peer = Peer(channel, self._pool, self._identities, address=self._address, answers=lambda: self._took_over(peer))
        task = asyncio.create_task(_carry(peer, channel), name=self._target)
        task.add_done_callback(lambda _: self._wake.set())
        for older in self._peers:
            if older is not self._answering:
                # It never came to answer. Not before the new one has joined, so that questions can wait for that.
                asyncio.get_running_loop().call_soon(older.leave)
        self._peers[peer] = task

    def _took_over(self, peer: Peer) -> None:
        self._answering = peer
        for older in self._peers:
            if older is peer:
                break
            older.leave()


async def _carry(peer: Peer, channel: grpc.aio.Channel) -> None:
    try:
        await peer.run()
        await channel.close(_CLOSE_SECONDS)
    finally:
        await channel.close()


@final
class _Replicas:
    """The peers of a name that has several addresses."""

    def __init__(self, pool: Pool, name: Name, identities: Identities, lookup: Lookup) -> None:
        self._pool = pool
        self._name = name
        self._identities = identities
        self._lookup = lookup
        self._replicas: dict[str, _Replica] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def keep(self) -> None:
        """Look the name up, again and again, and have a peer for each of its addresses."""
        try:
            while True:
                self._pool.trouble.clear()
                await self._look_up()
                await asyncio.sleep(_LOOKUP_PAUSE_SECONDS)
                try:
                    async with asyncio.timeout(_LOOKUP_INTERVAL_SECONDS if self._replicas else 0):
                        await self._pool.trouble.wait()
                except TimeoutError:
                    continue
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _look_up(self) -> None:
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                addresses = await self._lookup(self._name.host, self._name.port)
            found = {target_of(address, port) for address, port in addresses}
        except OSError as error:
            cause = error.strerror or type(error).__name__
            log.warning("credentiald's name was not found", extra={"target": self._name.authority, "cause": cause})
            if not self._replicas:
                self._pool.not_found()
            return
        for target in found - self._replicas.keys():
            task = asyncio.create_task(self._run(target), name=target)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        for target in self._replicas.keys() - found:
            # Gone from here at once: an address that comes back while its peer still settles gets another one.
            self._replicas.pop(target).leave()

    async def _run(self, target: str) -> None:
        options = [("grpc.default_authority", self._name.authority)]
        if self._identities.current.tls is not None:
            # The certificate is for the name, not for the address behind it.
            options.append(("grpc.ssl_target_name_override", self._name.host))
        replica = self._replicas[target] = _Replica(
            self._pool, self._identities, target, address=target, options=options
        )
        try:
            await replica.run()
        finally:
            if self._replicas.get(target) is replica:
                # Nobody told it to leave: have the next one soon.
                del self._replicas[target]
                self._pool.trouble.set()


def _channel(target: str, tls: ClientTls | None, more: Sequence[tuple[str, str]] = ()) -> grpc.aio.Channel:
    options = [*_CHANNEL_OPTIONS, *more]
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options)
    credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.cert)
    return grpc.aio.secure_channel(target, credentials, options=options)
