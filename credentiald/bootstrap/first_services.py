"""The first two services, `admin` and `bridge`: made with the database, their tokens in files beside it."""

import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

from credentiald import ids, private_files, tokens
from credentiald.bootstrap.files import connect_waiting, secret_in
from credentiald.bootstrap.refusals import StartRefused
from credentiald.errors import AlreadyExists
from credentiald.model import Role, Service
from credentiald.store import services, sqlite
from daemonkit.secret import Secret

ADMIN_TOKEN_FILE = "credentiald.admin-token"  # noqa: S105 - the name of a file
BRIDGE_TOKEN_FILE = "credentiald.bridge-token"  # noqa: S105 - the name of a file

_FIRST_SERVICES = (("admin", Role.ADMIN, ADMIN_TOKEN_FILE), ("bridge", Role.BRIDGE, BRIDGE_TOKEN_FILE))


def create_first_services(conn: sqlite3.Connection, path: Path, *, now: datetime) -> None:
    """Both, with the tokens that are in their files already, or new ones. Inside a write transaction. StartRefused."""
    for name, role, file_name in _FIRST_SERVICES:
        token = _service_token(path.with_name(file_name))
        service = Service(id=ids.uuid7(now), name=name, role=role, create_time=now, rotate_time=now)
        try:
            services.create(conn, service, tokens.hash_of(token.reveal()))
        except AlreadyExists as error:
            raise StartRefused(
                f"{ADMIN_TOKEN_FILE} and {BRIDGE_TOKEN_FILE} hold one token: move one of them away"
            ) from error


def renew_tokens(path: Path, *, now: datetime) -> None:
    """New tokens for both services of the database at `path`, in their files; the old ones are refused from now on.

    The way back for an operator who has lost them: whoever can read the sealing keys may do it.
    """
    for name, role, file_name in _FIRST_SERVICES:
        token = tokens.mint(tokens.SERVICE_PREFIX)
        private_files.write(path.with_name(file_name), Secret(token.reveal() + "\n"))
        with closing(connect_waiting(path)) as conn, sqlite.transaction(conn, write=True):
            token_hash = tokens.hash_of(token.reveal())
            if services.exists(conn, name):
                services.rotate(conn, name, token_hash, now=now)
            else:
                service = Service(id=ids.uuid7(now), name=name, role=role, create_time=now, rotate_time=now)
                services.create(conn, service, token_hash)


def _service_token(path: Path) -> Secret:
    """The token in the file, which a crash or the operator left there; else a new one, written there."""
    content = secret_in(path)
    if content is None:
        token = tokens.mint(tokens.SERVICE_PREFIX)
        private_files.write(path, Secret(token.reveal() + "\n"))
        return token
    token = content.stripped()
    if tokens.prefix_of(token.reveal()) != tokens.SERVICE_PREFIX:
        raise StartRefused(f"the file {path} holds no service token: move it away, and a new one is made")
    return token
