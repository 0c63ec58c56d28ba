"""How scripts/records_scale fills a file: the store's own code in large transactions without a journal, and whether the
sums that it kept are those of the rows.
"""

from __future__ import annotations

import sqlite3
import time
from itertools import islice
from pathlib import Path

from records_scale_traffic import Traffic

from credentiald.record_model import DAY_MICROS, Facts, Opening, Report
from credentiald.store import record_writing, records, sqlite
from credentiald.store.record_writing import Batch

# Retention of 60 days leaves a tenth of this to purge.
DAYS = 66
RETENTION_DAYS = 60
_BATCH = 2000
_TRANSACTION = 100_000
_CACHE_KIB = 1_500_000

_DAY_COLUMNS = "provider_name, model, client"
_SESSION_TOKENS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")
# What a sum says and what its rows say, each as a table of the same columns.
_KEPT_SESSIONS = f"SELECT user_id, session_id, interceptions, threads, {', '.join(_SESSION_TOKENS)} FROM sessions"
# Those that nothing is known of yet but that they began are not counted yet. Each is told of once here, so its usage is
# in one of two tables.
_COUNTED = f"""
    SELECT i.start_time, i.user_id, i.session_id, i.is_session, i.provider_name, i.model, i.client,
        i.thread_root_id = i.id AS is_root, COUNT(COALESCE(u.number, t.id)) AS usages,
        {", ".join(f"COALESCE(SUM(COALESCE(u.{one}, t.{one})), 0) AS {one}" for one in _SESSION_TOKENS)}
    FROM interceptions AS i LEFT JOIN usual_token_usages AS u ON u.number = i.number
    LEFT JOIN token_usages AS t ON t.interception_id = i.id
    WHERE i.session_id <> '' GROUP BY i.id
"""
_TOKEN_SUMS = ", ".join(f"SUM({one})" for one in _SESSION_TOKENS)


def fill(path: Path, interceptions: int) -> None:
    """A new file of records with so many interceptions, the last of them now."""
    path.touch(mode=0o600)
    conn = sqlite3.connect(path, isolation_level=None)
    conn.row_factory = sqlite3.Row
    conn.execute(f"PRAGMA page_size = {records.PAGE_BYTES}")
    conn.execute("PRAGMA journal_mode = OFF")
    conn.execute("PRAGMA synchronous = OFF")
    conn.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    with sqlite.transaction(conn, write=True):
        records.prepare(conn, "scale")
    step_micros = DAYS * DAY_MICROS // interceptions
    start_micros = time.time_ns() // 1000 - interceptions * step_micros
    reports = Traffic(1).reports(start_micros, step_micros, interceptions)
    started_seconds, done = time.monotonic(), 0
    while done < interceptions:
        with sqlite.transaction(conn, write=True):
            for _ in range(_TRANSACTION // _BATCH):
                if batch := list(islice(reports, _BATCH)):
                    done += len(batch)
                    record_writing.store(conn, Batch(openings=[_opening_of(one) for one in batch], reports=batch))
        if done % 1_000_000 == 0:
            print(f"{done:,} interceptions after {time.monotonic() - started_seconds:.0f} s", flush=True)
    conn.close()


def _opening_of(report: Report) -> Opening:
    facts = report.facts or Facts()
    return Opening(
        report.interception_id,
        report.resolution_id,
        report.origin,
        report.bridge_instance_id,
        facts.operation,
        facts.model,
        facts.upstream_model,
        facts.client,
        report.start_micros,
    )


def wrong_sums(path: Path, *, since_micros: int = 0) -> list[str]:
    """Sums that are not those of their rows; of sessions and days that began since then."""
    conn = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    conn.execute("PRAGMA cache_size = -500000")
    conn.execute("PRAGMA temp_store = FILE")
    first_day = -(-since_micros // DAY_MICROS)
    conn.execute(f"CREATE TEMP TABLE counted AS {_COUNTED}")
    wrong = []
    for what, kept, counted in (
        (
            "sessions",
            f"{_KEPT_SESSIONS} WHERE start_time >= {since_micros}",
            f"SELECT user_id, session_id, COUNT(*), SUM(is_root), {_TOKEN_SUMS} FROM counted"
            " WHERE NOT is_session GROUP BY user_id, session_id"
            # Of a session that began before, a part may be purged: its sums are still of all.
            f" HAVING MIN(start_time) >= {since_micros} AND NOT EXISTS (SELECT 1 FROM sessions AS s WHERE"
            " s.user_id = counted.user_id AND s.session_id = counted.session_id"
            f" AND s.start_time < {since_micros})",
        ),
        (
            "sessions of one",
            "SELECT user_id, session_id FROM counted WHERE is_session",
            "SELECT user_id, session_id FROM counted GROUP BY user_id, session_id"
            " HAVING COUNT(*) = 1 AND SUM(is_session) EXCEPT SELECT user_id, session_id FROM sessions",
        ),
        ("days of users", *_days("user_id", "user_id <> ''", first_day)),
        ("days of all users", *_days("''", "user_id = ''", first_day)),
    ):
        for one, other in ((kept, counted), (counted, kept)):
            [(count,)] = conn.execute(f"SELECT COUNT(*) FROM (SELECT * FROM ({one}) EXCEPT SELECT * FROM ({other}))")
            if count:
                wrong.append(f"{count} {what}")
    conn.close()
    return wrong


def _days(user: str, condition: str, first_day: int) -> tuple[str, str]:
    return (
        f"SELECT start_day, user_id, {_DAY_COLUMNS}, interceptions, token_usages, {', '.join(_SESSION_TOKENS)}"
        f" FROM usage_days WHERE {condition} AND start_day >= {first_day}",
        f"SELECT start_time / {DAY_MICROS}, {user}, {_DAY_COLUMNS}, COUNT(*), SUM(usages), {_TOKEN_SUMS} FROM counted"
        f" WHERE start_time >= {first_day * DAY_MICROS} GROUP BY 1, 2, 3, 4, 5",
    )
