"""What scripts/records_scale measures on a filled file, in the order in which it is done."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import records_scale_queries as queries
from records_scale_fill import wrong_sums
from records_scale_machine import Machine, Taken, watched
from records_scale_queries import Landmarks, Plain, Times
from records_scale_writer import Waits, writing
from stress_figures import Verdict, none_of

from credentiald.metrics import Metrics
from credentiald.record_model import DAY_MICROS
from credentiald.record_rounds import Rounds, running_book
from credentiald.store import record_retention, usual_facts
from credentiald.store.record_rows import TABLES
from credentiald.store.records import open_records
from daemonkit.garbage import leave_what_is_there

# A tenth of what there is, of sixty days and six more.
_PURGED_SHARE = 11
_COLD_EACH = 12
_MOST_TOLD = 10


def verdicts(folder: Path, path: Path, limit_seconds: float) -> Iterator[Verdict]:
    """Each as soon as it is known."""
    # As the daemon does: what the filling left would be looked through while answers are timed.
    leave_what_is_there()
    with asyncio.Runner() as runner:
        marks = runner.run(_landmarks(folder))
        with watched() as machine:
            times, waits = runner.run(_asked(folder, path, marks))
        for rpc, one in times.items():
            yield _within(rpc, one, machine, limit_seconds)
        yield from _waits("while asked", waits, machine, limit_seconds)
        cold = runner.run(_cold(folder, path, marks))
        for rpc, one in cold.items():
            # Depends on the disk and not on us: told, not judged.
            yield Verdict(good=True, text=f"{rpc}, nothing of the file in memory (not judged): {_figures(one)}")
        cut_micros = marks.oldest_micros + (marks.newest_micros - marks.oldest_micros) // _PURGED_SHARE
        before_bytes = path.stat().st_size
        with watched() as machine:
            purged, seconds, waits = runner.run(_purged(folder, path, cut_micros))
    yield Verdict(good=purged > 0, text=f"purged {purged:,} interceptions in {seconds:.0f} s")
    yield from _waits("while purged", waits, machine, limit_seconds)
    grown = (path.stat().st_size - before_bytes) / 1e6
    text = f"file: {path.stat().st_size / 1e9:.2f} GB, {grown:+.1f} MB by the purge and {waits.stored:,} reports"
    yield Verdict(good=True, text=text)
    yield sums(path, since_micros=cut_micros)
    yield _left(path, cut_micros)


def sums(path: Path, *, since_micros: int) -> Verdict:
    """Whether sums of sessions and days that began since then are those of their rows."""
    return none_of("sums that are not those of their rows", wrong_sums(path, since_micros=since_micros))


async def _landmarks(folder: Path) -> Landmarks:
    async with open_records(_url(folder)) as records:
        return await records.read(queries.landmarks)


async def _asked(folder: Path, path: Path, marks: Landmarks) -> tuple[dict[str, Times], Waits]:
    times: dict[str, Times] = defaultdict(Times)
    async with (
        open_records(_url(folder)) as records,
        running_book(records, Metrics("scale"), _now) as book,
        writing(records, book, path, seed=time.time_ns()) as waits,
    ):
        await queries.asked(records, marks, times)
    return times, waits


async def _cold(folder: Path, path: Path, marks: Landmarks) -> dict[str, Times]:
    """First pages with nothing of the file in memory, neither ours nor the kernel's."""
    times: dict[str, Times] = defaultdict(Times)
    asked: dict[str, int] = defaultdict(int)
    for rpc, label, ask in queries.questions(marks):
        asked[rpc] += 1
        if asked[rpc] > _COLD_EACH:
            continue
        _forget(path)
        async with open_records(_url(folder)) as records:
            before = Taken.now()
            await ask(records, None)
            times[rpc].add(before, label)
    return times


