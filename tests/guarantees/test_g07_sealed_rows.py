"""G7: a flipped bit in a stored secret, or a row copied to another user or provider, fails closed.

Proved on the database file of a pair that runs, as somebody who can write to it would change it: every single bit of
every column that a stored key is opened with, every other column, every copy of a sealed key to another place. After
each the bridge's question gets no key, or exactly the one that was there; and a client behind the bridge gets 503, also
where the answer had been kept. The deployment secret is treated likewise: credentiald does not start with it.

Wider: tests/store/test_sealed_rows.py and tests/core/test_sealing.py (any context, any bytes).
"""

import itertools
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from drawbridge.v1 import admin_service_pb2 as pb
from drawbridge.v1 import provider_pb2, user_key_service_pb2

from tests.support.credentiald import bearer
from tests.support.http import Answer, send
from tests.support.pair import Pair, running_pair
from tests.support.processes import START_SECONDS, clean_environment, credentiald
from tests.support.rpc import Rpcs, rpcs

# Where a key is, and whose it is: table, provider, user.
CENTRAL = [("central_keys", name, "ann") for name in ("one", "two")]
PERSONAL = [("user_keys", name, user) for name in ("three", "four") for user in ("ann", "bob")]
PLACES = CENTRAL + PERSONAL
SEALED = ("credential_id", "key_id", "nonce", "ciphertext")
BODY = b'{"model":"m","messages":[]}'
Place = tuple[str, str, str]


def key_at(place: Place) -> str:
    table, provider, user = place
    return f"sk-{provider}" if table == "central_keys" else f"sk-{provider}-of-{user}"


@dataclass
class Stored:
    """The pair, and its database as somebody with access to the file has it."""

    pair: Pair
    rpc: Rpcs
    file: sqlite3.Connection
    tokens: dict[str, str]
    users: dict[str, str]
    providers: dict[str, str]

    def where(self, place: Place) -> tuple[str, tuple[str, ...]]:
        table, provider, user = place
        if table == "central_keys":
            return "provider_id = ?", (self.providers[provider],)
        return "provider_id = ? AND user_id = ?", (self.providers[provider], self.users[user])

    def row(self, place: Place) -> dict[str, Any]:
        condition, values = self.where(place)
        return dict(self.file.execute(f"SELECT * FROM {place[0]} WHERE {condition}", values).fetchone())

    def set(self, place: Place, columns: dict[str, Any]) -> None:
        condition, values = self.where(place)
        assigned = ", ".join(f"{name} = ?" for name in columns)
        self.file.execute(f"UPDATE {place[0]} SET {assigned} WHERE {condition}", (*columns.values(), *values))

    @contextmanager
    def changed(self, *changes: tuple[Place, dict[str, Any]]) -> Iterator[None]:
        """The file with these columns, for the length of the block. IntegrityError where the schema forbids them."""
        tables = {table: self.file.execute(f"SELECT * FROM {table}").fetchall() for (table, _, _), _ in changes}
        with self.transaction():
            for place, columns in changes:
                self.set(place, columns)
        try:
            yield
        finally:
            with self.transaction():
                for table, rows in tables.items():
                    self.file.execute(f"DELETE FROM {table}")
                    marks = ", ".join("?" * len(rows[0]))
                    self.file.executemany(f"INSERT INTO {table} VALUES ({marks})", [tuple(row) for row in rows])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.file.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.file.execute("COMMIT")
        finally:
            if self.file.in_transaction:
                self.file.execute("ROLLBACK")

    async def replace(self, place: Place, key: str) -> None:
        """Another key there, by the API."""
        if place[0] == "central_keys":
            material = provider_pb2.KeyMaterial(api_key=key)
            await self.rpc.call("SetCentralKey", pb.SetCentralKeyRequest(provider=place[1], central_key=material))
        else:
            await self.set_user_key(place, key)

    async def set_user_key(self, place: Place, key: str) -> None:
        await self.rpc.administered_keys.SetUserKey(
            user_key_service_pb2.SetUserKeyRequest(provider=place[1], user=place[2], key=key),
            metadata=bearer(self.rpc.admin_token),
        )

    async def opened(self, place: Place) -> str:
        """What a bridge is told for this place: a key, or a reason."""
        return await self.rpc.resolved(place[1], self.tokens[place[2]])

    async def carried(self, place: Place) -> Answer:
        """What a client gets for this place."""
        headers = {"Authorization": f"Bearer {self.tokens[place[2]]}"}
        return await send(
            self.pair.bridged.addresses["http"], "POST", f"/{place[1]}/v1/chat/completions", headers, BODY
        )


@asynccontextmanager
async def stored(folder: Path) -> AsyncIterator[Stored]:
    """Two providers with a central key, two for users' keys, two users with a key for each of those."""
    async with running_pair(folder) as pair, rpcs(folder, pair.credentiald) as rpc:
        bob_id, bob_token = await rpc.user("bob")
        users = {"bob": bob_id}
        tokens = {"ann": pair.token, "bob": bob_token}
        providers = {}
        for _, name, _ in CENTRAL:
            providers[name] = (await rpc.provider(name, f"{pair.upstream.url}/v1", key=f"sk-{name}")).id
        for name in ("three", "four"):
            providers[name] = (await rpc.provider(name, f"{pair.upstream.url}/v1", flags=(False, True, False))).id
        file = sqlite3.connect(folder / "credentiald.db", isolation_level=None)
        file.row_factory = sqlite3.Row
        file.execute("PRAGMA synchronous = OFF")
        users["ann"] = file.execute("SELECT id FROM users WHERE username = 'ann'").fetchone()["id"]
        try:
            at = Stored(pair=pair, rpc=rpc, file=file, tokens=tokens, users=users, providers=providers)
            for place in PERSONAL:
                await at.set_user_key(place, key_at(place))
            yield at
        finally:
            file.close()


