"""Receipts: what a resolution decided, authenticated, to come back with the records of the request.

A bridge hands the receipt back, so that an interception whose opening died with credentiald is still accepted and
complete. Format: one JSON array of the fields below in their order, then 32 bytes of HMAC-SHA256 over it.
"""

import hmac
import json
from dataclasses import dataclass
from hashlib import sha256
from json.encoder import encode_basestring_ascii as _quoted

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
    unchanged = unchanged_part(
        service_id=receipt.service_id,
        user_id=receipt.user_id,
        provider_id=receipt.provider_id,
        source=receipt.source,
        credential_id=receipt.credential_id,
    )
    marks = (receipt.interception_id, receipt.resolution_id, receipt.resolve_time_micros)
    return write_again(key, unchanged, *marks)


def unchanged_part(*, service_id: str, user_id: str, provider_id: str, source: str, credential_id: str) -> str:
    """What of a receipt is the same for every request that one decision answers."""
    return ",".join(map(_quoted, (service_id, user_id, provider_id, source, credential_id)))


def write_again(
    key: bytes, unchanged: str, interception_id: str, resolution_id: str, resolve_time_micros: int
) -> bytes:
    """The receipt of one more request that the same decision answers."""
    marks = f"{_quoted(interception_id)},{_quoted(resolution_id)}"
    body = f"[{_VERSION},{marks},{unchanged},{resolve_time_micros}]".encode()
    return body + hmac.digest(key, body, sha256)


def read(key: bytes, raw: bytes) -> Receipt | None:
    """The receipt, or None for bytes that this deployment has not written."""
    body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    if not hmac.compare_digest(hmac.digest(key, body, sha256), mac):
        return None
    version, *fields = json.loads(body)
    return Receipt(*fields) if version == _VERSION else None
