"""The upstream's answer on its way to the client, piece by piece: to the client first, then to whoever reads along.

An AnswerRelay is the receiver of the call to the upstream (http1/upstream); the interception that it belongs to tells
the client what goes wrong. No step raises into whoever called back, so each has its `try`: a decorator would cost a
call for each.
"""

import logging
from typing import TYPE_CHECKING

from bridged.head_lines import response_lines
from bridged.http1.answer_framing import Framing
from bridged.http1.exchange import Exchange
from bridged.http1.response_head import BodyFraming
from bridged.http1.upstream import UpstreamError
from bridged.http_types import Tap, UpstreamBroken, UpstreamTimeout
from bridged.model import Headers, Refused
from bridged.sse import StreamEnd

if TYPE_CHECKING:
    from bridged.bridge import Bridge
    from bridged.interception import Interception

log = logging.getLogger(__name__)

# Looking a member up costs as much as a call.
_CHUNKED = Framing.CHUNKED
_UPSTREAM_NO_BODY = BodyFraming.NONE
_FRAMING = {
    BodyFraming.NONE: Framing.NONE,
    BodyFraming.LENGTH: Framing.LENGTH,
    BodyFraming.CHUNKED: Framing.CHUNKED,
    BodyFraming.CLOSE: Framing.CHUNKED,
}
# RFC 9110, 15.4: those that a client would follow.
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class AnswerRelay:
    """One answer. `stream_end` follows an event stream, None for any other answer."""

    __slots__ = ("_bridge", "_exchange", "_interception", "_tap", "sent_bytes", "stream_end")

    def __init__(self, interception: "Interception", bridge: "Bridge", exchange: Exchange) -> None:
        self._interception = interception
        self._bridge = bridge
        self._exchange = exchange
        self._tap: Tap | None = None
        self.stream_end: StreamEnd | None = None
        self.sent_bytes = 0

    def response_head(self, status: int, headers: Headers, body: BodyFraming, *, more: bool) -> None:
        """Status and headers go to the client."""
        interception = self._interception
        try:
            if status in _REDIRECTS:
                # Not followed, and not handed on either: the client would take its token wherever the upstream says.
                raise Refused(
                    "UPSTREAM_UNREACHABLE",
                    f"the upstream answered with a redirect ({status}): an administrator may correct the base URL",
                )
            framing = _FRAMING[body]
            # A length that stands beside another framing does not count (RFC 9112, 6.3), nor does one in a 204.
            lines, is_stream, length_bytes = response_lines(
                headers,
                interception_id=interception.interception_id,
                date=self._bridge.date_line(),
                keeps_length=framing is not _CHUNKED and status != 204,
            )
            if is_stream and body is not _UPSTREAM_NO_BODY:
                self.stream_end = StreamEnd()
                framing = _CHUNKED
            interception.answer_begins(status)
            self._tap = self._bridge.tap_for(interception)
            self._exchange.send_head(status, lines, body=framing, length_bytes=length_bytes, more=more)
        except Exception as failure:
            interception.fail(failure)

    def response_data(self, data: bytes, *, more: bool) -> None:
        """Some of the body."""
        try:
            self._exchange.send(data, more=more)
            self.sent_bytes += len(data)
            if self.stream_end is not None:
                self.stream_end.feed(data)
            if self._tap is not None:
                self._feed_tap(self._tap, data)
        except Exception as failure:
            self._interception.fail(failure)

    def _feed_tap(self, tap: Tap, data: bytes) -> None:
        try:
            tap.feed(data)
        except Exception:
            facts = {"interception_id": self._interception.interception_id}
            log.exception("a tap failed and was taken away", extra=facts)
            self._tap = None

    def response_end(self) -> None:
        """The answer is complete."""
        try:
            if self.stream_end is not None and self.stream_end.is_open:
                # A stream that ends with its connection has no other mark of its end than that an event is whole.
                raise self._failed("UPSTREAM_UNREACHABLE", "broke off", "answer broke off")
            self._exchange.finish()
            self._interception.answer_ends()
        except Exception as failure:
            self._interception.fail(failure)

    def response_failed(self, error: UpstreamError) -> None:
        """There is no answer, or no rest of it."""
        try:
            raise self._refused(error)
        except Exception as failure:
            self._interception.fail(failure)

    def pause_body(self) -> None:
        """The upstream reads slowly."""
        try:
            self._exchange.pause_body()
        except Exception as failure:
            self._interception.fail(failure)

    def resume_body(self) -> None:
        """The upstream reads again."""
        try:
            self._exchange.resume_body()
        except Exception as failure:
            self._interception.fail(failure)

    def _refused(self, error: UpstreamError) -> Refused:
        if isinstance(error, UpstreamTimeout):
            return self._failed("UPSTREAM_TIMEOUT", "did not answer in time", "answer stopped coming")
        if isinstance(error, UpstreamBroken):
            return self._failed("UPSTREAM_UNREACHABLE", "broke off", "answer broke off")
        self._bridge.metrics.upstream_failed("UPSTREAM_UNREACHABLE")
        return Refused("UPSTREAM_UNREACHABLE", f"the upstream could not be reached ({error})")

    def _failed(self, reason: str, before: str, after: str) -> Refused:
        self._bridge.metrics.upstream_failed(reason)
        said = f"the upstream's {after}" if self._exchange.head_sent else f"the upstream {before}"
        return Refused(reason, f"{said}: try again")
