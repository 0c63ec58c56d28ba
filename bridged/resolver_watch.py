"""One stream on which a credentiald tells what administrators change: what comes is obeyed, then acknowledged.

Nothing of a request waits for this, but that the first questions to a credentiald wait for the watch to begin, within a
bound. While the stream is away, questions are answered as ever; what was missed comes when it is back.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc.aio
from drawbridge.v1 import credential_service_pb2 as pb

from bridged.metrics import Metrics
from bridged.resolver_unary import Metadata
from bridged.watch import Change, News, WatchedProvider
from daemonkit.cancellation import end_if_cancelled

if TYPE_CHECKING:  # the asynchronous stub exists only for the type checker
    from drawbridge.v1.credential_service_pb2_grpc import CredentialServiceAsyncStub

log = logging.getLogger(__name__)

# Random, so that many bridges do not come as one.
_PAUSE_SECONDS = (0.05, 0.3)
# A credentiald of before there was a watch, or one that refuses this bridge: neither is mended by asking often.
_LONG_PAUSE_SECONDS = (2.0, 4.0)
# A bridge that stops says so, and does not wait for long.
_LEAVE_SECONDS = 1.0
# Heartbeats come every five seconds.
_SILENCE_SECONDS = 15.0
_LONG = frozenset({grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})
# Where a stream begins: database and revision of what was obeyed last.
Place = tuple[str, int]


class Watch:
    """The watch of one credentiald. `obey` returns when nothing under way contradicts the news any more."""

    def __init__(
        self,
        stub: "CredentialServiceAsyncStub",
        *,
        bridge_instance_id: str,
        metadata: Metadata,
        metrics: Metrics,
        place: Callable[[], Place],
        obey: Callable[[News], None],
        now_seconds: Callable[[], float] = time.time,
    ) -> None:
        self._stub = stub
        self._bridge_instance_id = bridge_instance_id
        self._metadata = metadata
        self._metrics = metrics
        self._place = place
        self._obey = obey
        self._now_seconds = now_seconds
        self._call: Any = None
        # gRPC takes one message at a time.
        self._writing = asyncio.Lock()
        self._is_on = self._is_leaving = False
        self._over = asyncio.Event()
        # Whether it hears what is changed, or cannot and need not be waited for.
        self._settled = asyncio.Event()
        self._again = asyncio.Event()

    async def begun(self, seconds: float) -> None:
        """Return when it hears what is changed, when this credentiald does not let it, or when the time is over.

        Who asks before it watches may hold an answer that no administrator waits for.
        """
        self._again.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._settled.wait()

    async def leave(self) -> None:
        """Say that nothing is under way and that nothing will be asked: administrators need not wait any more."""
        self._is_leaving = True
        if not self._is_on:
            return
        with contextlib.suppress(TimeoutError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self._write(pb.WatchProvidersRequest(leaving=True))
                await self._over.wait()

    async def keep(self) -> None:
        """Watch until it has left, or is cancelled."""
        while True:
            pause_seconds = await self._watch_once()
            end_if_cancelled()
            if self._is_leaving:
                return
            await self._pause(random.uniform(*pause_seconds))  # noqa: S311 - jitter

    async def _pause(self, seconds: float) -> None:
        """As long as this, or until questions wait for the watch."""
        self._again.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._again.wait()

    async def _watch_once(self) -> tuple[float, float]:
        """Watch until the stream is over; from how long to how long to pause then."""
        call = self._call = self._stub.WatchProviders(metadata=self._metadata)
        self._over.clear()
        try:
            database_id, revision = self._place()
            await self._write(
                pb.WatchProvidersRequest(
                    bridge_instance_id=self._bridge_instance_id, database_id=database_id, revision=revision
                )
            )
            while (message := await _next(call)) is not grpc.aio.EOF:
                if message is None:
                    # It was none of the contract, as gRPC says in the log.
                    return _LONG_PAUSE_SECONDS
                await self._heard(news_of(message), resumes=bool(revision))
                if not self._is_on:
                    self._is_on = True
                    self._metrics.watch_streams.inc()
                    self._settled.set()
        except grpc.aio.AioRpcError as error:
            log.debug("the watch is lost", extra={"code": error.code().name})
            if error.code() in _LONG:
                self._settled.set()
                return _LONG_PAUSE_SECONDS
        except (TimeoutError, asyncio.InvalidStateError):
            # Nothing came for long, or the call was over before it was written to.
            log.debug("the watch is lost")
        except Exception:
            log.exception("unhandled error in what credentiald tells of changes")
            return _LONG_PAUSE_SECONDS
        finally:
            if self._is_on:
                self._is_on = False
                self._metrics.watch_streams.dec()
                self._settled.clear()
            self._over.set()
            self._call = None
            call.cancel()
        return _PAUSE_SECONDS

    async def _heard(self, news: News, *, resumes: bool) -> None:
        self._obey(news)
        if news.changes_missing and resumes:
            log.warning("some of what administrators changed is not known here: what runs on it may go on")
        if news.changes:
            self._metrics.revoked_within(self._now_seconds() - news.changes[0].change_seconds)
        if (news.changes or news.snapshot) and not self._is_leaving:
            await self._write(pb.WatchProvidersRequest(revision=news.revision))

    async def _write(self, message: pb.WatchProvidersRequest) -> None:
        async with self._writing:
            if self._call is not None:
                await self._call.write(message)


async def _next(call: Any) -> Any:
    async with asyncio.timeout(_SILENCE_SECONDS):
        return await call.read()


def news_of(message: pb.WatchProvidersResponse) -> News:
    """The values of a message."""
    return News(
        database_id=message.database_id,
        revision=message.revision,
        changes=[
            Change(
                revision=change.revision,
                kind=change.kind,
                resource_id=change.resource_id,
                change_seconds=change.change_time.seconds + change.change_time.nanos / 1e9,
            )
            for change in message.changes
        ],
        providers={
            one.id: WatchedProvider(
                id=one.id,
                enabled=one.enabled,
                central_key_enabled=one.key_policy.central_key_enabled,
                user_keys_allowed=one.key_policy.user_keys_allowed,
                central_key_ids=frozenset([key.credential_id for key in one.central_keys]),
            )
            for one in message.providers
        },
        snapshot=message.snapshot,
        changes_missing=message.changes_missing,
    )
