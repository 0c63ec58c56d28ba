"""One stream to one credentiald: a batch goes, its answers come, then the next batch goes.

Invariants:
- One batch is in flight at a time, and it has a deadline: a stream that is stuck is given up, not waited for.
- Answers belong to questions by their place, so a reply with another number of them is of no use at all.
- A question that credentiald wants asked singly goes its own way; its neighbours and the next batch do not wait for it.
- A stream that ended, however it ended, ends `serve` at once, also while nothing is being asked.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from drawbridge.v1 import credential_service_pb2 as pb

from bridged.model import Refused
from bridged.resolve_queue import Outcome, Queue, Waiting
from bridged.resolver_messages import UNREACHABLE, outcome_of, refused_from, unreachable
from bridged.resolver_unary import Metadata

Settle = Callable[[Waiting, Outcome], None]
# A multi-callable of gRPC that takes batches as bytes: one stream.
OpenStream = Callable[..., Any]
AskSingly = Callable[[Waiting], None]


class StreamLost(Exception):
    """The stream is over; `refused` is what to tell those who had asked. Its text is a reason, nothing of a peer's.

    `untold`: credentiald may have said why, and gRPC kept that to itself. Where a status meets a write, `grpc.aio`
    puts an INTERNAL of its own in its place; this is about one in thirty of the streams that are refused at once.
    """

    def __init__(self, refused: Refused, *, unimplemented: bool = False, untold: bool = False) -> None:
        super().__init__(refused.reason)
        self.refused = refused
        self.unimplemented = unimplemented
        self.untold = untold


class Stream:
    """`open` it, then let it `serve`, and `close` it in any case; then `in_flight` is what got no answer."""

    def __init__(
        self,
        open_stream: OpenStream,
        queue: Queue,
        settle: Settle,
        ask_singly: AskSingly,
        *,
        metadata: Metadata,
        batch_seconds: float,
    ) -> None:
        self.in_flight: list[Waiting] = []
        self._call: Any = open_stream(metadata=metadata)
        self._queue = queue
        self._settle = settle
        self._ask_singly = ask_singly
        self._batch_seconds = batch_seconds
        self._parked: asyncio.Future[bool] | None = None
        self._ending = False
        self._call.add_done_callback(lambda _: self._unpark())

    async def open(self) -> None:
        """Return when credentiald has let this bridge in and answers. StreamLost."""
        # An empty batch is a question about the stream alone, so no request depends on a stream that was never tried.
        await self._exchange([])

    async def serve(self) -> None:
        """Carry batches until told to `end`. StreamLost."""
        while not self._ending:
            if self._call.done():
                raise await self._lost()
            batch = await self._next_batch()
            if batch:
                await self._carry(batch)

    def end(self) -> None:
        """Take no further batch."""
        self._ending = True
        self._unpark()

    def close(self) -> None:
        """Let go of the call. Safe at any time."""
        self._call.cancel()

    async def _next_batch(self) -> list[Waiting]:
        """The next batch; nothing when the stream is over or to end."""
        queue = self._queue
        if not (queue.claim() or await self._turn()):
            return []
        try:
            await queue.wait_for_company()
            now = asyncio.get_running_loop().time()
            return [] if self._ending or self._call.done() else queue.take(now)
        finally:
            queue.release()

    async def _turn(self) -> bool:
        """Wait until there is a batch to collect, and it is this stream's turn; False when the stream is over."""
        parked = self._parked = self._queue.park()
        try:
            return await parked
        except asyncio.CancelledError:
            if not parked.cancelled() and parked.done() and parked.result():
                self._queue.release()
            raise
        finally:
            self._parked = None
            self._queue.unpark(parked)

    def _unpark(self) -> None:
        if self._parked is not None and not self._parked.done():
            self._parked.set_result(False)

    async def _carry(self, batch: list[Waiting]) -> None:
        now = asyncio.get_running_loop().time()
        self.in_flight = [item for item in batch if item.callback is not None and now < item.deadline]
        if len(self.in_flight) < len(batch):
            for item in batch:
                if item.callback is None or now >= item.deadline:
                    self._settle(item, unreachable("it was asked too late"))
            if not self.in_flight:
                return
        results = await self._exchange([item.item for item in self.in_flight])
        outcomes = [outcome_of(result) for result in results]
        answered, self.in_flight = self.in_flight, []
        self._queue.came_back()
        for item, outcome in zip(answered, outcomes, strict=True):
            if outcome is None:
                self._ask_singly(item)
            else:
                self._settle(item, outcome)

    async def _exchange(self, items: Sequence[bytes]) -> Sequence[pb.ResolveProviderResult]:
        """One batch there and back."""
        try:
            async with asyncio.timeout(self._batch_seconds):
                await self._call.write(b"".join(items))
                reply = await self._call.read()
        except TimeoutError:
            raise StreamLost(unreachable("DEADLINE_EXCEEDED")) from None
        except grpc.aio.AioRpcError as error:
            raise _lost_by(error) from None
        except asyncio.InvalidStateError:  # the call was over before the batch was written
            raise await self._lost() from None
        if reply is grpc.aio.EOF:
            raise await self._lost()
        if reply is None or len(reply.results) != len(items):
            raise StreamLost(unreachable("a reply that does not fit its batch"))
        results: Sequence[pb.ResolveProviderResult] = reply.results
        return results

    async def _lost(self) -> StreamLost:
        """Why the call is over."""
        call = self._call
        try:
            async with asyncio.timeout(self._batch_seconds):
                code, details = await call.code(), await call.details()
                initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
        except TimeoutError:
            return StreamLost(unreachable("DEADLINE_EXCEEDED"))
        if code is grpc.StatusCode.OK:
            return StreamLost(unreachable("it is stopping"))
        return _lost_by(grpc.aio.AioRpcError(code, initial, trailing, details=details))


def _lost_by(error: grpc.aio.AioRpcError) -> StreamLost:
    refused = refused_from(error)
    code = error.code() if refused.reason == UNREACHABLE else None
    return StreamLost(
        refused,
        unimplemented=code is grpc.StatusCode.UNIMPLEMENTED,
        untold=code is grpc.StatusCode.INTERNAL,
    )
