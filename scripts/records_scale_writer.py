"""The writer of scripts/records_scale: a bridge that reports to the real book at a steady rate, and how it waits."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from records_scale_machine import Taken
from records_scale_queries import Times
from records_scale_traffic import Traffic

from credentiald.record_book import RecordBook
from credentiald.record_model import Decided, Noted, Report
from credentiald.store.connection import Connection
from credentiald.store.records import Records

# Ten million in sixty days are two each second; these are the busiest hours of such a deployment many times over.
REPORTS_EACH_SECOND = 200
_TICK_SECONDS = 0.05
# Reports come when interceptions end; most openings are written before.
_TICKS_UNDER_WAY = 40
_PROBE_SECONDS = 0.01


@dataclass(slots=True)
class Waits:
    """How long a report was on its way to the disk, with the moment for which it waits for others; how long one waits
    for its turn to write; and the largest write-ahead log."""

    reports: Times = field(default_factory=Times)
    turns: Times = field(default_factory=Times)
    stored: int = 0
    wal_bytes: int = 0
    begun: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def writing(records: Records, book: RecordBook, path: Path, seed: int) -> AsyncIterator[Waits]:
    """Reports come for the length of the block, which begins with the first."""
    waits = Waits()
    tasks = [
        asyncio.create_task(_report(book, Traffic(seed), waits)),
        asyncio.create_task(_probe(records, waits, path.with_name(f"{path.name}-wal"))),
    ]
    try:
        await waits.begun.wait()
        yield waits
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


async def _report(book: RecordBook, traffic: Traffic, waits: Waits) -> None:
    under_way: deque[list[Report]] = deque()
    count = round(REPORTS_EACH_SECOND * _TICK_SECONDS)
    appending: set[asyncio.Task[None]] = set()
    try:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now_micros = time.time_ns() // 1000
            begun = list(traffic.reports(now_micros, round(_TICK_SECONDS * 1_000_000) // count, count))
            book.note([_noted(one) for one in begun])
            under_way.append(begun)
            if len(under_way) > _TICKS_UNDER_WAY:
                task = asyncio.create_task(_append(book, under_way.popleft(), waits))
                appending.add(task)
                task.add_done_callback(appending.discard)
    finally:
        await asyncio.gather(*appending)
        # What is under way at the end comes all at once, after what is measured, and is no steady rate: not timed.
        await asyncio.gather(*(book.append(reports) for reports in under_way))
        waits.stored += sum(map(len, under_way))


async def _append(book: RecordBook, reports: list[Report], waits: Waits) -> None:
    before = Taken.now()
    await book.append(reports)
    waits.reports.add(before)
    waits.stored += len(reports)
    waits.begun.set()


async def _probe(records: Records, waits: Waits, wal: Path) -> None:
    def change_nothing(conn: Connection) -> None:
        conn.execute("UPDATE bridge_instances SET seen_time = seen_time WHERE id = ''")

    while True:
        await asyncio.sleep(_PROBE_SECONDS)
        before = Taken.now()
        await records.write(change_nothing)
        waits.turns.add(before)
        waits.wal_bytes = max(waits.wal_bytes, os.stat(wal).st_size)


def _noted(report: Report) -> Noted:
    assert report.facts is not None
    return (
        report.interception_id.encode(),
        report.resolution_id.encode(),
        Decided(report.origin, report.facts.operation, None, opens=True),
        report.facts.model,
        report.facts.client,
        report.bridge_instance_id,
        b"",
        report.start_micros,
    )
