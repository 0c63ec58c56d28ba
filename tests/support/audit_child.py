"""Processes that tests start to append to one audit together, to kill them, or to fill their disk."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import uvloop
from prometheus_client import CollectorRegistry

from credentiald import audit_model, bootstrap
from credentiald.audit_book import AuditBook, Mode, running_audit
from credentiald.audit_metrics import AuditMetrics
from credentiald.audit_model import Act, Draft, Kind, Who
from credentiald.record_model import Decided, Noted, Origin
from credentiald.store import audit_archive
from credentiald.store.audit import open_audit
from tests.support.store import NOW

ROOT = Path(__file__).resolve().parents[2]
DECIDED = Decided(Origin("s-1", "u-1", "p-1", "corp", "openai", "CENTRAL_KEY", "c-1"), "openai.models", None, False)


def start(*arguments: str) -> "subprocess.Popen[str]":
    """A child of the test with pipes to its stdin and stdout."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.audit_child", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def url_in(folder: str | Path) -> str:
    return f"sqlite:///{folder}/store.db"


def prepare(folder: str | Path) -> None:
    bootstrap.prepare(url_in(folder), None, now=NOW)


def an_act(name: str) -> Draft:
    return Draft(Kind.ACT, audit_model.body_of(Act(what=name, outcome="DONE", who=Who())), 0)


def releases(count: int) -> list[Noted]:
    ids = [str(uuid4()).encode() for _ in range(count)]
    return [(one, one, DECIDED, "m", "", "b-1", b"", 0) for one in ids]


async def append_for_ever(folder: str, name: str, mode: str) -> None:
    """Tell of acts on four tasks at once, and print the name and place of each that was acknowledged."""
    async with (
        open_audit(url_in(folder)) as file,
        running_audit(file, AuditMetrics(CollectorRegistry()), lambda: datetime.now(UTC), mode=Mode(mode)) as book,
    ):

        async def tell(task: int) -> None:
            for number in range(task, sys.maxsize, 4):
                book.released(releases(3))
                act = f"{name}-{number}"
                print(f"{act} {await book.tell(an_act(act))}", flush=True)

        await asyncio.gather(*(tell(task) for task in range(4)))


def limit(size_bytes: int) -> None:
    """No file may become larger: a full disk, for this process."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))


async def fill(folder: str) -> None:
    """Write until the disk is full, see what happens, and go on when there is room; what was noticed is printed."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with (
        open_audit(url_in(folder)) as file,
        running_audit(file, AuditMetrics(CollectorRegistry()), lambda: datetime.now(UTC), mode=Mode.ON) as book,
    ):
        limit(300_000)
        acknowledged = 0
        while not book.is_in_trouble:
            book.released(releases(1000))
            told = book.tell(an_act(f"act-{acknowledged}"))
            await asyncio.wait([told], timeout=0.2)
            acknowledged += told.done()
        waiting = book.waiting()
        limit(resource.RLIM_INFINITY)
        async with asyncio.timeout(20):
            while book.waiting():
                await asyncio.sleep(0.02)
        print(f"full {acknowledged} {waiting} {book.lost_count}", flush=True)


async def together(book: AuditBook) -> list[int]:
    """The places of many acts that are told of at once."""
    return list(await asyncio.gather(*(book.tell(an_act(str(number))) for number in range(50))))


def archive_until_killed(before_micros: str, *cases: str) -> None:
    """For each folder, function and number, archive in a process that dies when that function is called for the nth
    time; how each ended is printed."""
    for case in cases:
        folder, name, number = case.split(":")
        pid = os.fork()
        if not pid:
            _die_at(name, int(number))
            audit_archive.archive(
                Path(folder, "store.audit.db"),
                Path(folder, "old.db"),
                before_micros=int(before_micros),
                by="me",
                now_micros=lambda: int(before_micros),
            )
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _die_at(name: str, number: int) -> None:
    real, calls = getattr(audit_archive, name), count(1)

    def deadly(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(audit_archive, name, deadly)


def main(what: str, *arguments: str) -> None:
    match what:
        case "append":
            uvloop.run(append_for_ever(*arguments))
        case "fill":
            uvloop.run(fill(*arguments))
        case "archive":
            archive_until_killed(*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
