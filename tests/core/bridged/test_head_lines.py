"""Heads put together from remembered lines say what the tables of headers.py say."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridged.head_lines import AnswerLines, request_lines, response_lines
from bridged.headers import (
    is_event_stream,
    is_plain,
    request_headers,
    request_id_of,
    response_headers,
    without_token,
)
from bridged.http1.fields import field_lines
from bridged.model import Headers, Refused, header_values
from daemonkit.secret import Secret

TOKEN = "dbu_" + "a1B2c3D" * 7
DATE = b"Date: Sun, 22 Nov 2026 00:00:00 GMT\r\n"
NAMES = st.sampled_from(
    [
        "Accept", "accept-encoding", "Accept_Encoding", "Authorization", "Cache-Control", "Connection",
        "Content-Encoding", "Content-Type", "Cookie", "Date", "Referer", "Set-Cookie", "Transfer-Encoding",
        "User-Agent", "X-Accel-Buffering", "x_accel_buffering", "x-api-key", "X-Forwarded-For",
        "X-Interception-Id", "X-Private", "X-Request-Id", "request-id",
        "X-Session-Token", "bad name", "",
    ]
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        [
            "", "close", "keep-alive", "X-Private, close", "content-length", "gzip", "identity", "text/event-stream",
            "text/event-stream; charset=utf-8", "application/json", "no-cache", TOKEN, f"a {TOKEN} b", "100%",
            f"Basic {TOKEN}", "no", "a\r\nb", "a\0b", "\xe9",
        ]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=12),
)  # fmt: skip
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=8).map(tuple)
LENGTHS = st.sampled_from([(), (("Content-Length", "17"),), (("content-length", "0"),)])


def outcome(headers: Headers | Refused) -> bytes | str:
    return headers.reason if isinstance(headers, Refused) else field_lines(headers)


@given(HEADERS, st.booleans())
@example((("Referer", TOKEN),), True)
def test_a_request_leaves_as_the_tables_say_also_the_second_time(headers: Headers, intercepted: bool) -> None:
    try:
        expected = outcome(request_headers(without_token(headers, Secret(TOKEN)), intercepted=intercepted))
    except Refused as refused:
        expected = refused.reason
    for _ in range(2):
        try:
            lines: bytes | str = request_lines(headers, Secret(TOKEN), intercepted=intercepted)
        except Refused as refused:
            lines = refused.reason
        assert lines == expected


@given(HEADERS, LENGTHS, st.booleans())
@example((("Content-Type", "text/event-stream"), ("X-Accel-Buffering", "yes")), (("Content-Length", "17"),), True)
def test_an_answer_leaves_as_the_tables_say_also_the_second_time(
    headers: Headers, length: Headers, keeps_length: bool
) -> None:
    headers = (*headers, *length)
    expected: AnswerLines | str
    try:
        kept = response_headers(headers, interception_id="iid")
        if not keeps_length:
            kept = tuple(pair for pair in kept if pair[0].lower() != "content-length")
        lengths = [int(value) for name, value in kept if name.lower() == "content-length"]
        dated = field_lines(kept) + (b"" if header_values(kept, "date") else DATE)
        length_bytes = lengths[0] if lengths else None
        expected = dated, is_event_stream(headers), length_bytes, is_plain(headers), request_id_of(headers)
    except Refused as refused:
        expected = refused.reason
    for _ in range(2):
        try:
            answer: AnswerLines | str = response_lines(
                headers, interception_id="iid", date=DATE, keeps_length=keeps_length
            )
        except Refused as refused:
            answer = refused.reason
        assert answer == expected


@pytest.mark.parametrize("value", [TOKEN, f"x{TOKEN}x", "db" + "s_" + "a" * 49])
def test_no_token_of_ours_goes_upstream_in_a_header_that_was_harmless_before(value: str) -> None:
    assert request_lines((("Referer", "x"),), Secret(TOKEN), intercepted=False) == b"Referer: x\r\n"
    assert request_lines((("Referer", value),), Secret(TOKEN), intercepted=False) == b""