async def _purged(folder: Path, path: Path, cut_micros: int) -> tuple[int, float, Waits]:
    retention = _now() - datetime.fromtimestamp(cut_micros / 1_000_000, UTC)
    metrics = Metrics("scale")
    async with (
        open_records(_url(folder)) as records,
        running_book(records, metrics, _now) as book,
        writing(records, book, path, seed=time.time_ns()) as waits,
    ):
        # As after a purge of before, so that none is in doubt.
        await records.write(record_retention.note_purged, before_micros=cut_micros)
        # All at once: in service most of it is days old and goes bit by bit.
        rounds = Rounds(records, book, metrics, _now, retention=retention)
        started_seconds = time.monotonic()
        purged = await rounds.purge()
        return purged, time.monotonic() - started_seconds, waits


def _left(path: Path, cut_micros: int) -> Verdict:
    """Whether nothing is there of what was to go. Ids of interceptions rise with their times."""
    conn = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    oldest = "(SELECT MIN(id) FROM interceptions)"
    conditions = {
        "interceptions": f"start_time < {cut_micros}",
        **dict.fromkeys(TABLES.values(), f"interception_id < {oldest}"),
        **dict.fromkeys(usual_facts.TABLES, "number < (SELECT MIN(number) FROM interceptions)"),
        "sessions": f"last_active_time < {cut_micros}",
        "usage_days": f"start_day < {cut_micros // DAY_MICROS}",
    }
    left = []
    for table, condition in conditions.items():
        [(count,)] = conn.execute(f"SELECT COUNT(*) FROM {table} WHERE {condition}")
        if count:
            left.append(f"{count} of {table}")
    conn.close()
    return none_of("left of what was to go", left)


def _waits(when: str, waits: Waits, machine: Machine, limit_seconds: float) -> Iterator[Verdict]:
    yield _within(f"{when}, reports of a bridge, {waits.stored:,} in all", waits.reports, machine, limit_seconds)
    yield _within(f"{when}, turns to write", waits.turns, machine, limit_seconds)
    still = machine.longest_still_seconds() * 1000
    yield Verdict(good=True, text=f"{when}, a process that only sleeps (not judged): late by {still:.1f} ms at most")
    yield Verdict(good=True, text=f"{when}, write-ahead log at its largest: {waits.wal_bytes / 1e6:.1f} MB")


def _within(what: str, times: Times, machine: Machine, limit_seconds: float) -> Verdict:
    """Also where the machine stood still, but then with word of it."""
    over = [
        f"\n       {seconds * 1000:.1f} ms{f' ({label})' if label else ''}: {_meanwhile(machine, before, after)}"
        for seconds, label, after, before in sorted(times.seconds, reverse=True)
        if seconds > limit_seconds
    ]
    limit = f"at most {limit_seconds * 1000:.0f} ms"
    return Verdict(good=not over, text=f"{what}: {_figures(times)} ({limit}){''.join(over[:_MOST_TOLD])}")


def _meanwhile(machine: Machine, earlier: Plain, later: Plain) -> str:
    before, after = Taken(*earlier), Taken(*later)
    cpu, read = (after.cpu_seconds - before.cpu_seconds) * 1000, (after.read_bytes - before.read_bytes) / 1e6
    still = machine.still_seconds(before.at, after.at) * 1000
    return f"{cpu:.0f} ms of CPU, {read:.1f} MB from the disk, a process that only sleeps late by {still:.0f} ms"


def _figures(times: Times) -> str:
    worst, label = times.worst()
    halves = f"half within {times.quantile(0.5) * 1000:.1f} ms, 99 % within {times.quantile(0.99) * 1000:.1f} ms"
    return f"{len(times.seconds)} times, {halves}, longest {worst * 1000:.1f} ms{f' ({label})' if label else ''}"


def _url(folder: Path) -> str:
    return f"sqlite:///{folder.absolute() / 'credentiald.db'}"


def _now() -> datetime:
    return datetime.now(UTC)


def _forget(path: Path) -> None:
    """Take the file out of the kernel's memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
