"""Asking for usage where a client did not, and the client not noticing."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridged.taps.usage_chunk import MAX_HELD_BYTES, UsageChunkFilter, asking_for_usage
from tests.support.taps import data

STREAM = data("openai_chat.sse")
EXTRA = next(event + b"\n\n" for event in STREAM.split(b"\n\n") if b'"choices":[]' in event)
# As the upstream sends it where nobody asks for usage.
WITHOUT = STREAM.replace(EXTRA, b"").replace(b',"usage":null', b"")
LINE_ENDS = [b"\n", b"\r\n", b"\r"]


def passed(pieces: list[bytes]) -> bytes:
    taken_out = UsageChunkFilter()
    return b"".join([taken_out.feed(piece) for piece in pieces]) + taken_out.end()


@pytest.mark.parametrize(
    ("body", "edited"),
    [
        (b'{"stream":true}', b'{"stream_options":{"include_usage":true},"stream":true}'),
        (b' \n{ "stream": true }', b' \n{"stream_options":{"include_usage":true}, "stream": true }'),
        (b'{"stream_options":null, "stream":true}', b'{"stream_options":{"include_usage":true}, "stream":true}'),
        (b'{"stream_options":{},"a":1e400}', b'{"stream_options":{"include_usage":true},"a":1e400}'),
        (b'{"stream_options":{"include_usage":false,"x":1}}', b'{"stream_options":{"include_usage":true,"x":1}}'),
        (b'{"stream_options":{"include_obfuscation":false}}',
         b'{"stream_options":{"include_obfuscation":false,"include_usage":true}}'),
        (b'{"a":"stream_options"}', b'{"a":"stream_options","stream_options":{"include_usage":true}}'),
        (b'{"stream_options":{"include_usage":true}}', None),
        (b'{"stream_options":{"include_usage":"yes"}}', None),
        (b'{"stream_options":7}', None),
        (b"[]", None),
        (b"", None),
    ],
)  # fmt: skip
def test_a_request_is_made_to_ask(body: bytes, edited: bytes | None) -> None:
    assert asking_for_usage(body) == edited


@given(
    request=st.dictionaries(
        st.sampled_from(["stream", "model", "stream_options", "x\u2028"]),
        st.none() | st.booleans() | st.text() | st.dictionaries(st.sampled_from(["include_usage", "y"]), st.booleans()),
        min_size=1,
    )
)
def test_nothing_else_of_a_request_changes(request: dict[str, object]) -> None:
    edited = asking_for_usage(json.dumps(request).encode())
    options = request.get("stream_options")
    if edited is not None:
        assert options is None or isinstance(options, dict)
        kept = options if isinstance(options, dict) else {}
        assert json.loads(edited) == {**request, "stream_options": {**kept, "include_usage": True}}
    elif isinstance(options, dict):
        assert options.get("include_usage")


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_only_the_extra_chunk_is_taken_out_wherever_the_network_cuts(line_end: bytes) -> None:
    stream, expected = (body.replace(b"\n", line_end) for body in (STREAM, WITHOUT))
    for cut in range(len(stream) + 1):
        assert passed([stream[:cut], stream[cut:]]) == expected, cut
    assert passed([stream[at : at + 1] for at in range(len(stream))]) == expected


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_the_extra_chunk_is_taken_out_however_much_follows_it_in_one_piece(line_end: bytes) -> None:
    comments = b": keepalive\n\n" * 500
    stream, expected = (
        (body.removesuffix(b"data: [DONE]\n\n") + comments + b"data: [DONE]\n\n").replace(b"\n", line_end)
        for body in (STREAM, WITHOUT)
    )
    assert passed([stream]) == expected
    begin = STREAM.index(b"\n\n") + 2
    assert passed([stream[:begin], stream[begin:]]) == expected


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_whole_events_are_not_held_back(line_end: bytes) -> None:
    taken_out = UsageChunkFilter()
    for event in WITHOUT.split(b"\n\n")[:-1]:
        whole = event.replace(b"\n", line_end) + line_end * 2
        assert taken_out.feed(whole) == whole


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"choices":[],"prompt_filter_results":[]}',
        b'data: {"choices":[],"usage":{},"x_tokens":1}',
        b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"completion_tokens":1}}',
        b'data: {"choices":[],"usage":{"completion_tokens":1},"error":{"message":"x"}}',
        b'data: {"usage":{"completion_tokens":1}}',
        b'data: {"choices":[],"usage":{"completion_tokens":1}',
        b': {"choices":[],"usage":{"completion_tokens":1}}',
        b"data: [DONE]",
    ],
)
def test_other_events_pass(event: bytes) -> None:
    assert passed([event + b"\n\n"]) == event + b"\n\n"


@pytest.mark.parametrize(
    "event",
    [
        b'data:{"choices":[],"usage":{"completion_tokens":1}}\n\n',
        b'event: x\r\ndata: {"choices":[],\r\ndata: "usage":{"completion_tokens":1},"error":null}\r\n\r\n',
        b'\xef\xbb\xbfdata: {"usage":{"completion_tokens":1},"choices": [ ]}\n\n',
    ],
)
def test_the_extra_chunk_may_be_spelt_in_other_ways(event: bytes) -> None:
    assert passed([event, b"data: [DONE]\n\n"]) == b"data: [DONE]\n\n"


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_the_extra_chunk_may_have_much_behind_its_usage(line_end: bytes) -> None:
    extra = b'data: {"choices":[],"usage":{"completion_tokens":1},"citations":["%b"]}\n\n' % (b"x" * 10_000)
    text = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
    extra, text, done = (event.replace(b"\n", line_end) for event in (extra, text, b"data: [DONE]\n\n"))
    for pieces in ([text, extra, done], [text, extra + done], [text + extra[:7000], extra[7000:], done]):
        assert passed(pieces) == text + done


@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        (b'{"choices":[1],"usage":null}', b'{"choices":[1]}'),
        (b'{"choices": [1], "usage": null, "obfuscation": "x"}', b'{"choices": [1], "obfuscation": "x"}'),
        (b'{"choices":[],"usage":null,"x_tokens":1}', b'{"choices":[],"x_tokens":1}'),
        (rb'{"choices":["a,\"usage\":null"]}', rb'{"choices":["a,\"usage\":null"]}'),
    ],
)
def test_no_usage_is_taken_out_of_other_chunks(line_end: bytes, chunk: bytes, expected: bytes) -> None:
    before = b"data: " + chunk + line_end * 2
    after = b"data: " + expected + line_end * 2
    for cut in range(len(before) + 1):
        assert passed([before[:cut], before[cut:], b"data: [DONE]"]) == after + b"data: [DONE]", cut
    assert passed([before[: -2 * len(line_end)]]) == after[: -2 * len(line_end)]


@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("cut", range(6))
def test_a_long_event_is_not_held_back_and_the_chunk_behind_it_is_taken_out(line_end: bytes, cut: int) -> None:
    long = b"data: " + b"x" * (2 * MAX_HELD_BYTES)
    rest = line_end * 2 + EXTRA.replace(b"\n", line_end) + b"data: [DONE]" + line_end * 2
    expected = long + line_end * 2 + b"data: [DONE]" + line_end * 2
    assert passed([long, rest[:cut], rest[cut:]]) == expected
    assert passed([long + rest[:cut], rest[cut:]]) == expected


@given(pieces=st.lists(st.binary() | st.sampled_from([EXTRA, b"\r", b"\n", b"data: x", b"x" * 20_000, b'_tokens"'])))
@settings(max_examples=400)
def test_bytes_that_are_no_extra_chunk_pass_as_they_came(pieces: list[bytes]) -> None:
    pieces = [re.sub(rb"usage|etion_tokens", b"prompt", piece) if piece is not EXTRA else b"" for piece in pieces]
    assert passed(pieces) == b"".join(pieces)


def test_what_was_held_of_a_cut_stream_goes_out_at_its_end() -> None:
    for cut in range(len(WITHOUT)):
        assert passed([WITHOUT[:cut]]) == WITHOUT[:cut]


@pytest.mark.parametrize("before", [b"", b": comment\n\n", b'data: {"choices":[],"prompt_filter_results":[]}\n\n'])
def test_no_usage_is_taken_out_where_each_piece_is_an_event(before: bytes) -> None:
    chunk = b'data: {"choices":[{"delta":{"content":"x"}}]%b}\n\n'
    taken_out = UsageChunkFilter()
    assert taken_out.feed(before) == before
    for _ in range(3):
        assert taken_out.feed(chunk % b',"usage":null') == chunk % b""
