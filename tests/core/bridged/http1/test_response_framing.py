"""What an upstream's bytes mean. Every rule has its row; where the network cuts the bytes changes nothing."""

import itertools
import math
from dataclasses import dataclass

import pytest

from bridged.http1 import response_framing, response_head
from bridged.http1.response_framing import ResponseReader
from bridged.http1.response_head import JUDGES, BadResponse, BodyFraming, framing_of, read_head
from bridged.model import Headers

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
EMPTY = OK + b"Content-Length: 0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, kw_only=True)
class Read:
    """What a reader made of some bytes."""

    status: int
    headers: Headers
    framing: BodyFraming
    body: bytes
    complete: bool
    reusable: bool


def read(*pieces: bytes, head: bool = False, eof: bool = False) -> Read | str:
    """The whole answer, or why it is none. Like a connection, nothing is fed once an answer is complete."""
    reader = ResponseReader()
    reader.begin(is_head_request=head)
    body = b""
    is_more = False
    try:
        for piece in pieces:
            if reader.complete:
                is_more = True
            else:
                body += reader.feed(piece)
        if eof and not reader.complete:
            reader.feed_eof()
    except BadResponse as bad:
        return str(bad)
    if reader.framing is None:
        return "unfinished"
    return Read(
        status=reader.status,
        headers=reader.headers,
        framing=reader.framing,
        body=body,
        complete=reader.complete,
        reusable=reader.is_reusable and not is_more,
    )


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


