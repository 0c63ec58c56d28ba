"""Where in an event stream we stand: the same wherever it is cut, and what closes it does close it."""

from bridged.sse import StreamEnd
from tests.support.http1_mutations import cut

WORDS = [b"data:", b"data: ", b"event: x\n", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b":", b"id: 1", b"\xff", b"x"]
SEEDS = [
    b"\0\0data: {}\n\n",
    b"\0\0event: a\r\ndata: b\r\n\r\n",
    b"\3\5data: a\rdata: b\r\r",
    b"\1\2: comment\n\ndata\n",
    b"\0\0data:\n\n",
    b"\2\2\n\n\n\rdata: [DONE]\n\n",
]


def one_input(data: bytes) -> None:
    stream, places = data[2:], [place for place in data[:2] if place]
    whole, parts, bytewise = StreamEnd(), StreamEnd(), StreamEnd()
    whole.feed(stream)
    for part in cut(stream, places):
        parts.feed(part)
    for place in range(len(stream)):
        bytewise.feed(stream[place : place + 1])
    told = [(one.is_open, one.closing_bytes()) for one in (whole, parts, bytewise)]
    assert told[0] == told[1] == told[2], (stream, told)
    bytewise.feed(bytewise.closing_bytes())
    assert not bytewise.is_open, stream
