"""The entries of rpcs: who asked what, what it changed, and how it ended.

Invariants:
- An act that is acknowledged is in the audit: the answer waits for the entry. In the mode `on` it does not wait for a
  file that cannot be written; the caller is told then (AUDIT_WAITING).
- In the mode `strict` an act is announced before it begins, and that is on the disk; its end is a second entry, without
  which it is not acknowledged. Only a token that was made is handed out all the same, with a warning.
- An act whose caller has gone is told of as it ended, which is known when its write is over.
- What an act changed is seen inside its own transaction: nobody else's change can be in it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from drawbridge.v1 import admin_service_pb2
from google.protobuf.message import Message

from credentiald import audit_model
from credentiald.audit_book import AuditBook
from credentiald.audit_model import Act, Draft, Kind, Revision, Who
from credentiald.audit_refusals import REFUSALS_SECONDS
from credentiald.errors import AuditUnavailable, Refusal, TooManyRefusedActs
from credentiald.model import Caller
from credentiald.plane import Plane
from credentiald.rpc import audit_codec
from credentiald.rpc.audit_table import Look, Rule, Told, rule_of
from credentiald.rpc.names import AUDIT_WAITING, STRICT
from credentiald.store import revision
from credentiald.store.connection import Connection
from credentiald.store.database import observer
from credentiald.store.times import to_micros

log = logging.getLogger("credentiald.audit")

DONE, INTENDED, CANCELLED, INTERNAL = "DONE", "INTENDED", "CANCELLED", "INTERNAL"
# How long an answer waits for its entry, where others are waited for as well.
_MOST_SECONDS = 2.0


class Acts:
    """Tells the book of the rpcs of one process."""

    def __init__(self, plane: Plane, book: AuditBook) -> None:
        self._plane = plane
        self._book = book
        self._key = plane.db.deployment_key("audit")

    def hash_of(self, secret: str) -> str:
        """How the audit tells of this secret."""
        return audit_model.secret_hash(self._key, secret)

    def not_admitted(self, method: str, peer: str, refusal: Refusal, caller: Caller | None) -> None:
        """Somebody was not let in."""
        self._book.refusals.refused(peer=peer, what=_name(method), reason=refusal.reason(), caller=_caller_name(caller))

    async def run(
        self,
        method: str,
        caller: Caller,
        request: Any,
        context: Any,
        behave: Callable[[], Awaitable[Any]],
        seconds_left: Callable[[], float],
    ) -> Any:
        """The answer of a rpc, and its entry. AuditUnavailable where that has to be there first."""
        rule = rule_of(method)
        if rule.told not in (Told.ACT, Told.LOOK):
            return await behave()
        one = _OneAct(self, self._plane, rule, method, caller, request, str(context.peer()))
        if rule.told is Told.ACT and self._book.is_strict:
            self._check_may_begin(one)
            one.intent = await self._written(one.draft(INTENDED), seconds_left)
        token = observer.set(one)
        try:
            answer = await behave()
        except Refusal as refusal:
            await self._tell_refused(one, refusal, seconds_left)
            raise
        except asyncio.CancelledError:
            one.when_over(lambda: self._book.tell(one.draft(DONE if one.revisions else CANCELLED)))
            raise
        except Exception:
            self._book.tell(one.draft(INTERNAL))
            raise
        finally:
            observer.reset(token)
        if rule.told is Told.LOOK and not rule.is_told(caller, request, answer):
            return answer
        one.answer = answer
        # A token that was made would be lost with its answer, and perhaps the one before it counts no more.
        is_refused = self._book.is_strict and not one.made_secret()
        if is_refused:
            await self._written(one.draft(DONE), seconds_left, once=False)
        elif not await self._is_written(one.draft(DONE), seconds_left):
            context.set_trailing_metadata(((AUDIT_WAITING, STRICT if self._book.is_strict else "1"),))
        return answer

    def _check_may_begin(self, one: "_OneAct") -> None:
        """TooManyRefusedActs, which is only counted: it costs the disk nothing."""
        if self._book.refusals.may_begin_act(_caller_id(one.caller)):
            return
        refusal = TooManyRefusedActs(retry_after_seconds=str(round(REFUSALS_SECONDS)))
        name = _caller_name(one.caller)
        self._book.refusals.refused(peer=one.who.peer, what=_name(one.method), reason=refusal.reason(), caller=name)
        raise refusal

    async def _tell_refused(self, one: "_OneAct", refusal: Refusal, seconds_left: Callable[[], float]) -> None:
        if one.rule.told is Told.LOOK and not one.rule.is_told(one.caller, one.request, None):
            return
        reason, name = refusal.reason(), _caller_name(one.caller)
        may_tell = self._book.refusals.may_tell_act(_caller_id(one.caller))
        if not one.revisions and not one.intent and not may_tell:
            self._book.refusals.refused(peer=one.who.peer, what=_name(one.method), reason=reason, caller=name)
            return
        # Nothing was done: the refusal stands, whether or not it can be written down at once.
        await self._is_written(one.draft(reason), seconds_left)

    async def _written(self, draft: Draft, seconds_left: Callable[[], float], *, once: bool = True) -> int:
        """The sequence of the entry when it is on the disk, else AuditUnavailable.

        With `once` it is given up then: what it announces does not happen.
        """
        told = self._book.tell(draft, is_strict=once)
        await asyncio.wait([told], timeout=max(0.0, seconds_left()))
        if not told.done():
            raise AuditUnavailable
        return told.result()

    async def _is_written(self, draft: Draft, seconds_left: Callable[[], float]) -> bool:
        in_trouble = self._book.is_in_trouble
        told = self._book.tell(draft)
        if not in_trouble:
            await asyncio.wait([told], timeout=max(0.0, min(_MOST_SECONDS, seconds_left())))
        return told.done() and told.exception() is None


class _OneAct:
    """What is known of one rpc; the observer of its writes, which are seen on the thread of the store."""

    def __init__(
        self, acts: Acts, plane: Plane, rule: Rule, method: str, caller: Caller, request: Any, peer: str
    ) -> None:
        self._acts = acts
        self._plane = plane
        self.rule = rule
        self.method = method
        self.caller = caller
        self.request = request
        self.who = _who(caller, peer)
        self.answer: Any = None
        self.intent = 0
        self.revisions: tuple[Revision, ...] = ()
        self._begin_micros = to_micros(plane.clock())
        self._loop = asyncio.get_running_loop()
        self._open = 0
        self._on_over: Callable[[], object] | None = None
        self._was: Mapping[str, str] | None = None
        self._is_now: Mapping[str, str] = {}
        self._made: list[Revision] = []
        self._revision_before = 0
        # Of what is committed.
        self._seen: tuple[Mapping[str, str], Mapping[str, str]] | None = None

    def when_over(self, tell: Callable[[], object]) -> None:
        """Tell of it when nothing of it is on its way any more."""
        if self._open:
            self._on_over = tell
        else:
            tell()

    # -- the observer of the store ------------------------------------------------------------------------------------

    def begins(self) -> None:
        self._open += 1

    def before(self, conn: Connection) -> None:
        self._revision_before = revision.current(conn)
        seen = self._look(conn)
        if self._was is None or self._seen is None:
            self._was = seen

    def after(self, conn: Connection) -> None:
        changes = revision.changes_after(conn, self._revision_before, limit=100)
        self._made = [Revision(one.revision, one.kind, one.resource, one.resource_id, one.name) for one in changes]
        self._is_now = self._look(conn)

    def ended(self, is_committed: bool) -> None:
        if is_committed:
            self.revisions += tuple(self._made)
            self._seen = self._was or {}, self._is_now
        self._made = []
        with suppress(RuntimeError):  # the loop is closed: nobody waits for this any more
            self._loop.call_soon_threadsafe(self._one_over)

    def _one_over(self) -> None:
        self._open -= 1
        if not self._open and self._on_over is not None:
            self._on_over()

    def _look(self, conn: Connection) -> Mapping[str, str]:
        look: Look | None = self.rule.look
        if look is None:
            return {}
        try:
            return look(conn, self._plane, self.request, self.caller)
        except Refusal:
            return {}
        except Exception:
            log.exception("what an act changes could not be looked at", extra={"rpc": _name(self.method)})
            return {}

    # -- its entry ----------------------------------------------------------------------------------------------------

    def draft(self, outcome: str) -> Draft:
        user, provider = audit_codec.about(self.request, self.method)
        was, is_now = self._seen or ({}, {})
        if isinstance(self.answer, admin_service_pb2.CreateTokenResponse):
            is_now = audit_codec.fields(self.answer.token)
        changed = audit_model.changes(was, is_now)
        hashes = dict(self._secrets())
        act = Act(
            what=_name(self.method),
            outcome=outcome,
            who=self.who,
            user=user or was.get("username", ""),
            provider=provider,
            revisions=self.revisions,
            changes=changed,
            asked={} if changed else audit_model.cut(audit_codec.asked(self.request, self._acts.hash_of)),
            secrets=hashes,
            intent=self.intent,
        )
        return Draft(Kind.ACT, audit_model.body_of(act), self._begin_micros)

    def made_secret(self) -> bool:
        """Whether the answer has a token in it that nobody can ask for again."""
        return isinstance(self.answer, Message) and any(audit_codec.secrets(self.answer))

    def _secrets(self) -> list[tuple[str, str]]:
        found = list(audit_codec.secrets(self.request))
        if isinstance(self.answer, Message) and self.rule.told is Told.ACT:
            found += audit_codec.secrets(self.answer)
        return [(name, self._acts.hash_of(value)) for name, value in found]


def _name(method: str) -> str:
    return method.rpartition("/")[2]


def _who(caller: Caller, peer: str) -> Who:
    service, user = caller.service, caller.user
    return Who(
        role=caller.role.value,
        service_id=service.id if service else "",
        service=service.name if service else "",
        user_id=user.id if user else "",
        username=user.username if user else "",
        peer=peer[:256],
    )


def _caller_name(caller: Caller | None) -> str:
    if caller is None:
        return ""
    return caller.user.username if caller.user else (caller.service.name if caller.service else "")


def _caller_id(caller: Caller) -> str:
    """Nobody else's: a user may have the name of a service."""
    return caller.user.id if caller.user else (caller.service.id if caller.service else "")
