"""Chunked bodies (RFC 9112, 7.1): where each chunk is, where the body ends, and nothing that could be read in two ways.

Bytes in, bytes out. The walk is ours because llhttp does not say at which byte a message ended, which the next request
on the connection depends on; llhttp reads the same bytes as a second opinion (framing.SecondReading).
"""

import re

from bridged.http1.framing import Malformed

# Eight digits are 4 GiB, over every limit for bodies, and cannot overflow. Extensions have no meaning for us, but take
# room: so few bytes of them that they cannot hide a body's worth of anything.
_MAX_EXTENSION_BYTES = 256
_MAX_TRAILER_BYTES = 4096
_EXTENSION = rb"(?:;[\t -~\x80-\xff]{0,%d}+)?+" % _MAX_EXTENSION_BYTES
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,8}+)" + _EXTENSION + rb"\r\n")
_END_AND_SIZE_LINE = re.compile(rb"\r\n([0-9A-Fa-f]{1,8}+)" + _EXTENSION + rb"\r\n")
_BEGUN_SIZE_LINE = re.compile(rb"(?:[0-9A-Fa-f]{1,8}+" + _EXTENSION + rb"\r?)?")
_BEGUN_END = re.compile(rb"\r?|\r\n(?:[0-9A-Fa-f]{1,8}+" + _EXTENSION + rb"\r?)?")
_TRAILERS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t -~\x80-\xff]*+\r\n)*+\r\n")
_NEVER_IN_TRAILERS = re.compile(rb"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")


class ChunkedBody:
    """One chunked body as it arrives, cut anywhere. `finished` once its last byte was seen."""

    __slots__ = ("_first", "_in_trailers", "_left", "_rest", "finished")

    def __init__(self) -> None:
        self.finished = False
        self._first = True
        self._in_trailers = False
        # Bytes of the current chunk that are still to come, and the beginning of a line that is not complete.
        self._left = 0
        self._rest = b""

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """The body's bytes in `data`, and how many bytes of `data` belong to it: all but for what follows its end.

        Trailers are dropped. Raises Malformed.
        """
        before = len(self._rest)
        if before:
            data, self._rest = self._rest + data, b""
        pieces: list[bytes] = []
        at = 0
        while not (self._in_trailers or self.finished):
            if self._left:
                piece = data[at : at + self._left]
                if not piece:
                    break
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
            line = (_SIZE_LINE if self._first else _END_AND_SIZE_LINE).match(data, at)
            if line is None:
                self._keep_begun_line(data, at)
                break
            at = line.end()
            self._first = False
            self._left = int(line[1], 16)
            self._in_trailers = not self._left
        if self._in_trailers:
            at = self._read_trailers(data, at)
        elif not self.finished:
            at = len(data)
        return (pieces[0] if len(pieces) == 1 else b"".join(pieces)), at - before

    def _keep_begun_line(self, data: bytes, at: int) -> None:
        rest = data[at : at + _MAX_EXTENSION_BYTES + 32]
        begun = _BEGUN_SIZE_LINE if self._first else _BEGUN_END
        if len(rest) < len(data) - at or begun.fullmatch(rest) is None:
            raise Malformed("a chunk of the body is not well-formed")
        self._rest = rest

    def _read_trailers(self, data: bytes, at: int) -> int:
        """The index after the body's last byte, or of what there is."""
        if data.startswith(b"\r\n", at):
            self._finish()
            return at + 2
        end = data.find(b"\r\n\r\n", at)
        if (end if end >= 0 else len(data)) - at > _MAX_TRAILER_BYTES:
            raise Malformed("the trailers of the body are too long")
        if end >= 0:
            if _TRAILERS.fullmatch(data, at, end + 4) is None:
                raise Malformed("the trailers of the body are not well-formed")
            self._finish()
            return end + 4
        self._rest = data[at:]
        if _NEVER_IN_TRAILERS.search(self._rest) is not None:
            raise Malformed("the trailers of the body are not well-formed")
        return len(data)

    def _finish(self) -> None:
        self._in_trailers = False
        self.finished = True
