"""One body on its way into a file: without its codings, without secrets, as it came or with its JSON made readable."""

from collections.abc import Iterator
from itertools import accumulate

import msgspec

from bridged.dump.needles import Masking, Needles
from bridged.model import Headers, header_values
from bridged.taps.content_coding import CodingBroken, codings_of, decoding_of

# Larger JSON is written as it is: making it readable takes the interpreter from the requests for too long.
_MOST_READABLE_BYTES = 256 * 1024
# As much is masked in one go, for the same reason.
_PIECE_BYTES = 16 * 1024
_INDENT = 2
# White space grows with depth: what nests deeper, or is mostly brackets, is written as it is.
_DEEPEST, _MOST_BRACKETS = 32, 20_000
_NO_BRACKET = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


class DumpedBody:
    """Bytes as they travel go in; what goes into a file comes out, a line that says what it is before it.

    `is_stream`: it is written as it comes. Other JSON waits for its end, up to a bound.
    """

    __slots__ = ("_codings", "_decoding", "_has_begun", "_held", "_is_broken", "_masking", "_title", "size_bytes")

    def __init__(self, title: str, headers: Headers, needles: Needles, *, is_stream: bool) -> None:
        self._title = title
        self._codings = codings_of(",".join(header_values(headers, "content-encoding")))
        self._decoding = decoding_of(self._codings)
        self._masking = Masking(needles)
        kinds = header_values(headers, "content-type")
        is_json = not is_stream and (not kinds or "json" in kinds[0].lower())
        self._held: bytearray | None = bytearray() if is_json else None
        self._has_begun = False
        self._is_broken = False
        # As it travelled.
        self.size_bytes = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What can be written now."""
        self.size_bytes += len(data)
        for start in range(0, len(data), _PIECE_BYTES):
            for piece in self._decoded(data[start : start + _PIECE_BYTES]):
                yield from self._taken(piece)

    def end(self) -> Iterator[bytes]:
        """The rest."""
        held, self._held = self._held, None
        if held is not None:
            readable = _readable(held)
            if readable is not None:
                yield self._begun(", its JSON made readable here")
                yield from self._pieces(readable)
            elif held:
                yield self._begun("")
                yield from self._pieces(bytes(held))
        if self._has_begun:
            yield self._masking.end() + b"\n"
        if self._is_broken:
            yield b"# the rest is in a content coding that cannot be read, so nobody could mask it: it is not written\n"

    def _decoded(self, data: bytes) -> Iterator[bytes]:
        if not self._codings:
            yield data
            return
        if self._decoding is None or self._is_broken:
            self._is_broken = True
            return
        try:
            yield from self._decoding.feed(data)
        except CodingBroken:
            self._is_broken = True

    def _taken(self, data: bytes) -> Iterator[bytes]:
        if self._held is not None:
            self._held += data
            if len(self._held) <= _MOST_READABLE_BYTES:
                return
            data, self._held = bytes(self._held), None
        if not self._has_begun:
            yield self._begun("")
        yield from self._pieces(data)

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _PIECE_BYTES):
            yield self._masking.feed(data[start : start + _PIECE_BYTES])

    def _begun(self, how: str) -> bytes:
        self._has_begun = True
        decoded = f", decoded from {', '.join(reversed(self._codings))}" if self._codings else ""
        return f"\n# {self._title}{decoded}{how}\n".encode("latin-1", "replace")


def _readable(body: bytearray) -> bytes | None:
    """The JSON with line breaks and white space, else nothing changed; None where it is none."""
    brackets = body.translate(None, _NO_BRACKET)
    # Those in texts count as well: this is about cost only.
    if len(brackets) > _MOST_BRACKETS or max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > _DEEPEST:
        return None
    try:
        return bytes(msgspec.json.format(bytes(body), indent=_INDENT))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
