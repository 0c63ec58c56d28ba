"""AdminService: what the audit tells."""

import asyncio
from typing import Any

from drawbridge.v1 import admin_service_pb2 as pb
from drawbridge.v1 import audit_pb2

from credentiald import audit_model
from credentiald.audit_book import AuditBook
from credentiald.audit_chain import Row
from credentiald.audit_model import Kind
from credentiald.errors import AuditUnavailable, InvalidArgument, StoreUnavailable
from credentiald.model import MAX_KEY_BYTES
from credentiald.plane import Plane
from credentiald.rpc import audit_codec, codec, paging
from credentiald.rpc.times import timestamp
from credentiald.store import audit, users
from credentiald.store.audit import AuditFile
from credentiald.store.times import from_micros, to_micros

# What one page looks at, at most: the rest is for the next one.
_ROWS_AT_ONCE, _MOST_ROWS, _MOST_SEEN = 25, 1_000, 10_000
_LAST = 1 << 62


class Audit:
    """Answers what is asked about the audit."""

    _plane: Plane
    _pages: paging.Pages
    _audit: AuditBook | None
    _audit_file: AuditFile | None

    async def GetAuditHead(self, request: pb.GetAuditHeadRequest, context: Any) -> audit_pb2.AuditHead:
        book, _ = self._opened()
        row = await book.head()
        return audit_pb2.AuditHead(
            sequence=row.sequence,
            hash=row.hash.hex(),
            time=timestamp(from_micros(row.time)),
            mode=book.mode.value,
            waiting=book.waiting(),
            lost=book.lost_count,
            database_id=self._plane.db.database_id,
        )

    async def GetAuditHash(self, request: pb.GetAuditHashRequest, context: Any) -> pb.GetAuditHashResponse:
        if not request.secret.strip() or len(request.secret.encode()) > MAX_KEY_BYTES:
            raise InvalidArgument(field="secret", problem=f"must be 1 to {MAX_KEY_BYTES} bytes")
        return pb.GetAuditHashResponse(
            hash=audit_model.secret_hash(self._plane.db.deployment_key("audit"), request.secret)
        )

    async def ListAuditEntries(self, request: pb.ListAuditEntriesRequest, context: Any) -> pb.ListAuditEntriesResponse:
        _, file = self._opened()
        if request.kind and request.kind not in set(Kind):
            raise InvalidArgument(field="kind", problem=f"must be one of {', '.join(Kind)}")
        since = _micros(request, "start_time")
        until = _micros(request, "end_time")
        wanted = audit_codec.Wanted(await self._names_of(request.user), request.provider, request.service)
        size = paging.size_of(request.page_size)
        made_for = f"audit/{since}/{until}/{request.user}/{request.provider}/{request.service}/{request.kind}"
        sequence, rest = _place(self._pages.after(request.page_token, made_for))
        found: list[audit_pb2.AuditEntry] = []
        rows_seen = entries_seen = 0
        while len(found) < size:
            before = sequence + 1 if rest else sequence
            try:
                rows = await file.read(
                    audit.rows_back_from, before, kind=request.kind or None, since_micros=since, limit=_ROWS_AT_ONCE
                )
            except StoreUnavailable as error:
                raise AuditUnavailable from error
            if not rows:
                return pb.ListAuditEntriesResponse(entries=found)
            for row in rows:
                if row.sequence != sequence:
                    rest = 0
                sequence = row.sequence
                if _is_later(row, until) or not audit_codec.is_about(row, wanted):
                    rest = 0
                    continue
                # A block has many: bridges must not wait for it.
                told = await asyncio.to_thread(audit_codec.messages, row)
                entries_seen += len(told)
                rest = min(rest or len(told), len(told))
                while rest and len(found) < size:
                    rest -= 1
                    entry = told[rest]
                    # What cannot be read may be about anybody, at any time.
                    if entry.outcome == audit_codec.UNREADABLE or (
                        audit_codec.matches(entry, wanted) and _is_within(entry, since, until)
                    ):
                        found.append(entry)
                if len(found) == size:
                    break
            rows_seen += len(rows)
            if len(found) < size and (rows_seen >= _MOST_ROWS or entries_seen >= _MOST_SEEN):
                break
        return pb.ListAuditEntriesResponse(
            entries=found, next_page_token=self._pages.token(f"{sequence} {rest}", made_for)
        )

    async def _names_of(self, user: str) -> frozenset[str]:
        """What entries call this user: who is gone is still found by what was asked for."""
        if not user:
            return frozenset()
        found = await self._plane.db.read(users.find, user)
        return frozenset({user.casefold()} | ({found.id, found.username.casefold()} if found else set()))

    def _opened(self) -> tuple[AuditBook, AuditFile]:
        if self._audit is None or self._audit_file is None:
            raise AuditUnavailable
        return self._audit, self._audit_file


def _place(after: str) -> tuple[int, int]:
    """The row that comes next, and how many of its entries do; 0 of them for "the rows before it"."""
    if not after:
        return _LAST, 0
    sequence, rest = after.split()
    return int(sequence), int(rest)


def _micros(request: pb.ListAuditEntriesRequest, field: str) -> int | None:
    if not request.HasField(field):  # type: ignore[arg-type]
        return None
    return to_micros(codec.moment(getattr(request, field)))


def _is_later(row: Row, until: int | None) -> bool:
    # SQLite keeps whatever somebody wrote into a column.
    return until is not None and isinstance(row.from_time, int) and row.from_time >= until


def _is_within(entry: audit_pb2.AuditEntry, since: int | None, until: int | None) -> bool:
    micros = entry.time.ToMicroseconds()
    return (since is None or micros >= since) and (until is None or micros < until)
