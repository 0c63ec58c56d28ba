"""Receipts: what a resolution decided, authenticated, to come back with the records of the request.

A bridge hands the receipt back, so that an interception whose opening died with credentiald is still accepted and
complete, also where its provider was renamed or deleted meanwhile. Format: a version, the ids of interception and
resolution and the time in fields of fixed width, then what is the same for every request that one decision answers, as
one JSON array; then 32 bytes of keyed BLAKE2b (RFC 7693, section 2.9) over the former and the hash of the latter. One
is written and read for every request: the array is hashed once for all of them, and the rest is one block of BLAKE2b.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from hmac import compare_digest
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from credentiald.record_model import Noted, Origin

_MAC_BYTES = 32
_VERSION = b"3"
# Of a UUID in text, and of microseconds since 1970 until the year 2286.
_ID_BYTES, _TIME_BYTES = 36, 16
_RESOLUTION = 1 + _ID_BYTES
_TIME = _RESOLUTION + _ID_BYTES
_UNCHANGED = _TIME + _TIME_BYTES
# How many unchanged parts a reader knows by heart.
_MOST_KNOWN = 4096
# What a named tuple's own constructor ends in; that takes three times as long, and this is for every request.
_new = tuple.__new__

# Slices that are made once are half of what taking one costs.
_id_part = itemgetter(slice(1, _RESOLUTION))
_mac_part = itemgetter(slice(-_MAC_BYTES, None))
_noted_mac = itemgetter(6)

# Unchanged part, interception id and resolution id to a receipt.
WriteOne = Callable[[bytes, bytes, bytes], bytes]


class Receipt(NamedTuple):
    """What was decided for one interception; nothing of it is secret. The ids are UUIDs, that of the interception may
    be empty."""

    interception_id: str
    resolution_id: str
    origin: Origin
    resolve_time_micros: int


def write(key: bytes, receipt: Receipt) -> bytes:
    """The bytes that a bridge carries; opaque to it."""
    write_one = writer(key, receipt.resolve_time_micros)
    return write_one(unchanged_part(receipt.origin), receipt.interception_id.encode(), receipt.resolution_id.encode())


def unchanged_part(origin: Origin) -> bytes:
    """What of a receipt is the same for every request that one decision answers."""
    return json.dumps(origin, separators=(",", ":")).encode()


def writer(key: bytes, resolve_time_micros: int) -> WriteOne:
    """What writes the receipts of one moment, whose decisions have been made before."""
    keyed = blake2b(key=key, digest_size=_MAC_BYTES)
    time = b"%0*d" % (_TIME_BYTES, resolve_time_micros)
    hashes: dict[bytes, bytes] = {}

    def write_one(unchanged: bytes, interception_id: bytes, resolution_id: bytes) -> bytes:
        hashed = hashes.get(unchanged)
        if hashed is None:
            hashed = hashes[unchanged] = _hash(unchanged)
        head = b"".join((_VERSION, interception_id.ljust(_ID_BYTES), resolution_id, time))
        mac = keyed.copy()
        mac.update(head + hashed)
        return b"".join((head, unchanged, mac.digest()))

    return write_one


def read(key: bytes, raw: bytes) -> Receipt | None:
    """The receipt, or None for bytes that this deployment has not written."""
    return reader(key)(raw)


def mac_of(raw: bytes) -> bytes:
    """What nobody has who was not given the receipt."""
    return raw[-_MAC_BYTES:]


def all_noted(raws: Sequence[bytes], noted: Mapping[bytes, Noted]) -> list[Noted] | None:
    """What is noted of the interceptions of these receipts; None unless something is of each, and each MAC is its own.

    As `reader` does it one by one, with one comparison of all MACs.
    """
    found: list[Any] = list(map(noted.get, map(_id_part, raws)))
    if not all(found):
        return None
    # A receipt with an id is longer than a MAC, so none of them can be in two places.
    are_ours = compare_digest(b"".join(map(_noted_mac, found)), b"".join(map(_mac_part, raws)))
    return found if are_ours else None


def reader(key: bytes, noted: Mapping[bytes, Noted] = MappingProxyType({})) -> Callable[[bytes], Receipt | None]:
    """What reads many receipts; it knows the origins that it has read.

    Of the interceptions that are noted, the receipts were given out here: who shows the MAC of one has it from us, and
    what the receipt says is what was noted.
    """
    keyed = blake2b(key=key, digest_size=_MAC_BYTES)
    # The hash of each unchanged part, and what it says.
    known: dict[bytes, tuple[bytes, Origin]] = {}

    def read_one(raw: bytes) -> Receipt | None:
        one = noted.get(raw[1:_RESOLUTION])
        if one is not None:
            of, resolution, decided, _, _, _, mac, micros = one
            if compare_digest(mac, raw[-_MAC_BYTES:]):
                return _new(Receipt, (of.decode(), resolution.decode(), decided.origin, micros))
        head, unchanged = raw[:_UNCHANGED], raw[_UNCHANGED:-_MAC_BYTES]
        hashed, origin = known.get(unchanged, _UNKNOWN)
        own = keyed.copy()
        own.update(head + (hashed or _hash(unchanged)))
        if not compare_digest(own.digest(), raw[-_MAC_BYTES:]) or not head.startswith(_VERSION):
            return None
        # Ours, so it has this form.
        if origin is None:
            if len(known) >= _MOST_KNOWN:
                known.clear()
            origin = Origin(*json.loads(unchanged))
            known[unchanged] = _hash(unchanged), origin
        texts = head.decode()
        interception_id = texts[1:_RESOLUTION].rstrip()
        return _new(Receipt, (interception_id, texts[_RESOLUTION:_TIME], origin, int(texts[_TIME:])))

    return read_one


_UNKNOWN: tuple[bytes, None] = b"", None


def _hash(unchanged: bytes) -> bytes:
    return blake2b(unchanged, digest_size=_MAC_BYTES).digest()
