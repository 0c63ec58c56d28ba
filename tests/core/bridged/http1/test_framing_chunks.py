"""Chunked bodies, without a head: where they end, and what stays of them in memory."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.http1.body import IncomingBody
from bridged.http1.chunked import ChunkedBody
from bridged.http1.framing import Malformed, SecondReading
from bridged.http_types import BodyBroken, BodyTooLarge
from tests.data.http1.smuggling.requests import CHUNKED

BODY = b"3\r\nabc\r\n00a;x=y\r\n0123456789\r\n0\r\nT: 1\r\n\r\n"


def framed(pieces: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"


@pytest.mark.parametrize("size", range(1, 9))
def test_a_body_is_whole_however_it_is_cut_and_what_follows_is_not_its_own(size: int) -> None:
    data, body, found, used = BODY + b"GET /next", ChunkedBody(), b"", 0
    for at in range(0, len(data), size):
        piece, taken = body.feed(data[at : at + size])
        found += piece
        used += taken
        if body.finished:
            break
    assert (found, used) == (b"abc0123456789", len(BODY))


@given(pieces=st.lists(st.binary(max_size=300)), after=st.binary(max_size=20))
def test_what_was_chunked_comes_out_as_it_was(pieces: list[bytes], after: bytes) -> None:
    data = framed(pieces)
    body = ChunkedBody()
    assert body.feed(data + after) == (b"".join(pieces), len(data))
    assert body.finished


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=5))
def test_garbage_is_refused_or_waited_for_and_little_of_it_is_kept(data: bytes, cuts: list[int]) -> None:
    body = ChunkedBody()
    places = [0, *sorted(cuts), len(data)]
    try:
        for a, b in pairwise(places):
            body.feed(data[a:b])
            if body.finished:
                return
    except Malformed:
        return
    assert len(body._rest) <= 4200


def test_a_body_that_comes_in_single_bytes_takes_about_its_own_room() -> None:
    body = IncomingBody(100_000, None)
    body.want(100_000, whole=True)
    for _ in range(100_000):
        body.take(b"x")
    assert body.ended
    assert body._pieces is not None
    assert len(body._pieces) == 1
    assert body.gathered() == b"x" * 100_000


def test_large_pieces_are_kept_as_they_came() -> None:
    body, piece = IncomingBody(20_000, None), b"x" * 10_000
    body.want(20_000, whole=True)
    body.take(piece)
    assert body._pieces is not None
    assert body._pieces[0] is piece


def test_a_limit_counts_what_is_in_the_chunks() -> None:
    second = SecondReading()
    assert second.confirms(CHUNKED, ends=False)
    body = IncomingBody(None, second)
    body.want(10, whole=False)
    assert body.take(b"a\r\n0123456789\r\n") == (b"0123456789", 15)
    with pytest.raises(BodyTooLarge):
        body.take(b"1\r\nx\r\n")


def test_a_declared_length_over_the_limit_is_refused_before_anything_came() -> None:
    with pytest.raises(BodyTooLarge):
        IncomingBody(11, None).want(10, whole=True)


def test_broken_chunks_are_a_broken_body() -> None:
    second = SecondReading()
    assert second.confirms(CHUNKED, ends=False)
    body = IncomingBody(None, second)
    body.want(10, whole=True)
    with pytest.raises(BodyBroken):
        body.take(b"x\r\n")
