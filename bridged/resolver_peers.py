"""Keeps a peer for each credentiald that the target names, for as long as it names it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import final

import grpc
import grpc.aio

from bridged.resolver_addresses import Lookup, Name, name_of, target_of
from bridged.resolver_peer import Peer
from bridged.resolver_pool import Pool

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """PEM bytes for the channel: whom to trust (None: the system's trust store), and who we are, for mutual TLS."""

    ca: bytes | None = None
    cert: bytes | None = None
    key: bytes | None = None


@asynccontextmanager
async def running_peers(pool: Pool, target: str, tls: ClientTls | None, lookup: Lookup) -> AsyncIterator[None]:
    """Peers for the length of the block: one, or one for each address of a `dns:///` target."""
    name = name_of(target)
    work = _keep_one(pool, target, tls) if name is None else _Replicas(pool, name, tls, lookup).keep()
    keeping = asyncio.create_task(work, name="credentiald")
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        pool.refuse_all()


async def _keep_one(pool: Pool, target: str, tls: ClientTls | None) -> None:
    async with _channel(target, tls) as channel:
        await Peer(channel, pool).run()


@final
class _Replicas:
    """The peers of a name that has several addresses."""

    def __init__(self, pool: Pool, name: Name, tls: ClientTls | None, lookup: Lookup) -> None:
        self._pool = pool
        self._name = name
        self._tls = tls
        self._lookup = lookup
        self._peers: dict[str, Peer] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def keep(self) -> None:
        """Look the name up, again and again, and have a peer for each of its addresses."""
        try:
            while True:
                self._pool.trouble.clear()
                await self._look_up()
                await asyncio.sleep(_LOOKUP_PAUSE_SECONDS)
                try:
                    async with asyncio.timeout(_LOOKUP_INTERVAL_SECONDS if self._peers else 0):
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
            if not self._peers:
                self._pool.not_found()
            return
        for target in found - self._peers.keys():
            task = asyncio.create_task(self._run(target), name=target)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        for target in self._peers.keys() - found:
            # Gone from here at once: an address that comes back while its peer still settles gets another one.
            self._peers.pop(target).leave()

    async def _run(self, target: str) -> None:
        options = [("grpc.default_authority", self._name.authority)]
        if self._tls is not None:
            # The certificate is for the name, not for the address behind it.
            options.append(("grpc.ssl_target_name_override", self._name.host))
        async with _channel(target, self._tls, options) as channel:
            peer = self._peers[target] = Peer(channel, self._pool, address=target)
            try:
                await peer.run()
            finally:
                if self._peers.get(target) is peer:
                    # Nobody told it to leave: have the next one soon.
                    del self._peers[target]
                    self._pool.trouble.set()


def _channel(target: str, tls: ClientTls | None, more: Sequence[tuple[str, str]] = ()) -> grpc.aio.Channel:
    options = [*_CHANNEL_OPTIONS, *more]
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options)
    credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.cert)
    return grpc.aio.secure_channel(target, credentials, options=options)
