"""What the audit tells, as values and as bytes. Nothing here does I/O or knows SQL, gRPC or the clock.

Times are microseconds since 1970, UTC. An act is a JSON object. Releases come in blocks, because there is one for each
request of each client: a JSON object with what many of them have in common, then columns of what differs.
"""

import re
import sys
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from hashlib import sha256
from hmac import digest
from itertools import count
from typing import NamedTuple

import msgspec

from credentiald.record_model import NAME_CHARACTERS, Decided, Noted
from daemonkit.secret import masked

# What an entry about lost ones calls those that were there.
WRITTEN = "written"
# Of one block.
MOST_RELEASES = 2000
# What an id that is none is told as.
_NO_ID = "0" * 32
_NO_ID_WRITTEN = _NO_ID.encode()
_ID_BYTES = 16
_BYTES_EACH = 2 * _ID_BYTES + 2 + 2 + 8
_VERSION = 1


class Kind(StrEnum):
    """What an entry is about."""

    GENESIS = "genesis"
    START = "start"
    ACT = "act"
    RELEASE = "release"
    # Callers that were not let in, gathered.
    REFUSALS = "refusals"
    # What could not be written for so long that it was given up.
    LOST = "lost"
    # Changes that no act tells of.
    UNATTRIBUTED = "unattributed"
    # That the oldest entries are in a file of their own now.
    ARCHIVED = "archived"


class Draft(NamedTuple):
    """An entry that has no place in the chain yet. `from_micros` is when the oldest thing in it happened."""

    kind: Kind
    body: bytes
    from_micros: int


