"""The chain of the audit: what a row is hashed as, and what is found out by following it.

Each row's hash is SHA-256 over the hash before it and the row, so nobody can change, take out, put in or move a row
without changing every later one; and whoever wrote down an earlier end of the chain (its head) notices that as well.
What a chain alone cannot show: rows that are missing at its end, and a chain that was made anew as a whole. For these
a head from elsewhere is needed. Rows may be missing at its beginning where a later row says that they were archived.
Nothing here does I/O.
"""

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from itertools import chain, islice
from typing import NamedTuple

import msgspec

GENESIS, ARCHIVED = "genesis", "archived"
# What stands before the first row.
NO_HASH = bytes(32)
_FORMAT = b"drawbridge audit 1\n"
_FIXED = struct.Struct(">QqqI")
_MOST = 2**63 - 1
# No chain ends at 0: whoever asks for that asks for nothing.
_NUMBER, _HASH = re.compile(r"[1-9][0-9]{0,18}"), re.compile(r"[0-9a-fA-F]{64}")
# How far is looked for the place that a row comes from. It makes a message better, no verdict.
_LOOK_AHEAD = 64


class Row(NamedTuple):
    """One row as it is stored. Times are microseconds since 1970: when it was written, and the oldest thing in it."""

    sequence: int
    time: int
    from_time: int
    kind: str
    body: bytes
    hash: bytes


class Head(NamedTuple):
    """The end of a chain."""

    sequence: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash.hex()}"


EMPTY = Head(0, NO_HASH)


def parse_head(text: str) -> Head:
    """The head that is written as `SEQUENCE:HASH`; ValueError."""
    number, colon, digits = text.strip().partition(":")
    if not (colon and _NUMBER.fullmatch(number) and _HASH.fullmatch(digits)):
        raise ValueError("a head is written SEQUENCE:HASH, with 64 hexadecimal digits")
    return Head(int(number), bytes.fromhex(digits))


def hash_of(previous: bytes, sequence: int, time: int, from_time: int, kind: str, body: bytes) -> bytes:
    """The hash of a row that stands behind the one with the hash `previous`."""
    named = kind.encode()
    return sha256(
        b"".join((_FORMAT, previous, _FIXED.pack(sequence, time, from_time, len(named)), named, body))
    ).digest()


