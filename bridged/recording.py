"""What is gathered about one interception while it lasts, for its report at the end. Nothing here raises.

The parts that read bodies are taps (bridged/taps); one that fails is taken away, and the interception goes on.
"""

import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from bridged.clients import CLIENTS_WITH_SESSIONS, HEADER_NAMES, UNKNOWN, client_of_agent, client_of_headers, session_id
from bridged.conversation import AnyConversation, Conversation, ShortConversation
from bridged.endings import STOPPED, ending_of
from bridged.http1.fields import may_hold_secret
from bridged.model import DialectName, HeaderNames, Headers, Resolution, named_values
from bridged.quoted_keys import without_keys
from bridged.records import NO_ANSWER, NO_TURN, AnswerRecords, Ending, Report, Trouble, Turn
from bridged.report_messages import NO_PROMPT, NONE, Facts, Row, new_row
from bridged.routes import RouteMatch
from bridged.taps import USUAL, answer_tap, read_turn
from bridged.taps.answer_tap import AnswerTap
from bridged.taps.turns import turn_of, turn_of_parts, turn_of_short
from daemonkit.secret import masked

if TYPE_CHECKING:
    from bridged.interception import Interception

log = logging.getLogger(__name__)

# An answer of Bedrock may be a stream of another kind.
_BEDROCK = DialectName.BEDROCK
# Of an answer that is no stream; as long as that, it would be held for long.
_MOST_HELD_BYTES = 256 * 1024
_AGENT_CHARACTERS = 512
_OK = 200
_REMEMBERED_AGENTS = 256
_MESSAGE_CHARACTERS = 1024
_REQUEST_HEADERS = HeaderNames("content-encoding", *HEADER_NAMES)
# Of an upstream's answer: status, headers, whether its body is not compressed, and the upstream's id of the request.
_Head = tuple[int | None, Headers, bool, str]
_NO_HEAD: _Head = (None, (), True, "")
# When an interception ended, by the clock of its other times and since 1970.
End = tuple[float, float]
_NO_END: End = (0.0, 0.0)


class TapMaker(Protocol):
    """Makes a tap for an answer; None where there is nothing to read (taps.answer_tap)."""

    def __call__(self, dialect: DialectName, operation: str, *, status: int, headers: Headers) -> AnswerTap | None: ...


