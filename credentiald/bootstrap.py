"""Before anything is served: the database is made or checked, and the sealing keys are known to fit.

Invariants:
- A database is complete when its row in `meta` is committed. Until then the next start continues where a crash left
  off: files that are there already are used as they are, never replaced.
- One transaction makes schema, identity and first services; who holds its lock makes the database, others find it.
- An existing database is checked through a connection that cannot write. If it is refused, nothing has changed.
"""

import logging
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from credentiald import ids, private_files, tokens
from credentiald.audit_chain import Head
from credentiald.errors import AlreadyExists, Sealed
from credentiald.model import Role, SealedSecret, Service
from credentiald.sealing import DeploymentSecret, Keyring, SealContext, Sealer
from credentiald.sealing_places import SEALING_FILE, SEALING_SETTING
from credentiald.store import (
    audit,
    audit_heads,
    inspection,
    meta,
    migrations,
    records,
    revision,
    sealing_rows,
    services,
    sqlite,
)
from credentiald.store.connection import Connection
from credentiald.store.meta import Meta
from credentiald.store.sealing_rows import KnownKey
from credentiald.store.times import to_micros
from daemonkit.secret import Secret

ADMIN_TOKEN_FILE = "credentiald.admin-token"  # noqa: S105 - the name of a file
BRIDGE_TOKEN_FILE = "credentiald.bridge-token"  # noqa: S105 - the name of a file

_FIRST_SERVICES = (("admin", Role.ADMIN, ADMIN_TOKEN_FILE), ("bridge", Role.BRIDGE, BRIDGE_TOKEN_FILE))
_LOCK_WAIT_SECONDS = 30.0
_LOCK_POLL_SECONDS = 0.02

log = logging.getLogger(__name__)


class StartRefused(Exception):
    """credentiald must not start like this. The message says what is wrong, where, and what to do."""


class UnwrappedKeyWrong(StartRefused):
    """A key that was decrypted outside is not the one that sealed the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What a start needs of those outside who encrypt sealing keys: these keys, or a first one for a new database."""

    database_id: str
    wrapped: tuple[KnownKey, ...]
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstKey:
    """The first sealing key of a new database, encrypted by `source` for a database of this id."""

    database_id: str
    key_id: str
    key: bytes = field(repr=False)
    wrapped: bytes
    source: str


_NO_KEYS: Mapping[str, bytes] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A database that is ready to be opened.

    `created`: this call made it. `sealing_path` is None where the keys came from the settings. The token files were
    made with the database; an operator may have moved them since.
    """

    sealer: Sealer
    created: bool
    database_path: Path
    sealing_path: Path | None
    admin_token_path: Path
    bridge_token_path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What the check of an existing database looks at."""

    meta: Meta
    key_ids: set[str]
    known: tuple[KnownKey, ...]
    samples: list[tuple[SealedSecret, SealContext]]
    migrations_pending: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """The bare facts about a database file; `meta` and `key_ids` only where the schema is one that we know."""

    migrations_applied: list[str]
    has_tables: bool
    meta: Meta | None = None
    key_ids: set[str] = field(default_factory=set)
    known: tuple[KnownKey, ...] = ()
    samples: list[tuple[SealedSecret, SealContext]] = field(default_factory=list)


def prepare(
    database_url: str,
    sealing_keys: Secret | None,
    *,
    now: datetime,
    unwrapped: Mapping[str, bytes] = _NO_KEYS,
    first: FirstKey | None = None,
) -> Prepared:
    """Make the database if there is none, else check it and bring its schema up to date. StartRefused.

    `sealing_keys` is the setting; without it the file beside the database counts. `unwrapped` are keys by id that were
    decrypted outside, `first` is the key of a new database where one was encrypted there. Blocks on the disk, and for
    a while on another process that prepares the same database: call it before the event loop starts or on a thread.
    """
    path = _path(database_url)
    with _refusing(path):
        return _prepare(path, sealing_keys, now, unwrapped, first)


