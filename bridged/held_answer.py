"""An answer of an upstream that goes to nobody yet, because there may be a better one (failover.py, fallback.py)."""

from dataclasses import dataclass, field

from bridged.http1.response_head import BodyFraming
from bridged.model import Headers

MAX_HELD_BYTES = 64 * 1024


@dataclass(slots=True)
class HeldAnswer:
    """`body` is what came of it; above MAX_HELD_BYTES it is held no longer."""

    status: int
    headers: Headers = field(repr=False)
    framing: BodyFraming
    body: bytearray = field(default_factory=bytearray, repr=False)
