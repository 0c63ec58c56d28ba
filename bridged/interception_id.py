"""Ids of interceptions: UUIDs of version 7 (RFC 9562), so that they sort by time and index well."""

import secrets
import time
import uuid


def new_interception_id() -> str:
    """A new id for a request that arrives now."""
    millis = time.time_ns() // 1_000_000
    number = (millis & ((1 << 48) - 1)) << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62
    return str(uuid.UUID(int=number | secrets.randbits(62)))
