"""Request heads: every row of the smuggling corpus, and what is read of what is accepted."""

import gc
import weakref

import pytest

from bridged.http1.framing import HeadLimits, Malformed, Request, SecondReading, check_beginning, read_head
from tests.data.http1.smuggling.requests import ACCEPTED, BROKEN_BODIES, INNER, REFUSED, Accepted, Refused, head
from tests.support.http1_readers import read_ours

LIMITS = HeadLimits()


def read(*lines: str, first: str = "GET /x HTTP/1.1", host: str = "Host: x") -> Request:
    return read_head(head(*lines, first=first, host=host), LIMITS)


# Methods are a list of llhttp's; everything else our own reading refuses by itself.
ONLY_LLHTTP = {"a method in lower case", "a method that nobody knows"}


def judge(row: Refused) -> None:
    end = row.data.find(b"\r\n\r\n")
    if end < 0:
        check_beginning(row.data, 0, LIMITS)
        return
    read_head(row.data[: end + 4], LIMITS)
    if row.name in ONLY_LLHTTP and not SecondReading().confirms(row.data[: end + 4], ends=False):
        raise Malformed("only llhttp refuses it")


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name)
def test_what_could_be_read_in_two_ways_is_refused(row: Refused) -> None:
    reading = read_ours([row.data])
    assert (reading.messages, reading.refused, reading.closed) == ([], True, True)


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name)
def test_the_reason_of_a_refusal_is_told_in_words_of_ours(row: Refused) -> None:
    with pytest.raises(Malformed) as refused:
        judge(row)
    assert refused.value.reason == row.reason
    assert refused.value.detail[0].islower() or refused.value.detail.split()[0] in {
        "Content-Length",
        "Host",
        "HTTP/1.0",
    }


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name)
def test_a_refused_request_after_a_good_one_does_not_touch_the_good_one(row: Refused) -> None:
    good = head("Content-Length: 2") + b"hi"
    reading = read_ours([good + row.data])
    assert [message[3] for message in reading.messages[:1]] == [b"hi"]
    assert (reading.refused, reading.closed) == (True, True)


@pytest.mark.parametrize("row", BROKEN_BODIES, ids=lambda row: row.name)
def test_a_body_that_could_be_read_in_two_ways_is_refused(row: Refused) -> None:
    reading = read_ours([row.data])
    assert (reading.messages, reading.refused, reading.closed) == ([], True, True)


@pytest.mark.parametrize("row", ACCEPTED, ids=lambda row: row.name)
def test_what_only_looks_odd_is_read_as_it_is_meant(row: Accepted) -> None:
    reading = read_ours([row.data])
    assert tuple((method, target, body) for method, target, _, body in reading.messages) == row.messages
    assert not reading.refused


@pytest.mark.parametrize("row", [*ACCEPTED, *REFUSED, *BROKEN_BODIES], ids=lambda row: row.name)
def test_where_the_network_cuts_a_request_does_not_matter(row: Accepted | Refused) -> None:
    whole = read_ours([row.data])
    places = range(len(row.data) + 1) if len(row.data) < 1000 else range(0, len(row.data), 9973)
    for place in places:
        assert read_ours([row.data[:place], row.data[place:]]) == whole, place


@pytest.mark.parametrize("row", [*ACCEPTED, *REFUSED, *BROKEN_BODIES], ids=lambda row: row.name)
def test_a_request_may_come_byte_by_byte(row: Accepted | Refused) -> None:
    data = row.data if len(row.data) < 5000 else row.data[:5000]
    assert read_ours([data[i : i + 1] for i in range(len(data))]) == read_ours([data])


def test_names_values_and_their_order_are_as_sent() -> None:
    request = read("x-B: 1 ", "X-a:2", "x-b:\t\xe9 ,  e")
    assert request.headers == (("Host", "x"), ("x-B", "1"), ("X-a", "2"), ("x-b", "\xe9 ,  e"))
    assert (request.method, request.target) == ("GET", "/x")


@pytest.mark.parametrize(
    ("lines", "content_length", "chunked", "has_body"),
    [
        ((), None, False, False),
        (("Content-Length: 0",), 0, False, False),
        (("Content-Length: 7",), 7, False, True),
        (("Content-Length: 999999999999999999",), 999999999999999999, False, True),
        (("Transfer-Encoding: chunked",), None, True, True),
    ],
)
def test_the_body_is_announced_by_length_or_chunks(
    lines: tuple[str, ...], content_length: int | None, chunked: bool, has_body: bool
) -> None:
    request = read(*lines)
    assert (request.content_length, request.chunked, request.has_body) == (content_length, chunked, has_body)


