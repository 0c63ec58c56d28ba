"""Questions about records. Lists go from the newest to the oldest, in pages as record_scan.py makes them."""

import json
from collections.abc import Sequence
from operator import add, itemgetter
from typing import NamedTuple

from credentiald.errors import InterceptionNotFound
from credentiald.record_model import (
    Cost,
    Fact,
    InterceptionDraft,
    Tokens,
)
from credentiald.store import bulk, lone_sessions, record_facts, usual_facts
from credentiald.store.connection import Connection, Row
from credentiald.store.record_rows import COLUMNS, TOKEN_SUMS, cost_in, draft_of, tokens_in
from credentiald.store.record_scan import Condition, Filter, Page, Place, Scan

# How much a page looks through: entries of an index that has what is filtered by, rows of a table.
SCANNED_ENTRIES = 25_000
SCANNED_ROWS = 1_000
MOST_OF_A_THREAD = 100
# Of records. With the rows, 14 KB each at most, it is less than the 4 MiB that clients of gRPC take by default. What is
# asked for may have more by itself: a report has up to 4 MiB, which is some more in an answer.
THREAD_BYTES = 2_500_000
MOST_OF_ONE_BYTES = 6 * 1024 * 1024
_MEASURED_AT_ONCE = 20
# Those of one user lie all over the file, and each of them takes three reads of a disk.
MOST_OF_A_PAGE = 250
_COLUMNS = ", ".join(("number", *COLUMNS))


class StoredInterception(NamedTuple):
    """A row with the sums of its token usages."""

    row: InterceptionDraft
    tokens: Tokens
    cost: Cost


class Detail(NamedTuple):
    """An interception with its records: all of them, some, or none where there is no room for them."""

    interception: StoredInterception
    facts: list[Fact]
    is_whole: bool


class StoredSession(NamedTuple):
    """A row of sessions."""

    session_id: str
    user_id: str
    providers: list[str]
    provider_types: list[str]
    models: list[str]
    client: str
    start_micros: int
    last_active_micros: int
    interceptions: int
    threads: int
    tokens: Tokens
    cost: Cost
    last_prompt: str


def list_interceptions(
    conn: Connection, wanted: Filter, *, after: Place | None, limit: int
) -> Page[StoredInterception]:
    """At most `limit` interceptions behind the place `after`."""
    session, user = _of_session(conn, wanted.session_id), ("user_id = ?", wanted.user_id)
    further = [
        ("provider_name = ?", wanted.provider),
        ("provider_type = ?", wanted.provider_type),
        ("model = ?", wanted.model),
        ("client = ?", wanted.client),
    ]
    if wanted.session_id:
        further.append(user)
    scan = Scan(
        "interceptions",
        "start_time",
        wanted,
        indexed=[session if wanted.session_id else user],
        further=further,
        scanned=SCANNED_ROWS if wanted.session_id else SCANNED_ENTRIES,
    )
    rows, next_place = scan.page(conn, after=after, limit=limit)
    return Page(_with_tokens(conn, rows), next_place)


def list_sessions(conn: Connection, wanted: Filter, *, after: Place | None, limit: int) -> Page[StoredSession]:
    """At most `limit` sessions behind the place `after`; times are those of their latest interception.

    Those with a row and those without (lone_sessions.py) are looked for by themselves, the latter no further back than
    the former.
    """
    rows, stop = _with_rows(wanted).page(conn, after=after, limit=limit)
    lone, lone_stop = lone_sessions.page(conn, wanted, after=after, down_to=stop, limit=limit, scanned=SCANNED_ENTRIES)
    # Of what is older than where either of them stopped, there may be more.
    next_place = max((one for one in (stop, lone_stop) if one is not None), default=None)
    found = [(Place(row["last_active_time"], row["number"]), row) for row in rows] + lone
    found = [(place, row) for place, row in found if next_place is None or place >= next_place]
    found.sort(key=_place, reverse=True)
    if len(found) > limit:
        del found[limit:]
        next_place = _place(found[-1])
    sessions = (_session(row) for _, row in found)
    # LIKE makes no difference between letters of either case.
    return Page([one for one in sessions if _is_wanted(one, wanted)], next_place)


def _with_rows(wanted: Filter) -> Scan:
    further = [
        ("providers LIKE ? ESCAPE '\\'", _pattern(wanted.provider)),
        ("provider_types LIKE ? ESCAPE '\\'", _pattern(wanted.provider_type)),
        ("models LIKE ? ESCAPE '\\'", _pattern(wanted.model)),
        ("client = ?", wanted.client),
    ]
    return Scan(
        "sessions",
        "last_active_time",
        wanted,
        indexed=[("session_id = ?", wanted.session_id), ("user_id = ?", wanted.user_id)],
        further=further,
        scanned=SCANNED_ROWS,
    )


def _of_session(conn: Connection, session_id: str) -> Condition:
    if session_id and lone_sessions.is_lone(conn, session_id):
        return "id = ?", session_id
    # The index by sessions has no others.
    return "is_session = 0 AND session_id <> '' AND session_id = ?", session_id


