"""One credentiald: its stream, its pings, and what to do while the stream is not there."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, final

import grpc
import grpc.aio
from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import record_service_pb2 as record_pb
from drawbridge.v1.credential_service_pb2_grpc import CredentialServiceStub

from bridged import report_messages
from bridged.key_outcomes import ToldOutcome
from bridged.model import Refused
from bridged.resolve_queue import Outcome, Waiting
from bridged.resolve_stream import OpenStream, Stream, StreamLost
from bridged.resolver_identity import Identities, Identity
from bridged.resolver_messages import ping_request, unreachable
from bridged.resolver_pool import ABOUT_THIS_BRIDGE, Pool
from bridged.resolver_question import message_of
from bridged.resolver_unary import AppendCall, append, ask, ping, report_outcomes
from bridged.resolver_watch import Watch
from daemonkit.cancellation import end_if_cancelled

if TYPE_CHECKING:  # the asynchronous stub exists only for the type checker
    from drawbridge.v1.credential_service_pb2_grpc import CredentialServiceAsyncStub

log = logging.getLogger(__name__)

PING_INTERVAL_SECONDS = 1.0
# A stream that was lost is tried again almost at once, and from then on a few times a second: with gRPC's own back-off
# below a second, credentiald's return is noticed within two. Random, so that many bridges do not come as one.
_FIRST_PAUSE_SECONDS = (0.0, 0.05)
_PAUSE_SECONDS = (0.1, 0.4)
# A refusal of this bridge is not mended by asking often.
_REFUSED_PAUSE_SECONDS = (0.5, 1.0)
# A token that was good until now may have been rotated, and the new one is about to be in its file: questions wait for
# that so long. The command that rotates may wait for other bridges for a second (--revoke-wait) before it prints.
_HOPE_SECONDS = 2.0
_HOPE_PAUSE_SECONDS = (0.02, 0.1)
# So long questions wait for the watch of a credentiald that lets this bridge in: no administrator would wait for what
# is asked before.
_WATCH_SECONDS = 1.0
_TOKEN_REFUSED = "SERVICE_TOKEN_INVALID"  # noqa: S105 - a reason
_SERVICE = pb.DESCRIPTOR.services_by_name["CredentialService"]
_STREAM_METHOD = f"/{_SERVICE.full_name}/{_SERVICE.methods_by_name['ResolveProviderStream'].name}"
_RECORDS = record_pb.DESCRIPTOR.services_by_name["RecordService"]
_APPEND_METHOD = f"/{_RECORDS.full_name}/{_RECORDS.methods_by_name['AppendRecords'].name}"
# No batch may take longer than this, or than half of what a question may take: the rest is for asking once more.
_LONGEST_BATCH_SECONDS = 2.0


class _State(Enum):
    OPENING = auto()  # the stream is being opened: questions wait for that
    STREAMING = auto()
    UNARY = auto()  # there are no streams: questions go one by one
    DOWN = auto()  # it does not answer, or refused this bridge: nothing waits for it


@final
class Peer:
    """One credentiald, asked as `identity`. `refused` says why it is of no use; `address` is empty for the only one.

    `answers` is called whenever it begins to answer.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        pool: Pool,
        identities: Identities,
        *,
        address: str = "",
        answers: Callable[[], None] = lambda: None,
    ) -> None:
        self.address = address
        self.identity: Identity = identities.current
        self._metadata = self.identity.metadata
        self._identities = identities
        self._answers = answers
        # Until when its last stream was good, and how long that makes a refusal of the token bearable.
        self._streamed_seconds = self._hope_until_seconds = float("-inf")
        self.refused = unreachable("UNAVAILABLE")
        self.ping_state = ""
        self._state = _State.OPENING
        self._stub: CredentialServiceAsyncStub = CredentialServiceStub(channel)
        # Its questions are bytes already.
        self._open_stream: OpenStream = channel.stream_stream(
            _STREAM_METHOD, response_deserializer=pb.ResolveProviderStreamResponse.FromString
        )
        # And so are reports.
        self._append: AppendCall = channel.unary_unary(
            _APPEND_METHOD, response_deserializer=record_pb.AppendRecordsResponse.FromString
        )
        self._channel = channel
        self._pool = pool
        self._batch_seconds = min(pool.timeout_seconds / 2, _LONGEST_BATCH_SECONDS)
        self._stream: Stream | None = None
        self._watch = Watch(
            self._stub,
            bridge_instance_id=pool.bridge_instance_id,
            metadata=self._metadata,
            metrics=pool.metrics,
            place=pool.place,
            obey=pool.changed_by_administrators,
        )
        self._left = asyncio.Event()
        self._asking: set[asyncio.Task[None]] = set()

    @property
    def takes(self) -> bool:
        """Whether it takes what is queued, or is about to."""
        return not self._left.is_set() and self._state in (_State.OPENING, _State.STREAMING)

    @property
    def is_streaming(self) -> bool:
        """Whether its stream is open."""
        return not self._left.is_set() and self._state is _State.STREAMING

    @property
    def is_unary(self) -> bool:
        """Whether it answers, but only single questions."""
        return not self._left.is_set() and self._state is _State.UNARY

    @property
    def has_left(self) -> bool:
        """Whether it was told to leave."""
        return self._left.is_set()

    @property
    def hopes(self) -> bool:
        """Whether it refused a token that it took until now, in whose place another one may come any moment."""
        return asyncio.get_running_loop().time() < self._hope_until_seconds

    @property
    def refused_us(self) -> bool:
        """Whether it is of no use because it does not want this bridge: asking once more would bring the same.

        Other refusals of a stream are trouble that may be over with the next question.
        """
        return self.refused.reason in ABOUT_THIS_BRIDGE

    async def run(self) -> None:
        """Be one of the pool until told to `leave`, or cancelled."""
        self._pool.joined(self)
        pinging = asyncio.create_task(self._keep_pinging(), name="ping credentiald")
        watching = asyncio.create_task(self._watch.keep(), name="watch credentiald")
        try:
            while not self._left.is_set():
                pause_seconds = await self._stream_once()
                end_if_cancelled()
                if not self._left.is_set():
                    await asyncio.sleep(random.uniform(*pause_seconds))  # noqa: S311 - jitter
            if self._asking:
                await asyncio.wait(self._asking)
        finally:
            self._state = _State.DOWN
            self._pool.left(self)
            pinging.cancel()
            watching.cancel()
            for task in self._asking:
                task.cancel()
            await asyncio.wait([pinging, watching, *self._asking])

    async def append_records(self, parts: Sequence[bytes]) -> Sequence[tuple[int, str]] | Refused:
        """Have reports stored; the places of those that never will be, with why."""
        request = b"".join((report_messages.of_this_bridge(self._pool.bridge_instance_id), *parts))
        return await append(self._append, request, metadata=self._metadata)

    async def report_outcomes(self, outcomes: Sequence[ToldOutcome]) -> int | Refused:
        """Tell it what became of keys; how many it does not act on, or why it was not told."""
        pool = self._pool
        return await report_outcomes(self._stub, pool.bridge_instance_id, outcomes, metadata=self._metadata)

    async def say_goodbye(self) -> None:
        """Nothing is under way in this bridge, and nothing will be asked."""
        await self._watch.leave()

    def leave(self) -> None:
        """Take no more questions: what waits goes to others at once. `run` ends when what is under way is settled."""
        self._left.set()
        if self._stream is not None:
            self._stream.end()
        self._pool.review()

    def ask(self, item: Waiting) -> None:
        """Ask one question by itself, unless nobody wants the answer any more."""
        if item.callback is None:
            self._pool.settle(item, unreachable("it was asked too late"))
            return
        task = asyncio.get_running_loop().create_task(self._ask(item))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, item: Waiting) -> None:
        outcome: Outcome = unreachable("this bridge is stopping")
        left_seconds = max(0.0, item.deadline - asyncio.get_running_loop().time())
        try:
            outcome = await ask(
                self._stub, message_of(item.item), timeout_seconds=left_seconds, metadata=self._metadata
            )
        finally:
            self._pool.settle(item, outcome)

    async def _stream_once(self) -> tuple[float, float]:
        """Open a stream and serve with it until it is over; from how long to how long to pause then."""
        pool = self._pool
        stream = self._stream = Stream(
            self._open_stream,
            pool.queue,
            pool.settle,
            self.ask,
            metadata=self._metadata,
            batch_seconds=self._batch_seconds,
        )
        try:
            await stream.open()
            await self._watch.begun(_WATCH_SECONDS)
            pool.metrics.resolve_stream_opened()
            self._become(_State.STREAMING)
            await stream.serve()
        except StreamLost as lost:
            return await self._without(stream, lost)
        except Exception:
            log.exception("unhandled error in the stream to credentiald")
            return await self._without(stream, StreamLost(unreachable("INTERNAL")))
        finally:
            self._stream = None
            stream.close()
            for item in stream.in_flight:
                pool.settle(item, unreachable("this bridge is stopping"))
        return _FIRST_PAUSE_SECONDS

    async def _without(self, stream: Stream, lost: StreamLost) -> tuple[float, float]:
        """What to do instead of streaming: give back what was not answered, and try again later."""
        # What was under way on a stream that was good waits for nothing: the next one says why.
        is_asked = lost.untold and self._state is not _State.STREAMING
        self.refused = await self._why_not() if is_asked else lost.refused
        unanswered, stream.in_flight = stream.in_flight, []
        if lost.unimplemented:
            log.info("credentiald has no stream: asking one by one", extra={"peer": self.address})
            self._become(_State.UNARY, unanswered)
            await self._reconnected_or_left()
            return _FIRST_PAUSE_SECONDS
        if self.is_streaming:
            self._streamed_seconds = asyncio.get_running_loop().time()
        if self.refused_us:
            self._identities.doubted()
            if self.refused.reason == _TOKEN_REFUSED and self._identities.changes:
                self._hope_until_seconds = self._streamed_seconds + _HOPE_SECONDS
        if self.hopes:
            # Whatever the reason: while identities change, each try may meet another one.
            self._become(_State.OPENING, unanswered)
            return _HOPE_PAUSE_SECONDS
        if self.refused_us:
            self._become(_State.DOWN, unanswered)
            return _REFUSED_PAUSE_SECONDS
        if self.is_streaming:
            log.warning("lost the stream to credentiald: opening another", extra={"peer": self.address})
            self._become(_State.OPENING, unanswered)
            return _FIRST_PAUSE_SECONDS
        self._become(_State.DOWN, unanswered)
        return _PAUSE_SECONDS

    def _become(self, state: _State, unanswered: list[Waiting] | None = None) -> None:
        self._state = state
        self._pool.changed(self, unanswered or [])
        if state in (_State.STREAMING, _State.UNARY) and not self._left.is_set():
            self._answers()

    async def _reconnected_or_left(self) -> None:
        waits = [asyncio.ensure_future(self._reconnected()), asyncio.ensure_future(self._left.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _reconnected(self) -> None:
        """Return when the connection was lost and is there again: another server may answer now."""
        ready = grpc.ChannelConnectivity.READY
        while (state := self._channel.get_state(try_to_connect=True)) is ready:
            await self._channel.wait_for_state_change(state)
        while (state := self._channel.get_state(try_to_connect=True)) is not ready:
            await self._channel.wait_for_state_change(state)

    async def _why_not(self) -> Refused:
        """Why a stream was refused, of which gRPC does not tell: a single call has a status that nothing can meet."""
        answer = await self._pinged()
        end_if_cancelled()
        return answer if isinstance(answer, Refused) else unreachable("INTERNAL")

    async def _pinged(self) -> pb.PingResponse | Refused:
        pool = self._pool
        request = ping_request(pool.bridge_instance_id, pool.oldest_id(), pool.breakers())
        return await ping(self._stub, request, metadata=self._metadata)

    async def _keep_pinging(self) -> None:
        """Ask once a second whether it would answer."""
        now = asyncio.get_running_loop().time
        while True:
            began = now()
            self._pool.pinged(self, await self._pinged())
            end_if_cancelled()
            await asyncio.sleep(max(0.0, began + PING_INTERVAL_SECONDS - now()))
