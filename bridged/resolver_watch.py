"""One stream on which a credentiald tells what administrators change: what comes is obeyed, then acknowledged.

Nothing of a request waits for this. While the stream is away, questions are answered as ever; what was missed comes
when it is back.
"""

import asyncio
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
# Heartbeats come every five seconds.
_SILENCE_SECONDS = 15.0
_LONG = frozenset({grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})
# Where a stream begins: database and revision of what was obeyed last.
Place = tuple[str, int]


async def keep_watching(
    stub: "CredentialServiceAsyncStub",
    *,
    bridge_instance_id: str,
    metadata: Metadata,
    metrics: Metrics,
    place: Callable[[], Place],
    obey: Callable[[News], None],
    now_seconds: Callable[[], float] = time.time,
) -> None:
    """Watch until cancelled. `obey` returns when nothing under way contradicts the news any more."""
    while True:
        call: Any = stub.WatchProviders(metadata=metadata)
        pause_seconds = _PAUSE_SECONDS
        watches = False
        try:
            database_id, revision = place()
            await call.write(
                pb.WatchProvidersRequest(
                    bridge_instance_id=bridge_instance_id, database_id=database_id, revision=revision
                )
            )
            while (message := await _next(call)) is not grpc.aio.EOF:
                if message is None:
                    # It was none of the contract, as gRPC says in the log.
                    pause_seconds = _LONG_PAUSE_SECONDS
                    break
                news = news_of(message)
                obey(news)
                if news.changes_missing and revision:
                    log.warning("some of what administrators changed is not known here: what runs on it may go on")
                if news.changes:
                    metrics.revoked_within(now_seconds() - news.changes[0].change_seconds)
                if news.changes or news.snapshot:
                    await call.write(pb.WatchProvidersRequest(revision=news.revision))
                if not watches:
                    watches = True
                    metrics.watch_streams.inc()
        except grpc.aio.AioRpcError as error:
            if error.code() in _LONG:
                pause_seconds = _LONG_PAUSE_SECONDS
            log.debug("the watch is lost", extra={"code": error.code().name})
        except (TimeoutError, asyncio.InvalidStateError):
            # Nothing came for long, or the call was over before it was written to.
            log.debug("the watch is lost")
        except Exception:
            log.exception("unhandled error in what credentiald tells of changes")
            pause_seconds = _LONG_PAUSE_SECONDS
        finally:
            if watches:
                metrics.watch_streams.dec()
            call.cancel()
        end_if_cancelled()
        await asyncio.sleep(random.uniform(*pause_seconds))  # noqa: S311 - jitter


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