KEEP_ALIVE = [
    # version, Connection, whether the connection stays
    ("1.1", (), True),
    ("1.1", ("keep-alive",), True),
    ("1.1", ("close",), False),
    ("1.1", ("Close",), False),
    ("1.1", ("x, close",), False),
    ("1.1", ("x", "close"), False),
    ("1.1", ("keep-alive, close",), False),
    ("1.1", ("closed",), True),
    ("1.0", (), False),
    ("1.0", ("keep-alive",), True),
    ("1.0", ("Keep-Alive",), True),
    ("1.0", ("x,keep-alive",), True),
    ("1.0", ("close",), False),
    ("1.0", ("keep-alive, close",), False),
]


@pytest.mark.parametrize(("version", "options", "stays"), KEEP_ALIVE)
def test_the_connection_stays_if_the_version_or_the_client_says_so(
    version: str, options: tuple[str, ...], stays: bool
) -> None:
    lines = [f"Connection: {option}" for option in options]
    assert read(*lines, first=f"GET /x HTTP/{version}").keep_alive is stays


@pytest.mark.parametrize(("version", "options", "stays"), KEEP_ALIVE)
def test_the_next_request_is_read_if_and_only_if_the_connection_stays(
    version: str, options: tuple[str, ...], stays: bool
) -> None:
    data = head(*[f"Connection: {option}" for option in options], first=f"GET /x HTTP/{version}")
    reading = read_ours([data + INNER])
    assert (len(reading.messages), reading.refused) == (2 if stays else 1, False)


@pytest.mark.parametrize(
    ("lines", "first", "expects"),
    [
        (("Expect: 100-continue",), "POST /x HTTP/1.1", True),
        (("Expect: 100-Continue",), "POST /x HTTP/1.1", True),
        (("Expect: 100-continue",), "POST /x HTTP/1.0", False),
        (("Expect: something",), "POST /x HTTP/1.1", False),
        ((), "POST /x HTTP/1.1", False),
    ],
)
def test_only_a_client_of_http_11_that_says_so_waits_for_100(lines: tuple[str, ...], first: str, expects: bool) -> None:
    assert read(*lines, first=first).expects_continue is expects


def test_an_upgrade_is_seen_and_ends_the_connection() -> None:
    request = read("Connection: Upgrade", "Upgrade: websocket", "Content-Length: 3")
    assert (request.upgrade, request.keep_alive, request.content_length) == (True, False, 3)


def test_a_refused_head_is_known_as_far_as_it_could_be_read() -> None:
    with pytest.raises(Malformed) as refused:
        read("Content-Length: 1", "Content-Length: 1", first="HEAD /corp/v1 HTTP/1.1")
    assert (refused.value.method, refused.value.target, len(refused.value.headers)) == ("HEAD", "/corp/v1", 3)


def test_limits_are_what_was_asked_for() -> None:
    limits = HeadLimits(head_bytes=100, field_bytes=40, fields=3)
    assert read_head(head("A: b", "C: d"), limits).headers[2] == ("C", "d")
    for line in (["A: b"] * 3, ["A: " + "b" * 60], ["A: " + "b" * 35] * 2):
        with pytest.raises(Malformed, match=r"limit|more than"):
            read_head(head(*line), limits)


def test_llhttp_must_see_the_message_end_where_we_do() -> None:
    data = head("Content-Length: 5") + b"hello"
    assert SecondReading().confirms(data, ends=True)
    assert not SecondReading().confirms(data[:-1], ends=True)
    assert not SecondReading().confirms(data, ends=False)
    assert not SecondReading().confirms(data + head(), ends=True)
    assert not SecondReading().confirms(b"FROB /x HTTP/1.1\r\nHost: x\r\n\r\n", ends=True)


def test_a_connection_that_is_let_go_leaves_nothing_to_the_collector() -> None:
    gc.disable()
    try:
        reading = SecondReading()
        assert reading.confirms(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", ends=True)
        gone = weakref.ref(reading)
        del reading
        assert gone() is None
    finally:
        gc.enable()
