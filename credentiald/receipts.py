"""Receipts: what a resolution decided, authenticated, to come back with the records of the request.

A bridge hands the receipt back, so that an interception whose opening died with credentiald is still accepted and
complete. Format: one JSON array of the fields below in their order, then 32 bytes of HMAC-SHA256 over it.
"""

import hmac
import json
from dataclasses import astuple, dataclass
from hashlib import sha256

_MAC_BYTES = 32
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Receipt:
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
    body = json.dumps([_VERSION, *astuple(receipt)], separators=(",", ":")).encode()
    return body + hmac.digest(key, body, sha256)


def read(key: bytes, raw: bytes) -> Receipt | None:
    """The receipt, or None for bytes that this deployment has not written."""
    body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    if not hmac.compare_digest(hmac.digest(key, body, sha256), mac):
        return None
    version, *fields = json.loads(body)
    return Receipt(*fields) if version == _VERSION else None
