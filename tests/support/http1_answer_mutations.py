"""Answers of an upstream gone wrong: heads and bodies that fit together or do not."""

from itertools import product

from hypothesis import strategies as st

from tests.support.http1_mutations import MORSELS as REQUEST_MORSELS
from tests.support.http1_mutations import changed, cut

_FIRST_LINES = [
    b"HTTP/1.1 200 OK",
    b"HTTP/1.0 200 OK",
    b"HTTP/1.1 204 No",
    b"HTTP/1.1 304 Not",
    b"HTTP/1.1 429 \xfcber",
]
_FIELDS: list[bytes] = [
    b"",
    b"Content-Length: 5\r\n",
    b"content-length:0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: Chunked\r\nConnection: keep-alive\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Content-Length: 5\r\nContent-Length: 5\r\n",
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\nConnection: x, Close\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n",
    b"X-Text: \xe9 \t ,\r\nX-Empty:\r\nContent-Length: 5\r\n",
]
_BODIES = [
    b"",
    b"hello",
    b"hello, and more",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"a;b=c\r\n0123456789\r\n1\r\n\n\r\n000\r\n\r\n",
    b"5\r\nhello\r\n0\r\nT: 1\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbad\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n\r\n",
    b"5\r\nhel",
    b"2\r\n\r\n\r\n0\r\n\r\n",
]
_INTERIM = [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]
_WHOLE = [
    b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx",
    b"HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\nx",
    b"HTTP/2 200 OK\r\n\r\n",
    b"<html>hello</html>",
    b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
]
_USUAL = [b"%b\r\n%b\r\n%b" % parts for parts in product(_FIRST_LINES, _FIELDS, _BODIES)]
ANSWERS = [*_USUAL, *(interim + answer for interim in _INTERIM for answer in _USUAL[::7]), *_WHOLE]
MORSELS = [
    *REQUEST_MORSELS,
    b"\x7f",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 204 No\r\n\r\n",
    b"ffffffffffffffff",
    b"Keep-Alive: timeout=1\r\n",
]


def fuzzed_answer(data: bytes) -> tuple[bytes, list[bytes], bool]:
    """A fuzzer's input as an answer, its parts, and whether it answers HEAD.

    The first byte says the last, the next two where the network cuts it.
    """
    stream = data[3:]
    return stream, cut(stream, [place for place in data[1:3] if place]), bool(data[:1] and data[0] & 1)


_CHANGE = st.tuples(
    st.integers(0, 400), st.integers(0, 8), st.one_of(st.sampled_from(MORSELS), st.binary(max_size=2), st.just(b""))
)
CHANGED_ANSWERS = st.builds(changed, st.sampled_from(ANSWERS), st.lists(_CHANGE, max_size=4))
