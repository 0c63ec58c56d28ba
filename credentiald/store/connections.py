"""Connections to one file, behind the seam to the event loop.

Reads run on a few threads with a connection each, writes on one thread. Database (database.py) and Records
(records.py) are two such files.
"""

import asyncio
import logging
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from credentiald.errors import StoreUnavailable
from credentiald.store import sqlite
from credentiald.store.connection import Connection

P = ParamSpec("P")
T = TypeVar("T")

# These say that a statement of ours is wrong: bugs, not trouble with the database.
_OUR_FAULT = (sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.DataError, sqlite3.NotSupportedError)

log = logging.getLogger("credentiald.store.database")


class Connections:
    """A writer and some readers of one file, each used by one thread at a time."""

    def __init__(self, writer: sqlite3.Connection, readers: list[sqlite3.Connection], *, path: Path, name: str) -> None:
        self._path = path
        self._identity = _identity_of(path)
        self._writer = writer
        # As many threads as connections, so a thread always finds an idle one.
        self._idle_readers = deque(readers)
        self._generation = 0
        self._read_threads = ThreadPoolExecutor(len(readers), thread_name_prefix=f"{name}-read")
        self._write_thread = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-write")
        self._closed = False

    async def read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `query(connection, …)` returns from one snapshot. StoreUnavailable, and what the query raises."""

        def in_transaction() -> T:
            conn = self._idle_readers.pop()
            try:
                with trouble_is_refused(self._path), sqlite.transaction(conn, write=False):
                    return query(conn, *args, **kwargs)
            finally:
                self._idle_readers.append(conn)

        return await self._run(self._read_threads, in_transaction)

    async def write(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `query(connection, …)` returns, once its changes are committed.

        All of it or nothing: any exception rolls back, and so does a caller that has gone before the commit, as one
        whose deadline has passed. StoreUnavailable, and what the query raises.
        """
        return await self._write(lambda conn: query(conn, *args, **kwargs))

    async def write_unsynced(
        self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `write`, for what others wait to see and a power cut may take back: the disk is not waited for."""
        return await self._write(lambda conn: query(conn, *args, **kwargs), synced=False)

    async def _write(
        self,
        change: Callable[[Connection], T],
        ended: Callable[[bool], None] = lambda _: None,
        *,
        synced: bool = True,
    ) -> T:
        """As `write`. `ended` is called on the thread: whether the change is committed, also where nobody waits."""
        abandoned = threading.Event()

        def in_transaction() -> T:
            is_committed = False
            try:
                if abandoned.is_set():
                    raise StoreUnavailable
                self._check_in_place()
                with trouble_is_refused(self._path), sqlite.transaction(self._writer, write=True, synced=synced):
                    result = change(self._writer)
                    if abandoned.is_set():
                        # Nobody would learn the result: a token that was made would be known to no one.
                        raise StoreUnavailable
                is_committed = True
                return result
            finally:
                # Also where a commit failed: whether it reached the disk is not known then.
                self._generation += 1
                ended(is_committed)

        if self._closed:
            raise StoreUnavailable
        # Shielded, so that it gets its turn also where nobody waits any more: `ended` is owed.
        writing = asyncio.get_running_loop().run_in_executor(self._write_thread, in_transaction)
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            abandoned.set()
            writing.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        if self._closed:
            raise StoreUnavailable
        return await asyncio.get_running_loop().run_in_executor(threads, work)

    def _check_in_place(self) -> None:
        """StoreUnavailable if the file is not the one that was opened: SQLite would write where no restart looks."""
        if _identity_of(self._path) != self._identity:
            log.error(
                "a file of the store was removed or replaced while it is open:"
                " stop credentiald, put the file back if it is needed, and start again",
                extra={"file": str(self._path)},
            )
            raise StoreUnavailable

    async def close(self) -> None:
        """Finish what was asked for and close the connections. Only who opened them calls this."""
        self._closed = True
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._read_threads.shutdown()
        self._write_thread.shutdown()
        # The writer last: the last connection moves the write-ahead log into the database file.
        for conn in (*self._idle_readers, self._writer):
            conn.close()


@contextmanager
def trouble_is_refused(path: Path) -> Iterator[None]:
    """Turn what SQLite says about the file at `path`, locks and disks into StoreUnavailable, once into the log."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise refused_trouble(error, path) from error


def refused_trouble(error: sqlite3.DatabaseError, path: Path) -> StoreUnavailable:
    """What the trouble is to callers; its cause goes into the log. A bug of ours is raised as it is."""
    if isinstance(error, _OUR_FAULT):
        raise error
    log.error(
        "the store does not answer",
        extra={
            "file": str(path),
            "cause": str(error),
            "sqlite_error": getattr(error, "sqlite_errorname", ""),
        },
    )
    return StoreUnavailable()


def _identity_of(path: Path) -> tuple[int, int] | None:
    """Device and number of the file that has this name now; None where none has."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
