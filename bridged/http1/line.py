"""A client's connection as a pair of byte streams with manners: bounded, patient for so long, and closed politely.

Knows nothing of HTTP (that is `ClientConnection`). Every way to the end of a connection is here: at once, after what
was written, and after the client has had time to read it.
"""

import asyncio
import math
import socket
import struct
from typing import Protocol, cast

from bridged.http1.limits import Limits
from bridged.http1.peer import delivery_of

NEVER = math.inf


class Roster(Protocol):
    """What the server keeps for all its connections. `now` is the loop's time, as of the last sweep."""

    @property
    def limits(self) -> Limits: ...

    @property
    def now(self) -> float: ...

    def opened(self, line: "Line") -> None: ...

    def half_closed(self, line: "Line") -> None:
        """From now on it is to be looked after at each sweep."""

    def closed(self, line: "Line") -> None: ...


class Line(asyncio.Protocol):
    """One connection. Deadlines are for the sweep.

    deadline         for the next bytes of the client, or for the rest of a head
    rate_deadline    until when what came of a body is enough
    write_deadline   for the client's reading
    """

    __slots__ = (
        "_acknowledged_bytes",
        "_dropped_bytes",
        "_eof",
        "_limits",
        "_reading",
        "_roster",
        "_sign_deadline",
        "_transport",
        "_unsent_bytes",
        "_write_paused",
        "deadline",
        "rate_deadline",
        "write_deadline",
    )

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._limits = roster.limits
        self._transport: asyncio.Transport
        self.deadline = NEVER
        self.rate_deadline = NEVER
        self.write_deadline = NEVER
        self._reading = True
        self._eof = False
        self._write_paused = False
        self._unsent_bytes = 0
        self._dropped_bytes = 0
        # When a client that ended its side must have shown that it is there, and what it had acknowledged before.
        self._sign_deadline = NEVER
        self._acknowledged_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(self._limits.unsent_bytes)
        self._roster.opened(self)
        self.deadline = self._roster.now + self._limits.idle_seconds

    def connection_lost(self, exc: Exception | None) -> None:
        self.deadline = self.rate_deadline = self.write_deadline = NEVER
        self._roster.closed(self)

    def pause_writing(self) -> None:
        self._write_paused = True
        self._watch_unsent()

    def resume_writing(self) -> None:
        self._write_paused = False
        if not self._transport.is_closing():
            self.write_deadline = NEVER

    # For the sweep

    def write_overdue(self) -> None:
        """The client has had time to read what was sent. One that read any of it gets as much again."""
        if self._transport.get_write_buffer_size() < self._unsent_bytes:
            self._watch_unsent()
        else:
            self._transport.abort()

    def close(self) -> None:
        """Close, after what was written, for whose reading the client has its time."""
        self._watch_unsent()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    # For what is carried

    @property
    def _is_tls(self) -> bool:
        return self._transport.get_extra_info("sslcontext") is not None

    @property
    def _is_unix(self) -> bool:
        listener = self._transport.get_extra_info("socket")
        return listener is None or listener.family == socket.AF_UNIX

    def _abort_with_reset(self) -> None:
        """Close at once, and so that it is not taken for the end of a body that only the end of the connection ends."""
        if not self._is_unix:
            listener = self._transport.get_extra_info("socket")
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _linger(self) -> None:
        """End our side and drop what still comes, for a while: closing with bytes unread would take back the answer."""
        if self._eof:
            self.close()
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._dropped_bytes = 0
        self.deadline = self._roster.now + self._limits.linger_seconds
        self._watch_unsent()
        self._resume_reading()

    def _linger_overdue(self) -> None:
        if self._transport.get_write_buffer_size():
            # Whether the client still reads is write_overdue's question.
            self.deadline = self._roster.now + self._limits.linger_seconds
        else:
            self._transport.abort()

    def _drop(self, count: int) -> bool:
        """Count what nobody wants; whether it is still within the bound."""
        self._dropped_bytes += count
        return self._dropped_bytes <= self._limits.linger_bytes

    def _await_sign(self) -> None:
        """From here on the client has some time to acknowledge something."""
        self._acknowledged_bytes = delivery_of(self._transport.get_extra_info("socket")).acknowledged_bytes
        self._sign_deadline = self._roster.now + self._limits.sign_seconds

    def _judge_silence(self, sock: socket.socket) -> None:
        """Give up a client that had time for a sign. What is still under way to it has its own time to arrive."""
        if self._sign_deadline > self._roster.now:
            return
        delivery = delivery_of(sock)
        if delivery.acknowledged_bytes > self._acknowledged_bytes:
            self._sign_deadline = NEVER
        elif not delivery.under_way:
            self._transport.abort()

    def _watch_unsent(self) -> None:
        self._unsent_bytes = self._transport.get_write_buffer_size()
        self.write_deadline = self._roster.now + self._limits.stall_seconds

    def _pause_reading(self) -> None:
        if self._reading and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()
            # A reset is not told to those who do not read, nor is the end of the client's side: they are looked for.
            self._roster.half_closed(self)

    def _resume_reading(self) -> None:
        if not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()