def outside_of(database_url: str, sealing_keys: Secret | None, *, is_outside: bool) -> Outside | None:
    """What a start needs from outside, None for nothing; StartRefused where keys of this machine are missing.

    `is_outside`: the first key of a new database is one that is encrypted outside. Changes nothing.
    """
    path = _path(database_url)
    with _refusing(path):
        found = _inspect(path)
        if found is None:
            return Outside(database_id="", wrapped=(), is_new=True) if is_outside else None
        wrapped = tuple(key for key in found.known if key.wrapped is not None and key.id in found.key_ids)
        if not wrapped:
            return None
        local = found.key_ids - {key.id for key in wrapped}
        if local:
            _complete_keyring(path, local, sealing_keys, _NO_KEYS)
        return Outside(database_id=found.meta.database_id, wrapped=wrapped, is_new=False)


def fitting_sealer(database_url: str, sealing_keys: Secret | None) -> Sealer:
    """The sealer of a database that another process has prepared. Checks, and changes nothing. StartRefused."""
    path = _path(database_url)
    with _refusing(path):
        found = _inspect(path)
        if found is None or found.migrations_pending:
            raise StartRefused(f"the database {path} has not been prepared")
        return _fitting_sealer(path, found, sealing_keys, _NO_KEYS)


def _path(database_url: str) -> Path:
    try:
        path = sqlite.database_path(database_url)
    except ValueError as error:
        raise StartRefused(str(error)) from None
    if not path.parent.is_dir():
        raise StartRefused(f"the folder of the database does not exist: make {path.parent}")
    return path


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """What can go wrong with the file at `path`, as StartRefused."""
    try:
        yield
    except migrations.SchemaMismatch as error:
        raise StartRefused(f"the database {path} does not fit: {error}") from error
    except sqlite3.Error as error:
        raise StartRefused(f"the database {path} cannot be used: {error}") from error
    except OSError as error:
        raise StartRefused(f"{error.filename or path} cannot be used: {error.strerror}") from error


def _prepare(
    path: Path, sealing_keys: Secret | None, now: datetime, unwrapped: Mapping[str, bytes], first: FirstKey | None
) -> Prepared:
    found, created = _inspect(path), False
    if found is None:
        created = _make(path, sealing_keys, now, first)
        if created and first is not None:
            unwrapped = {first.key_id: first.key}
        found = _inspect(path)
    if found is None:
        raise StartRefused(f"the database {path} went away while it was made")
    # A database just made goes through the same check: another process may have made it, with other keys.
    sealer = _fitting_sealer(path, found, sealing_keys, unwrapped)
    if found.migrations_pending:
        with closing(_connect_waiting(path)) as conn, sqlite.transaction(conn, write=True):
            migrations.apply_pending(conn)
            _name_active_key(conn, sealer, now)
    _prepare_records(records.records_path(path), found.meta.database_id)
    _prepare_audit(audit.audit_path(path), path, found.meta.database_id, now, is_new=created)
    return Prepared(
        sealer=sealer,
        created=created,
        database_path=path,
        sealing_path=path.with_name(SEALING_FILE) if sealing_keys is None else None,
        admin_token_path=path.with_name(ADMIN_TOKEN_FILE),
        bridge_token_path=path.with_name(BRIDGE_TOKEN_FILE),
    )


def _prepare_records(path: Path, database_id: str) -> None:
    """Make the file of records where it is missing, as after a restore of the database alone."""
    with _refusing(path):
        private_files.touch(path)
        with closing(_connect_waiting(path)) as conn, sqlite.transaction(conn, write=True):
            records.prepare(conn, database_id)


