"""Receipts: what a resolution decided, authenticated, to come back with the records of the request.

A bridge hands the receipt back, so that an interception whose opening died with credentiald is still accepted and
complete. Format: one JSON array of the fields below in their order, then 32 bytes of keyed BLAKE2b (RFC 7693, section
2.9) over it. One is written for every request, and this costs a third of what HMAC-SHA256 does.
"""

import hmac
import json
from collections.abc import Callable
from hashlib import blake2b
from json.encoder import encode_basestring_ascii as _quoted
from typing import NamedTuple

_MAC_BYTES = 32
_VERSION = 1
_START = b'[%d,"' % _VERSION
_BETWEEN = b'","'

# Unchanged part, interception id and resolution id to a receipt. The ids are ASCII that JSON needs not escape.
WriteOne = Callable[[bytes, bytes, bytes], bytes]


class Receipt(NamedTuple):
    """What was decided for one interception; nothing of it is secret."""

    interception_id: str
    resolution_id: str
    service_id: str
    user_id: str
    provider_id: str
    source: str
    credential_id: str
    resolve_time_micros: int


def write(key: bytes, receipt: Receipt) -> bytes:
    """The bytes that a bridge carries; opaque to it."""
    unchanged = unchanged_part(
        service_id=receipt.service_id,
        user_id=receipt.user_id,
        provider_id=receipt.provider_id,
        source=receipt.source,
        credential_id=receipt.credential_id,
    )
    write_one = writer(key, receipt.resolve_time_micros)
    return write_one(unchanged, _escaped(receipt.interception_id), _escaped(receipt.resolution_id))


def unchanged_part(*, service_id: str, user_id: str, provider_id: str, source: str, credential_id: str) -> bytes:
    """What of a receipt is the same for every request that one decision answers."""
    return f'",{",".join(map(_quoted, (service_id, user_id, provider_id, source, credential_id)))},'.encode()


def writer(key: bytes, resolve_time_micros: int) -> WriteOne:
    """What writes the receipts of one moment, whose decisions have been made before."""
    keyed = blake2b(key=key, digest_size=_MAC_BYTES)
    end = b"%d]" % resolve_time_micros

    def write_one(unchanged: bytes, interception_id: bytes, resolution_id: bytes) -> bytes:
        body = b"".join((_START, interception_id, _BETWEEN, resolution_id, unchanged, end))
        mac = keyed.copy()
        mac.update(body)
        return body + mac.digest()

    return write_one


def read(key: bytes, raw: bytes) -> Receipt | None:
    """The receipt, or None for bytes that this deployment has not written."""
    return reader(key)(raw)


def reader(key: bytes) -> Callable[[bytes], Receipt | None]:
    """What reads many receipts."""
    keyed = blake2b(key=key, digest_size=_MAC_BYTES)
    decode = json.JSONDecoder().raw_decode

    def read_one(raw: bytes) -> Receipt | None:
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        own = keyed.copy()
        own.update(body)
        if not hmac.compare_digest(own.digest(), mac):
            return None
        # Ours, so it is ASCII and JSON.
        (version, *fields), _ = decode(body.decode("ascii"))
        return Receipt(*fields) if version == _VERSION else None

    return read_one


def _escaped(text: str) -> bytes:
    return _quoted(text)[1:-1].encode()