class Who(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who asked: a service or a user."""

    role: str = ""
    service_id: str = ""
    service: str = ""
    bridge_instance_id: str = ""
    user_id: str = ""
    username: str = ""
    peer: str = ""


class Revision(NamedTuple):
    """One step of the administrative state, as the change log has it."""

    revision: int
    kind: str
    resource: str
    resource_id: str
    name: str


class Change(NamedTuple):
    """One field, before and after; None where there was nothing, or is nothing any more."""

    field: str
    old: str | None
    new: str | None


class Act(msgspec.Struct, frozen=True, omit_defaults=True):
    """One administrative act, or look at what is somebody else's."""

    what: str
    outcome: str
    who: Who
    # Whom and what it is about, as the request names them.
    user: str = ""
    provider: str = ""
    revisions: tuple[Revision, ...] = ()
    changes: tuple[Change, ...] = ()
    # Fields of the request, where no change says it.
    asked: dict[str, str] = {}
    # Fields with a secret to its keyed hash.
    secrets: dict[str, str] = {}
    # Where it was announced.
    intent: int = 0


class Refused(msgspec.Struct, frozen=True):
    """Callers of one kind that were not let in."""

    peer: str
    what: str
    reason: str
    caller: str
    count: int


class Archive(msgspec.Struct, frozen=True, omit_defaults=True):
    """The part of the chain that was taken out: where it ends, and where it is."""

    sequence: int
    hash: str
    count: int
    file: str
    # Who ran the command, as the machine knows them.
    by: str
    # Changes beyond `Told.revision` of which acts in it tell: first and last of each range.
    ranges: tuple[tuple[int, int], ...] = ()


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of an entry that is neither an act nor a release."""

    database_id: str = ""
    version: str = ""
    mode: str = ""
    # Up to where the change log was looked through.
    revision: int = 0
    revisions: tuple[Revision, ...] = ()
    refused: tuple[Refused, ...] = ()
    # Of which `refused` does not tell.
    others: int = 0
    lost: dict[str, int] = {}
    until_micros: int = 0
    archive: Archive | None = None
    # An end of the chain that is gone.
    head: str = ""


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """What releases of one block have in common."""

    service_id: str
    service: str
    role: str
    bridge_instance_id: str
    user_id: str
    username: str
    token_id: str
    provider_id: str
    provider: str
    provider_type: str
    source: str
    credential_id: str
    operation: str


class _Block(msgspec.Struct):
    v: int
    count: int
    base: int
    decisions: list[Decision]
    models: list[str]


class Release(NamedTuple):
    """One credential that was given out, or one request that was let through with its own."""

    micros: int
    decision: Decision
    model: str
    resolution_id: str
    interception_id: str


def block(noted: Sequence[Noted]) -> Draft:
    """The entry of at most MOST_RELEASES releases.

    This is for every request, and takes Python's lock from who answers them: nothing in it is done twice, and a column
    is made in one go, without a step of Python for each of its values where that can be.
    """
    interception_ids, resolution_ids, decided, models, _, instance_ids, _, times = zip(*noted, strict=False)
    # By identity: a kept decision is one object, and all of them live as long as `noted`.
    identities = list(map(id, decided))
    decided_of = dict(zip(identities, decided, strict=False))
    # Each new one gets the next place.
    decisions: defaultdict[tuple[int, str], int] = defaultdict(count().__next__)
    places_of_models: defaultdict[str, int] = defaultdict(count().__next__)
    decided_by = array("H", list(map(decisions.__getitem__, zip(identities, instance_ids, strict=False))))
    model_by = array("H", list(map(places_of_models.__getitem__, models)))
    base = min(times)
    head = _Block(
        v=_VERSION,
        count=len(noted),
        base=base,
        decisions=[_decision(decided_of[one], instance_id) for one, instance_id in decisions],
        models=[masked(one[:NAME_CHARACTERS]) for one in places_of_models],
    )
    offsets = array("Q", [micros - base for micros in times])
    body = b"".join(
        (
            msgspec.json.encode(head),
            b"\n",
            _binary(resolution_ids),
            _binary([one or _NO_ID_WRITTEN for one in interception_ids]),
            *(_little(column).tobytes() for column in (decided_by, model_by, offsets)),
        )
    )
    return Draft(Kind.RELEASE, body, base)


def common(body: bytes) -> tuple[list[Decision], int]:
    """What the releases of a block have in common, and how many there are. ValueError."""
    found = _head(body)
    return found.decisions, found.count


def releases(body: bytes) -> Iterator[Release]:
    """The releases of a block, in the order in which they were given out. ValueError for bytes that are none."""
    found = _head(body)
    count, columns = found.count, memoryview(body)[body.index(b"\n") + 1 :]
    if len(columns) != count * _BYTES_EACH:
        raise ValueError("the columns of a block of releases are cut")
    ids = columns[: count * 2 * _ID_BYTES]
    numbers = columns[len(ids) :]
    decided_by, model_by, offsets = array("H"), array("H"), array("Q")
    decided_by.frombytes(numbers[: 2 * count])
    model_by.frombytes(numbers[2 * count : 4 * count])
    offsets.frombytes(numbers[4 * count :])
    for column in (decided_by, model_by, offsets):
        _little(column)
    for place in range(count):
        yield Release(
            found.base + offsets[place],
            found.decisions[decided_by[place]],
            found.models[model_by[place]],
            _uuid(ids, place),
            _uuid(ids, count + place),
        )


def _head(body: bytes) -> _Block:
    try:
        return msgspec.json.decode(body[: body.index(b"\n")], type=_Block)
    except msgspec.MsgspecError as error:
        raise ValueError("this is no block of releases") from error


def _decision(decided: Decided, instance_id: str) -> Decision:
    origin = decided.origin
    return Decision(
        service_id=origin.service_id,
        service=decided.service_name,
        role=decided.role,
        bridge_instance_id=instance_id[:NAME_CHARACTERS],
        user_id=origin.user_id,
        username=decided.username,
        token_id=decided.access_token_id,
        provider_id=origin.provider_id,
        provider=origin.provider_name,
        provider_type=origin.provider_type,
        source=origin.source,
        credential_id=origin.credential_id,
        operation=decided.operation,
    )


def _binary(ids: Iterable[bytes]) -> bytes:
    """UUIDs in text, one after the other, as 16 bytes each."""
    return bytes.fromhex(b"".join(ids).replace(b"-", b"").decode())


def _uuid(ids: memoryview, place: int) -> str:
    digits = ids[place * _ID_BYTES : (place + 1) * _ID_BYTES].hex()
    if digits == _NO_ID:
        return ""
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _little(column: "array[int]") -> "array[int]":
    """The column in the order of bytes that is stored, or in ours again."""
    if sys.byteorder == "big":
        column.byteswap()
    return column


# -- secrets, and fields of messages ----------------------------------------------------------------------------------

HASH_PREFIX = "hmac-sha256:"


def secret_hash(key: bytes, value: str) -> str:
    """How the audit tells of a secret: whoever has the value can find it, and nobody can find the value."""
    return HASH_PREFIX + digest(key, value.strip().encode("utf-8", "surrogatepass"), sha256).hex()


# No field that an administrator writes needs more, and a request of megabytes must not fill the file.
# Of a change, the whole is told where it can be: what was changed may be its end.
_MOST_FIELDS, _MOST_ASKED_CHARACTERS, _MOST_CHANGED_CHARACTERS = 64, 256, 2048
_CHARACTERS_BEFORE = 64


def cut(fields: Mapping[str, str]) -> dict[str, str]:
    """At most so many fields, each at most so long; the rest is told by `…`."""
    most = _MOST_ASKED_CHARACTERS
    told = {name[:most]: _cut(fields[name], most) for name in sorted(fields)[:_MOST_FIELDS]}
    return told | {"…": str(len(fields) - _MOST_FIELDS)} if len(fields) > _MOST_FIELDS else told


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Change, ...]:
    """What differs, by field."""
    names = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    found = [Change(name, *_cut_change(before.get(name), after.get(name))) for name in names[:_MOST_FIELDS]]
    if len(names) > _MOST_FIELDS:
        found.append(Change("…", None, str(len(names) - _MOST_FIELDS)))
    return tuple(found)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "…"


def _cut_change(old: str | None, new: str | None) -> tuple[str | None, str | None]:
    """Both, from a little before where they differ if they are too long."""
    start = 0
    if old is not None and new is not None and max(len(old), len(new)) > _MOST_CHANGED_CHARACTERS:
        pairs = enumerate(zip(old, new, strict=False))
        same = next((place for place, (was, is_now) in pairs if was != is_now), min(len(old), len(new)))
        start = max(0, same - _CHARACTERS_BEFORE)
    before = "…" if start else ""
    return (
        None if old is None else before + _cut(masked(old[start:]), _MOST_CHANGED_CHARACTERS),
        None if new is None else before + _cut(masked(new[start:]), _MOST_CHANGED_CHARACTERS),
    )


def body_of(value: Act | Told) -> bytes:
    """The bytes of an entry that is no block."""
    return msgspec.json.encode(value)


_NONE_OF_OURS = "this is no entry of the audit"


def act_of(body: bytes) -> Act:
    """ValueError for bytes that are none."""
    try:
        return msgspec.json.decode(body, type=Act)
    except msgspec.MsgspecError as error:
        raise ValueError(_NONE_OF_OURS) from error


def told_of(body: bytes) -> Told:
    """ValueError for bytes that are none."""
    try:
        return msgspec.json.decode(body, type=Told)
    except msgspec.MsgspecError as error:
        raise ValueError(_NONE_OF_OURS) from error


_PORT = re.compile(r"(?<=[\]:.\dA-Fa-f]):\d+$")


def host_of(peer: str) -> str:
    """The peer without its port: who comes again has another one."""
    return _PORT.sub("", peer)