def _prepare_audit(path: Path, database_path: Path, database_id: str, now: datetime, *, is_new: bool) -> None:
    """Begin the audit where it is missing. That one is missing which was there, `note_start` says."""
    with _refusing(path):
        if not is_new and not path.exists():
            log.warning("there is no audit beside the database: a new chain begins", extra={"file": str(path)})
        private_files.touch(path)
        with (
            closing(_connect_waiting(database_path)) as database,
            closing(_connect_waiting(path)) as conn,
            sqlite.transaction(conn, write=True),
        ):
            audit.prepare(conn, database_id, current_revision=revision.current(database), now_micros=to_micros(now))


def note_start(database_url: str, *, version: str, mode: str, now: datetime) -> int:
    """Write into the audit that credentiald starts, and what was changed unseen; how many changes. StartRefused."""
    path = _path(database_url)
    with (
        _refusing(audit.audit_path(path)),
        closing(_connect_waiting(path)) as database,
        closing(_connect_waiting(audit.audit_path(path))) as conn,
    ):
        with sqlite.transaction(conn, write=True):
            missing_head = _missing_head(conn, database, mode=mode)
            # The lock of the audit is held while the change log is read: nobody's act is between the two.
            unseen = audit.note_start(
                conn, database, version=version, mode=mode, now_micros=to_micros(now), missing_head=missing_head
            )
            head = audit.head_of(conn)
        with sqlite.transaction(database, write=True):
            audit_heads.note(database, head)
        return len(unseen)


def _missing_head(conn: Connection, database: Connection, *, mode: str) -> Head | None:
    """An end of the audit that the database knows, and that is not in its file. StartRefused where that is strict."""
    known = audit_heads.known(database)
    if known is None or audit_heads.is_held(conn, known):
        return None
    if mode == "strict":
        raise StartRefused(
            f"the audit had an entry {known}, which its file does not hold: put that file back, or start once with"
            " --audit=on to go on without it"
        )
    log.error(
        "entries of the audit are gone: its file was moved away, replaced or cut off",
        extra={"sequence": known.sequence, "hash": known.hash.hex()},
    )
    return known


def _inspect(path: Path) -> _Found | None:
    """What is in the database, or None if it has still to be made. Changes nothing."""
    if not path.exists() or not path.stat().st_size:
        return None
    try:
        look = inspection.inspect(path, _look)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorname != "SQLITE_NOTADB":
            raise
        raise StartRefused(f"{path} is not a SQLite database: name another file, or move this one away") from error
    pending = migrations.pending_after(look.migrations_applied)
    if look.has_tables and not look.migrations_applied:
        raise StartRefused(f"{path} is a database of another program: name another file")
    if look.meta is None:
        return None
    return _Found(
        meta=look.meta,
        key_ids=look.key_ids,
        known=look.known,
        samples=look.samples,
        migrations_pending=bool(pending),
    )


def _look(conn: Connection) -> _Look:
    has_tables = conn.execute("SELECT 1 FROM sqlite_master").fetchone() is not None
    applied = migrations.applied(conn)
    if not applied or not migrations.are_known(applied):
        return _Look(migrations_applied=applied, has_tables=has_tables)
    return _Look(
        migrations_applied=applied,
        has_tables=has_tables,
        meta=meta.find(conn),
        key_ids=meta.sealing_key_ids(conn) | _active(conn, applied),
        known=_known(conn, applied),
        samples=meta.sealed_samples(conn),
    )


def _active(conn: Connection, applied: list[str]) -> set[str]:
    """The key that seals from now on, by its id; none in a database that is older than this is noted."""
    active = sealing_rows.active_key_id(conn) if migrations.SEALING_KEYS in applied else ""
    return {active} - {""}


def _known(conn: Connection, applied: list[str]) -> tuple[KnownKey, ...]:
    return tuple(sealing_rows.known_keys(conn)) if migrations.SEALING_KEYS in applied else ()


