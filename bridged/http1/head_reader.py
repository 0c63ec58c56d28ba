"""From the bytes of a connection to its next request, with its body as far as that has come. No I/O."""

from bridged.http1.body import IncomingBody
from bridged.http1.framing import (
    END_OF_HEAD,
    HeadLimits,
    Malformed,
    Request,
    SecondReading,
    check_beginning,
    empty_lines,
    read_head,
)

# A request, its body if all of it is there, else what is to come of it, and the bytes that were not used.
Arrival = tuple[Request, bytes | None, IncomingBody | None, bytes]


class HeadReader:
    """Reads one head after the other. Between them it must be given nothing that belongs to a body."""

    __slots__ = ("_beginning", "_limits", "_scanned", "_second")

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        self._second: SecondReading | None = None
        # A head that is not complete, of which `_scanned` bytes were judged.
        self._beginning: bytearray | None = None
        self._scanned = 0

    @property
    def has_begun(self) -> bool:
        """Whether there is a part of a head."""
        return self._beginning is not None

    def feed(self, data: bytes) -> Arrival | None:
        """The request whose head `data` completes, or None. Raises Malformed, after which nothing more can be read."""
        if self._beginning is not None:
            self._beginning += data
            if not self._beginning.startswith(b"\r\n") and self._is_incomplete(self._beginning):
                return None
            data, self._beginning = bytes(self._beginning), None
        if data.startswith(b"\r\n"):
            data = data[empty_lines(data) :]
        end = data.find(END_OF_HEAD)
        if end >= 0:
            return self._arrival(data, end + len(END_OF_HEAD))
        if data:
            self._beginning, self._scanned = bytearray(data), 0
            self._is_incomplete(self._beginning)
        return None

    def let_go(self) -> None:
        """No more will be read: keep nothing of what was."""
        self._second = self._beginning = None

    def _is_incomplete(self, beginning: bytearray) -> bool:
        """Whether the rest is to be waited for. Looks at new bytes only, as they may come one at a time."""
        if beginning.find(END_OF_HEAD, max(self._scanned - 3, 0)) >= 0:
            return False
        check_beginning(beginning, self._scanned, self._limits)
        self._scanned = len(beginning)
        return True

    def _arrival(self, data: bytes, head_bytes: int) -> Arrival:
        raw = data if head_bytes == len(data) else data[:head_bytes]
        request = read_head(raw, self._limits)
        end = head_bytes + (request.content_length or 0)
        complete = end <= len(data) and not request.chunked
        second = self._second or SecondReading()
        # A counted body that is not all there goes past llhttp; one made anew then reads the next request.
        self._second = second if complete and request.keep_alive else None
        if not complete:
            if second.confirms(raw, ends=False):
                return request, None, IncomingBody(request.content_length, second), data[head_bytes:]
        elif second.confirms(data if end == len(data) else data[:end], ends=True):
            return request, data[head_bytes:end], None, data[end:]
        raise Malformed("the head is not well-formed HTTP", method=request.method)
