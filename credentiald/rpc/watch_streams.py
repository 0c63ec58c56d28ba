"""Bridges that watch what administrators change, and administrators who wait until the bridges have obeyed.

Invariants:
- A bridge counts as watching, in this process and for the others, before the state that it begins with is read: no
  change falls between the two.
- What a stream says is in the order of revisions and leaves none out.
- An administrator's rpc waits within a bound, and never fails for what it waits for: its change is committed.
- Who ends without a word, or is ended because it does not answer, has obeyed nothing by that.
- Commits of other processes are noticed by looking at a counter in shared memory, while anybody watches.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
from drawbridge.v1 import credential_service_pb2 as pb

from credentiald.bridge_instances import Instance
from credentiald.errors import InvalidArgument, Refusal, StoreUnavailable
from credentiald.metrics import Metrics
from credentiald.plane import Plane
from credentiald.rpc import watch_codec, watch_news
from credentiald.rpc.guard import admit_again, current_caller
from credentiald.rpc.record_codec import instance_of
from credentiald.rpc.watch_codec import News
from credentiald.rpc.watch_stream import WatchStream
from credentiald.rpc.watcher_rows import WatcherRows, set_within
from credentiald.store import revision
from credentiald.store.database import State
from credentiald.store.records import Records
from credentiald.watchers import Watchers

log = logging.getLogger("credentiald.rpc")

HEARTBEAT_SECONDS = 5.0
# Streams of one service at a time, in one process. Each process of a bridge has one.
MOST_OF_ONE_SERVICE = 1024
# How often it is looked whether another process has committed, while anybody watches.
_LOOK_SECONDS = 0.02
_AFTER_BUG_SECONDS = 1.0
# How often it is looked what bridges of other processes have acknowledged, while somebody waits for that.
_LOOK_ELSEWHERE_SECONDS = 0.005
# A stream is not ended for what it owes before this, however short administrators want to wait.
_LEAST_PATIENCE_SECONDS = 1.0
# How long a caller may take to say where it resumes.
_FIRST_SECONDS = 5.0
# Higher than any that there is: everybody is behind it.
_NO_REVISION = 1 << 62


class WatchStreams:
    """All running streams of this process. Made by `running_watch`."""

    def __init__(self, plane: Plane, stored: Records, metrics: Metrics, *, wait_seconds: float) -> None:
        self._plane = plane
        self._metrics = metrics
        self._wait_seconds = wait_seconds
        self._now = asyncio.get_running_loop().time
        self._watchers = Watchers()
        self._rows = WatcherRows(self._watchers, stored, clock=plane.clock, now=self._now)
        self._streams: dict[str, WatchStream] = {}
        # What the streams of this process have been told of. The state is None where it is to be looked at anew.
        self._revision = 0
        self._state: State | None = None
        self._looking = asyncio.Lock()
        self._anybody = asyncio.Event()
        self._progress = asyncio.Event()
        self._is_stopping = False
        metrics.watchers.set_function(lambda: len(self._watchers))

    def drain(self) -> None:
        """End every stream; those that open from now on end at once."""
        self._is_stopping = True
        for stream in self._streams.values():
            stream.wake.set()

    # -- a stream -----------------------------------------------------------------------------------------------------

    async def serve(self, context: Any) -> None:
        """Tell one bridge, until it goes or may not watch any more."""
        async with asyncio.timeout(_FIRST_SECONDS):
            first = await context.read()
        caller = current_caller()
        if first is grpc.aio.EOF or caller.service is None or self._is_stopping:
            return
        self._check_room(caller.service.id)
        stream = WatchStream(instance_of(caller.service.id, first.bridge_instance_id), asyncio.current_task())
        self._watchers.joined(stream.id, stream.instance)
        self._rows.began(stream.instance)
        self._streams[stream.id] = stream
        self._anybody.set()
        reading = asyncio.create_task(self._read(stream, context), name="acknowledgements of a watcher")
        try:
            await self._rows.write()
            await self._begin(stream, first)
            # What came before is not among the changes that it is told of.
            stream.end_time = (await admit_again()).end_time
            await self._tell(stream, context)
        except asyncio.CancelledError:
            if not stream.is_overdue:
                raise
            # Ours, not the caller's: the bridge opens another, and begins where this one has acknowledged.
            serving = asyncio.current_task()
            if serving is not None:
                serving.uncancel()
        finally:
            reading.cancel()
            self._left(stream)

    def _check_room(self, service_id: str) -> None:
        if sum(one.instance[0] == service_id for one in self._streams.values()) >= MOST_OF_ONE_SERVICE:
            raise InvalidArgument(
                field="bridge_instance_id", problem=f"the service has {MOST_OF_ONE_SERVICE} streams, the most"
            )

    def _left(self, stream: WatchStream) -> None:
        del self._streams[stream.id]
        if stream.has_left:
            self._watchers.left(stream.id)
        else:
            self._watchers.lost(stream.id, self._now())
        if not self._streams:
            self._anybody.clear()
        self._moved()

    async def _begin(self, stream: WatchStream, first: pb.WatchProvidersRequest) -> None:
        """Tell all providers, and what was missed since the caller watched last."""
        resumes = bool(first.revision) and first.database_id == self._plane.db.database_id
        async with self._looking:
            news = await self._plane.db.read(watch_news.everything, self._plane, first.revision if resumes else None)
            if not self._has_begun:
                # Nobody looked while there was nobody to tell.
                self._revision, self._state = news.revision, None
            self._send(stream, news, watch_codec.message(news, self._plane.db.database_id))

    @property
    def _has_begun(self) -> bool:
        return any(one.revision >= 0 for one in self._streams.values())

    async def _tell(self, stream: WatchStream, context: Any) -> None:
        while not (self._is_stopping or stream.is_over):
            if not stream.waiting:
                stream.wake.clear()
                await set_within(stream.wake, HEARTBEAT_SECONDS)
                if stream.end_time is not None and stream.end_time <= self._plane.clock():
                    stream.end_time = (await admit_again()).end_time
                if not stream.wake.is_set():
                    heartbeat = News(revision=stream.revision)
                    await context.write(watch_codec.message(heartbeat, self._plane.db.database_id))
                continue
            news, message = stream.waiting.popleft()
            stream.written_revision = news.revision
            await context.write(message)
            if news.is_about_services:
                # It obeys first; then it may have to go.
                has_obeyed = await self._acknowledged(stream, news.revision)
                try:
                    stream.end_time = (await admit_again()).end_time
                except Refusal as refusal:
                    if has_obeyed and not isinstance(refusal, StoreUnavailable):
                        # Nor does it get an answer any more.
                        stream.has_left = True
                    raise

    async def _acknowledged(self, stream: WatchStream, wanted: int) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._wait_seconds):
                while stream.instance in self._watchers.behind(wanted) and not stream.is_over:
                    await self._progress.wait()
        return stream.instance not in self._watchers.behind(wanted)

    async def _read(self, stream: WatchStream, context: Any) -> None:
        """Take the acknowledgements of one bridge."""
        try:
            while (request := await context.read()) is not grpc.aio.EOF:
                if request.leaving:
                    stream.has_left = True
                    self._rows.said_goodbye(stream.instance)
                    return
                if self._watchers.acknowledged(stream.id, min(request.revision, stream.written_revision)):
                    self._moved()
        except asyncio.CancelledError:
            raise
        except Exception:
            # Reading fails where the caller is gone, which ends `_tell` too.
            log.debug("a watcher is lost", exc_info=True)
        finally:
            stream.is_over = True
            stream.wake.set()

    def _moved(self) -> None:
        """Somebody has acknowledged something, or watches no more: others look at who is behind."""
        progress, self._progress = self._progress, asyncio.Event()
        progress.set()
        self._rows.changed()

    def _send(self, stream: WatchStream, news: News, message: bytes) -> None:
        stream.tell(news, message)
        self._watchers.told(stream.id, news.revision, self._now())

    # -- changes ------------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Tell everybody what was committed since the last look. Waits for nobody's acknowledgement."""
        async with self._looking:
            state = self._plane.db.state()
            if state == self._state or not self._has_begun:
                return
            while (news := await self._plane.db.read(watch_news.since, self._revision)).changes:
                self._revision = news.revision
                self._broadcast(news)
            self._state = state

    def _broadcast(self, news: News) -> None:
        message = watch_codec.message(news, self._plane.db.database_id)
        for stream in self._streams.values():
            # One that began since the last look knows some of it; one that has not begun is told all in a moment.
            if 0 <= stream.revision < news.revision:
                self._send(stream, news, message)

    async def keep_looking(self) -> None:
        """Notice what other processes commit, and who does not answer, until cancelled."""
        while True:
            await self._anybody.wait()
            try:
                await self._until_something_is_new()
                await self._look()
            except StoreUnavailable:
                log.debug("the store does not say what was changed")
            except Exception:
                # A bug: who watches is told nothing for a moment, and not for ever.
                log.exception("it could not be looked at what was changed")
                await asyncio.sleep(_AFTER_BUG_SECONDS)
            for watcher_id in self._overdue():
                self._end_overdue(self._streams[watcher_id])

    async def _until_something_is_new(self) -> None:
        """Return at a look that finds the store in another state, a watcher overdue, or nobody there any more.

        Without a task, which would take twice as long for nearly nothing, fifty times a second.
        """
        loop = asyncio.get_running_loop()
        found = loop.create_future()
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal timer
            if found.done():
                return
            try:
                if self._is_anything_new():
                    found.set_result(None)
                else:
                    timer = loop.call_later(_LOOK_SECONDS, look)
            except Exception as error:
                # The loop would log it, and nobody would look again.
                found.set_exception(error)

        timer = loop.call_later(_LOOK_SECONDS, look)
        try:
            await found
        finally:
            timer.cancel()

    def _is_anything_new(self) -> bool:
        try:
            return not self._streams or self._plane.db.state() != self._state or bool(self._overdue())
        except StoreUnavailable:
            log.debug("the store does not say what was changed")
            return bool(self._overdue())

    def _overdue(self) -> list[str]:
        return self._watchers.overdue(self._now(), wait_seconds=max(self._wait_seconds, _LEAST_PATIENCE_SECONDS))

    def _end_overdue(self, stream: WatchStream) -> None:
        log.warning(
            "a bridge does not acknowledge what was changed: its watch is ended, and it has to begin another",
            extra={"bridge_instance_id": stream.instance[1]},
        )
        self._metrics.unacknowledged()
        self._watchers.lost(stream.id, self._now())
        self._moved()
        stream.is_overdue = True
        if stream.serving is not None:
            stream.serving.cancel()

    # -- administrators -----------------------------------------------------------------------------------------------

    async def obeyed(self, seconds: float) -> int | None:
        """Return when every bridge that watches obeys what is committed, or the time is over.

        How many bridges are known not to obey yet; None where that is not known.
        """
        if not self._wait_seconds:
            return await self._not_waited_for()
        began_seconds, waited = self._now(), False
        behind: list[Instance] = []
        count: int | None = 0
        try:
            async with asyncio.timeout(max(0.0, min(self._wait_seconds, seconds))):
                # Where this fails, other processes may not have been able to say who watches there either.
                await self._rows.write(synced=False)
                if await self._is_anybody_there():
                    waited = True
                    wanted = await self._plane.db.read(revision.current)
                    await self._look()
                    while behind := await self._behind(wanted):
                        await set_within(self._progress, _LOOK_ELSEWHERE_SECONDS)
        except TimeoutError:
            count = len(behind) or None
            log.warning(
                "not every bridge acknowledges a change in time: requests that were answered before may still go out",
                extra={"bridge_instance_ids": [instance_id for _, instance_id in behind]},
            )
        except Refusal:
            count = None
            log.warning("the store does not say which bridges watch: the change is made, and not waited for")
        if waited:
            self._metrics.acknowledged(self._now() - began_seconds)
        return count

    async def _not_waited_for(self) -> int | None:
        """Who does not wait does not know either, unless there is nobody to be waited for."""
        try:
            await self._look()
            return None if await self._is_anybody_there() else 0
        except StoreUnavailable:
            return None

    async def _is_anybody_there(self) -> bool:
        return bool(self._streams or await self._rows.behind(_NO_REVISION))

    async def _behind(self, wanted: int) -> list[Instance]:
        """The bridges, wherever they watch, that have not obeyed this revision."""
        # Who was lost here may have begun anew while it was looked elsewhere.
        return self._watchers.behind(wanted) or await self._rows.behind(wanted) or self._watchers.behind(wanted)

    async def keep_rows(self) -> None:
        """Let other processes know who watches here, and what was acknowledged, until cancelled."""
        await self._rows.keep_writing()

    async def heard_of(self, instance: Instance) -> bool:
        """A bridge lives, whether it watches or not; to be called before it is answered what it asks.

        Whether it had been lost for so long that it did not count any more: it does now, for every process. So nobody
        gets an answer whom no administrator waits for, because he was stopped. StoreUnavailable.
        """
        if not self._watchers.heard_of(instance, self._now()):
            return False
        await self._rows.write(synced=False)
        return True


@asynccontextmanager
async def running_watch(
    plane: Plane, stored: Records, metrics: Metrics, *, wait_seconds: float
) -> AsyncIterator[WatchStreams]:
    """Streams for the length of the block."""
    watch = WatchStreams(plane, stored, metrics, wait_seconds=wait_seconds)
    tasks = [
        asyncio.create_task(watch.keep_looking(), name="look for changes"),
        asyncio.create_task(watch.keep_rows(), name="write down who watches"),
    ]
    try:
        yield watch
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