class Recording(msgspec.Struct):
    """Of one interception. `client` is its name, for the question to credentiald. `held_bytes` are those of its answer.

    Streams are read as they come, everything else afterwards. Made by `new_recording`.
    """

    _interception_id: str
    _match: RouteMatch
    _make_tap: TapMaker
    _named: dict[str, str]
    _agent: str
    client: str
    _turn: Turn
    held_bytes: int = 0
    _has_failed: bool = False
    # Of an answer either a tap has read what came so far, or its pieces are held; neither after a tap has failed.
    _tap: AnswerTap | None = None
    _pieces: list[bytes] | None = None
    _head: _Head | None = None
    _answer: AnswerRecords | None = None

    # Nothing of what was said: a Struct would print it all.
    __repr__ = object.__repr__

    def takes_turn(self, conversation: AnyConversation | None) -> bool:
        """Whether all that a request says of its conversation is at hand; it is read then."""
        if not isinstance(conversation, ShortConversation):
            return False
        try:
            turn = turn_of_short(self._match.dialect, conversation)
        except Exception:
            self._failed()
            return True
        if turn is None:
            return False
        self._turn = turn
        return True

    def read_turn(self, conversation: AnyConversation | None, body: bytes, max_bytes: int) -> None:
        """Read what the request says of its conversation, from its body where that says more."""
        try:
            dialect = self._match.dialect
            turn: Turn | None = None
            if isinstance(conversation, Conversation):
                turn = turn_of(dialect, conversation)
            elif conversation is not None:
                turn = turn_of_parts(dialect, conversation)
            if turn is None:
                encoding = self._named.get("content-encoding", "")
                turn = read_turn(dialect, body, content_encoding=encoding, max_bytes=max_bytes)
            self._turn = turn
        except Exception:
            self._failed()

    def answer_begins(
        self, status: int, headers: Headers, is_stream: bool, is_plain: bool, request_id: str, length_bytes: int | None
    ) -> Callable[[bytes], None] | None:
        """The head of an upstream's answer, as the client gets it. What takes the pieces of its body, if anything.

        `length_bytes` is how long the body will be at most, None where that is not known.
        """
        self._head = (status, headers, is_plain, request_id)
        if not is_stream and self._match.dialect is not _BEDROCK:
            pieces = self._pieces = []
            if length_bytes is None or length_bytes > _MOST_HELD_BYTES:
                return self._hold
            # Nothing has to be counted.
            self.held_bytes = length_bytes
            return pieces.append
        self._begin_tap()
        return None if self._tap is None else self._tap.feed

    def tap_failed(self) -> None:
        """What took the pieces raised: it gets no more, and nothing that it saw counts."""
        self._tap = self._pieces = None
        self.held_bytes = 0
        self._failed()

    def report(self, interception: "Interception", resolution: Resolution, end: End) -> Report:
        """The report of the interception, which has ended."""
        return self._report(interception, resolution, end, self.answer(whole=not interception.error))

    def usual_row(self, interception: "Interception", resolution: Resolution, end: End) -> Row | None:
        """The report of an interception that has ended as nearly all do, as it is sent; None for any other.

        It says what `report` would (report_messages.row_of), for a third of the work: a whole answer, with its usage
        and nothing else that is recorded. It stands in for `answer_tap` and no other. ValueError for what is no text.
        """
        pieces, usual, head = self._pieces, USUAL.get(self._match.operation), self._head
        if (
            not pieces
            or usual is None
            or head is None
            or head[0] != _OK
            or not head[2]
            or self._make_tap is not answer_tap
            or self._answer is not None
            or self._has_failed
            or interception.error
            or interception.stopped
            or interception.attempts
        ):
            return None
        try:
            answer = usual(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        except Exception:
            # The tap is asked next, and says it if it fails as well.
            log.exception("an answer could not be read at once")
            return None
        if answer is None:
            return None
        turn = self._turn
        response_id, new, out, read, written, metadata = answer
        prompt, prompt_bytes = NO_PROMPT if turn.prompt is None else (turn.prompt, turn.prompt_bytes)
        first_byte_seconds = interception.first_byte_seconds
        ended_seconds, ended_clock_seconds = end
        return new_row(
            self._facts(interception, resolution),
            (
                resolution.receipt,
                int(ended_clock_seconds * 1_000_000),
                interception.status or _OK,
                int((ended_seconds - interception.started_seconds) * 1_000_000),
                NONE if first_byte_seconds is None else int(first_byte_seconds * 1_000_000),
                head[3],
                response_id,
                new,
                out,
                read,
                written,
                metadata,
                prompt,
                prompt_bytes,
            ),
        )

    def report_so_far(self, interception: "Interception", resolution: Resolution) -> Report:
        """Likewise of one that goes on: nothing of its answer, and no end that means anything."""
        return self._report(interception, resolution, _NO_END, NO_ANSWER)

    def _report(self, interception: "Interception", resolution: Resolution, end: End, answer: AnswerRecords) -> Report:
        status, _, _, request_id = self._head or _NO_HEAD
        ended_seconds, ended_clock_seconds = end
        reason = STOPPED if interception.stopped else interception.error
        ending = ending_of(reason, upstream_status=status, answer=answer)
        if ending.message or answer.error_type:
            ending = _without_keys(ending, interception, resolution)
        first_byte_seconds = interception.first_byte_seconds
        client, agent, session, _, operation, model, upstream_model, streaming = self._facts(interception, resolution)
        return Report(
            self._interception_id,
            resolution.receipt,
            client,
            agent,
            session,
            operation,
            model,
            upstream_model,
            streaming,
            self._turn,
            answer,
            ending,
            # Of an answer that was broken off the client has the head.
            interception.status or status or 0,
            request_id,
            int(ended_clock_seconds * 1_000_000),
            int((ended_seconds - interception.started_seconds) * 1_000_000),
            None if first_byte_seconds is None else int(first_byte_seconds * 1_000_000),
            interception.attempts,
        )

    def _facts(self, interception: "Interception", resolution: Resolution) -> Facts:
        """What its request says."""
        asked, turn, client = interception.facts, self._turn, self.client
        session = session_id(client, self._named, in_body=turn.session_id) if client in CLIENTS_WITH_SESSIONS else None
        return (
            client,
            self._agent,
            masked(session) if session else "",
            turn.correlating_tool_call_id,
            self._match.operation,
            asked.model or turn.model,
            resolution.upstream_model,
            asked.stream or turn.streaming,
        )

    def _hold(self, data: bytes) -> None:
        """A piece of an answer that is no stream; one that becomes long is read as it comes."""
        if self._pieces is None:
            if self._tap is not None:
                self._tap.feed(data)
            return
        self._pieces.append(data)
        self.held_bytes += len(data)
        if self.held_bytes > _MOST_HELD_BYTES:
            self._begin_tap()

    def _begin_tap(self) -> None:
        """Make the tap, and give it what was held for it."""
        pieces, self._pieces, self.held_bytes = self._pieces, None, 0
        try:
            match, (status, headers, is_plain, request_id) = self._match, self._head or _NO_HEAD
            tap = self._make_tap(match.dialect, match.operation, status=status or 0, headers=headers)
            # They are not needed any more, and streams are long.
            self._head = (status, (), is_plain, request_id)
            if tap is not None:
                for piece in pieces or ():
                    tap.feed(piece)
            self._tap = tap
        except Exception:
            self._failed()

    def answer(self, *, whole: bool) -> AnswerRecords:
        """What was in the answer, which has ended; `whole`: it came to its end."""
        if self._answer is None:
            self._answer = self._read_answer(whole=whole)
            if self._has_failed:
                self._answer = msgspec.structs.replace(self._answer, troubles=self._answer.troubles | {Trouble.FAILED})
        return self._answer

    def _read_answer(self, *, whole: bool) -> AnswerRecords:
        if self._pieces is not None:
            self._begin_tap()
        tap, self._tap = self._tap, None
        if tap is None:
            return NO_ANSWER
        try:
            return tap.end(whole=whole)
        except Exception:
            self._failed()
            return NO_ANSWER

    def _failed(self) -> None:
        self._has_failed = True
        facts = {"interception_id": self._interception_id}
        log.error("a tap failed and was taken away", exc_info=sys.exception(), extra=facts)


def new_recording(interception_id: str, match: RouteMatch, headers: Headers, make_tap: TapMaker) -> Recording:
    """Of an interception that begins, whose request has these headers."""
    named = named_values(headers, _REQUEST_HEADERS)
    agent, client = _AGENTS[named.get("user-agent", "")]
    if not client:
        client = client_of_headers(named) if len(named) > 1 or not agent else UNKNOWN
    return Recording(interception_id, match, make_tap, named, agent, client, NO_TURN)


class _Agents(dict[str, tuple[str, str]]):
    """User agents as they are recorded, and the clients that they name: asked with every request, and remembered.

    Clients are configured by hand, and a token may stand anywhere: one that may have a secret in it is not remembered.
    """

    def __missing__(self, agent: str) -> tuple[str, str]:
        found = masked(agent)[:_AGENT_CHARACTERS], client_of_agent(agent)
        if len(agent) <= _AGENT_CHARACTERS and not may_hold_secret("user-agent", agent):
            if len(self) >= _REMEMBERED_AGENTS:
                self.clear()
            self[agent] = found
        return found


_AGENTS = _Agents()


def _without_keys(ending: Ending, interception: "Interception", resolution: Resolution) -> Ending:
    reason, message = (without_keys(text, resolution, interception.client) for text in (ending.reason, ending.message))
    return ending._replace(reason=reason, message=message[:_MESSAGE_CHARACTERS])
