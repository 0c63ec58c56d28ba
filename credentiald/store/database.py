"""The one seam between the event loop and SQL: `await database.read(providers.get, name)`.

Invariants:
- The loop never waits for SQLite: reads run on a few threads with a connection each, writes on one thread. The one
  statement on the loop is that of `state`, which reads a counter in shared memory and waits for nobody.
- One call is one transaction. A write that was reported is on the disk; a write that failed changed nothing.
- A write whose task is cancelled before its commit changes nothing.
- Trouble with the database is StoreUnavailable, with its cause in the log; a refusal passes through as it is.
"""

import asyncio
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar, final

from credentiald.errors import StoreUnavailable
from credentiald.sealing import DeploymentSecret, Sealer
from credentiald.store import meta, migrations, sqlite
from credentiald.store.connection import Connection

P = ParamSpec("P")
T = TypeVar("T")

_READERS = 4

# Two equal ones mean that nothing was committed between them, by this process or another.
State = tuple[int, int]

# These say that a statement of ours is wrong: bugs, not trouble with the database.
_OUR_FAULT = (sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.DataError, sqlite3.NotSupportedError)

log = logging.getLogger(__name__)


@final
class Database:
    """An open database. Made by `open_database`, closed at the end of its block."""

    def __init__(
        self,
        writer: sqlite3.Connection,
        readers: list[sqlite3.Connection],
        watcher: sqlite3.Connection,
        *,
        database_id: str,
        deployment_secret: DeploymentSecret,
    ) -> None:
        self._writer = writer
        # As many threads as connections, so a thread always finds an idle one.
        self._idle_readers = deque(readers)
        # Reads nothing but the version of the file, on the loop.
        self._watcher = watcher
        self._generation = 0
        self._read_threads = ThreadPoolExecutor(len(readers), thread_name_prefix="store-read")
        self._write_thread = ThreadPoolExecutor(1, thread_name_prefix="store-write")
        self._database_id = database_id
        self._deployment_secret = deployment_secret
        self._closed = False

    @property
    def database_id(self) -> str:
        """The UUID that this database was given when it was made."""
        return self._database_id

    def deployment_key(self, label: str) -> bytes:
        """The 32-byte key for one use, derived from the secret of this database; the same after every restart."""
        return self._deployment_secret.derive(label)

    async def read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `query(connection, …)` returns from one snapshot. StoreUnavailable, and what the query raises."""

        def in_transaction() -> T:
            conn = self._idle_readers.pop()
            try:
                with _trouble_is_refused(), sqlite.transaction(conn, write=False):
                    return query(conn, *args, **kwargs)
            finally:
                self._idle_readers.append(conn)

        return await self._run(self._read_threads, in_transaction)

    async def write(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `query(connection, …)` returns, once its changes are committed.

        All of it or nothing: any exception rolls back, and so does a caller that has gone before the commit, as one
        whose deadline has passed. StoreUnavailable, and what the query raises.
        """
        abandoned = threading.Event()

        def in_transaction() -> T:
            try:
                with _trouble_is_refused(), sqlite.transaction(self._writer, write=True):
                    result = query(self._writer, *args, **kwargs)
                    if abandoned.is_set():
                        # Nobody would learn the result: a token that was made would be known to no one.
                        raise StoreUnavailable
                    return result
            finally:
                # Also where a commit failed: whether it reached the disk is not known then.
                self._generation += 1

        try:
            return await self._run(self._write_thread, in_transaction)
        except asyncio.CancelledError:
            abandoned.set()
            raise

    def state(self) -> State:
        """Which state the store is in: another value once anything was committed. StoreUnavailable.

        Never waits: where another process holds the file, that is trouble at once.
        """
        if self._closed:
            raise StoreUnavailable
        with _trouble_is_refused():
            return self._generation, sqlite.data_version(self._watcher)

    async def ping(self) -> None:
        """Return if the store answers, else StoreUnavailable."""
        await self.read(meta.find)

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        if self._closed:
            raise StoreUnavailable
        return await asyncio.get_running_loop().run_in_executor(threads, work)

    async def close(self) -> None:
        """Finish what was asked for and close the connections. Only `open_database` calls this."""
        self._closed = True
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._read_threads.shutdown()
        self._write_thread.shutdown()
        # The writer last: the last connection moves the write-ahead log into the database file.
        for conn in (*self._idle_readers, self._watcher, self._writer):
            conn.close()


@asynccontextmanager
async def open_database(url: str, sealer: Sealer) -> AsyncIterator[Database]:
    """The database for the length of the block. It must have been prepared (bootstrap.py).

    ValueError for a URL that is not supported, SchemaMismatch, StoreUnavailable, Sealed.
    """
    database = await asyncio.to_thread(_open, sqlite.database_path(url), sealer)
    try:
        yield database
    finally:
        await database.close()


def _open(path: Path, sealer: Sealer) -> Database:
    with _trouble_is_refused(), ExitStack() as opened:
        writer = sqlite.connect(path)
        opened.callback(writer.close)
        if migrations.pending_after(migrations.applied(writer)):
            raise migrations.SchemaMismatch("its schema is older: prepare the database first")
        found = meta.find(writer)
        if found is None:
            raise migrations.SchemaMismatch("it is not complete: prepare it first")
        secret = DeploymentSecret.open(found.deployment_secret, sealer, found.database_id)
        readers = []
        for _ in range(_READERS):
            readers.append(sqlite.connect(path, query_only=True))
            opened.callback(readers[-1].close)
        watcher = sqlite.connect(path, query_only=True)
        opened.callback(watcher.close)
        sqlite.never_wait(watcher)
        database = Database(writer, readers, watcher, database_id=found.database_id, deployment_secret=secret)
        opened.pop_all()
        return database


@contextmanager
def _trouble_is_refused() -> Iterator[None]:
    """Turn what SQLite says about files, locks and disks into StoreUnavailable, once into the log."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if isinstance(error, _OUR_FAULT):
            raise
        log.error(  # noqa: TRY400 - the cause is a fact about the disk; our stack says nothing about it
            "the store does not answer",
            extra={"cause": str(error), "sqlite_error": getattr(error, "sqlite_errorname", "")},
        )
        raise StoreUnavailable from error
