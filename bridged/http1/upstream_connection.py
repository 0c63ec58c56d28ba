"""One socket to an upstream: what the loop says becomes what the receiver of the call on it hears (upstream.py)."""

import asyncio
from dataclasses import dataclass
from typing import cast

from bridged.http1.connect import reason_of
from bridged.http1.response_framing import KEPT_MARGIN_SECONDS, ResponseReader
from bridged.http1.response_head import BadResponse
from bridged.http1.upstream import Origin, UpstreamCall, UpstreamError
from bridged.http_types import UpstreamBroken, UpstreamTimeout, UpstreamUnreachable

# What waits in our memory for an upstream that reads slowly, before the request's body is asked to wait.
_WRITE_BUFFER_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceLimits:
    """How long an upstream may be silent where a call has no time-outs of its own, and a connection between calls."""

    first_byte_seconds: float
    idle_seconds: float
    keep_alive_seconds: float


class UpstreamConnection(asyncio.Protocol):
    """One socket to an upstream. Waits in the pool, carries a call, waits again."""

    __slots__ = ("_origin", "_reader", "call", "is_used", "is_write_paused", "quiet_since", "transport")

    def __init__(self, origin: Origin) -> None:
        self.transport: asyncio.Transport
        self.call: UpstreamCall | None = None
        self.is_used = False
        self.is_write_paused = False
        # By the first sweep that found it quiet; 0 until there is one.
        self.quiet_since = 0.0
        self._origin = origin
        self._reader = ResponseReader()

    def take(self, call: UpstreamCall, *, is_head_request: bool) -> None:
        """From now on what comes is the answer to this call."""
        self.call = call
        self.quiet_since = 0.0
        self._reader.begin(is_head_request=is_head_request)

    def drop(self) -> None:
        """Close it; whoever was on it is not told."""
        self.call = None
        self.transport.abort()

    def sweep(self, limits: SilenceLimits, *, now_seconds: float, every_seconds: float) -> None:
        """Called every so often, which is how silence is measured here: a timer for each read would cost more."""
        call = self.call
        if call is not None and (call.is_paused or (call.is_sending and not self.is_write_paused)):
            # It is the client that is waited for.
            self.quiet_since = 0.0
            return
        if not self.quiet_since:
            self.quiet_since = now_seconds
        # It began to be quiet at some time since the sweep before.
        quiet_seconds = now_seconds - self.quiet_since
        if call is None:
            kept_seconds = self._reader.kept_seconds - KEPT_MARGIN_SECONDS
            if quiet_seconds >= limits.keep_alive_seconds or quiet_seconds + every_seconds >= kept_seconds:
                self.drop()
        elif call.has_head:
            own_seconds = None if call.timeouts is None else call.timeouts.idle_seconds
            if quiet_seconds >= (limits.idle_seconds if own_seconds is None else own_seconds):
                self._fail(call, UpstreamTimeout("its answer stopped coming"))
        else:
            own_seconds = None if call.timeouts is None else call.timeouts.first_byte_seconds
            if quiet_seconds >= (limits.first_byte_seconds if own_seconds is None else own_seconds):
                self._fail(call, UpstreamTimeout("it did not begin to answer"))

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(_WRITE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        call, reader = self.call, self._reader
        if call is None:
            # Nobody asked: a farewell at best, somebody else's answer at worst.
            self.transport.abort()
            return
        if self.call is None or self.call.has_head:
            # A head that comes byte by byte does not put off the first-byte time-out.
            self.quiet_since = 0.0
        try:
            body = reader.feed(data)
        except BadResponse as bad:
            self._fail(call, _cut(call, str(bad)))
            return
        receiver = call.receiver
        if not call.has_head:
            if reader.framing is None:
                return
            call.answered(reader.status)
            if self.call is not call:
                return
            receiver.response_head(reader.status, reader.headers, reader.framing, more=bool(body) or reader.complete)
            if self.call is not call:
                return
        if body:
            receiver.response_data(body, more=reader.complete)
            if self.call is not call:
                return
        if reader.complete:
            self._release(call)

    def eof_received(self) -> None:
        # Over TLS uvloop calls this only for an end that TLS was told (close_notify); a connection that just ends may
        # have been cut by anybody on the way, and is lost.
        call = self.call
        if call is None:
            return
        try:
            self._reader.feed_eof()
        except BadResponse as bad:
            self._lose(call, str(bad))
        else:
            self._release(call)

    def connection_lost(self, error: Exception | None) -> None:
        self._origin.lost(self)
        self._reader.close()
        call = self.call
        if call is not None:
            self._lose(call, reason_of(error) if error is not None else "it closed the connection")

    def pause_writing(self) -> None:
        self.is_write_paused = True
        if self.call is not None and self.call.is_sending:
            self.call.receiver.pause_body()

    def resume_writing(self) -> None:
        self.is_write_paused = False
        self.quiet_since = 0.0
        if self.call is not None and self.call.is_sending:
            self.call.receiver.resume_body()

    def _release(self, call: UpstreamCall) -> None:
        """The answer is complete: wait for another call, if nothing stands against it."""
        transport, reader = self.transport, self._reader
        receiver = call.receiver
        self.call = None
        call.finish()
        reader.close()
        if not reader.is_reusable or call.is_cut or transport.is_closing() or transport.get_write_buffer_size():
            transport.abort()
        else:
            if call.is_paused:
                transport.resume_reading()
            self.is_used = True
            self.quiet_since = 0.0
            if not self._origin.keep(self):
                transport.abort()
        receiver.response_end()

    def _lose(self, call: UpstreamCall, text: str) -> None:
        self.drop()
        if self.is_used and not self._reader.seen and call.may_repeat():
            call.repeat()
        else:
            call.fail(_cut(call, text))

    def _fail(self, call: UpstreamCall, error: UpstreamError) -> None:
        self.drop()
        call.fail(error)


def _cut(call: UpstreamCall, text: str) -> UpstreamError:
    return UpstreamBroken(text) if call.has_head else UpstreamUnreachable(text)
