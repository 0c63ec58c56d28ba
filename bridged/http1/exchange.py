"""One request and its answer, as the two sides of this room see each other. Callbacks, no task, no future.

The service gets an Exchange for each request and gives a Carrier back. The exchange is what the carrier answers with;
the carrier is told what the client does. What holds:

- How the body is read is said once, in `begin` or later. Then exactly one of body_whole, body_end and body_failed is
  called, also for a request without a body, and none of them before `begin` has returned. A carrier that has ended its
  exchange is told nothing more.
- An answer is `send_head`, any number of `send`, `finish`. From `send_head` on nothing else can be said: a failure
  then is `abort`, which ends the connection so that what was sent cannot be taken for the whole.
- After `finish`, `abort` or client_gone every call does nothing.
- `pause` and `resume` may be called from within `send`.
"""

from collections.abc import Callable
from typing import Protocol

from bridged.http1.answer_framing import Coding, Framing, answer_head
from bridged.http1.body import IncomingBody
from bridged.http1.framing import Request
from bridged.http_types import BodyBroken, BodyTimeout, BodyTooLarge
from bridged.model import Headers

# From here on a chunk is handed to the socket in three pieces rather than copied into one.
_LARGE_BYTES = 16 * 1024
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_NOTHING, _COUNTED, _CHUNKED, _UNTIL_CLOSE = Coding


class Carrier(Protocol):
    """What stands behind one exchange. Told in the order in which things happen; must not raise."""

    def body_part(self, data: bytes) -> None:
        """Some of the body, when it is read as a stream: without chunk framing, as it arrived."""

    def body_end(self) -> None:
        """The streamed body is complete."""

    def body_whole(self, data: bytes) -> None:
        """All of the body, when it is read as a whole."""

    def body_failed(self, error: BodyTooLarge | BodyBroken | BodyTimeout) -> None:
        """The body does not come to its end. The client can still be answered."""

    def client_gone(self) -> None:
        """The client left before the answer was finished. Nothing can be sent any more."""

    def pause(self) -> None:
        """The client reads more slowly than the answer comes: send no more until `resume`."""

    def resume(self) -> None:
        """What the client had not read is on its way."""


class Service(Protocol):
    """Answers requests."""

    def begin(self, exchange: "Exchange") -> Carrier:
        """A request's head is complete. May answer at once; then its carrier is told nothing."""

    def refuse(self, reason: str, *, detail: str, target: str, headers: Headers) -> tuple[int, Headers, bytes]:
        """Status, headers with Content-Length, and body for what is no request, came too slowly, or is one too many.

        `reason` is one of errors.REFUSALS; `detail` is a sentence that quotes nothing. `target` and `headers` are what
        is known of the request: `/` and none where nothing is.
        """


class Connection(Protocol):
    """What an exchange needs of the connection that it runs on."""

    write: Callable[[bytes], None]

    def write_pieces(self, pieces: list[bytes]) -> None: ...

    def may_stay(self) -> bool:
        """Whether another request can follow on this connection, as it stands now."""

    def body_wanted(self, wanted: bool) -> None:
        """Whether the client is waited for, and may come too late."""

    def body_over(self, *, spoilt: bool) -> None:
        """Nothing more of the body is wanted: it is complete, or what comes of it is to be dropped."""

    def go_on(self) -> None:
        """Use what was held back."""

    def answered(self, *, keep_alive: bool) -> None:
        """The answer is complete."""

    def break_off(self, *, reset: bool) -> None:
        """End the connection at once, with a reset where a plain end would look like the end of a body."""