def _make(path: Path, sealing_keys: Secret | None, now: datetime, first: FirstKey | None) -> bool:
    """Make the database with its files. False if another process did so in the meantime."""
    private_files.touch(path)
    with closing(_connect_waiting(path)) as conn, sqlite.transaction(conn, write=True):
        if migrations.applied(conn):
            return False
        keyring = Keyring({first.key_id: first.key}) if first else None
        sealer = Sealer(keyring or _keyring(path, sealing_keys) or _new_keyring(path, now))
        migrations.apply_pending(conn)
        database_id = first.database_id if first else ids.uuid7(now)
        secret = DeploymentSecret.generate().sealed(sealer, database_id)
        meta.create(conn, Meta(database_id=database_id, deployment_secret=secret), now=now)
        if first is not None:
            sealing_rows.activate(
                conn,
                first.key_id,
                source=first.source,
                fingerprint=sealer.fingerprint(first.key_id),
                wrapped=first.wrapped,
                now=now,
            )
        _name_active_key(conn, sealer, now)
        for name, role, file_name in _FIRST_SERVICES:
            token = _service_token(path.with_name(file_name))
            service = Service(id=ids.uuid7(now), name=name, role=role, create_time=now, rotate_time=now)
            _create_service(conn, service, token)
    return True


def _name_active_key(conn: Connection, sealer: Sealer, now: datetime) -> None:
    """The newest key seals, where none was named yet."""
    if not sealing_rows.active_key_id(conn):
        key_id = sealer.key_ids[0]
        sealing_rows.activate(conn, key_id, source="local", fingerprint=sealer.fingerprint(key_id), now=now)


def renew_tokens(prepared: Prepared, *, now: datetime) -> None:
    """New tokens for the first two services, in their files; the old ones are refused from now on.

    The way back for an operator who has lost them: whoever can read the sealing keys may do it.
    """
    path = prepared.database_path
    for name, role, file_name in _FIRST_SERVICES:
        token = tokens.mint(tokens.SERVICE_PREFIX)
        private_files.write(path.with_name(file_name), Secret(token.reveal() + "\n"))
        with closing(_connect_waiting(path)) as conn, sqlite.transaction(conn, write=True):
            token_hash = tokens.hash_of(token.reveal())
            if services.exists(conn, name):
                services.rotate(conn, name, token_hash, now=now)
            else:
                service = Service(id=ids.uuid7(now), name=name, role=role, create_time=now, rotate_time=now)
                services.create(conn, service, token_hash)


def _create_service(conn: sqlite3.Connection, service: Service, token: Secret) -> None:
    try:
        services.create(conn, service, tokens.hash_of(token.reveal()))
    except AlreadyExists as error:
        raise StartRefused(
            f"{ADMIN_TOKEN_FILE} and {BRIDGE_TOKEN_FILE} hold one token: move one of them away"
        ) from error


def _connect_waiting(path: Path) -> sqlite3.Connection:
    """A connection that waits for others that prepare the same database.

    SQLite does not wait by itself when two connections turn write-ahead logging on at once.
    """
    deadline = time.monotonic() + _LOCK_WAIT_SECONDS
    while True:
        try:
            conn = sqlite.connect(path)
        except sqlite3.OperationalError as error:
            busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(_LOCK_POLL_SECONDS)
        else:
            conn.execute(f"PRAGMA busy_timeout = {int(_LOCK_WAIT_SECONDS * 1000)}")
            return conn


def _keyring(path: Path, sealing_keys: Secret | None) -> Keyring | None:
    """The keys of the setting, else of the file, else None."""
    if sealing_keys is not None:
        return _parsed(sealing_keys, SEALING_SETTING)
    file = path.with_name(SEALING_FILE)
    content = _content(file)
    return None if content is None else _parsed(content, f"the file {file}")


def _parsed(content: Secret, origin: str) -> Keyring:
    try:
        return Keyring.parse(content.reveal())
    except ValueError as error:
        raise StartRefused(f"{origin} is not a list of sealing keys: {error}") from None


def _new_keyring(path: Path, now: datetime) -> Keyring:
    keyring = Keyring.generate(f"k{now:%Y%m%d}")
    private_files.write(path.with_name(SEALING_FILE), keyring.to_text())
    return keyring