def get_interception(
    conn: Connection, interception_id: str, *, user_id: str
) -> tuple[StoredInterception, list[Detail]]:
    """One interception, and its thread from the oldest to the newest. InterceptionNotFound.

    `user_id` is whose it must be, empty for anybody's. It has its records first, then the newest of its thread have
    theirs as far as there is room.
    """
    found = _row(conn, interception_id)
    if found is None or (user_id and found["user_id"] != user_id):
        raise InterceptionNotFound(interception=interception_id)
    root_id = found["thread_root_id"] or interception_id
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM interceptions"  # noqa: S608 - names of ours
        " WHERE thread_root_id = ? AND thread_root_id <> '' AND thread_root_id <> id AND user_id = ?"
        " ORDER BY start_time DESC LIMIT ?",
        (root_id, found["user_id"], MOST_OF_A_THREAD),
    ).fetchall()
    thread = {one["id"]: one for one in (_row(conn, root_id), *rows, found) if one is not None}
    newest = sorted(thread.values(), key=itemgetter("start_time", "id"))[-MOST_OF_A_THREAD:]
    if found not in newest:
        newest = [found, *newest[1:]]
    shown = _with_tokens(conn, newest)
    own_bytes = record_facts.sizes(conn, [found]).get(interception_id, 0)
    others = [one for one in reversed(newest) if one["id"] != interception_id]
    whole = _that_fit(conn, others, THREAD_BYTES - own_bytes)
    if own_bytes <= MOST_OF_ONE_BYTES:
        whole.append(interception_id)
    facts = record_facts.all_of(conn, whole)
    if interception_id not in facts:
        facts[interception_id] = record_facts.first_of(conn, interception_id, most_bytes=MOST_OF_ONE_BYTES)
    return (
        next(one for one in shown if one.row.id == interception_id),
        [Detail(one, facts.get(one.row.id, []), one.row.id in whole) for one in shown],
    )


def _that_fit(conn: Connection, newest: Sequence[Row], room_bytes: int) -> list[str]:
    """Those from the newest on for whose records there is room."""
    fitting: list[str] = []
    # Step by step, so that of a thread of any size little more is looked at than is shown.
    for start in range(0, len(newest), _MEASURED_AT_ONCE):
        step = newest[start : start + _MEASURED_AT_ONCE]
        sizes = record_facts.sizes(conn, step)
        for one in step:
            room_bytes -= sizes.get(one["id"], 0)
            if room_bytes < 0:
                return fitting
            fitting.append(one["id"])
    return fitting


def _place(found: tuple[Place, Row]) -> Place:
    return found[0]


def _pattern(name: str) -> str:
    """What finds a name in a JSON array of names."""
    if not name:
        return ""
    written = json.dumps(name)
    for special in ("\\", "%", "_"):
        written = written.replace(special, f"\\{special}")
    return f"%{written}%"


def _is_wanted(session: StoredSession, wanted: Filter) -> bool:
    return (
        (not wanted.provider or wanted.provider in session.providers)
        and (not wanted.provider_type or wanted.provider_type in session.provider_types)
        and (not wanted.model or wanted.model in session.models)
    )


def _row(conn: Connection, interception_id: str) -> Row | None:
    sql = f"SELECT {_COLUMNS} FROM interceptions WHERE id = ?"  # noqa: S608 - names of ours
    rows: list[Row] = conn.execute(sql, (interception_id,)).fetchall()
    return rows[0] if rows else None


def _with_tokens(conn: Connection, interceptions: Sequence[Row]) -> list[StoredInterception]:
    sums = ", ".join(f"SUM({one}) AS {one}" for one in TOKEN_SUMS)
    cost = "COALESCE(SUM(cost_micros), 0) AS cost_micros, SUM(cost_micros IS NULL) AS unpriced_token_usages"
    # A usage with the interception's number is found without the index of its ids, in pages beside each other.
    usual = {row["number"]: row for row in usual_facts.sums(conn, [one["number"] for one in interceptions])}
    rows = bulk.select(
        conn,
        f"SELECT interception_id, {sums}, {cost} FROM token_usages WHERE interception_id IN",  # noqa: S608 - names of ours
        [one["id"] for one in interceptions],
        "GROUP BY interception_id",
    )
    others = {row["interception_id"]: row for row in rows}
    return [
        StoredInterception(draft_of(one), *_both(usual.get(one["number"]), others.get(one["id"])))
        for one in interceptions
    ]


def _both(one: Row | None, other: Row | None) -> tuple[Tokens, Cost]:
    """Two rows of sums together."""
    if one is None or other is None:
        found = one or other
        return (Tokens(), Cost()) if found is None else (tokens_in(found), cost_in(found))
    return Tokens(*map(add, tokens_in(one), tokens_in(other))), Cost(*map(add, cost_in(one), cost_in(other)))


def _session(row: Row) -> StoredSession:
    return StoredSession(
        session_id=row["session_id"],
        user_id=row["user_id"],
        providers=json.loads(row["providers"]),
        provider_types=json.loads(row["provider_types"]),
        models=json.loads(row["models"]),
        client=row["client"],
        start_micros=row["start_time"],
        last_active_micros=row["last_active_time"],
        interceptions=row["interceptions"],
        threads=row["threads"],
        tokens=tokens_in(row),
        cost=cost_in(row),
        last_prompt=lone_sessions.last_prompt_in(row),
    )
