"""Before anything is served: the database is made or checked, and the sealing keys are known to fit.

Invariants:
- A database is complete when its row in `meta` is committed. Until then the next start continues where a crash left
  off: files that are there already are used as they are, never replaced.
- One transaction makes schema, identity and first services; who holds its lock makes the database, others find it.
- An existing database is checked through a connection that cannot write. If it is refused, nothing has changed.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from credentiald import ids, private_files
from credentiald.bootstrap.audit_start import prepare_audit
from credentiald.bootstrap.files import connect_waiting, inspect, path_of
from credentiald.bootstrap.first_services import ADMIN_TOKEN_FILE, BRIDGE_TOKEN_FILE, create_first_services
from credentiald.bootstrap.keys import complete_keyring, keyring_at_hand, new_keyring, sealer_that_fits
from credentiald.bootstrap.refusals import StartRefused, refusing
from credentiald.sealing import DeploymentSecret, Keyring, Sealer
from credentiald.sealing_places import SEALING_FILE
from credentiald.store import audit, meta, migrations, records, sealing_rows, sqlite
from credentiald.store.connection import Connection
from credentiald.store.meta import Meta
from credentiald.store.sealing_rows import KnownKey
from daemonkit.secret import Secret

_NO_KEYS: Mapping[str, bytes] = {}


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
    path = path_of(database_url)
    with refusing(path):
        return _prepare(path, sealing_keys, now, unwrapped, first)


def outside_of(database_url: str, sealing_keys: Secret | None, *, is_outside: bool) -> Outside | None:
    """What a start needs from outside, None for nothing; StartRefused where keys of this machine are missing.

    `is_outside`: the first key of a new database is one that is encrypted outside. Changes nothing.
    """
    path = path_of(database_url)
    with refusing(path):
        found = inspect(path)
        if found is None:
            return Outside(database_id="", wrapped=(), is_new=True) if is_outside else None
        wrapped = tuple(key for key in found.known if key.wrapped is not None and key.id in found.key_ids)
        if not wrapped:
            return None
        local = found.key_ids - {key.id for key in wrapped}
        if local:
            complete_keyring(path, local, sealing_keys, _NO_KEYS)
        return Outside(database_id=found.meta.database_id, wrapped=wrapped, is_new=False)


def fitting_sealer(database_url: str, sealing_keys: Secret | None) -> Sealer:
    """The sealer of a database that another process has prepared. Checks, and changes nothing. StartRefused."""
    path = path_of(database_url)
    with refusing(path):
        found = inspect(path)
        if found is None or found.migrations_pending:
            raise StartRefused(f"the database {path} has not been prepared")
        return sealer_that_fits(path, found, sealing_keys, _NO_KEYS)


def _prepare(
    path: Path, sealing_keys: Secret | None, now: datetime, unwrapped: Mapping[str, bytes], first: FirstKey | None
) -> Prepared:
    found, created = inspect(path), False
    if found is None:
        created = _make(path, sealing_keys, now, first)
        if created and first is not None:
            unwrapped = {first.key_id: first.key}
        found = inspect(path)
    if found is None:
        raise StartRefused(f"the database {path} went away while it was made")
    # A database just made goes through the same check: another process may have made it, with other keys.
    sealer = sealer_that_fits(path, found, sealing_keys, unwrapped)
    if found.migrations_pending:
        with closing(connect_waiting(path)) as conn, sqlite.transaction(conn, write=True):
            migrations.apply_pending(conn)
            _name_active_key(conn, sealer, now)
    _prepare_records(records.records_path(path), found.meta.database_id)
    prepare_audit(audit.audit_path(path), path, found.meta.database_id, now, is_new=created)
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
    with refusing(path):
        private_files.touch(path)
        connected = connect_waiting(path, page_bytes=records.PAGE_BYTES)
        with closing(connected) as conn, sqlite.transaction(conn, write=True):
            records.prepare(conn, database_id)


def _make(path: Path, sealing_keys: Secret | None, now: datetime, first: FirstKey | None) -> bool:
    """Make the database with its files. False if another process did so in the meantime."""
    private_files.touch(path)
    with closing(connect_waiting(path)) as conn, sqlite.transaction(conn, write=True):
        if migrations.applied(conn):
            return False
        keyring = Keyring({first.key_id: first.key}) if first else None
        sealer = Sealer(keyring or keyring_at_hand(path, sealing_keys) or new_keyring(path, now))
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
        create_first_services(conn, path, now=now)
    return True


def _name_active_key(conn: Connection, sealer: Sealer, now: datetime) -> None:
    """The newest key seals, where none was named yet."""
    if not sealing_rows.active_key_id(conn):
        key_id = sealer.key_ids[0]
        sealing_rows.activate(conn, key_id, source="local", fingerprint=sealer.fingerprint(key_id), now=now)
