"""ResolveProviderStream: a batch of questions in, a batch of answers out, for as long as the caller likes.

What makes it cheap: an unchanged answer needs no thread, no SQL and no decryption (answers.py). What keeps it as safe
as a single call: the store's state is read once a batch, on the loop; when it moved, every answer is forgotten and the
caller is authenticated anew, so a rotated service token stops working on a stream that runs.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import repeat
from typing import Any

import grpc
from drawbridge.v1 import credential_service_pb2 as pb
from google.rpc import code_pb2

from credentiald import receipts, tokens
from credentiald.answers import Answers, Kept, Key, counts_until
from credentiald.errors import InvalidArgument, Refusal, StoreUnavailable
from credentiald.ids import is_uuid, uuid7_many
from credentiald.metrics import Metrics
from credentiald.model import Caller
from credentiald.plane import Plane
from credentiald.resolve import Answer, Question, resolve_many, upstream_model
from credentiald.rpc import codec, reply_bytes, status
from credentiald.rpc.guard import admit_again
from credentiald.store.database import State

log = logging.getLogger("credentiald.rpc")

MAX_ITEMS = 256
# For the questions of a batch that need the store. Its neighbours wait for them, so this is less than a bridge waits.
_STORE_SECONDS = 1.0
# How often old answers are looked for, so that opened keys do not stay for want of a next request.
SWEEP_SECONDS = 15.0


class ResolveStreams:
    """All running streams, and the answers that they share."""

    def __init__(self, plane: Plane, metrics: Metrics, *, sweep_seconds: float = SWEEP_SECONDS) -> None:
        self._plane = plane
        self._metrics = metrics
        self._sweep_seconds = sweep_seconds
        self._answers = Answers()
        self._sweep: asyncio.TimerHandle | None = None
        # What the idle streams are waiting for.
        self._readings: set[asyncio.Future[Any]] = set()
        self._stopping = asyncio.Event()

    @property
    def kept_answers(self) -> int:
        """How many answers are kept, with their keys."""
        return len(self._answers)

    def drain(self) -> None:
        """End each stream when it has answered what it has read; those that open from now on end at once.

        gRPC would wait for streams that are open and idle as long as the grace of the server lasts.
        """
        self._stopping.set()
        for reading in self._readings:
            reading.cancel()
        if self._sweep is not None:
            self._sweep.cancel()
        self._answers.renew(None)

    async def serve(self, context: Any) -> None:
        """Answer the batches of one stream, one after the other. A refusal ends the stream."""
        seen: State | None = None
        caller: Caller | None = None
        while (request := await self._next(context)) is not None:
            if len(request.items) > MAX_ITEMS:
                raise InvalidArgument(field="items", problem=f"at most {MAX_ITEMS} in one message")
            state = self._state()
            if caller is None or state is None or state != seen:
                caller, seen = await admit_again(), state
                # While the caller was looked up, another change may have come: answers are those of now.
                state = self._state()
            await context.write(b"".join(await self._results(request.items, caller, state)))

    async def _next(self, context: Any) -> pb.ResolveProviderStreamRequest | None:
        """The next batch; None when the caller has no more, or this server is stopping."""
        if self._stopping.is_set():
            return None
        reading = asyncio.ensure_future(context.read())
        self._readings.add(reading)
        try:
            request: Any = await reading
        except asyncio.CancelledError:
            if self._stopping.is_set() and reading.cancelled():
                return None
            raise
        finally:
            self._readings.discard(reading)
        return None if request is grpc.aio.EOF else request

    def _state(self) -> State | None:
        """The state of the store; None while it does not say, which leaves every question to a read."""
        try:
            return self._plane.db.state()
        except StoreUnavailable:
            return None

    async def _results(
        self, items: Sequence[pb.ResolveProviderRequest], caller: Caller, state: State | None
    ) -> list[bytes]:
        """The results in the order of the questions, each as bytes of a ResolveProviderStreamResponse."""
        now = self._plane.clock()
        self._answers.renew(state)
        results = self._kept_results(items, caller, now)
        missed = [place for place, result in enumerate(results) if not result]
        if missed:
            decided = await self._decide([items[place] for place in missed], caller, state, now)
            for place, result in zip(missed, decided, strict=True):
                results[place] = result
        self._metrics.batch_answered(items=len(items), misses=len(missed))
        return results

    def _kept_results(self, items: Sequence[pb.ResolveProviderRequest], caller: Caller, now: datetime) -> list[bytes]:
        """The results that are known already, empty where they are not."""
        find, receipt_key, service_id = self._answers.find, self._plane.receipt_key, _service_id(caller)
        now_micros = _micros(now)
        results: list[bytes] = []
        sources: dict[str, int] = {}
        for item, resolution_id in zip(items, uuid7_many(now, len(items)), strict=True):
            kept, interception_id = find(_key(service_id, item), now), item.interception_id
            if (
                kept is None
                or item.failed_credential_ids
                or item.min_revision > kept.revision
                or (interception_id and not is_uuid(interception_id))
            ):
                results.append(b"")
                continue
            receipt = receipts.write_again(receipt_key, kept.receipt_part, interception_id, resolution_id, now_micros)
            model = upstream_model(kept.bedrock, item.model) if kept.bedrock else ""
            results.append(
                reply_bytes.answered(kept.message, resolution_id=resolution_id, upstream_model=model, receipt=receipt)
            )
            sources[kept.source] = sources.get(kept.source, 0) + 1
        for source, count in sources.items():
            self._metrics.resolved(source, count)
        return results

    async def _decide(
        self, items: Sequence[pb.ResolveProviderRequest], caller: Caller, state: State | None, now: datetime
    ) -> list[bytes]:
        """The results of questions that need the store, in one read of it; what was answered is kept."""
        questions = [_question(item) for item in items]
        sound = [one for one in questions if isinstance(one, Question)]
        decided: Iterator[Answer | Exception]
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                decided = iter(await resolve_many(self._plane, caller, sound) if sound else ())
        except (Refusal, TimeoutError) as trouble:
            decided = repeat(trouble if isinstance(trouble, Refusal) else StoreUnavailable())
        outcomes = [next(decided) if isinstance(one, Question) else one for one in questions]
        return [
            self._refused(outcome)
            if isinstance(outcome, Exception)
            else self._answered(outcome, item, caller, state, now)
            for item, outcome in zip(items, outcomes, strict=True)
        ]

    def _answered(
        self,
        answer: Answer,
        item: pb.ResolveProviderRequest,
        caller: Caller,
        state: State | None,
        now: datetime,
    ) -> bytes:
        self._metrics.resolved(answer.source.value)
        unchanged = codec.answer(replace(answer, resolution_id="", upstream_model="", receipt=b"")).SerializeToString()
        if item.access_token and not item.failed_credential_ids:
            kept = Kept(
                message=unchanged,
                receipt_part=receipts.unchanged_part(
                    service_id=_service_id(caller),
                    user_id=answer.user.id,
                    provider_id=answer.provider.id,
                    source=answer.source.value,
                    credential_id=answer.credential_id,
                ),
                source=answer.source.value,
                bedrock=answer.provider.bedrock,
                revision=answer.revision,
                decide_time=now,
                expire_time=counts_until(now, answer.expire_time),
            )
            self._answers.keep(_key(_service_id(caller), item), kept, state)
            self._sweep_later()
        return reply_bytes.answered(
            unchanged,
            resolution_id=answer.resolution_id,
            upstream_model=answer.upstream_model,
            receipt=answer.receipt,
        )

    def _refused(self, error: Exception) -> bytes:
        if isinstance(error, Refusal):
            reason = error.reason()
            log.info("refused", extra={"rpc": "ResolveProviderStream", "reason": reason, "facts": error.facts})
            self._metrics.refused(reason)
            return reply_bytes.refused(status.item_of(error))
        log.error("unhandled error", extra={"rpc": "ResolveProviderStream"}, exc_info=error)
        self._metrics.refused("INTERNAL")
        return reply_bytes.refused(pb.ResolveRefusal(code=code_pb2.INTERNAL, message="internal error"))

    def _sweep_later(self) -> None:
        if self._sweep is None and not self._stopping.is_set():
            self._sweep = asyncio.get_running_loop().call_later(self._sweep_seconds, self._sweep_now)

    def _sweep_now(self) -> None:
        self._sweep = None
        self._answers.forget_old(self._plane.clock())
        if len(self._answers):
            self._sweep_later()


def _key(service_id: str, item: pb.ResolveProviderRequest) -> Key:
    return (service_id, tokens.hash_of(item.access_token), item.provider, item.operation, item.presented_key)


def _question(item: pb.ResolveProviderRequest) -> Question | Refusal:
    try:
        return codec.question(item)
    except Refusal as refusal:
        return refusal


def _service_id(caller: Caller) -> str:
    return caller.service.id if caller.service else ""


def _micros(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)