def flipped(value: Any) -> Iterator[Any]:
    """The value with each of its bits the other way, of the type that it had."""
    plain = value.encode("latin-1") if isinstance(value, str) else value
    for bit in range(len(plain) * 8):
        other = bytearray(plain)
        other[bit // 8] ^= 1 << bit % 8
        yield bytes(other).decode("latin-1") if isinstance(value, str) else bytes(other)


async def test_no_key_opens_with_a_bit_of_what_it_is_sealed_with_changed(tmp_path):
    async with stored(tmp_path) as at:
        for place in (CENTRAL[0], PERSONAL[0]):
            row = at.row(place)
            for column in SEALED:
                for number, value in enumerate(flipped(row[column])):
                    at.set(place, {column: value})
                    assert await at.opened(place) == "SEALED", f"{place[0]}.{column}, bit {number}"
                at.set(place, {column: row[column]})
            assert await at.opened(place) == key_at(place)


async def test_no_other_column_makes_a_key_another_one(tmp_path):
    odd: list[Any] = [None, "", "x", b"", b"\xff", -1, 2**62, 1.5]
    async with stored(tmp_path) as at:
        for place in (CENTRAL[0], PERSONAL[0]):
            row = at.row(place)
            for column, value in itertools.product(row, odd):
                try:
                    with at.changed((place, {column: value})):
                        said = await at.opened(place)
                except sqlite3.IntegrityError:
                    # The schema does not take it.
                    continue
                assert said == key_at(place) or said.isupper(), f"{place[0]}.{column} = {value!r}: {said}"
                if column in SEALED:
                    assert said == "SEALED", f"{place[0]}.{column} = {value!r}: {said}"
            assert await at.opened(place) == key_at(place)


async def test_no_key_opens_at_another_place(tmp_path):
    async with stored(tmp_path) as at:
        rows = {place: at.row(place) for place in PLACES}
        for source, target in itertools.permutations(PLACES, 2):
            for columns in (SEALED, SEALED[1:]):
                aside = {"credential_id": "aside"} if "credential_id" in columns else {"key_id": "aside"}
                with at.changed((source, aside), (target, {name: rows[source][name] for name in columns})):
                    assert await at.opened(target) == "SEALED", f"{source} at {target}, {columns}"
        for place in PLACES:
            assert await at.opened(place) == key_at(place)


async def test_a_key_that_was_replaced_does_not_open_in_the_row_of_the_next(tmp_path):
    async with stored(tmp_path) as at:
        for place in (CENTRAL[0], PERSONAL[0]):
            before = at.row(place)
            await at.replace(place, "sk-next")
            assert await at.opened(place) == "sk-next"
            for column in SEALED[1:]:
                with at.changed((place, {column: before[column]})):
                    assert await at.opened(place) == ("sk-next" if column == "key_id" else "SEALED"), column
            with at.changed((place, {column: before[column] for column in SEALED[1:]})):
                assert await at.opened(place) == "SEALED"


async def test_a_client_gets_503_though_the_answer_of_before_had_been_kept(tmp_path):
    async with stored(tmp_path) as at:
        for source, target in ((CENTRAL[1], CENTRAL[0]), (PERSONAL[1], PERSONAL[0])):
            good = await at.carried(target)
            assert good.status == 200
            assert at.pair.upstream.requests.pop().header("authorization") == f"Bearer {key_at(target)}"
            row = at.row(source)
            with at.changed((source, {"credential_id": "aside"}), (target, {name: row[name] for name in SEALED})):
                answer = await at.carried(target)
            assert (answer.status, answer.header("X-Drawbridge-Error")) == (503, "SEALED")
            assert int(answer.header("Retry-After")) >= 1
            assert not at.pair.upstream.requests
            assert (await at.carried(target)).status == 200
            at.pair.upstream.requests.clear()


@pytest.mark.parametrize("change", ["a bit", "another database's"])
def test_credentiald_does_not_start_with_a_deployment_secret_that_was_changed(tmp_path, change):
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    with credentiald(folders[0]) as daemon:
        daemon.stop()
    shutil.copy(folders[0] / "credentiald.sealing", folders[1])
    with sqlite3.connect(folders[0] / "credentiald.db") as file:
        if change == "a bit":
            [(ciphertext,)] = file.execute("SELECT deployment_ciphertext FROM meta").fetchall()
            file.execute("UPDATE meta SET deployment_ciphertext = ?", (next(flipped(ciphertext)),))
        else:
            with credentiald(folders[1]) as daemon:
                daemon.stop()
            with sqlite3.connect(folders[1] / "credentiald.db") as other:
                columns = ("deployment_key_id", "deployment_nonce", "deployment_ciphertext")
                [values] = other.execute(f"SELECT {', '.join(columns)} FROM meta").fetchall()
            other.close()
            file.execute(f"UPDATE meta SET {', '.join(f'{name} = ?' for name in columns)}", values)
    file.close()
    done = subprocess.run(
        [sys.executable, "-m", "credentiald", "serve", *(
            part for flag in ("--listen", "--admin-listen", "--metrics-listen") for part in (flag, "127.0.0.1:0")
        )],
        cwd=folders[0], env=clean_environment(), capture_output=True, text=True, timeout=START_SECONDS,
    )  # fmt: skip
    assert done.returncode not in (0, None)
    assert "sealing" in done.stderr