def _service_token(path: Path) -> Secret:
    """The token in the file, which a crash or the operator left there; else a new one, written there."""
    content = _content(path)
    if content is None:
        token = tokens.mint(tokens.SERVICE_PREFIX)
        private_files.write(path, Secret(token.reveal() + "\n"))
        return token
    token = content.stripped()
    if tokens.prefix_of(token.reveal()) != tokens.SERVICE_PREFIX:
        raise StartRefused(f"the file {path} holds no service token: move it away, and a new one is made")
    return token


def _content(path: Path) -> Secret | None:
    """What a secret file holds, with a warning if others may read it."""
    try:
        content = private_files.find(path)
    except ValueError as error:
        raise StartRefused(f"the file {path} cannot be used: {error}") from None
    if content is not None and private_files.is_open_to_others(path):
        log.warning("others may read a secret file: chmod 600", extra={"path": str(path)})
    return content


def _complete_keyring(
    path: Path, key_ids: set[str], sealing_keys: Secret | None, unwrapped: Mapping[str, bytes]
) -> Keyring:
    """All keys at hand, with these among them; StartRefused."""
    origin = _origin(path, sealing_keys)
    keyring = _keyring(path, sealing_keys)
    if unwrapped:
        # A key of this machine wins: its id was there first.
        local = keyring.key_ids if keyring else ()
        outside = Keyring(left) if (left := {i: key for i, key in unwrapped.items() if i not in local}) else None
        keyring = keyring.behind(outside) if keyring and outside else keyring or outside
    if keyring is None:
        raise StartRefused(
            f"the sealing keys of the database {path} are missing (it needs {_listed(key_ids)}): "
            f"bring {origin} back from your backup, or set {SEALING_SETTING} or {SEALING_SETTING}_FILE"
        )
    missing = key_ids.difference(keyring.key_ids)
    if missing:
        raise StartRefused(
            f"the database {path} needs the sealing key {_listed(missing)}, which {origin} does not have: "
            "add it behind the newest one"
        )
    return keyring


def _origin(path: Path, sealing_keys: Secret | None) -> str:
    return SEALING_SETTING if sealing_keys is not None else f"the file {path.with_name(SEALING_FILE)}"


def _fitting_sealer(path: Path, found: _Found, sealing_keys: Secret | None, unwrapped: Mapping[str, bytes]) -> Sealer:
    """A sealer that opens what the database holds, or StartRefused."""
    origin = _origin(path, sealing_keys)
    sealer = Sealer(_complete_keyring(path, found.key_ids, sealing_keys, unwrapped))
    # A key id alone proves nothing: what is known of it is compared, and one secret of each key is opened, so that a
    # wrong key shows now. The deployment's is the first.
    for key in found.known:
        if key.id in found.key_ids and not sealer.has(key.id, key.fingerprint):
            raise _wrong_key(path, key.id, origin, unwrapped)
    opened: set[str] = set()
    for place, (sealed, context) in enumerate(found.samples):
        try:
            sealer.open(sealed, context)
            opened.add(sealed.key_id)
        except Sealed:
            if place and sealed.key_id in opened:
                # The key is right: it is this one secret that is damaged, and refused by itself when it is wanted.
                continue
            raise _wrong_key(path, sealed.key_id, origin, unwrapped) from None
    return sealer


def _wrong_key(path: Path, key_id: str, origin: str, unwrapped: Mapping[str, bytes]) -> StartRefused:
    if key_id in unwrapped:
        return UnwrappedKeyWrong(
            f"the sealing key {_listed({key_id})} that was decrypted is not the one that sealed the database {path}: "
            "the database was changed, or mixed up with another one"
        )
    return StartRefused(
        f"the sealing key {_listed({key_id})} of {origin} is not the one that sealed the database {path}: "
        "bring the right one back from your backup"
    )


def _listed(key_ids: set[str]) -> str:
    return ", ".join(repr(key_id) for key_id in sorted(key_ids))
