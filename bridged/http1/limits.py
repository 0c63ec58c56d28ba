"""How much, and for how long: the bounds of a client's connection. Each is a default that a setting may change."""

from dataclasses import dataclass, field

from bridged.http1.framing import HeadLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times are looked at once a second, so each may be up to a second longer."""

    connections: int = 1 << 20
    """How many clients may be connected; more are told 503."""
    told_connections: int = 32
    """How many more may be told so at one time. What is beyond is closed without a word: each takes a descriptor for as
    long as it likes to read, up to `linger_seconds`, and those are needed for who was let in."""
    head: HeadLimits = field(default_factory=HeadLimits)
    head_seconds: float = 30.0
    """From the first byte of a head to its last."""
    idle_seconds: float = 75.0
    """A connection without a request."""
    body_seconds: float = 600.0
    """Between two reads of a body that is wanted, and how long it may come as slowly as it likes."""
    body_bytes_per_second: int = 500
    """What must have come of it on average after that, while it was wanted: a slow phone sends ten times as much."""
    stall_seconds: float = 600.0
    """How long a client may read nothing of what was sent."""
    sign_seconds: float = 2.0
    """How long a client that ended its side in the middle of an answer may leave open whether it is still there."""
    keepalive_seconds: int = 60
    """How long nothing is heard of a client before TCP asks it, and then every quarter of that, three times."""
    linger_seconds: float = 10.0
    """How long bytes that nobody wants are dropped, so that the client gets to read the answer."""
    linger_bytes: int = 64 * 1024 * 1024
    held_bytes: int = 64 * 1024
    """What is read ahead while a request is answered; one read of the socket may go over it."""
    unsent_bytes: int = 256 * 1024
    """What may wait to be sent before the carrier is paused."""

    def sweep_seconds(self) -> float:
        """How often connections are looked at: once a second, or often enough for shorter limits."""
        waits = (self.head_seconds, self.idle_seconds, self.body_seconds, self.stall_seconds, self.linger_seconds)
        return max(0.01, min(1.0, *(seconds / 2 for seconds in (*waits, self.sign_seconds))))
