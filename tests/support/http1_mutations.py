"""Streams of requests gone wrong: rows of the corpus, joined, and changed where it hurts."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import strategies as st

from tests.data.http1.smuggling.requests import ACCEPTED, BROKEN_BODIES, REFUSED

# Rows that are about sizes would only make every try slow.
SEEDS = [row.data for row in (*ACCEPTED, *REFUSED, *BROKEN_BODIES) if len(row.data) < 1000]
GOOD = [row.data for row in ACCEPTED if len(row.data) < 1000]
MORSELS = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"0",
    b"1",
    b"5",
    b"a",
    b"+",
    b"-",
    b"\xff",
    b"\x0b",
    b"chunked",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Host: x\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: Upgrade\r\n",
    b"Upgrade: h2c\r\n",
    b"Expect: 100-continue\r\n",
    b"HTTP/1.0",
    b"HTTP/1.1",
    b"GET /y HTTP/1.1\r\nHost: x\r\n\r\n",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
]

Change = tuple[int, int, bytes]


def changed(data: bytes, changes: Sequence[Change]) -> bytes:
    """Each change puts bytes where some others (0 to 8) were; positions wrap around."""
    for position, removed, put in changes:
        at = position % (len(data) + 1)
        data = data[:at] + put + data[at + removed :]
    return data


def cut(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The bytes in parts."""
    places = [0, *sorted(place % (len(data) + 1) for place in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(places)]


def fuzzed(data: bytes) -> tuple[bytes, list[bytes]]:
    """A fuzzer's input: two bytes for where it is cut, then the stream; the stream and its parts."""
    stream = data[2:]
    return stream, cut(stream, [place for place in data[:2] if place])


_CHANGE = st.tuples(
    st.integers(0, 4000), st.integers(0, 8), st.one_of(st.sampled_from(MORSELS), st.binary(max_size=2), st.just(b""))
)
STREAMS = st.builds(
    lambda seeds, changes: changed(b"".join(seeds), changes),
    st.lists(st.one_of(st.sampled_from(GOOD), st.sampled_from(SEEDS)), min_size=1, max_size=3),
    st.lists(_CHANGE, max_size=4),
)
CUTS = st.lists(st.integers(0, 4000), max_size=4)
