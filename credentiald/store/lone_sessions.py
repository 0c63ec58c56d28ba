"""Sessions of one interception, as nearly all are that no client names: the row of the interception stands for them.

To write a row of their own takes as long as to write the interception. They get it when something joins them or more is
told of their interception: so that has at most one token usage, and one prompt that has a text. Where one stands for
its session, no session of that name has a row, not of any user.
"""

from collections.abc import Collection
from dataclasses import replace

from credentiald.store import bulk, usual_facts
from credentiald.store.connection import Connection, Row
from credentiald.store.record_rows import TOKEN_SUMS
from credentiald.store.record_scan import Filter, Place, Scan

PROMPT_CHARACTERS = 500


def _either(column: str) -> str:
    return f"COALESCE({usual_facts.USAGES}.{column}, token_usages.{column}, 0) AS {column}"


_PROMPT = f"COALESCE(NULLIF({usual_facts.PROMPTS}.text, ''), prompts.text)"
# As rows of sessions have it, but for the prompt (`last_prompt_in`): of a text, SUBSTR takes nothing behind a NUL.
_COLUMNS = f"""
    interceptions.number AS number, user_id, session_id, json_array(provider_name) AS providers,
    json_array(provider_type) AS provider_types, CASE model WHEN '' THEN '[]' ELSE json_array(model) END AS models,
    client, start_time, start_time AS last_active_time, 1 AS interceptions, 1 AS threads,
    {", ".join(map(_either, (*TOKEN_SUMS, "cost_micros")))},
    COALESCE({usual_facts.USAGES}.number, token_usages.id) IS NOT NULL
        AND COALESCE({usual_facts.USAGES}.cost_micros, token_usages.cost_micros) IS NULL AS unpriced_token_usages,
    COALESCE(SUBSTR(CAST({_PROMPT} AS BLOB), 1, {4 * PROMPT_CHARACTERS}), '') AS last_prompt
"""
# Also of a prompt whose text is left out: an older text does not come after it.
_LEFT_OUT = "SELECT 1 FROM prompts AS said WHERE said.interception_id = interceptions.id AND said.text_bytes > 0"
_PROMPT_TIME = (
    f"CASE WHEN {usual_facts.PROMPTS}.text_bytes > 0 OR EXISTS ({_LEFT_OUT})"
    " THEN start_time ELSE 0 END AS last_prompt_time"
)
# Prompts without a text are shown in no session, and there may be more of these. Nothing is looked for (NULL is equal
# to nothing) in the tables of their kinds where the others have it: each look is a page of the file.
_FACTS = f"""
    LEFT {usual_facts.JOIN_USAGES} LEFT {usual_facts.JOIN_PROMPTS}
    LEFT JOIN token_usages ON token_usages.interception_id
        = CASE WHEN {usual_facts.USAGES}.number IS NULL THEN interceptions.id END
    LEFT JOIN prompts ON prompts.interception_id
        = CASE WHEN COALESCE({usual_facts.PROMPTS}.text, '') = '' THEN interceptions.id END AND prompts.text <> ''
"""
# Of those that began at the same time, sessions with a row come first, and these after them.
_BEHIND = 1 << 62


def with_rows(conn: Connection, interception_ids: Collection[str]) -> set[str]:
    """Those of these ids by which sessions have a row: a client may call a session by any name."""
    if not interception_ids:
        return set()
    # Ids rise with time and most of these are of now, so there is next to nothing between the first of them and the
    # last. An answer that took long, or names that clients made up, may put any number of sessions there.
    count = len(interception_ids)
    rows = conn.execute(
        "SELECT session_id FROM sessions WHERE session_id BETWEEN ? AND ? LIMIT ?",
        (min(interception_ids), max(interception_ids), count + 1),
    ).fetchall()
    if len(rows) > count:
        rows = list(bulk.select(conn, "SELECT session_id FROM sessions WHERE session_id IN", list(interception_ids)))
    return {row["session_id"] for row in rows}.intersection(interception_ids) if rows else set()


def given_rows(conn: Connection, session_ids: Collection[str]) -> list[Row]:
    """What rows of sessions of these names would be, if any are of one interception.

    They stand for themselves no more: the caller writes their rows.
    """
    rows = list(
        bulk.select(
            conn,
            f"SELECT {_COLUMNS}, {_PROMPT_TIME} FROM interceptions {_FACTS}"  # noqa: S608 - names of ours
            " WHERE is_session = 1 AND interceptions.id IN",
            list(session_ids),
        )
    )
    bulk.change(conn, "UPDATE interceptions SET is_session = 0 WHERE id IN", [row["session_id"] for row in rows])
    return rows


def last_prompt_in(row: Row) -> str:
    """Of a row of sessions, or of one that stands for one."""
    prompt: str | bytes = row["last_prompt"]
    return prompt if isinstance(prompt, str) else prompt.decode(errors="ignore")[:PROMPT_CHARACTERS]


def is_lone(conn: Connection, session_id: str) -> bool:
    """Whether a session is of one interception that stands for it."""
    found = conn.execute("SELECT 1 FROM interceptions WHERE id = ? AND is_session = 1", (session_id,)).fetchone()
    return found is not None


def page(
    conn: Connection, wanted: Filter, *, after: Place | None, down_to: Place | None, limit: int, scanned: int
) -> tuple[list[tuple[Place, Row]], Place | None]:
    """Some of those, as rows of sessions with their places, and where to go on: Scan.page.

    Nothing older than `down_to` is needed.
    """
    if down_to is not None:
        wanted = replace(wanted, after_micros=max(down_to.micros, wanted.after_micros or 0))
    scan = Scan(
        "interceptions",
        "start_time",
        wanted,
        indexed=[("interceptions.id = ?", wanted.session_id), ("user_id = ?", wanted.user_id)],
        further=[
            ("is_session = ?", 1),
            ("provider_name = ?", wanted.provider),
            ("provider_type = ?", wanted.provider_type),
            ("model = ?", wanted.model),
            ("client = ?", wanted.client),
        ],
        scanned=scanned,
        columns=_COLUMNS,
        joined=_FACTS,
    )
    if after is not None:
        after = after._replace(number=after.number + _BEHIND)
    rows, last = scan.page(conn, after=after, limit=limit)
    found = [(_behind(Place(row["last_active_time"], row["number"])), row) for row in rows]
    return found, None if last is None else _behind(last)


def _behind(place: Place) -> Place:
    return place._replace(number=place.number - _BEHIND)
