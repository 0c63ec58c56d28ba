"""The answer to a request in which the bridge asked for usage, between the call to the upstream and the AnswerRelay.

Some upstreams, and versions of Azure's API before 2024-08, take no `stream_options`. What they answer is held back, the
request goes out again as the client made it, and the client hears of the second answer only. Only a 400 or 422 is held
back, within a bound; any other answer goes to the relay without a stop here.

An upstream is not asked again about a model once it took a request without the edit that it had refused with it. The
words alone do not say so: clients can make upstreams repeat words.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from bridged.answer_relay import AnswerRelay
from bridged.http1.response_head import BodyFraming
from bridged.http1.upstream import UpstreamError
from bridged.model import Headers, header_values
from bridged.taps.content_coding import codings_of, decoded_body

if TYPE_CHECKING:
    from bridged.interception import Interception

log = logging.getLogger(__name__)

MAX_HELD_BYTES = 64 * 1024
MAX_REMEMBERED = 1024
_REFUSALS = frozenset({400, 422})
_WORDS = (b"stream_options", b"include_usage")
_FIRST_REDIRECT = 300


class UpstreamsNotToAsk:
    """Upstreams that take no `stream_options`, as far as this process knows; the oldest is forgotten.

    By base URL and model: behind another gateway each model may be somewhere else.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], None] = {}

    def has(self, base_url: str, model: str) -> bool:
        """Whether this one is not to be asked for usage."""
        return (base_url, model) in self._known

    def add(self, base_url: str, model: str, *, provider: str) -> None:
        """Ask this one for usage no more."""
        if self.has(base_url, model):
            return
        if len(self._known) >= MAX_REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[base_url, model] = None
        log.warning(
            "an upstream takes no stream_options: streams of clients that do not ask for usage are recorded without",
            extra={"provider": provider, "model": model},
        )


class AnswerToAsking:
    """Both answers: the one to the request that asks, and, if that was refused for it, the one to the client's own.

    `body` is the request's as the client made it. `usage_refused` is called when the second answer shows that the
    first was about the edit.
    """

    __slots__ = ("_body", "_head", "_held", "_interception", "_is_second", "_relay", "_usage_refused")

    def __init__(
        self, interception: "Interception", relay: AnswerRelay, body: bytes, usage_refused: Callable[[], None]
    ) -> None:
        self._interception = interception
        self._relay = relay
        self._body = body
        self._usage_refused = usage_refused
        self._is_second = False
        self._head: tuple[int, Headers, BodyFraming] | None = None
        self._held = bytearray()

    def response_head(self, status: int, headers: Headers, body: BodyFraming, *, more: bool) -> None:
        """Status and headers of the upstream."""
        if status in _REFUSALS and not self._is_second:
            self._head = (status, headers, body)
            return
        self._body = b""
        if self._is_second and status < _FIRST_REDIRECT:
            self._usage_refused()
        self._let_go()
        self._relay.response_head(status, headers, body, more=more)

    def response_data(self, data: bytes, *, more: bool) -> None:
        """Some of the body: of one that is held back, or the rest of the read that brought the head."""
        if self._head is None:
            self._relay.response_data(data, more=more)
            return
        self._held += data
        if len(self._held) > MAX_HELD_BYTES:
            self._pass_on(more=more)

    def response_end(self) -> None:
        """The upstream's answer is complete."""
        if self._head is None:
            self._relay.response_end()
        elif self._is_about_asking(self._head[1]):
            self._head = None
            self._held.clear()
            self._is_second = True
            self._interception.send_again(self._body, self)
        else:
            self._pass_on(more=True)
            self._relay.response_end()

    def response_failed(self, error: UpstreamError) -> None:
        """There is no answer, or no rest of it."""
        if self._head is not None:
            self._pass_on(more=False)
        self._relay.response_failed(error)

    def pause_body(self) -> None:
        """The upstream reads slowly."""
        self._relay.pause_body()

    def resume_body(self) -> None:
        """The upstream reads again."""
        self._relay.resume_body()

    def _let_go(self) -> None:
        """The rest of the answer goes to the relay without a stop here."""
        self._interception.answer_goes_to(self._relay)

    def _pass_on(self, *, more: bool) -> None:
        """It is about something else, or too long: what was held back goes on its way."""
        if self._head is None:
            return
        status, headers, framing = self._head
        held = bytes(self._held)
        self._head, self._body = None, b""
        self._held.clear()
        self._let_go()
        self._relay.response_head(status, headers, framing, more=bool(held) or more)
        if held:
            self._relay.response_data(held, more=more)

    def _is_about_asking(self, headers: Headers) -> bool:
        codings = codings_of(", ".join(header_values(headers, "content-encoding")))
        plain = decoded_body(bytes(self._held), codings, max_bytes=4 * MAX_HELD_BYTES)
        return plain is not None and any(word in plain for word in _WORDS)
