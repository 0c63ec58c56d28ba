"""What is gathered about one interception while it lasts, for its report at the end. Nothing here raises.

The parts that read bodies are taps (bridged/taps); one that fails is taken away, and the interception goes on.
"""

import logging
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from bridged.clients import client_name, session_id
from bridged.endings import STOPPED, ending_of
from bridged.model import DialectName, Headers, RequestFacts, Resolution, header_values
from bridged.records import NO_ANSWER, NO_TURN, AnswerRecords, Report
from bridged.routes import RouteMatch
from bridged.taps import read_turn
from bridged.taps.answer_tap import AnswerTap

if TYPE_CHECKING:
    from bridged.interception import Interception

log = logging.getLogger(__name__)

_AGENT_CHARACTERS = 512
_ID_CHARACTERS = 256
# Where upstreams put their id of a request; the first that is there.
_REQUEST_ID_HEADERS = frozenset({"x-request-id", "request-id", "x-amzn-requestid", "apim-request-id"})


class TapMaker(Protocol):
    """Makes a tap for an answer; None where there is nothing to read (taps.answer_tap)."""

    def __call__(self, dialect: DialectName, operation: str, *, status: int, headers: Headers) -> AnswerTap | None: ...


class Recording:
    """Of one interception. `client` is its name, for the question to credentiald."""

    __slots__ = (
        "_first_byte_seconds", "_headers", "_interception_id", "_make_tap", "_match", "_status", "_tap", "_turn",
        "_upstream_request_id", "answer", "client",
    )  # fmt: skip

    def __init__(self, interception_id: str, match: RouteMatch, headers: Headers, make_tap: TapMaker) -> None:
        self._interception_id = interception_id
        self._match = match
        self._headers = headers
        self._make_tap = make_tap
        self._turn = NO_TURN
        self._tap: AnswerTap | None = None
        self._first_byte_seconds: float | None = None
        self._status: int | None = None
        self._upstream_request_id = ""
        self.answer = NO_ANSWER
        self.client = client_name(headers)

    def request_sent(self, body: bytes, *, max_bytes: int) -> None:
        """Read what the request says of its conversation; it is on its way already."""
        try:
            match = self._match
            self._turn = read_turn(
                match.dialect, match.operation, headers=self._headers, body=body, max_bytes=max_bytes
            )
        except Exception:
            self._failed()

    def answer_begins(self, status: int, headers: Headers, now_seconds: float) -> Callable[[bytes], None] | None:
        """The head of an upstream's answer, as the client gets it. What takes the pieces of its body, if anything."""
        self._first_byte_seconds = now_seconds
        self._status = status
        for name, value in headers:
            if name.lower() in _REQUEST_ID_HEADERS:
                self._upstream_request_id = value[:_ID_CHARACTERS]
                break
        try:
            match = self._match
            self._tap = self._make_tap(match.dialect, match.operation, status=status, headers=headers)
            return None if self._tap is None else self._tap.feed
        except Exception:
            self._failed()
            return None

    def tap_failed(self) -> None:
        """The tap raised: it gets no more, and nothing that it saw counts."""
        self._tap = None
        self._failed()

    def end(self, *, whole: bool) -> AnswerRecords:
        """What was in the answer. `whole`: it came to its end."""
        tap, self._tap = self._tap, None
        if tap is not None:
            try:
                self.answer = tap.end(whole=whole)
            except Exception:
                self._failed()
        return self.answer

    def report(self, interception: "Interception", resolution: Resolution, now_seconds: float) -> Report:
        """The report of the interception, which has ended."""
        facts: RequestFacts = interception.facts
        started_seconds, first_byte_seconds = interception.started_seconds, self._first_byte_seconds
        return Report(
            receipt=resolution.receipt,
            client=self.client,
            user_agent=next(iter(header_values(self._headers, "user-agent")), "")[:_AGENT_CHARACTERS],
            session_id=session_id(self.client, self._headers, in_body=self._turn.session_id) or "",
            operation=self._match.operation,
            model=facts.model,
            upstream_model=resolution.upstream_model,
            streaming=facts.stream,
            turn=self._turn,
            answer=self.answer,
            ending=ending_of(
                STOPPED if interception.stopped else interception.error,
                upstream_status=self._status,
                answer=self.answer,
            ),
            http_status=interception.status or 0,
            upstream_request_id=self._upstream_request_id,
            end_micros=time.time_ns() // 1000,
            duration_micros=int((now_seconds - started_seconds) * 1_000_000),
            first_byte_micros=None
            if first_byte_seconds is None
            else int((first_byte_seconds - started_seconds) * 1_000_000),
        )

    def _failed(self) -> None:
        facts = {"interception_id": self._interception_id}
        log.error("a tap failed and was taken away", exc_info=sys.exception(), extra=facts)