ACCEPTED = [
    # bytes, HEAD?, then: status, framing, body, reusable
    (EMPTY, False, 200, BodyFraming.LENGTH, b"", True),
    (OK + b"content-length:3\r\n\r\nabc", False, 200, BodyFraming.LENGTH, b"abc", True),
    (OK + b"Content-Length: 3\r\nConnection: close\r\n\r\nabc", False, 200, BodyFraming.LENGTH, b"abc", False),
    (OK + b"Content-Length: 0\r\nConnection: x, Close\r\n\r\n", False, 200, BodyFraming.LENGTH, b"", False),
    (OK + b"Content-Length: 0\r\nConnection: closed\r\n\r\n", False, 200, BodyFraming.LENGTH, b"", True),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\nx", False, 200, BodyFraming.LENGTH, b"x",
     False),
    (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", False, 200, BodyFraming.CHUNKED, b"hello", True),
    (CHUNKED + b"0\r\n\r\n", False, 200, BodyFraming.CHUNKED, b"", True),
    (CHUNKED + b"5;a=b\r\nhello\r\n1\r\n!\r\n000\r\n\r\n", False, 200, BodyFraming.CHUNKED, b"hello!", True),
    (CHUNKED + b"a\r\n\r\n\r\n0\r\n\r\n!\r\n0\r\n\r\n", False, 200, BodyFraming.CHUNKED, b"\r\n\r\n0\r\n\r\n!", True),
    # Trailers are dropped, and the connection with them: nothing of value comes with trailers.
    (CHUNKED + b"1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n", False, 200, BodyFraming.CHUNKED, b"x", False),
    (OK.replace(b"OK", b"") + b"Content-Length: 1\r\n\r\nx", False, 200, BodyFraming.LENGTH, b"x", True),
    (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx", False, 200, BodyFraming.LENGTH, b"x", True),
    (b"HTTP/1.1 429 \xfcber\r\nContent-Length: 1\r\nA: \xe9\r\n\r\nx", False, 429, BodyFraming.LENGTH, b"x", True),
    # No body, whatever the head says.
    (OK + b"Content-Length: 12\r\n\r\n", True, 200, BodyFraming.NONE, b"", True),
    (CHUNKED, True, 200, BodyFraming.NONE, b"", True),
    (b"HTTP/1.1 204 No Content\r\n\r\n", False, 204, BodyFraming.NONE, b"", True),
    (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", False, 204, BodyFraming.NONE, b"", True),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", False, 304, BodyFraming.NONE, b"", True),
    # Interim answers are swallowed.
    (CONTINUE + EMPTY, False, 200, BodyFraming.LENGTH, b"", True),
    (CONTINUE + b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + EMPTY, False, 200, BodyFraming.LENGTH, b"", True),
    (b"HTTP/1.1 199 Odd\r\n\r\n" + CHUNKED + b"0\r\n\r\n", False, 200, BodyFraming.CHUNKED, b"", True),
    # An upgrade that is only offered changes nothing.
    (OK + b"Connection: upgrade\r\nUpgrade: h2c\r\n" + EMPTY[17:], False, 200, BodyFraming.LENGTH, b"", True),
]  # fmt: skip


@pytest.mark.parametrize(("data", "head", "status", "framing", "body", "reusable"), ACCEPTED)
def test_answers_are_read_alike_wherever_the_network_cuts_them(
    data: bytes, head: bool, status: int, framing: BodyFraming, body: bytes, reusable: bool
) -> None:
    whole = read(data, head=head)

    assert isinstance(whole, Read)
    assert (whole.status, whole.framing, whole.body) == (status, framing, body)
    assert (whole.complete, whole.reusable) == (True, reusable)
    for cut in range(1, len(data)):
        parts = read(data[:cut], data[cut:], head=head)
        assert isinstance(parts, Read), parts
        assert (parts.status, parts.headers, parts.body, parts.complete) == (status, whole.headers, body, True)
        # Where the usual end of chunks is cut, a connection may be given up for caution, never kept for luck.
        assert parts.reusable <= reusable
    assert read(*bytewise(data), head=head, eof=False) == (
        Read(
            status=status, headers=whole.headers, framing=framing, body=body, complete=True,
            reusable=reusable and framing is not BodyFraming.CHUNKED,
        )
    )  # fmt: skip


def test_headers_come_as_they_were_but_for_the_white_space_around_them() -> None:
    answer = read(OK + b"x-A:\t 1 , 2\t \r\nX-a:\r\nb_c: \xe9\r\nContent-Length: 0\r\n\r\n")

    assert isinstance(answer, Read)
    assert answer.headers == (("x-A", "1 , 2"), ("X-a", ""), ("b_c", "é"), ("Content-Length", "0"))


REFUSED = {
    # RFC 9112, 6.3: framing that two readers could see differently.
    "length and chunks": OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "two equal lengths": OK + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": OK + b"Content-Length: 3, 3\r\n\r\nabc",
    "signed length": OK + b"Content-Length: +3\r\n\r\nabc",
    "negative length": OK + b"Content-Length: -3\r\n\r\nabc",
    "hexadecimal length": OK + b"Content-Length: 0x3\r\n\r\nabc",
    "length with a space": OK + b"Content-Length: 3 3\r\n\r\nabc",
    "length of other digits": OK + b"Content-Length: \xb2\r\n\r\nab",
    "length of 20 digits": OK + b"Content-Length: 00000000000000000003\r\n\r\nabc",
    "no length": OK + b"Content-Length:\r\n\r\n",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, gzip": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "identity": OK + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "xchunked": OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked with a parameter": OK + b"Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n",
    "empty encoding": OK + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "204 with a length": b"HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\nabc",
    "interim answer with a length": b"HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\nabc" + EMPTY,
    # RFC 9112, 2.2 and 5: lines.
    "bare LF after the status": b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    "bare LF after a field": OK + b"A: b\nContent-Length: 0\r\n\r\n",
    "bare CR in a field": OK + b"A: b\rc\r\nContent-Length: 0\r\n\r\n",
    "bare CR before CR LF": OK + b"A: b\r\r\nContent-Length: 0\r\n\r\n",
    "NUL in a value": OK + b"A: b\0c\r\nContent-Length: 0\r\n\r\n",
    "control character in a value": OK + b"A: b\x08c\r\nContent-Length: 0\r\n\r\n",
    "DEL in a value": OK + b"A: b\x7fc\r\nContent-Length: 0\r\n\r\n",
    "NUL in the reason": b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n",
    "folded line": OK + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "folded by tab": OK + b"A: b\r\n\tc\r\nContent-Length: 0\r\n\r\n",
    "folded first line": OK + b" A: b\r\nContent-Length: 0\r\n\r\n",
    "space before the colon": OK + b"Content-Length : 0\r\n\r\n",
    "space in a name": OK + b"A B: c\r\nContent-Length: 0\r\n\r\n",
    "no name": OK + b": c\r\nContent-Length: 0\r\n\r\n",
    "no colon": OK + b"A\r\nContent-Length: 0\r\n\r\n",
    "name outside ASCII": OK + b"\xe9: c\r\nContent-Length: 0\r\n\r\n",
    # What is not an answer of HTTP/1.
    "HTTP/0.9": b"<html>hello</html>",
    "empty lines first": b"\r\n" + EMPTY,
    "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
    "lower case": b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "two spaces": b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "status below 100": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "upgrade": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "upgrade without a word": b"HTTP/1.1 101 Switching\r\n\r\n" + EMPTY,
    # RFC 9112, 7.1: chunks.
    "no size": CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    "signed size": CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
    "negative size": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "0x size": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "space after the size": CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n",
    "size over 64 bits": CHUNKED + b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "size ends in LF": CHUNKED + b"5\nhello\r\n0\r\n\r\n",
    "LF in an extension": CHUNKED + b"5;a\n0\r\nhello\r\n0\r\n\r\n",
    "CR in an extension": CHUNKED + b"5;a\r0\r\nhello\r\n0\r\n\r\n",
    "NUL in an extension": CHUNKED + b"5;a\0\r\nhello\r\n0\r\n\r\n",
    "chunk longer than its size": CHUNKED + b"4\r\nhello\r\n0\r\n\r\n",
    "chunk ends in LF": CHUNKED + b"5\r\nhello\n0\r\n\r\n",
    "chunk ends in nothing": CHUNKED + b"5\r\nhello0\r\n\r\n",
    "end in LF": CHUNKED + b"5\r\nhello\r\n0\r\n\n",
    "bad trailer": CHUNKED + b"0\r\nA b: c\r\n\r\n",
    "length in a trailer": CHUNKED + b"0\r\nContent-Length: 3\r\n\r\nabc",
}  # fmt: skip


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_two_readers_could_understand_differently_is_refused(data: bytes) -> None:
    whole = read(data)

    assert isinstance(whole, str)
    assert whole != "unfinished"
    assert isinstance(read(*bytewise(data)), str)


FOLLOWED = {
    "another answer": EMPTY,
    "half an answer": b"HTTP/1.1 200",
    # Ends as chunks end, and has no header that would show.
    "an answer that looks like the end": b"HTTP/1.1 200 0\r\n\r\n",
    "an answer in chunks": CHUNKED + b"3\r\nbad\r\n0\r\n\r\n",
    "no HTTP": b"garbage",
    "an empty line": b"\r\n",
    "the end again": b"0\r\n\r\n",
}


@pytest.mark.parametrize("after", FOLLOWED.values(), ids=FOLLOWED)
@pytest.mark.parametrize(
    ("first", "head", "body"),
    [
        (OK + b"Content-Length: 3\r\n\r\nabc", False, b"abc"),
        (EMPTY, False, b""),
        (OK + b"Content-Length: 3\r\n\r\n", True, b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, b""),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", False, b"hello"),
        (OK + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", False, b"hello"),
    ],
)
def test_bytes_after_the_end_are_never_part_of_it_and_cost_the_connection(
    first: bytes, head: bool, body: bytes, after: bytes
) -> None:
    data = first + after
    for cut in range(len(first) - 8, len(data) + 1):
        answer = read(data[:cut], data[cut:], head=head)
        assert isinstance(answer, Read)
        assert (answer.body, answer.complete, answer.reusable) == (body, True, answer.reusable and cut == len(first))


@pytest.mark.parametrize(
    ("data", "complete"),
    [
        (OK + b"\r\nall of it", True),
        (b"HTTP/1.0 200 OK\r\n\r\n", True),
        (OK + b"Content-Length: 4\r\n\r\nabc", False),
        (CHUNKED + b"5\r\nhello\r\n", False),
        (CHUNKED + b"5\r\nhel", False),
        (CHUNKED + b"0\r\n", False),
        (OK + b"Content-Le", False),
        (CONTINUE, False),
        (b"", False),
    ],
)
def test_only_a_body_without_another_end_may_end_with_the_connection(data: bytes, complete: bool) -> None:
    answer = read(data, eof=True) if data else read(eof=True)

    if complete:
        assert isinstance(answer, Read)
        assert (answer.framing, answer.complete, answer.reusable) == (BodyFraming.CLOSE, True, False)
        assert answer.body == data.partition(b"\r\n\r\n")[2]
    else:
        assert answer == "it closed the connection in the middle of its answer"


def test_what_came_before_a_wrong_chunk_goes_on_but_not_the_read_with_it() -> None:
    reader = ResponseReader()
    reader.begin(is_head_request=False)

    assert reader.feed(CHUNKED + b"5\r\nhel") == b"hel"
    with pytest.raises(BadResponse):
        reader.feed(b"lo\r\n3\r\nabc\r\nxyz\r\n")
    assert reader.framing is BodyFraming.CHUNKED
    # Nothing of the broken answer is left for the next one.
    reader.begin(is_head_request=False)
    assert reader.feed(CHUNKED + b"1\r\n!\r\n0\r\n\r\n") == b"!"


def test_one_reader_reads_one_answer_after_another() -> None:
    reader = ResponseReader()
    answers = [data for data, head, *_ in ACCEPTED if not head]
    for data, expected in zip(itertools.chain(answers, answers), itertools.cycle(map(read, answers)), strict=False):
        reader.begin(is_head_request=False)
        assert not reader.seen
        body = reader.feed(data)
        assert isinstance(expected, Read)
        assert (reader.status, reader.headers, body, reader.complete, reader.is_reusable) == (
            expected.status, expected.headers, expected.body, True, expected.reusable,
        )  # fmt: skip


LARGE = response_framing.MAX_HEAD_BYTES
FIELD = response_head.MAX_FIELD_BYTES


@pytest.mark.parametrize(
    ("data", "accepted"),
    [
        (OK + b"A: " + b"x" * (FIELD - 3) + b"\r\nContent-Length: 0\r\n\r\n", True),
        (OK + b"A: " + b"x" * (FIELD - 2) + b"\r\nContent-Length: 0\r\n\r\n", False),
        (OK + b"A: bcd\r\n" * ((LARGE - 64) // 8) + b"Content-Length: 0\r\n\r\n", True),
        (OK + b"A: bcd\r\n" * (LARGE // 8) + b"Content-Length: 0\r\n\r\n", False),
        # Without an end in sight.
        (OK + b"A: " + b"x" * LARGE, False),
        # Interim heads count.
        (CONTINUE * (LARGE // len(CONTINUE) + 1) + EMPTY, False),
        (CONTINUE * 100 + EMPTY, True),
    ],
)
def test_heads_have_limits(data: bytes, accepted: bool) -> None:
    pieces = [data[i : i + 8192] for i in range(0, len(data), 8192)]

    assert isinstance(read(data), Read) is accepted
    assert isinstance(read(*pieces), Read) is accepted


@pytest.mark.parametrize("drip", [b";" + b"x" * 999, b"\r\nA: " + b"x" * 995])
def test_chunks_without_content_have_a_limit(drip: bytes) -> None:
    reader = ResponseReader()
    reader.begin(is_head_request=False)
    reader.feed(CHUNKED + b"0")

    def feed_for_ever() -> None:
        for piece in itertools.chain([drip], itertools.repeat(b"x" * 1000, 200)):
            reader.feed(piece)

    with pytest.raises(BadResponse, match="hold too little"):
        feed_for_ever()


def test_no_text_of_a_refusal_quotes_the_answer() -> None:
    for data in REFUSED.values():
        text = read(data.replace(b"hello", b"canary").replace(b"A: b", b"A: canary"))
        assert "canary" not in str(text)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ("", math.inf),
        ("Keep-Alive: timeout=5\r\n", 5),
        ("keep-alive: max=3, Timeout=5\r\nConnection: keep-alive\r\n", 5),
        ("Keep-Alive: max=1000\r\n", math.inf),
        ("Keep-Alive: timeout=\r\n", math.inf),
        ("Keep-Alive: xtimeout=5\r\n", math.inf),
        ("Keep-Alive: timeout=5\r\nConnection: close\r\n", 0),
        ("Keep-Alive: timeout=5\r\nKeep-Alive: timeout=3\r\n", 3),
    ],
)
def test_how_long_a_connection_is_kept_is_the_upstreams_word(headers: str, seconds: float) -> None:
    reader = ResponseReader()
    reader.begin(is_head_request=False)
    reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + headers.encode() + b"\r\n")
    assert (reader.kept_seconds, reader.is_reusable) == (seconds, seconds > 0)


def test_a_connection_that_is_kept_for_a_second_is_not_used_again() -> None:
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: timeout=1\r\n\r\n")
    assert (reader.complete, reader.is_reusable) == (True, False)


RULES = {
    "two lengths": (200, (("Content-Length", "3"), ("content-length", "3")), True),
    "odd length": (200, (("Content-Length", "3,3"),), True),
    "length and chunks": (200, (("Content-Length", "3"), ("Transfer-Encoding", "chunked")), True),
    "two encodings": (200, (("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")), True),
    "encodings in one": (200, (("Transfer-Encoding", "gzip, chunked"),), True),
    "chunks in HTTP/1.0": (200, (("Transfer-Encoding", "chunked"),), False),
    "interim answer with a length": (100, (("Content-Length", "3"),), True),
    "interim answer in chunks": (103, (("Transfer-Encoding", "chunked"),), True),
    "204 in chunks": (204, (("Transfer-Encoding", "chunked"),), True),
    "204 with a length": (204, (("Content-Length", "3"),), True),
    "status below 100": (99, (), True),
}


@pytest.mark.parametrize(("status", "headers", "is_latest"), RULES.values(), ids=RULES)
def test_our_own_rules_hold_whatever_the_parser_lets_pass(status: int, headers: Headers, is_latest: bool) -> None:
    verdicts = [JUDGES[name.lower()](value) for name, value in headers]
    for is_head_request in (False, True):
        with pytest.raises(BadResponse):
            framing_of(status, verdicts, is_latest=is_latest, is_head_request=is_head_request)


@pytest.mark.parametrize("line", [b"A: b\r\n c", b"A: b\r\n\tc", b"A: b\rc", b"A: b\nc", b"A: \0", b"A: \x1b"])
def test_our_own_rules_of_bytes_hold_too(line: bytes) -> None:
    read_head(OK + b"A: b\tc \xff\r\n\r\n")
    with pytest.raises(BadResponse):
        read_head(OK + line + b"\r\n\r\n")