class Exchange:
    """One request and the answer to it."""

    __slots__ = (
        "_body",
        "_coding",
        "_connection",
        "_continue_owed",
        "_held",
        "_incoming",
        "_keep_alive",
        "_left_bytes",
        "_limit_bytes",
        "_paused",
        "_whole",
        "carrier",
        "head_sent",
        "request",
    )

    def __init__(
        self,
        request: Request,
        connection: Connection,
        body: bytes | None,
        incoming: IncomingBody | None,
        continue_owed: bool,
    ) -> None:
        self.request = request
        self.head_sent = False
        """Whether a byte of the answer may have left."""
        self.carrier: Carrier | None = None
        """Who is told; None before `begin` has returned, and after the end."""
        self._connection: Connection | None = connection
        # The body if it was all there with the head, else what is to come of it; and how it is wanted, once said.
        self._body = body
        self._incoming = incoming
        self._continue_owed = continue_owed
        self._whole: bool | None = None
        self._limit_bytes = 0
        self._paused = False
        # The answer
        self._coding = _NOTHING
        self._keep_alive = False
        self._left_bytes = 0
        # What was given with the word that more follows at once.
        self._held = b""

    @property
    def over(self) -> bool:
        """Whether it has ended, one way or the other."""
        return self._connection is None

    # The request's body, for the carrier

    def read_whole(self, limit_bytes: int) -> None:
        """Gather the body. A client that waits for 100 is told to go on."""
        self._want(limit_bytes, whole=True)

    def read_stream(self, limit_bytes: int) -> None:
        """Pass the body on as it arrives. A client that waits for 100 is told to go on when the body is not paused."""
        self._want(limit_bytes, whole=False)

    def pause_body(self) -> None:
        """Read no more of the body until `resume_body`."""
        self._paused = True
        if self._connection is not None and self._incoming is not None:
            self._connection.body_wanted(False)

    def resume_body(self) -> None:
        """Go on reading the body."""
        self._paused = False
        self._read_on()

    # The request's body, for the connection

    def begun(self, carrier: Carrier) -> None:
        """`begin` has returned: what was waiting for that can be told."""
        self.carrier = carrier
        if self._whole is not None:
            if self._incoming is not None:
                self._start()
            self._read_on()

    @property
    def is_reading(self) -> bool:
        """Whether what comes of the body can be taken."""
        return self._incoming is not None and self._whole is not None and not self._paused

    @property
    def arrived_bytes(self) -> int:
        """How much of a body that is not complete has come."""
        return 0 if self._incoming is None else self._incoming.arrived_bytes

    def can_be_whole_with(self, count: int) -> bool:
        """Whether the body may become complete with so many more bytes."""
        return self._incoming is None or self._whole is None or self._incoming.can_end_with(count)

    def take(self, data: bytes) -> bytes:
        """Use what belongs to the body; what comes after it."""
        incoming, carrier, connection = self._incoming, self.carrier, self._connection
        if incoming is None or carrier is None or connection is None:
            raise RuntimeError("there is no body to be read")
        try:
            piece, used = incoming.take(data)
        except (BodyBroken, BodyTooLarge) as error:
            self.spoil(error)
            return b""
        if piece:
            carrier.body_part(piece)
        # The carrier may have ended the exchange; then nobody wants the rest.
        if incoming.ended and self._connection is connection:
            self._incoming = None
            connection.body_over(spoilt=False)
            whole = incoming.gathered()
            if whole is None:
                carrier.body_end()
            else:
                carrier.body_whole(whole)
        return data[used:] if used < len(data) else b""

    def spoil(self, error: BodyTooLarge | BodyBroken | BodyTimeout) -> None:
        """The body is not to be had."""
        self._incoming = None
        if self._connection is not None and self.carrier is not None:
            self._connection.body_over(spoilt=True)
            self.carrier.body_failed(error)

    def detach(self) -> Carrier | None:
        """The connection is gone, and this exchange with it; who is to be told."""
        carrier = self.carrier
        self._leave()
        return carrier

    # The answer

    def send_head(
        self,
        status: int,
        headers: Headers | bytes,
        *,
        body: Framing,
        length_bytes: int | None = None,
        more: bool = False,
    ) -> None:
        """The answer's head, see answer_framing. ValueError if it cannot be sent; then nothing was.

        `more`, here and in `send`: another of these calls follows at once, and what is small may leave with it.
        """
        connection = self._connection
        if connection is None:
            return
        if self.head_sent:
            raise RuntimeError("an answer has one head")
        data, self._coding, self._left_bytes, self._keep_alive = answer_head(
            self.request, status, headers, body, keep_alive=connection.may_stay(), length_bytes=length_bytes
        )
        self.head_sent = True
        if more:
            self._held = data
        else:
            connection.write(data)

    def send(self, data: bytes, *, more: bool = False) -> None:
        """Some of the body. More than Content-Length said breaks the answer off."""
        connection = self._connection
        if connection is None or not (data or self._held):
            return
        coding = self._coding
        if coding is _NOTHING:
            return
        if coding is _COUNTED:
            self._left_bytes -= len(data)
            if self._left_bytes < 0:
                self.abort()
                return
        held = self._held
        if not data:
            # What was to leave with it must not wait any longer.
            if not more:
                self._held = b""
                connection.write(held)
            return
        if len(data) >= _LARGE_BYTES:
            self._held = b""
            framed = [b"%x\r\n" % len(data), data, b"\r\n"] if coding is _CHUNKED else [data]
            connection.write_pieces([held, *framed] if held else framed)
            return
        if coding is _CHUNKED:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if held:
            data = held + data
        if more:
            self._held = data
        else:
            self._held = b""
            connection.write(data)

    def finish(self) -> None:
        """The answer is complete. One that is shorter than its Content-Length is broken off instead."""
        connection = self._connection
        if connection is None:
            return
        if not self.head_sent or self._left_bytes:
            self.abort()
            return
        last = self._held + b"0\r\n\r\n" if self._coding is _CHUNKED else self._held
        if last:
            connection.write(last)
        self._leave()
        connection.answered(keep_alive=self._keep_alive)

    def abort(self) -> None:
        """Break the connection off, so that what was sent cannot be taken for a whole answer."""
        connection = self._connection
        if connection is not None:
            self._leave()
            connection.break_off(reset=self._coding is _UNTIL_CLOSE)

    def _leave(self) -> None:
        self._connection = self.carrier = self._body = self._incoming = None
        self._held = b""

    def _want(self, limit_bytes: int, *, whole: bool) -> None:
        if self._connection is None:
            return
        if self._whole is not None:
            raise RuntimeError("how a body is read is said once")
        self._whole = whole
        self._limit_bytes = limit_bytes
        if self.carrier is not None:
            self._start()
            self._read_on()

    def _start(self) -> None:
        if self._incoming is not None:
            try:
                self._incoming.want(self._limit_bytes, whole=bool(self._whole))
            except BodyTooLarge as error:
                self.spoil(error)

    def _read_on(self) -> None:
        """Deliver a body that is there; otherwise see to it that it comes."""
        connection, carrier = self._connection, self.carrier
        if self._paused or self._whole is None or carrier is None or connection is None:
            return
        body = self._body
        if body is None:
            if self._incoming is not None:
                if self._continue_owed and not self.head_sent:
                    connection.write(CONTINUE)
                self._continue_owed = False
                connection.body_wanted(True)
                connection.go_on()
            return
        self._body = None
        if len(body) > self._limit_bytes:
            carrier.body_failed(BodyTooLarge())
        elif self._whole:
            carrier.body_whole(body)
        else:
            if body:
                carrier.body_part(body)
            if self._connection is connection:
                carrier.body_end()
