"""The one seam between the event loop and SQL: `await database.read(providers.get, name)`.

Invariants:
- The loop never waits for SQLite: reads run on a few threads with a connection each, writes on one thread. The one
  statement on the loop is that of `state`, which reads a counter in shared memory and waits for nobody.
- One call is one transaction. A write that was reported is on the disk, but for `write_unsynced`; a write that failed
  changed nothing.
- A write whose task is cancelled before its commit changes nothing.
- Trouble with the database is StoreUnavailable, with its cause in the log; a refusal passes through as it is.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar, final

from credentiald.errors import StoreUnavailable
from credentiald.sealing import DeploymentSecret, Sealer
from credentiald.store import meta, migrations, sqlite
from credentiald.store.connection import Connection
from credentiald.store.connections import Connections, refused_trouble, trouble_is_refused

P = ParamSpec("P")
T = TypeVar("T")

_READERS = 4

# Two equal ones mean that nothing was committed between them, by this process or another.
State = tuple[int, int]


class Observer(Protocol):
    """Who is told of the writes of one task: all but `begins` on the writer's thread."""

    def begins(self) -> None:
        """A write is on its way."""
        ...

    def before(self, conn: Connection) -> None:
        """Inside the transaction, before anything is changed."""
        ...

    def after(self, conn: Connection) -> None:
        """Inside the transaction, when all is changed."""
        ...

    def ended(self, is_committed: bool) -> None:
        """The write is over, whether or not anybody still waits for it."""
        ...


observer: ContextVar[Observer | None] = ContextVar("observer", default=None)


@final
class Database(Connections):
    """An open database. Made by `open_database`, closed at the end of its block."""

    def __init__(
        self,
        writer: sqlite3.Connection,
        readers: list[sqlite3.Connection],
        watcher: sqlite3.Connection,
        *,
        path: Path,
        database_id: str,
        deployment_secret: DeploymentSecret,
    ) -> None:
        super().__init__(writer, readers, path=path, name="store")
        # Reads nothing but the version of the file, on the loop.
        self._watcher = watcher
        self._versions = watcher.cursor()
        self._database_id = database_id
        self._deployment_secret = deployment_secret

    @property
    def database_id(self) -> str:
        """The UUID that this database was given when it was made."""
        return self._database_id

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def deployment_key(self, label: str) -> bytes:
        """The 32-byte key for one use, derived from the secret of this database; the same after every restart."""
        return self._deployment_secret.derive(label)

    def state(self) -> State:
        """Which state the store is in: another value once anything was committed. StoreUnavailable.

        Never waits: where another process holds the file, that is trouble at once.
        """
        if self._closed:
            raise StoreUnavailable
        try:
            return self._generation, sqlite.data_version(self._versions)
        except sqlite3.DatabaseError as error:
            raise refused_trouble(error, self._path) from error

    async def write(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As that of Connections; the task's observer sees it."""
        seen_by = observer.get()
        if seen_by is None:
            return await super().write(query, *args, **kwargs)

        def observed(conn: Connection) -> T:
            seen_by.before(conn)
            result = query(conn, *args, **kwargs)
            seen_by.after(conn)
            return result

        seen_by.begins()
        return await self._write(observed, seen_by.ended)

    async def ping(self) -> None:
        """Return if the store answers, else StoreUnavailable."""
        await self.read(meta.find)

    def _close(self) -> None:
        # The last connection moves the write-ahead log into the database file: that must be the writer.
        self._watcher.close()
        super()._close()


@asynccontextmanager
async def open_database(url: str, sealer: Sealer) -> AsyncIterator[Database]:
    """The database for the length of the block. It must have been prepared (bootstrap/).

    ValueError for a URL that is not supported, SchemaMismatch, StoreUnavailable, Sealed.
    """
    database = await asyncio.to_thread(_open, sqlite.database_path(url), sealer)
    try:
        yield database
    finally:
        await database.close()


def _open(path: Path, sealer: Sealer) -> Database:
    with trouble_is_refused(path), ExitStack() as opened:
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
        database = Database(
            writer, readers, watcher, path=path, database_id=found.database_id, deployment_secret=secret
        )
        opened.pop_all()
        return database
