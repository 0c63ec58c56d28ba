"""ResolveProviderStream: a batch of questions in, a batch of answers out, for as long as the caller likes.

What makes it cheap: an unchanged answer needs no thread, no SQL and no decryption (answers.py). What keeps it as safe
as a single call: the store's state is read once a batch, on the loop; when it moved, every answer is forgotten and the
caller is authenticated anew, so a rotated service token stops working on a stream that runs.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import repeat
from typing import TYPE_CHECKING, Any

import grpc
from drawbridge.v1 import credential_service_pb2 as pb
from google.rpc import code_pb2

from credentiald import receipts, tokens
from credentiald.answers import Answers, Kept, Key, counts_until
from credentiald.audit_book import AuditBook
from credentiald.bridge_instances import INSTANCE_CHARACTERS, Instance
from credentiald.errors import AuditUnavailable, InvalidArgument, Refusal, StoreUnavailable
from credentiald.ids import uuid7_many, uuid_bytes
from credentiald.metrics import Metrics
from credentiald.model import BedrockOptions, Caller
from credentiald.plane import Plane
from credentiald.record_book import RecordBook
from credentiald.resolve import Answer, Question, resolve_many, upstream_model
from credentiald.rpc import codec, reply_bytes, status
from credentiald.rpc.answered import OneAnswered, decided_of, noted_of, openings
from credentiald.rpc.guard import admit_again
from credentiald.store.database import State

if TYPE_CHECKING:
    from credentiald.tracing import Tracing

log = logging.getLogger("credentiald.rpc")

MAX_ITEMS = 256
_METHOD = "drawbridge.v1.CredentialService/ResolveProviderStream"
# For the questions of a batch that need the store. Its neighbours wait for them, so this is less than a bridge waits.
_STORE_SECONDS = 1.0
# How often old answers are looked for, so that opened keys do not stay for want of a next request.
SWEEP_SECONDS = 15.0


class ResolveStreams:
    """All running streams, and the answers that they share."""

    def __init__(
        self,
        plane: Plane,
        metrics: Metrics,
        book: RecordBook,
        *,
        sweep_seconds: float = SWEEP_SECONDS,
        heard_of: Callable[[Instance], Awaitable[bool]],
        tracing: "Tracing | None" = None,
        audit: AuditBook | None = None,
    ) -> None:
        self._plane = plane
        # Told who asks, before the answer is decided; whether that took a while (watch_streams.py).
        self._heard_of = heard_of
        self._metrics = metrics
        self._book = book
        self._audit = audit
        # What is given out is on the disk first.
        self._audit_first = audit is not None and audit.is_strict
        self._sweep_seconds = sweep_seconds
        self._tracing = tracing
        self._answers = Answers()
        self._sweep: asyncio.TimerHandle | None = None
        # The tasks of the streams that wait for their next batch.
        self._readers: set[asyncio.Task[Any] | None] = set()
        self._stopping = asyncio.Event()

    @property
    def kept_answers(self) -> int:
        """How many answers are kept, with their keys."""
        return len(self._answers)

    def drain(self) -> None:
        """End each stream when it has answered what it has read; those that open from now on end at once.

        A batch that arrives in the very turn of the loop may be left unanswered; its bridge asks it again.

        gRPC would wait for streams that are open and idle as long as the grace of the server lasts.
        """
        self._stopping.set()
        for reader in self._readers:
            if reader is not None:
                reader.cancel()
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
            if caller is None or state is None or state != seen or self._is_over(caller):
                caller, seen = await admit_again(), state
                # While the caller was looked up, another change may have come: answers are those of now.
                state = self._state()
            if request.items and await self._heard_of((_service_id(caller), request.items[0].bridge_instance_id)):
                state = self._state()
            now = self._plane.clock()
            started_seconds = time.perf_counter()
            answered: list[OneAnswered] = []
            try:
                results = await self._results(request.items, caller, state, now, answered)
                if self._audit_first:
                    results = await self._audited(results, answered, now)
                await context.write(b"".join(results))
                if self._tracing is not None:
                    _trace(self._tracing, request.items, results, time.perf_counter() - started_seconds)
            finally:
                # Only now that the answers are out; also where the caller is lost that may just have got them.
                if answered:
                    noted = noted_of(answered, _micros(now))
                    self._book.note(openings(noted))
                    if self._audit is not None and not self._audit_first:
                        self._audit.released(noted)

    async def _audited(self, results: list[bytes], answered: list[OneAnswered], now: datetime) -> list[bytes]:
        """The results when the audit tells of them; where it cannot, a refusal in the place of each."""
        try:
            if self._audit is not None:
                async with asyncio.timeout(_STORE_SECONDS):
                    await self._audit.release(noted_of(answered, _micros(now)))
        except (AuditUnavailable, TimeoutError):
            answered.clear()
            return [self._refused(AuditUnavailable()) for _ in results]
        except BaseException:
            # Nothing was given out.
            answered.clear()
            raise
        return results

    def _is_over(self, caller: Caller) -> bool:
        """Whether what the caller showed has come to its end, as a token does that a rotation kept for a while."""
        return caller.end_time is not None and caller.end_time <= self._plane.clock()

    async def _next(self, context: Any) -> pb.ResolveProviderStreamRequest | None:
        """The next batch; None when the caller has no more, or this server is stopping."""
        if self._stopping.is_set():
            return None
        reader = asyncio.current_task()
        self._readers.add(reader)
        try:
            request: Any = await context.read()
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
            return None
        finally:
            self._readers.discard(reader)
        return None if request is grpc.aio.EOF else request

    def _state(self) -> State | None:
        """The state of the store; None while it does not say, which leaves every question to a read."""
        try:
            return self._plane.db.state()
        except StoreUnavailable:
            return None

    async def _results(
        self,
        items: Sequence[pb.ResolveProviderRequest],
        caller: Caller,
        state: State | None,
        now: datetime,
        answered: list[OneAnswered],
    ) -> list[bytes]:
        """The results in the order of the questions, each as bytes of a ResolveProviderStreamResponse.

        What was answered goes to `answered`.
        """
        self._answers.renew(state)
        results = self._kept_results(items, caller, now, answered)
        missed = [place for place, result in enumerate(results) if not result]
        if missed:
            decided = await self._decide([items[place] for place in missed], caller, state, now, answered)
            for place, result in zip(missed, decided, strict=True):
                results[place] = result
        self._metrics.batch_answered(items=len(items), misses=len(missed))
        return results

    def _kept_results(
        self, items: Sequence[pb.ResolveProviderRequest], caller: Caller, now: datetime, answered: list[OneAnswered]
    ) -> list[bytes]:
        """The results that are known already, empty where they are not; what was answered goes to `answered`.

        This runs for every request of every client: what is the same for many is looked for once.
        """
        service_id, find = _service_id(caller), self._answers.find
        write_receipt = receipts.writer(self._plane.receipt_key, _micros(now))
        # Of this batch alone, so that a token is hashed once; gone with it.
        found: dict[tuple[str, str, str, bool], Kept | None] = {}
        results: list[bytes] = []
        sources: list[str] = []
        for item, resolution_id in zip(items, uuid7_many(now, len(items)), strict=True):
            asked = (item.access_token, item.provider, item.operation, item.presented_key)
            if asked in found:
                kept = found[asked]
            else:
                kept = found[asked] = find(_key(service_id, item), now, item.bridge_instance_id)
            interception_id = uuid_bytes(item.interception_id.lower())
            if (
                kept is None
                or interception_id is None
                or item.failed_credential_ids
                or item.min_revision > kept.revision
                or (kept.only_for is not None and kept.only_for != item.bridge_instance_id)
            ):
                results.append(b"")
                continue
            receipt = write_receipt(kept.receipt_part, interception_id, resolution_id)
            results.append(
                b"".join((kept.before, resolution_id, kept.between, receipt))
                if kept.bedrock is None
                else _with_model(kept.message, kept.bedrock, item.model, resolution_id, receipt)
            )
            sources.append(kept.source)
            answered.append((item, interception_id, resolution_id, kept.decided, receipts.mac_of(receipt)))
        for source in set(sources):
            self._metrics.resolved(source, sources.count(source))
        return results

    async def _decide(
        self,
        items: Sequence[pb.ResolveProviderRequest],
        caller: Caller,
        state: State | None,
        now: datetime,
        answered: list[OneAnswered],
    ) -> list[bytes]:
        """The results of questions that need the store, in one read of it; what was answered is kept, and told of."""
        questions = [_question(item) for item in items]
        sound = [one for one in questions if isinstance(one, Question)]
        decided: Iterator[Answer | Exception]
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                decided = iter(await resolve_many(self._plane, caller, sound) if sound else ())
        except (Refusal, TimeoutError) as trouble:
            decided = repeat(trouble if isinstance(trouble, Refusal) else StoreUnavailable())
        outcomes = [next(decided) if isinstance(one, Question) else one for one in questions]
        results = []
        for item, outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, Exception):
                results.append(self._refused(outcome))
                continue
            results.append(self._answered(outcome, item, caller, state, now))
            ids = (item.interception_id.lower().encode(), outcome.resolution_id.encode())
            answered.append((item, *ids, decided_of(outcome, item.operation, caller), b""))
        return results

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
        if item.access_token and item.interception_id and not item.failed_credential_ids and _may_stay(answer, item):
            before, between = reply_bytes.usual(unchanged, len(answer.receipt))
            kept = Kept(
                message=unchanged,
                before=before,
                between=between,
                receipt_part=receipts.unchanged_part(answer.origin),
                source=answer.source.value,
                decided=decided_of(answer, item.operation, caller),
                bedrock=answer.provider.bedrock,
                revision=answer.revision,
                decide_time=now,
                expire_time=counts_until(now, answer.expire_time),
                only_for=item.bridge_instance_id if answer.by_health else None,
            )
            self._answers.keep(_key(_service_id(caller), item), kept, state)
            self._sweep_later()
        return reply_bytes.answered(
            unchanged,
            resolution_id=answer.resolution_id.encode(),
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


def _trace(
    tracing: "Tracing", items: Sequence[pb.ResolveProviderRequest], results: Sequence[bytes], seconds: float
) -> None:
    """A span for each question whose trace is recorded. Reads the answers again: without traces nobody has to."""
    for item, result in zip(items, results, strict=True):
        if not item.trace_parent:
            continue
        told = pb.ResolveProviderStreamResponse.FromString(result).results[0]
        refused, response = told.HasField("refusal"), told.response
        tracing.answered(
            _METHOD,
            trace_parent=item.trace_parent,
            seconds=seconds,
            outcome=(told.refusal.reason or "INTERNAL") if refused else "OK",
            interception_id=item.interception_id,
            facts={
                "drawbridge.provider": response.provider.name,
                "drawbridge.resolution_id": response.resolution_id,
                "drawbridge.questions_together": len(items),
            },
        )


def _may_stay(answer: Answer, item: pb.ResolveProviderRequest) -> bool:
    """Whether the answer is for more than this one request; and what it is kept under must not fill the memory."""
    return not answer.is_probe and not (answer.by_health and len(item.bridge_instance_id) > INSTANCE_CHARACTERS)


def _key(service_id: str, item: pb.ResolveProviderRequest) -> Key:
    return (service_id, tokens.hash_of(item.access_token), item.provider, item.operation, item.presented_key)


def _with_model(message: bytes, bedrock: BedrockOptions, model: str, resolution_id: bytes, receipt: bytes) -> bytes:
    """The result where models are mapped: what they are at the upstream differs with what was asked for."""
    mapped = upstream_model(bedrock, model)
    return reply_bytes.answered(message, resolution_id=resolution_id, upstream_model=mapped, receipt=receipt)


def _question(item: pb.ResolveProviderRequest) -> Question | Refusal:
    try:
        return codec.question(item)
    except Refusal as refusal:
        return refusal


def _service_id(caller: Caller) -> str:
    return caller.service.id if caller.service else ""


def _micros(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)
