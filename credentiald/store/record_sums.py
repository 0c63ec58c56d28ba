"""The sums that are kept beside the records: one row for each session, one for each day of each kind of use.

They are brought up to date in the transaction that stores what they count, so questions never add millions of rows up.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from credentiald.record_model import (
    DAY_MICROS,
    Fact,
    InterceptionDraft,
    Kind,
    Prompt,
    Tally,
    TokenUsage,
)
from credentiald.store import bulk, lone_sessions
from credentiald.store.connection import Connection, Row, Value
from credentiald.store.lone_sessions import PROMPT_CHARACTERS
from credentiald.usual_report import UsualColumns, counts_in

# What a session says of its providers and models is for people: a client that invents names must not swell it.
_MOST_NAMES = 32

# What token usages add up to, as `counts_of` has it.
_COUNTS = (
    "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens", "cost_micros",
    "unpriced_token_usages",
)  # fmt: skip
_NO_COUNTS = (0,) * len(_COUNTS)
_SESSION_COLUMNS = (
    "user_id", "session_id", "providers", "provider_types", "models", "client", "start_time", "last_active_time",
    "interceptions", "threads", *_COUNTS, "last_prompt", "last_prompt_time",
)  # fmt: skip
# CROSS: keys first, then the index for each of them.
_SESSION_SELECTION = (
    f"SELECT {', '.join(_SESSION_COLUMNS)} FROM",
    "AS keys CROSS JOIN sessions ON user_id = keys.column1 AND session_id = keys.column2",
)
_SESSION_INSERTION = f"INSERT INTO sessions ({', '.join(_SESSION_COLUMNS)})"
_SESSION_UPDATE = "ON CONFLICT (session_id, user_id) DO UPDATE SET " + ", ".join(
    f"{one} = excluded.{one}" for one in _SESSION_COLUMNS[2:]
)
_DAY_KEY = ("start_day", "user_id", "provider_name", "model", "client")
_DAY_COUNTS = ("interceptions", "token_usages", *_COUNTS)
_NOTHING = (0,) * len(_DAY_COUNTS)
_DayKey = tuple[int, str, str, str, str]
_EMPTY_SESSION = "DELETE FROM sessions WHERE user_id = ? AND session_id = ? AND interceptions = 0"
_JOINED_SESSION = "DELETE FROM sessions WHERE user_id = ? AND session_id = ?"
# It is below zero where retention had removed the day before something left it.
_EMPTY_DAY = (
    f"DELETE FROM usage_days WHERE {' AND '.join(f'{one} = ?' for one in _DAY_KEY)}"  # noqa: S608 - names of ours
    " AND interceptions <= 0 AND token_usages <= 0"
)
# Days of this user are the sums of all users.
ALL_USERS = ""
_DAY_INSERTION = f"INSERT INTO usage_days ({', '.join((*_DAY_KEY, *_DAY_COUNTS))})"
_DAY_UPDATE = f"ON CONFLICT ({', '.join(_DAY_KEY)}) DO UPDATE SET " + ", ".join(
    f"{one} = usage_days.{one} + excluded.{one}" for one in _DAY_COUNTS
)


@dataclass(slots=True)
class _Session:
    """What a batch adds to one session."""

    providers: dict[str, None]
    provider_types: dict[str, None]
    models: dict[str, None]
    client: str
    start_time: int
    last_active_time: int
    interceptions: int
    threads: int
    counts: list[int]
    last_prompt: str
    # When its interception began.
    last_prompt_time: int


class Sums:
    """What one batch adds up to."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._days: dict[_DayKey, list[int]] = {}
        # Those that something was taken from.
        self._left_sessions: set[tuple[str, str]] = set()
        # Those that are a part of another one of the same user now.
        self._joined: dict[tuple[str, str], str] = {}
        self._left_days: set[_DayKey] = set()

    def interception(self, draft: InterceptionDraft, count: int = 1) -> None:
        """Count one interception whose session is known now; -1 for one that was counted and leaves its session."""
        session = self._named(draft)
        session.client = draft.client or session.client
        session.interceptions += count
        session.threads += count * (draft.thread_root_id == draft.id)
        self._day(draft)[0] += count
        if count < 0:
            self._left_sessions.add((draft.user_id, draft.session_id))
            self._left_days.add(_day_key(draft))

    def moved(self, before: InterceptionDraft, draft: InterceptionDraft, usages: Sequence[TokenUsage]) -> None:
        """Count one that was counted as `before`, with these usages, as what it is now.

        Its session stays the same, and goes on to name what it named: others in it may be of that, too.
        """
        session = self._named(draft)
        session.client = session.client or draft.client
        if _day_key(before) == _day_key(draft):
            return
        self._left_days.add(_day_key(before))
        for one, times in ((before, -1), (draft, 1)):
            self._day(one)[0] += times
            for usage in usages:
                self._usage(one, usage, times)

    def session_joined(self, user_id: str, session_id: str, into_id: str, start_micros: int) -> None:
        """Count a session of one thread, with all in it, for another session, where it goes on with a thread."""
        self._joined[user_id, session_id] = into_id
        self._of(user_id, into_id, start_micros).threads -= 1

    def thread_joined(self, user_id: str, session_id: str, start_micros: int) -> None:
        """Count a thread of a session no more, as it goes on with another one. Its requests stay in the session."""
        self._of(user_id, session_id, start_micros).threads -= 1
        self._left_sessions.add((user_id, session_id))

    def fact(self, draft: InterceptionDraft, fact: Fact) -> None:
        """Count one new record."""
        if isinstance(fact, TokenUsage):
            session = self._session(draft)
            session.counts = [old + new for old, new in zip(session.counts, counts_of(fact), strict=True)]
            self._usage(draft, fact)
        elif isinstance(fact, Prompt) and fact.text_bytes:
            session = self._session(draft)
            # One whose text is left out takes the place of an older one's text: that was left in by older settings.
            if (draft.start_time, bool(fact.text)) >= _said(session.last_prompt_time, session.last_prompt):
                session.last_prompt, session.last_prompt_time = fact.text[:PROMPT_CHARACTERS], draft.start_time

    def kind(self, kind: Kind, tally: Tally) -> None:
        """Count many for their day; each is counted for its session by itself."""
        day = self._days.setdefault(
            (kind.start_day, kind.origin.user_id, kind.origin.provider_name, kind.model, kind.client),
            [0] * len(_DAY_COUNTS),
        )
        for place, count in enumerate(tally.sums):
            day[place] += count

    def usual_in_session(self, session_id: str, told: Sequence[tuple[Kind, UsualColumns]]) -> None:
        """Count many for the one session that all of them belong to, of which nothing is counted yet.

        They are usual (usual_report.py): each begins a thread.
        """
        # Of what has a name, the latest word counts.
        told = sorted(told, key=_latest)
        kinds = [kind for kind, _ in told]
        starts = [start for _, columns in told for start in columns.start_micros]
        prompts = [
            one
            for _, columns in told
            for one in zip(
                columns.start_micros, columns.interception_id, columns.prompt, columns.prompt_bytes, strict=True
            )
            if one[-1]
        ]
        last_prompt_time, _, last_prompt, _ = max(prompts, default=(0, "", "", 0))
        self._sessions[kinds[0].origin.user_id, session_id] = _Session(
            dict.fromkeys(kind.origin.provider_name for kind in kinds),
            dict.fromkeys(kind.origin.provider_type for kind in kinds),
            dict.fromkeys(kind.model for kind in kinds if kind.model),
            next((kind.client for kind in reversed(kinds) if kind.client), ""),
            min(starts),
            max(starts),
            len(starts),
            len(starts),
            list(map(sum, zip(*(counts_in(columns) for _, columns in told), strict=True))),
            last_prompt[:PROMPT_CHARACTERS],
            last_prompt_time,
        )

    def store(self, conn: Connection) -> None:
        """Add it to what is stored."""
        keys = [*self._sessions, *self._joined]
        stored = list(bulk.select_for(conn, _SESSION_SELECTION[0], keys, _SESSION_SELECTION[1]))
        found = {row["session_id"] for row in stored}
        # Also of a user of whom nothing is here, but another's session of the same name.
        stored += lone_sessions.given_rows(conn, {one for _, one in keys} - found)
        for row in stored:
            user_id, session_id = row["user_id"], row["session_id"]
            if self._joined:
                session_id = self._joined.get((user_id, session_id), session_id)
            _add_stored(self._of(user_id, session_id, row["start_time"]), row)
        rows: list[tuple[Value, ...]] = [
            (
                *key,
                _listed(one.providers),
                _listed(one.provider_types),
                _listed(one.models),
                one.client,
                one.start_time,
                one.last_active_time,
                one.interceptions,
                one.threads,
                *one.counts,
                one.last_prompt,
                one.last_prompt_time,
            )
            for key, one in self._sessions.items()
        ]
        bulk.insert(conn, _SESSION_INSERTION, rows, _SESSION_UPDATE)
        days = self._days | self._days_of_all()
        bulk.insert(conn, _DAY_INSERTION, [(*key, *counts) for key, counts in days.items()], _DAY_UPDATE)
        self._drop_empty(conn)

    def _drop_empty(self, conn: Connection) -> None:
        """Remove what counts nothing any more."""
        for left in self._left_sessions:
            conn.execute(_EMPTY_SESSION, left)
        for joined in self._joined:
            conn.execute(_JOINED_SESSION, joined)
        for day, user_id, *names in self._left_days:
            for whose in (user_id, ALL_USERS):
                conn.execute(_EMPTY_DAY, (day, whose, *names))

    def _days_of_all(self) -> dict[_DayKey, list[int]]:
        """The same counts without a difference between users."""
        sums: dict[_DayKey, list[int]] = {}
        for (day, _, provider, model, client), counts in self._days.items():
            key = (day, ALL_USERS, provider, model, client)
            sums[key] = [one + other for one, other in zip(sums.get(key, _NOTHING), counts, strict=True)]
        return sums

    def _usage(self, draft: InterceptionDraft, usage: TokenUsage, times: int = 1) -> None:
        """Count a token usage for its day; -1 times to take it away."""
        day = self._day(draft)
        day[1] += times
        for place, count in enumerate(counts_of(usage), 2):
            day[place] += times * count

    def _named(self, draft: InterceptionDraft) -> _Session:
        """The session of one, with its names and times."""
        session = self._session(draft)
        session.providers[draft.provider_name] = None
        session.provider_types[draft.provider_type] = None
        if draft.model:
            session.models[draft.model] = None
        session.start_time = min(session.start_time, draft.start_time)
        session.last_active_time = max(session.last_active_time, draft.start_time)
        return session

    def _session(self, draft: InterceptionDraft) -> _Session:
        return self._of(draft.user_id, draft.session_id, draft.start_time)

    def _of(self, user_id: str, session_id: str, start_time: int) -> _Session:
        key = (user_id, session_id)
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = _Session(
                {}, {}, {}, "", start_time, start_time, 0, 0, [0] * len(_COUNTS), "", 0
            )
        return session

    def _day(self, draft: InterceptionDraft) -> list[int]:
        key = _day_key(draft)
        day = self._days.get(key)
        if day is None:
            day = self._days[key] = [0] * len(_DAY_COUNTS)
        return day


