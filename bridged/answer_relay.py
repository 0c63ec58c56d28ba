"""The upstream's answer on its way to the client, piece by piece: to the client first, then to the tap.

Short pieces of a stream are shown to the tap by the kilobyte.

An AnswerRelay is the receiver of the call to the upstream (http1/upstream); the interception that it belongs to tells
the client what goes wrong. No step raises into whoever called back, so each has its `try`: a decorator would cost a
call for each.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from bridged.head_lines import response_lines
from bridged.http1.answer_framing import Framing
from bridged.http1.exchange import Exchange
from bridged.http1.response_head import BodyFraming
from bridged.http1.upstream import UpstreamError
from bridged.http_types import UpstreamBroken, UpstreamNotAllowed, UpstreamTimeout
from bridged.model import Headers, Refused, Source
from bridged.sse import StreamEnd
from bridged.taps.openai_chat import USAGE_MARK
from bridged.taps.scanner import TOGETHER_BYTES
from bridged.taps.usage_chunk import UsageChunkFilter

if TYPE_CHECKING:
    from bridged.bridge import Bridge
    from bridged.interception import Interception

log = logging.getLogger(__name__)

# Looking a member up costs as much as a call.
_COUNTED, _CHUNKED, _NO_BODY = Framing
_UPSTREAM_NO_BODY, _UPSTREAM_COUNTED = BodyFraming.NONE, BodyFraming.LENGTH
# RFC 9110, 15.4: those that a client would follow.
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OK, _FIRST_REDIRECT, _UNAUTHORIZED = 200, 300, 401
_KEYS_OF_OURS = frozenset({Source.CENTRAL_KEY, Source.AMBIENT})
_KEY_REFUSED = "UPSTREAM_KEY_REFUSED"
_BLANK = b"\n\n"


class AnswerRelay:
    """One answer. `stream_end` follows an event stream, None for any other answer.

    `usage_filter`, where the bridge asked for usage that the client did not ask for, takes that out of a good stream.
    """

    __slots__ = (
        "_bridge", "_exchange", "_interception", "_is_between", "_show_at_bytes", "_tap", "_untapped", "sent_bytes",
        "stream_end", "usage_filter",
    )  # fmt: skip

    def __init__(self, interception: "Interception", bridge: "Bridge", exchange: Exchange) -> None:
        self._interception = interception
        self._bridge = bridge
        self._exchange = exchange
        self._tap: Callable[[bytes], None] | None = None
        # What the tap has not seen yet of a stream, and with how many bytes sent it is shown to it.
        self._untapped: list[bytes] = []
        self._show_at_bytes = TOGETHER_BYTES
        # In a stream, behind a whole event: nothing stands open, and nothing is held back.
        self._is_between = False
        self.usage_filter: UsageChunkFilter | None = None
        self.stream_end: StreamEnd | None = None
        self.sent_bytes = 0

    def response_head(self, status: int, headers: Headers, body: BodyFraming, *, more: bool) -> None:
        """Status and headers go to the client."""
        interception = self._interception
        try:
            if status >= _FIRST_REDIRECT:
                self._judge(status)
            framing = _COUNTED if body is _UPSTREAM_COUNTED else _NO_BODY if body is _UPSTREAM_NO_BODY else _CHUNKED
            # A length that stands beside another framing does not count (RFC 9112, 6.3), nor does one in a 204.
            lines, is_stream, length_bytes, is_plain, request_id = response_lines(
                headers,
                interception_id=interception.interception_id,
                date=self._bridge.date_line(),
                keeps_length=framing is not _CHUNKED and status != 204,
            )
            if is_stream and body is not _UPSTREAM_NO_BODY:
                self.stream_end = StreamEnd()
                framing = _CHUNKED
            if self.usage_filter is not None and not (is_stream and status == _OK and is_plain):
                self.usage_filter = None
            self._tap = interception.answer_begins(status, headers, is_stream, is_plain, request_id, length_bytes)
            self._exchange.send_head(status, lines, body=framing, length_bytes=length_bytes, more=more)
        except Exception as failure:
            interception.fail(failure)

    def _judge(self, status: int) -> None:
        """Refuse what a client must not take for an answer to itself."""
        if status in _REDIRECTS:
            self._interception.upstream_answered(status)
            # Not followed, and not handed on either: the client would take its token wherever the upstream says.
            raise Refused(
                "UPSTREAM_UNREACHABLE",
                f"the upstream answered with a redirect ({status}): an administrator may correct the base URL",
            )
        resolution = self._interception.resolution
        if status == _UNAUTHORIZED and resolution is not None and resolution.source in _KEYS_OF_OURS:
            # The client would throw its own token away.
            self._interception.upstream_answered(status)
            self._bridge.metrics.upstream_failed(_KEY_REFUSED)
            raise Refused(
                _KEY_REFUSED,
                "the upstream refused the key of this provider: an administrator sets another one (`credentiald keys`)",
            )

    def response_data(self, data: bytes, *, more: bool) -> None:
        """Some of the body."""
        try:
            usage_filter = self.usage_filter
            if (
                self._is_between
                and data[-2:] == _BLANK
                # To look for bytes in a short text there is nothing faster.
                and (usage_filter is None or not data.partition(USAGE_MARK)[1])
            ):
                # Whole events without usage, as nearly every piece of a stream is: nothing stands open behind them.
                sent = data
                if usage_filter is not None and usage_filter.null is not None:
                    sent = data.replace(usage_filter.null, b"")
                    self._show_at_bytes -= len(data) - len(sent)
                self._exchange.send(sent, more=more)
                self.sent_bytes += len(sent)
            elif self.stream_end is not None:
                self._send_cut(data, self.stream_end, more=more)
            else:
                self._exchange.send(data, more=more)
                self.sent_bytes += len(data)
            tap = self._tap
            if tap is not None:
                if self.stream_end is None:
                    try:
                        tap(data)
                    except Exception:
                        self._tap_failed()
                else:
                    self._untapped.append(data)
                    if self.sent_bytes >= self._show_at_bytes:
                        self._show_some(tap)
        except Exception as failure:
            self._interception.fail(failure)

    def _send_cut(self, data: bytes, stream_end: StreamEnd, *, more: bool) -> None:
        """A piece of a stream that may begin or end anywhere, and have anything in it."""
        usage_filter = self.usage_filter
        sent = data if usage_filter is None else usage_filter.feed(data)
        self._send(sent, more=more)
        self._is_between = stream_end.is_between and (usage_filter is None or usage_filter.is_between)
        # What is held back waits for the tap, too; and each piece is a byte longer, so that there are not too many.
        self._show_at_bytes -= len(data) - len(sent) + 1

    def _show_some(self, tap: Callable[[bytes], None]) -> None:
        """Show what was put together to the tap, and a long piece by itself."""
        pieces = self._untapped
        last = pieces.pop()
        self._show_at_bytes = self.sent_bytes + TOGETHER_BYTES
        try:
            if pieces:
                tap(b"".join(pieces))
                pieces.clear()
            if len(last) >= TOGETHER_BYTES:
                tap(last)
            else:
                pieces.append(last)
                self._show_at_bytes -= len(last)
        except Exception:
            self._tap_failed()

    def show_rest(self) -> None:
        """What the tap has not seen yet is shown to it: the answer is over."""
        tap, pieces = self._tap, self._untapped
        if tap is None or not pieces:
            return
        self._tap, self._untapped = None, []
        try:
            tap(b"".join(pieces))
        except Exception:
            self._tap_failed()

    def _tap_failed(self) -> None:
        self._tap = None
        self._untapped.clear()
        self._interception.tap_failed()

    def _send(self, data: bytes, *, more: bool) -> None:
        self._exchange.send(data, more=more)
        self.sent_bytes += len(data)
        if self.stream_end is not None:
            self.stream_end.feed(data)

    def send_held(self) -> None:
        """What was held back goes out as well, before the end of whatever kind."""
        if self.usage_filter is not None and (held := self.usage_filter.end()):
            self._send(held, more=True)

    def response_end(self) -> None:
        """The answer is complete."""
        try:
            if self.usage_filter is not None:
                self.send_held()
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
        if isinstance(error, UpstreamNotAllowed):
            # No trouble of the upstream's: it was not asked.
            return Refused("UPSTREAM_NOT_ALLOWED", f"the bridge may not send requests to this upstream: {error}")
        self._bridge.metrics.upstream_failed("UPSTREAM_UNREACHABLE")
        self._interception.upstream_failed("UPSTREAM_UNREACHABLE")
        return Refused("UPSTREAM_UNREACHABLE", f"the upstream could not be reached ({error})")

    def _failed(self, reason: str, before: str, after: str) -> Refused:
        self._bridge.metrics.upstream_failed(reason)
        self._interception.upstream_failed(reason)
        said = f"the upstream's {after}" if self._exchange.head_sent else f"the upstream {before}"
        return Refused(reason, f"{said}: try again")
