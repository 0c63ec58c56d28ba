"""A request's body while it arrives: counted or de-chunked, bounded, gathered if it is wanted as a whole. No I/O."""

from bridged.http1.chunked import ChunkedBody
from bridged.http1.framing import Malformed, SecondReading
from bridged.http_types import BodyBroken, BodyTooLarge

# A body may come a byte at a time; an object each would take forty times its room.
_SMALL_BYTES = 4096


class IncomingBody:
    """A body that was not all there with its head. `ended` once its last byte was taken."""

    __slots__ = ("_announced_bytes", "_chunked", "_left_bytes", "_limit_bytes", "_pieces", "_second", "ended")

    def __init__(self, content_length: int | None, second: SecondReading | None) -> None:
        """Chunked if `content_length` is None; then `second` has read the head and reads along."""
        self.ended = False
        self._left_bytes = self._announced_bytes = content_length or 0
        self._chunked = ChunkedBody() if content_length is None else None
        self._second = second
        self._limit_bytes = 0
        self._pieces: list[bytes | bytearray] | None = None

    def want(self, limit_bytes: int, *, whole: bool) -> None:
        """Say how it is read. Raises BodyTooLarge where its length says so."""
        if self._left_bytes > limit_bytes:
            raise BodyTooLarge
        self._limit_bytes = limit_bytes
        if self._chunked is not None:
            self._announced_bytes = limit_bytes
        self._pieces = [] if whole else None

    def take(self, data: bytes) -> tuple[bytes, int]:
        """The body's bytes in `data`, none while it is gathered, and how many bytes of `data` belong to it.

        Raises BodyBroken, BodyTooLarge.
        """
        piece, used = self._counted(data) if self._chunked is None else self._dechunked(data, self._chunked)
        if self._pieces is None:
            return piece, used
        last = self._pieces[-1] if self._pieces else None
        if len(piece) >= _SMALL_BYTES:
            self._pieces.append(piece)
        elif isinstance(last, bytearray):
            last += piece
        else:
            self._pieces.append(bytearray(piece))
        return b"", used

    @property
    def arrived_bytes(self) -> int:
        """How much of the body was taken, without chunk framing."""
        return self._announced_bytes - (self._left_bytes if self._chunked is None else self._limit_bytes)

    def can_end_with(self, count: int) -> bool:
        """Whether so many more bytes may be all that is missing. Of a chunked body it shows when they are taken."""
        return count >= self._left_bytes if self._chunked is None else count > 0

    def gathered(self) -> bytes | None:
        """The whole of a body that was gathered; None for one that was passed on."""
        return None if self._pieces is None else b"".join(self._pieces)

    def _counted(self, data: bytes) -> tuple[bytes, int]:
        piece = data if len(data) <= self._left_bytes else data[: self._left_bytes]
        self._left_bytes -= len(piece)
        self.ended = not self._left_bytes
        return piece, len(piece)

    def _dechunked(self, data: bytes, chunked: ChunkedBody) -> tuple[bytes, int]:
        try:
            piece, used = chunked.feed(data)
        except Malformed:
            raise BodyBroken from None
        self.ended = chunked.finished
        if self._second is None or not self._second.confirms(memoryview(data)[:used], ends=self.ended):
            raise BodyBroken
        self._limit_bytes -= len(piece)
        if self._limit_bytes < 0:
            raise BodyTooLarge
        return piece, used