def _day_key(draft: InterceptionDraft) -> _DayKey:
    return draft.start_time // DAY_MICROS, draft.user_id, draft.provider_name, draft.model, draft.client


def _latest(told: tuple[Kind, UsualColumns]) -> tuple[int, str]:
    _, columns = told
    return max(zip(columns.start_micros, columns.interception_id, strict=True))


def counts_of(usage: TokenUsage) -> tuple[int, ...]:
    """In the order of `_COUNTS`. What has no cost adds nothing to the cost and is counted instead."""
    _, _, _, new, out, read, written, _, _, cost_micros = usage
    return (new, out, read, written, 0, 1) if cost_micros is None else (new, out, read, written, cost_micros, 0)


def _add_stored(session: _Session, row: Row) -> None:
    said = _said(row["last_prompt_time"], row["last_prompt"])
    if said > _said(session.last_prompt_time, session.last_prompt):
        session.last_prompt, session.last_prompt_time = lone_sessions.last_prompt_in(row), row["last_prompt_time"]
    # The latest client that has a name.
    if not session.client or (row["client"] and row["last_active_time"] > session.last_active_time):
        session.client = row["client"]
    session.start_time = min(session.start_time, row["start_time"])
    session.last_active_time = max(session.last_active_time, row["last_active_time"])
    session.interceptions += row["interceptions"]
    session.threads += row["threads"]
    session.counts = [new + row[one] for new, one in zip(session.counts, _COUNTS, strict=True)]
    session.providers = _joined(row["providers"], session.providers)
    session.provider_types = _joined(row["provider_types"], session.provider_types)
    session.models = _joined(row["models"], session.models)


def _said(micros: int, prompt: str | bytes) -> tuple[int, bool]:
    """By which the last prompt is the greatest: of one request, one that has a text."""
    return micros, bool(prompt)


def _joined(stored: str, new: dict[str, None]) -> dict[str, None]:
    return dict.fromkeys([*json.loads(stored), *new])


def _listed(names: dict[str, None]) -> str:
    return _written(tuple(islice(names, _MOST_NAMES)))


@lru_cache(maxsize=1024)
def _written(names: tuple[str, ...]) -> str:
    return json.dumps(names)