class DamageKind(StrEnum):
    """What happened to a chain."""

    EDIT = "edit"
    GAP = "gap"
    REORDER = "reorder"
    TRUNCATION = "truncation"
    REWRITTEN = "rewritten"
    FOREIGN = "foreign genesis"
    # Nothing was done to it; what is asked about is in another file.
    ELSEWHERE = "archived"


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """The first row that is not as it was written."""

    sequence: int
    kind: DamageKind
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What following a chain has found: `damage` is None where all of it is whole, after `beginning` up to `head`."""

    beginning: Head
    head: Head
    database_id: str
    kinds: dict[str, int]
    damage: Damage | None


def verify(
    rows: Iterable[Row],
    *,
    expected: Head | None = None,
    database_id: str | None = None,
    beginning: Head = EMPTY,
    is_archive: bool = False,
) -> Verdict:
    """Follow a chain from its first row to its first damage. `rows` are in the order of their sequences.

    `expected` is a head that was seen earlier, `database_id` that of the database that the chain belongs to.
    `beginning` is what the first row is said to follow: one of the rows has to say so too, but in an archive.
    """
    walk = _Walk(expected, database_id, beginning, is_archive=is_archive)
    if (damage := walk.before()) is not None:
        return walk.verdict(damage)
    coming = iter(rows)
    for row in coming:
        damage = walk.step(row, coming)
        if damage is not None:
            return walk.verdict(damage)
    return walk.verdict(walk.end())


class _Walk:
    def __init__(self, expected: Head | None, database_id: str | None, beginning: Head, *, is_archive: bool) -> None:
        self._expected = expected
        self._wanted_id = database_id
        self._beginning = beginning
        self._is_explained = is_archive or not beginning.sequence
        self._found_id = ""
        self._head = beginning
        self._kinds: dict[str, int] = {}

    def verdict(self, damage: Damage | None) -> Verdict:
        return Verdict(
            beginning=self._beginning,
            head=self._head,
            database_id=self._found_id,
            kinds=self._kinds,
            damage=damage,
        )

    def before(self) -> Damage | None:
        """What the beginning alone shows."""
        expected, beginning = self._expected, self._beginning
        if expected is None or expected.sequence > beginning.sequence or expected == beginning:
            return None
        if expected.sequence == beginning.sequence:
            return _rewritten(expected.sequence)
        return Damage(
            sequence=expected.sequence,
            kind=DamageKind.ELSEWHERE,
            message=f"this file begins after {beginning.sequence}: verify the archive that has this entry",
        )

    def step(self, row: Row, coming: Iterator[Row]) -> Damage | None:
        sequence = self._head.sequence + 1
        if not _is_sound(row):
            return Damage(sequence=sequence, kind=DamageKind.EDIT, message="it is no row as one is written")
        if row.sequence != sequence:
            last = row.sequence - 1
            missing = f"entry {sequence} is" if last == sequence else f"entries {sequence} to {last} are"
            return Damage(sequence=sequence, kind=DamageKind.GAP, message=f"{missing} missing")
        if _fits(row, self._head.hash) is False:
            return _judged(row, self._head, coming)
        if sequence == 1 and (damage := self._check_genesis(row)) is not None:
            return damage
        if row.kind == ARCHIVED and (damage := self._note_archived(row)) is not None:
            return damage
        self._head = Head(sequence, row.hash)
        self._kinds[row.kind] = self._kinds.get(row.kind, 0) + 1
        if self._expected is not None and sequence == self._expected.sequence and row.hash != self._expected.hash:
            return _rewritten(sequence)
        return None

    def end(self) -> Damage | None:
        """What is missing at the end, or at the beginning without a word."""
        if not self._is_explained:
            return Damage(
                sequence=1,
                kind=DamageKind.GAP,
                message=f"entries 1 to {self._beginning.sequence} are missing, and no later one says that they"
                " were archived",
            )
        expected = 1 if self._expected is None else self._expected.sequence
        if self._head.sequence >= expected:
            return None
        return Damage(
            sequence=self._head.sequence + 1,
            kind=DamageKind.TRUNCATION,
            message=f"the chain ends at {self._head.sequence} and went on up to {expected} at least",
        )

    def _check_genesis(self, row: Row) -> Damage | None:
        try:
            told = msgspec.json.decode(row.body, type=_Genesis)
        except msgspec.MsgspecError:
            told = _Genesis()
        self._found_id = told.database_id
        if row.kind == GENESIS and told.database_id and self._wanted_id in (None, told.database_id):
            return None
        return _foreign(1, told.database_id, self._wanted_id)

    def _note_archived(self, row: Row) -> Damage | None:
        """Whether this row explains what is missing at the beginning."""
        try:
            told = msgspec.json.decode(row.body, type=_Archived)
        except msgspec.MsgspecError:
            return None
        self._found_id = self._found_id or told.database_id
        if self._wanted_id not in (None, told.database_id):
            return _foreign(row.sequence, told.database_id, self._wanted_id)
        # Of a longer part: the rows between have been followed, and the first of them holds the hash of the beginning.
        is_longer = self._beginning.sequence < told.archive.sequence < row.sequence
        if is_longer or told.archive == _ArchivedPart(self._beginning.sequence, self._beginning.hash.hex()):
            self._is_explained = True
        return None


class _Genesis(msgspec.Struct):
    database_id: str = ""


class _ArchivedPart(msgspec.Struct):
    sequence: int
    hash: str


class _Archived(msgspec.Struct):
    archive: _ArchivedPart
    database_id: str = ""


def _rewritten(sequence: int) -> Damage:
    return Damage(
        sequence=sequence,
        kind=DamageKind.REWRITTEN,
        message="its hash is not that of the head: the chain was made anew from some entry up to this one",
    )


def _foreign(sequence: int, found_id: str, wanted_id: str | None) -> Damage:
    message = (
        f"it is of the audit of the database '{found_id}', not of '{wanted_id}'"
        if found_id
        else "it does not say of which database"
    )
    return Damage(sequence=sequence, kind=DamageKind.FOREIGN, message=message)


def _is_sound(row: Row) -> bool:
    """Whether the columns have the types that we write: SQLite takes any."""
    numbers = (row.sequence, row.time, row.from_time)
    return (
        all(type(one) is int and abs(one) <= _MOST for one in numbers)
        and row.sequence > 0
        and type(row.kind) is str
        and type(row.body) is bytes
        and type(row.hash) is bytes
    )


def _fits(row: Row, previous: bytes, *, sequence: int | None = None) -> bool:
    """Whether the row stands behind `previous`, with its own sequence or with another one."""
    return row.hash == hash_of(previous, sequence or row.sequence, row.time, row.from_time, row.kind, row.body)


def _judged(row: Row, before: Head, coming: Iterator[Row]) -> Damage:
    """What is the matter with a row that does not follow from the one before it."""
    near = [row, *(one for one in islice(coming, _LOOK_AHEAD) if _is_sound(one))]
    for place, one in enumerate(near[1:], start=1):
        # Rows that stand in each other's places: what follows then is what came before.
        if any(_fits(row, other.hash, sequence=one.sequence) for other in chain(near[place - 1 : place], (one,))):
            return Damage(
                sequence=row.sequence,
                kind=DamageKind.REORDER,
                message=f"entry {one.sequence} stands in its place",
            )
    for moved in range(1, _LOOK_AHEAD):
        # Taken out, and the rest moved up: the second of the rest still follows from the first.
        if len(near) > 1 and _fits(near[1], row.hash, sequence=near[1].sequence + moved):
            return Damage(
                sequence=row.sequence,
                kind=DamageKind.GAP,
                message=f"{moved} entries are missing here, and the later ones were numbered anew",
            )
    return Damage(
        sequence=row.sequence,
        kind=DamageKind.EDIT,
        message=f"it does not follow from entry {before.sequence}: one of the two was changed or put in",
    )
