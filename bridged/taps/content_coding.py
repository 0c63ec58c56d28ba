"""Content codings taken off, for taps only: gzip, deflate, br and zstd, piece by piece and within bounds.

A few bytes can stand for gigabytes. Whoever feeds here is on the event loop, so what one piece, and what one body, may
become is bounded; a body that is over either bound is given up.

Sources: RFC 9110, 8.4.1; RFC 1950 to 1952; RFC 7932; RFC 8878 and RFC 9659 (a window of at most 8 MiB).
"""

import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import brotli

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# Large enough for any read of a body that was compressed in earnest.
MAX_EXPANSION_BYTES = 4 * 1024 * 1024
MAX_BODY_BYTES = 128 * 1024 * 1024
MAX_CODINGS = 3
# Members of gzip and frames of zstd in one body. Each costs, also where there is nothing in it.
MAX_MEMBERS = 4096
_PIECE_BYTES = 256 * 1024
_ZSTD_WINDOW_LOG = 23

_GZIP, _ZLIB, _RAW_DEFLATE = 31, 15, -15
_GZIP_MAGIC = b"\x1f"
_ZLIB_HEAD_BYTES = 2


class CodingBroken(Exception):
    """The body is corrupt, or expands beyond its bounds. Nothing after this can be read."""


class _Decoder(Protocol):
    def pieces(self, data: bytes) -> Iterator[bytes]: ...


class Decoding:
    """Takes the codings of one body off, the last one first."""

    __slots__ = ("_decoders", "_left_bytes")

    def __init__(self, codings: Sequence[str]) -> None:
        self._decoders: list[_Decoder] = [_DECODERS[coding]() for coding in reversed(codings)]
        self._left_bytes = MAX_BODY_BYTES

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What became of it, in pieces of bounded length. CodingBroken as its class says; not to be called after."""
        bound_bytes = min(self._left_bytes, MAX_EXPANSION_BYTES)
        for piece in self._through(data, self._decoders, bound_bytes):
            bound_bytes -= len(piece)
            self._left_bytes -= len(piece)
            if bound_bytes < 0:
                raise CodingBroken("the body expands beyond its bound")
            yield piece

    def _through(self, data: bytes, decoders: Sequence[_Decoder], bound_bytes: int) -> Iterator[bytes]:
        if not decoders:
            yield data
            return
        try:
            for piece in decoders[0].pieces(data):
                bound_bytes -= len(piece)
                if bound_bytes < -_PIECE_BYTES:
                    raise CodingBroken("the body expands beyond its bound")
                yield from self._through(piece, decoders[1:], bound_bytes)
        except (zlib.error, brotli.error, zstd.ZstdError, EOFError, ValueError):
            raise CodingBroken("the body is corrupt") from None


def codings_of(content_encoding: str) -> tuple[str, ...]:
    """The codings that Content-Encoding names, in the order in which they were applied; without `identity`."""
    if not content_encoding:
        return ()
    names = [name.strip().lower() for name in content_encoding.split(",")]
    return tuple(name for name in names if name not in ("", "identity"))


def decoding_of(codings: Sequence[str]) -> Decoding | None:
    """What takes these off; None if one of them is not known, or there are more than anybody applies."""
    if len(codings) > MAX_CODINGS or not all(coding in _DECODERS for coding in codings):
        return None
    return Decoding(codings)


def decoded_body(body: bytes, codings: Sequence[str], *, max_bytes: int) -> bytes | None:
    """A whole body without its codings; None if they are not known, it is corrupt or over the bound."""
    if not codings:
        return body
    decoding = decoding_of(codings)
    if decoding is None:
        return None
    found = bytearray()
    try:
        # Fed in parts, because what one part may become is bounded.
        for start in range(0, len(body), _PIECE_BYTES):
            for piece in decoding.feed(body[start : start + _PIECE_BYTES]):
                found += piece
                if len(found) > max_bytes:
                    return None
    except CodingBroken:
        return None
    return bytes(found)


class _Zlib:
    """gzip, with as many members as there are."""

    def __init__(self, *, window_bits: int = _GZIP) -> None:
        self._window_bits = window_bits
        self._inflating = zlib.decompressobj(window_bits)
        self._members = 1

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._inflating.eof:
                if self._window_bits != _GZIP or not data.startswith(_GZIP_MAGIC):
                    # What pads the end of a body is not a part of it.
                    return
                self._members = _one_more(self._members)
                self._inflating = zlib.decompressobj(_GZIP)
            piece = self._inflating.decompress(data, _PIECE_BYTES)
            if piece:
                yield piece
            data = self._inflating.unused_data if self._inflating.eof else self._inflating.unconsumed_tail


class _Deflate:
    """deflate, in zlib's wrapping as the RFC has it, or bare as some servers do. The first two bytes tell."""

    def __init__(self) -> None:
        self._head = b""
        self._zlib: _Zlib | None = None

    def pieces(self, data: bytes) -> Iterator[bytes]:
        if self._zlib is None:
            self._head = data = self._head + data
            if len(data) < _ZLIB_HEAD_BYTES:
                return
            # RFC 1950, 2.2: the method is 8, and the two bytes are a multiple of 31.
            is_wrapped = data[0] & 0x0F == 8 and int.from_bytes(data[:_ZLIB_HEAD_BYTES]) % 31 == 0
            self._zlib = _Zlib(window_bits=_ZLIB if is_wrapped else _RAW_DEFLATE)
        yield from self._zlib.pieces(data)


class _Brotli:
    def __init__(self) -> None:
        self._decompressor = brotli.Decompressor()

    def pieces(self, data: bytes) -> Iterator[bytes]:
        # Whether it takes more data does not say whether it has given all: it is asked until nothing comes.
        decompressor = self._decompressor
        while not decompressor.is_finished():
            piece = decompressor.process(data, output_buffer_limit=_PIECE_BYTES)
            if not piece:
                return
            yield piece
            data = b""


class _Zstandard:
    """As many frames as there are."""

    def __init__(self) -> None:
        self._decompressor = _zstd_decompressor()
        self._frames = 1

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while True:
            if self._decompressor.eof:
                data = self._decompressor.unused_data + data
                if not data:
                    return
                self._frames = _one_more(self._frames)
                self._decompressor = _zstd_decompressor()
            piece = self._decompressor.decompress(data, _PIECE_BYTES)
            data = b""
            if piece:
                yield piece
            if self._decompressor.needs_input and not self._decompressor.eof:
                return


def _one_more(members: int) -> int:
    if members >= MAX_MEMBERS:
        raise CodingBroken("the body is in too many members")
    return members + 1


def _zstd_decompressor() -> zstd.ZstdDecompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})


_DECODERS: dict[str, Callable[[], _Decoder]] = {
    "gzip": _Zlib,
    "x-gzip": _Zlib,
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _Zstandard,
}
