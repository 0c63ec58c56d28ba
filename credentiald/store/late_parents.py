"""Requests that were stored before the one whose tool call they answer get its thread and session when that comes.

Each bridge brings its reports by itself, so after an outage they come in any order. Of what answers a call that nobody
has made yet, nothing better is known than a thread of its own, and where its client names no session, one of its own.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import NamedTuple

from credentiald.record_model import Fact, InterceptionDraft, ToolCall
from credentiald.store import bulk
from credentiald.store.connection import Connection, Row
from credentiald.store.record_groups import Group
from credentiald.store.record_sums import Sums

# Rows beyond two for each request with calls, what answers it and the request itself, which may have been put into the
# thread of another that moves. Others who write wait for all of it.
MOST_MOVED = 500
_MOST_AT_ONCE = 10 * MOST_MOVED
# So many answer one call: it was asked anew, or the upstream's ids of calls are not unique.
_MOST_OF_ONE_CALL = 64
# What has this root and is not it.
_HANGING = "thread_root_id <> '' AND thread_root_id <> id AND thread_root_id"
# For rows of caller's id, user and tool call. Which session has a row, and of how many, is asked of the found only.
_CHILDREN = (
    "SELECT caller.id AS caller_id, caller.thread_root_id, caller.session_id AS caller_session_id,"  # noqa: S608 - ours
    " child.id, child.user_id, child.session_id, child.start_time,"
    " CASE child.is_session WHEN 1 THEN 1 ELSE"
    "  (SELECT interceptions FROM sessions WHERE session_id = child.id AND user_id = child.user_id) END AS in_session,"
    f" (SELECT count(*) FROM (SELECT 1 FROM interceptions WHERE {_HANGING} = child.id LIMIT {_MOST_AT_ONCE}) AS many)"
    "  AS hanging FROM",
    "AS asked CROSS JOIN interceptions AS child ON child.number IN ("  # noqa: S608 - names of ours
    " SELECT number FROM interceptions INDEXED BY interceptions_without_parent"
    "  WHERE user_id = asked.column2 AND correlating_tool_call_id = asked.column3 AND id > asked.column1"
    "  AND correlating_tool_call_id <> '' AND thread_root_id = id"
    f" ORDER BY id LIMIT {_MOST_OF_ONE_CALL})"
    f" CROSS JOIN interceptions AS caller ON caller.id = asked.column1 LIMIT {4 * MOST_MOVED}",
)
_MOVE = "UPDATE interceptions SET thread_root_id = told.column2, session_id = told.column3"
_MOVING, _ADOPTING = f"{_MOVE} FROM", f"{_MOVE}, thread_parent_id = told.column4 FROM"
_MOVED = "AS told WHERE interceptions.id = told.column1 RETURNING interceptions.number"


class Call(NamedTuple):
    """A tool call that is new: in which interception the model made it, and whose that is."""

    interception_id: str
    user_id: str
    tool_call_id: str


class _Place(NamedTuple):
    root_id: str
    session_id: str


def calls_in(groups: Sequence[Group], facts: Sequence[tuple[InterceptionDraft, Fact]]) -> list[Call]:
    """The tool calls in what was stored by the short way, and by the long one."""
    usual = [
        Call(interception_id, group.like.kind.origin.user_id, call.tool_call_id)
        for group in groups
        if any(group.told.tool_calls)
        for interception_id, calls in zip(group.told.interception_id, group.told.tool_calls, strict=True)
        for call in calls
    ]
    return usual + [Call(one.id, one.user_id, fact.tool_call_id) for one, fact in facts if type(fact) is ToolCall]


def adopt(conn: Connection, calls: Sequence[Call]) -> int:
    """Move what answers these calls, and began a thread, into that of the caller; how many rows were moved.

    What hangs on it moves along. A session moves with its first request, unless the client has given it its name.
    """
    callers = {one.interception_id for one in calls}
    children = _with_room(_children(conn, calls), room=min(MOST_MOVED + 2 * len(callers), _MOST_AT_ONCE))
    if not children:
        return 0
    hanging: defaultdict[str, list[Row]] = defaultdict(list)
    head = f"SELECT id, thread_root_id, session_id FROM interceptions WHERE {_HANGING} IN"  # noqa: S608 - names of ours
    for row in bulk.select(conn, head, [child["id"] for child in children]):
        hanging[row["thread_root_id"]].append(row)
    sums = Sums()
    places, sessions = _places(children, hanging, sums)
    sums.store(conn)
    adopted = [(child["id"], *places[child["id"]], child["caller_id"]) for child in children]
    moved = [
        (one["id"], places[child["id"]].root_id, sessions.get((child["user_id"], one["session_id"]), one["session_id"]))
        for child in children
        for one in hanging[child["id"]]
    ]
    updates = ((_ADOPTING, adopted), (_MOVING, moved))
    return sum(1 for _ in chain.from_iterable(bulk.select_for(conn, head, rows, _MOVED) for head, rows in updates))


def _children(conn: Connection, calls: Sequence[Call]) -> Iterator[Row]:
    """What answers them, from the oldest to the newest, each with the latest caller before it."""
    found = sorted(bulk.select_for(conn, _CHILDREN[0], calls, _CHILDREN[1]), key=itemgetter("id", "caller_id"))
    yield from {row["id"]: row for row in found}.values()


def _with_room(children: Iterator[Row], *, room: int) -> list[Row]:
    """Those that can be moved with all that hangs on them; the others stay what they are."""
    fitting = []
    for child in children:
        count = 1 + child["hanging"]
        if count <= room:
            room -= count
            fitting.append(child)
    return fitting


def _places(
    children: Sequence[Row], hanging: Mapping[str, Sequence[Row]], sums: Sums
) -> tuple[dict[str, _Place], dict[tuple[str, str], str]]:
    """By child, where it goes; and by user and session, into which others those go that were children's own."""
    places: dict[str, _Place] = {}
    sessions: dict[tuple[str, str], str] = {}
    # A caller, and the root of its thread, began before what answers it: if they move, it is known by then where to.
    for child in children:
        child_id, user_id, root_id = child["id"], child["user_id"], child["thread_root_id"]
        root_id = places[root_id].root_id if root_id in places else root_id
        session_id = sessions.get((user_id, child["caller_session_id"]), child["caller_session_id"])
        own = [one for one in (child, *hanging.get(child_id, ())) if one["session_id"] == child_id]
        # A client may call a session by the id of its first request. Then others are in it that do not hang on that.
        if own and child["session_id"] == child_id and len(own) == child["in_session"]:
            sessions[user_id, child_id] = session_id
            sums.session_joined(user_id, child_id, session_id, child["start_time"])
        else:
            session_id = child["session_id"]
            sums.thread_joined(user_id, session_id, child["start_time"])
        places[child_id] = _Place(root_id, session_id)
    return places, sessions
