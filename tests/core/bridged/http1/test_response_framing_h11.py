"""Held against h11, a strict reader of its own: whatever we accept, it reads in the same way.

The bytes are answers that are right, then damaged in a few places.
"""

import h11
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridged.http1.response_framing import ResponseReader
from bridged.http1.response_head import BadResponse

HEADERS = [
    "Content-Type: text/event-stream",
    "Content-Length: 5",
    "content-length:0",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "transfer-encoding: Chunked",
    "Connection: close",
    "Connection: keep-alive",
    "Upgrade: h2c",
    "X-Empty:",
    "X-Text: \xe9 \t ,",
]
CHUNKS = [
    "5\r\nhello\r\n",
    "a;b=c\r\n0123456789\r\n",
    "1\r\n\n\r\n",
    "0\r\n\r\n",
    "0\r\nT: 1\r\n\r\n",
    "hello",
    "2\r\n\r\n\r\n",
]
DAMAGE = [
    "\r\n",
    "\r",
    "\n",
    " ",
    "\t",
    "\0",
    ":",
    ";",
    ",",
    "0",
    "5",
    "f",
    "\x7f",
    "\xff",
    "HTTP/1.1 200 OK\r\n",
    "x" * 9,
]

statuses = st.sampled_from([100, 103, 200, 201, 204, 301, 304, 400, 429, 500, 529, 101])
heads = st.builds(
    lambda version, status, lines: "\r\n".join([f"HTTP/1.{version} {status} X", *lines, "", ""]),
    st.sampled_from([1, 1, 1, 0]),
    statuses,
    st.lists(st.sampled_from(HEADERS), max_size=5),
)
answers = st.builds(lambda head, chunks: head + "".join(chunks), heads, st.lists(st.sampled_from(CHUNKS), max_size=5))
damages = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 2), st.sampled_from(["", *DAMAGE])), max_size=3)


def damaged(text: str, changes: list[tuple[int, int, str]]) -> bytes:
    """`text` with some characters replaced by something else, which may be longer or nothing."""
    for at, length, replacement in changes:
        start = at % (len(text) + 1)
        text = text[:start] + replacement + text[start + length :]
    return text.encode("latin-1")


def by_us(data: bytes, cut: int, *, head: bool) -> tuple[object, ...] | None:
    reader = ResponseReader()
    reader.begin(is_head_request=head)
    body, is_more = b"", False
    try:
        for piece in (data[:cut], data[cut:]):
            if reader.complete:
                # On a connection that waits, it ends the connection.
                is_more = is_more or piece != b""
            elif piece:
                body += reader.feed(piece)
        if not reader.complete:
            reader.feed_eof()
    except BadResponse:
        return None
    # h11 writes the names, and the value of one field, in lower case.
    headers = [(name.lower(), value) for name, value in reader.headers]
    headers = [(name, value.lower() if name == "transfer-encoding" else value) for name, value in headers]
    return reader.status, headers, body, reader.is_reusable and not is_more


def by_h11(data: bytes, *, head: bool) -> tuple[object, ...]:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="HEAD" if head else "POST", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    status, headers, body = 0, [], b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            status = event.status_code
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers]
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            is_kept = connection.their_state is h11.DONE and not connection.trailing_data[0]
            return status, headers, body, is_kept
        else:
            assert isinstance(event, h11.InformationalResponse)


@settings(max_examples=1500, deadline=None)
@given(answer=answers, changes=damages, cut=st.integers(0, 400), head=st.booleans())
@example(answer="HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", changes=[], cut=0, head=False)
def test_what_we_accept_h11_reads_in_the_same_way(
    answer: str, changes: list[tuple[int, int, str]], cut: int, head: bool
) -> None:
    data = damaged(answer, changes)
    ours = by_us(data, cut, head=head)
    if ours is None:
        return

    theirs = by_h11(data, head=head)
    assert ours[:3] == theirs[:3]
    # A connection that we keep is one that h11 would keep; that we give up more of them is ours to decide.
    assert theirs[3] or not ours[3]


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_do_anything_but_read_or_be_refused(data: bytes, head: bool) -> None:
    assert by_us(data, len(data) // 2, head=head) is None or data.startswith(b"HTTP/1.")
