"""The questions of scripts/records_scale: every list with every filter and every two, and usage by everything, each as
UsageService answers it, from the store to the bytes of the message.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from drawbridge.v1 import usage_service_pb2 as pb
from records_scale_machine import Taken
from records_scale_traffic import LONG_THREAD, NOBODY, RARE_CLIENT, RARE_MODEL, USERS, user_id

from credentiald.record_model import DAY_MICROS
from credentiald.rpc import usage_codec
from credentiald.store import record_queries, usage_queries
from credentiald.store.connection import Connection
from credentiald.store.record_scan import Filter, Place
from credentiald.store.records import Records

_MOST_PAGES_OF_USAGE = 4
_DEFAULT_PAGE, _LARGEST_PAGE, _LARGEST_LIST = 100, 1000, record_queries.MOST_OF_A_PAGE
_NAMES: Mapping[str, str] = {}

# Of a `Taken`.
Plain = tuple[float, float, int]
# One question: what it is called, and what asks it and says where the next page begins.
Question = tuple[str, str, Callable[[Records, Any], Awaitable[Any]]]


@dataclass(slots=True)
class Times:
    """How long the answers of one kind of question took, each with its name and what the process took by its end and
    before it, both as plain tuples: of those the garbage collector, which stops what is timed, looks at none twice."""

    seconds: list[tuple[float, str, Plain, Plain]] = field(default_factory=list)

    def add(self, before: Taken, label: str = "") -> None:
        """One that began then and is there now."""
        now = Taken.now()
        self.seconds.append((now.at - before.at, label, tuple(now), tuple(before)))

    def quantile(self, share: float) -> float:
        """The time that this share of answers did not exceed."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))][0]

    def worst(self) -> tuple[float, str]:
        """The longest, and which it was."""
        return max(self.seconds)[:2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Landmarks:
    """What is in the file, to be asked for."""

    oldest_micros: int
    newest_micros: int
    middle: Place
    middle_id: str
    newest_id: str
    thread_id: str
    long_session_id: str
    single_id: str


def landmarks(conn: Connection) -> Landmarks:
    """Rows of a filled file that questions are about."""

    def one(sql: str, *values: Any) -> Any:
        return conn.execute(sql, values).fetchone()

    oldest, newest = one("SELECT MIN(start_time), MAX(start_time) FROM interceptions")
    middle = one(
        "SELECT start_time, number, id FROM interceptions WHERE start_time >= ? ORDER BY start_time LIMIT 1",
        (oldest + newest) // 2,
    )
    # Of the younger half, so that retention leaves it.
    thread = one(
        "SELECT thread_root_id, session_id, COUNT(*) AS rows FROM interceptions"
        " WHERE number > ? AND thread_root_id <> '' AND thread_root_id <> id GROUP BY 1 ORDER BY rows DESC LIMIT 1",
        middle["number"],
    )
    single = one(
        "SELECT id FROM interceptions WHERE number > ? AND session_id = id AND thread_root_id = id LIMIT 1",
        middle["number"],
    )
    return Landmarks(
        oldest_micros=oldest,
        newest_micros=newest,
        middle=Place(middle["start_time"], middle["number"]),
        middle_id=middle["id"],
        newest_id=one("SELECT id FROM interceptions ORDER BY number DESC LIMIT 1")["id"],
        thread_id=thread["thread_root_id"],
        long_session_id=thread["session_id"],
        single_id=single["id"],
    )


def questions(marks: Landmarks) -> Iterator[Question]:
    """All of them."""
    for label, wanted in filters(marks):
        yield "ListInterceptions", label, interceptions(wanted, _DEFAULT_PAGE)
        yield "ListSessions", label, sessions(wanted, _DEFAULT_PAGE)
    for label, wanted in _single_filters(marks):
        yield "ListInterceptions", f"{label}, {_LARGEST_LIST} a page", interceptions(wanted, _LARGEST_LIST)
        yield "ListSessions", f"{label}, {_LARGEST_LIST} a page", sessions(wanted, _LARGEST_LIST)
    for what in ("thread_id", "middle_id", "newest_id", "single_id"):
        yield "GetInterception", what.removesuffix("_id"), interception(getattr(marks, what))
    yield "GetInterception", f"the latest of a thread of {LONG_THREAD}", latest_of(marks.thread_id)
    yield from usages(marks)


def usages(marks: Landmarks) -> Iterator[Question]:
    """Usage by each set of dimensions, with some filters."""
    filtered = [("", Filter())]
    filtered += [one for one in _single_filters(marks) if one[1] != Filter() and not _is_of_lists(one[1])]
    for size in range(len(usage_queries.DIMENSIONS) + 1):
        for group_by in combinations(usage_queries.DIMENSIONS, size):
            for label, wanted in filtered:
                by = ",".join(group_by).lower() or "nothing"
                for page in (_LARGEST_PAGE,) if label else (_DEFAULT_PAGE, _LARGEST_PAGE):
                    yield "QueryUsage", f"by {by}, {label or 'all'}, {page} a page", usage(wanted, group_by, page)


def filters(marks: Landmarks) -> Iterator[tuple[str, Filter]]:
    """None, each, and every two that restrict different things."""
    yield from _single_filters(marks)
    kinds = _values(marks)
    for (_, ones), (_, others) in combinations(kinds.items(), 2):
        for label, one in ones.items():
            for other_label, other in others.items():
                yield f"{label}, {other_label}", Filter(**one, **other)


def _single_filters(marks: Landmarks) -> Iterator[tuple[str, Filter]]:
    yield "all", Filter()
    for values in _values(marks).values():
        for label, value in values.items():
            yield label, Filter(**value)


def _is_of_lists(wanted: Filter) -> bool:
    return bool(wanted.session_id or wanted.provider_type)


def _values(marks: Landmarks) -> dict[str, dict[str, dict[str, Any]]]:
    last_day = marks.newest_micros - DAY_MICROS
    return {
        "user": {
            "user with most": {"user_id": user_id(0)},
            "user with little": {"user_id": user_id(USERS - 1)},
            "user with none": {"user_id": NOBODY},
        },
        "provider": {
            "common provider": {"provider": "anthropic-corp"},
            "rare provider": {"provider": "google"},
            "no such provider": {"provider": "none"},
        },
        "type": {"common type": {"provider_type": "anthropic"}, "no such type": {"provider_type": "copilot"}},
        "model": {
            "common model": {"model": "claude-sonnet-4-5-20250929"},
            "rare model": {"model": RARE_MODEL},
            "no such model": {"model": "none"},
        },
        "client": {
            "common client": {"client": "Claude Code"},
            "rare client": {"client": RARE_CLIENT},
            "no such client": {"client": "none"},
        },
        "session": {
            "long session": {"session_id": marks.long_session_id},
            "no such session": {"session_id": "none"},
        },
        "time": {
            "last day": {"after_micros": last_day},
            "a day in the middle": {
                "after_micros": marks.middle.micros - DAY_MICROS,
                "before_micros": marks.middle.micros,
            },
            "before all": {"before_micros": marks.oldest_micros},
        },
    }


def interceptions(wanted: Filter, limit: int) -> Callable[[Records, Any], Awaitable[Any]]:
    """Asks for a page of interceptions."""

    async def ask(records: Records, after: Any) -> Any:
        page = await records.read(record_queries.list_interceptions, wanted, after=after, limit=limit)
        pb.ListInterceptionsResponse(
            interceptions=[usage_codec.interception(one, _NAMES) for one in page.items]
        ).SerializeToString()
        return page.next_place

    return ask


def sessions(wanted: Filter, limit: int) -> Callable[[Records, Any], Awaitable[Any]]:
    """Asks for a page of sessions."""

    async def ask(records: Records, after: Any) -> Any:
        page = await records.read(record_queries.list_sessions, wanted, after=after, limit=limit)
        pb.ListSessionsResponse(sessions=[usage_codec.session(one, _NAMES) for one in page.items]).SerializeToString()
        return page.next_place

    return ask


def interception(interception_id: str) -> Callable[[Records, Any], Awaitable[Any]]:
    """Asks for one with its thread."""

    async def ask(records: Records, after: Any) -> Any:
        del after
        found, thread = await records.read(record_queries.get_interception, interception_id, user_id="")
        usage_codec.with_thread(found, thread, _NAMES).SerializeToString()

    return ask


def latest_of(thread_id: str) -> Callable[[Records, Any], Awaitable[Any]]:
    """Asks for the newest of a thread, which is not in the thread's first hundred."""

    def newest(conn: Connection) -> str:
        sql = (
            "SELECT id FROM interceptions WHERE thread_root_id = ? AND thread_root_id <> '' AND thread_root_id <> id"
            " ORDER BY start_time DESC LIMIT 1"
        )
        return str(conn.execute(sql, (thread_id,)).fetchone()["id"])

    async def ask(records: Records, after: Any) -> Any:
        return await interception(await records.read(newest))(records, after)

    return ask


def usage(wanted: Filter, group_by: Sequence[str], limit: int) -> Callable[[Records, Any], Awaitable[Any]]:
    """Asks for a page of sums."""

    async def ask(records: Records, after: Any) -> Any:
        page = await records.read(usage_queries.query_usage, wanted, group_by=group_by, after=after, limit=limit)
        pb.QueryUsageResponse(rows=[usage_codec.usage_row(one, _NAMES) for one in page.rows]).SerializeToString()
        return page.next_place

    return ask


async def asked(records: Records, marks: Landmarks, times: dict[str, Times]) -> None:
    """Ask everything: first pages, second ones, and pages from the middle of the file on."""
    for rpc, label, ask in questions(marks):
        after = await _timed(times[rpc], label, ask, records, None)
        if rpc == "QueryUsage":
            for number in range(2, _MOST_PAGES_OF_USAGE):
                if after is None:
                    break
                after = await _timed(times[rpc], f"{label}, page {number}", ask, records, after)
        elif rpc != "GetInterception":
            if after is not None:
                await _timed(times[rpc], f"{label}, second page", ask, records, after)
            await _timed(times[rpc], f"{label}, from the middle on", ask, records, marks.middle)


async def _timed(
    times: Times, label: str, ask: Callable[[Records, Any], Awaitable[Any]], records: Records, after: Any
) -> Any:
    before = Taken.now()
    place = await ask(records, after)
    times.add(before, label)
    return place
