"""Content codings taken off for taps: whatever an upstream uses, cut anywhere, and never beyond the bounds."""

import gzip
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import brotli
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from bridged.records import Trouble
from bridged.taps import answer_tap, content_coding
from bridged.taps.content_coding import CodingBroken, codings_of, decoded_body, decoding_of
from tests.support.taps import ALL, STREAMS, Recorded, tapped


def raw_deflate(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(body) + compressor.flush()


CODINGS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("br", brotli.compress),
    ("zstd", zstd.compress),
    ("gzip, br", lambda body: brotli.compress(gzip.compress(body))),
    ("identity, zstd", zstd.compress),
]
every_coding = pytest.mark.parametrize(("coding", "compress"), CODINGS)


def seen_compressed(recorded: Recorded, coding: str, pieces: Sequence[bytes], *, whole: bool = True) -> Any:
    headers = (*recorded.headers, ("content-encoding", coding))
    return tapped(pieces, dialect=recorded.dialect, operation=recorded.operation, headers=headers, whole=whole)


@every_coding
@pytest.mark.parametrize("recorded", ALL, ids=str)
def test_a_compressed_answer_is_seen(recorded: Recorded, coding: str, compress: Callable[[bytes], bytes]) -> None:
    assert seen_compressed(recorded, coding, [compress(recorded.body)]) == recorded.expected


@every_coding
def test_where_a_compressed_answer_is_cut_does_not_matter(coding: str, compress: Callable[[bytes], bytes]) -> None:
    recorded = STREAMS[1]
    body = compress(recorded.body)
    for cut in range(len(body)):
        assert seen_compressed(recorded, coding, [body[:cut], body[cut:]]) == recorded.expected
        cut_off = seen_compressed(recorded, coding, [body[:cut]], whole=False)
        # What is cut at the very end may be no more than a checksum.
        assert cut_off.partial or cut_off == recorded.expected
    pieces = [body[at : at + 1] for at in range(len(body))]
    assert seen_compressed(recorded, coding, pieces) == recorded.expected


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
def test_several_members_or_frames_are_one_body(coding: str, compress: Callable[[bytes], bytes]) -> None:
    recorded = STREAMS[0]
    parts = [recorded.body[:500], recorded.body[500:501], recorded.body[501:]]
    assert seen_compressed(recorded, coding, [b"".join(compress(part) for part in parts)]) == recorded.expected


@every_coding
def test_a_bomb_is_given_up(coding: str, compress: Callable[[bytes], bytes]) -> None:
    bomb = compress(b"\n" * (content_coding.MAX_EXPANSION_BYTES * 8))
    decoding = decoding_of(codings_of(coding))
    assert decoding is not None
    produced_bytes = 0
    with pytest.raises(CodingBroken):  # noqa: PT012 - what came before it is looked at
        for piece in decoding.feed(bomb):
            assert len(piece) <= 1024 * 1024
            produced_bytes += len(piece)
    assert produced_bytes <= content_coding.MAX_EXPANSION_BYTES
    found = seen_compressed(STREAMS[0], coding, [bomb])
    assert found.partial
    assert found.troubles == {Trouble.CODING}


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
def test_a_body_of_members_with_nothing_in_them_is_given_up(coding: str, compress: Callable[[bytes], bytes]) -> None:
    members = content_coding.MAX_MEMBERS
    whole = compress(b"") * (members - 1) + compress(b"all of it")
    assert decoded_body(whole, [coding], max_bytes=1000) == b"all of it"
    assert decoded_body(compress(b"") + whole, [coding], max_bytes=1000) is None
    decoding = decoding_of([coding])
    assert decoding is not None
    with pytest.raises(CodingBroken):  # noqa: PT012 - it takes many pieces
        for _ in range(members + 1):
            list(decoding.feed(compress(b"")))


def test_a_bomb_in_many_pieces_is_given_up() -> None:
    compressor = zlib.compressobj(wbits=31)
    decoding = decoding_of(["gzip"])
    assert decoding is not None
    with pytest.raises(CodingBroken):  # noqa: PT012 - it takes many pieces
        for _ in range(200):
            list(decoding.feed(compressor.compress(b"\n" * 1_000_000) + compressor.flush(zlib.Z_SYNC_FLUSH)))


def test_a_window_beyond_what_http_allows_is_refused() -> None:
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    compressor = zstd.ZstdCompressor(options=options)
    body = compressor.compress(b"x" * 100) + compressor.flush()
    assert decoded_body(body, ["zstd"], max_bytes=1000) is None


@pytest.mark.parametrize("coding", ["compress", "gzip, nonsense", "br, br, br, br"])
def test_a_coding_that_is_not_known_is_said(coding: str) -> None:
    found = seen_compressed(STREAMS[0], coding, [STREAMS[0].body])
    assert found.usage is None
    assert found.partial
    assert found.troubles == {Trouble.CODING}


@every_coding
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_corrupt_bytes_make_nothing_fail(coding: str, compress: Callable[[bytes], bytes], data: st.DataObject) -> None:
    body = bytearray(compress(STREAMS[0].body))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    tap = answer_tap(STREAMS[0].dialect, "", status=200, headers=(*STREAMS[0].headers, ("Content-Encoding", coding)))
    assert tap is not None
    cut = data.draw(st.integers(0, len(body)))
    tap.feed(bytes(body[:cut]))
    tap.feed(bytes(body[cut:]))
    assert tap.end(whole=True).troubles <= {Trouble.CODING, Trouble.GARBAGE}


@every_coding
def test_a_whole_body_is_decoded_up_to_its_bound(coding: str, compress: Callable[[bytes], bytes]) -> None:
    body = b"prompt " * 100_000
    codings = codings_of(coding)
    assert decoded_body(compress(body), codings, max_bytes=len(body)) == body
    assert decoded_body(compress(body), codings, max_bytes=len(body) - 1) is None
    assert decoded_body(b"\x00nonsense", codings, max_bytes=1000) is None
