"""What taps see of answers of every dialect, wherever the network cuts them."""

import itertools
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from bridged.model import DialectName
from bridged.records import AnswerRecords, Trouble
from bridged.taps import answer_tap, anthropic_messages, openai_chat
from bridged.taps.answer_tap import EventsTap
from bridged.taps.error_body import MAX_BODY_BYTES, ErrorTap
from bridged.taps.openai_chat import ChatReader
from bridged.taps.seen import MAX_COUNT
from tests.support.taps import ALL, BINARY_STREAMS, DOCUMENTS, EVENTS, JSON, STREAMS, Recorded, seen, tapped

every = pytest.mark.parametrize("recorded", ALL, ids=str)
every_stream = pytest.mark.parametrize("recorded", [*STREAMS, *BINARY_STREAMS], ids=str)
every_events = pytest.mark.parametrize("recorded", STREAMS, ids=str)
every_document = pytest.mark.parametrize("recorded", DOCUMENTS, ids=str)

CHAT, MESSAGES = DialectName.OPENAI_CHAT, DialectName.ANTHROPIC_MESSAGES
RESPONSES, GENERATE = DialectName.OPENAI_RESPONSES, DialectName.GOOGLE_GENERATE


@every
def test_all_of_an_answer_is_seen(recorded: Recorded) -> None:
    assert seen(recorded, [recorded.body]) == recorded.expected


@every
def test_where_the_network_cuts_an_answer_does_not_matter(recorded: Recorded) -> None:
    for cut in range(len(recorded.body) + 1):
        assert seen(recorded, [recorded.body[:cut], recorded.body[cut:]]) == recorded.expected, cut


@every
def test_an_answer_may_come_byte_by_byte(recorded: Recorded) -> None:
    pieces = [recorded.body[at : at + 1] for at in range(len(recorded.body))]
    assert seen(recorded, pieces) == recorded.expected


@every
def test_nothing_that_is_printed_of_a_tap_shows_what_was_said(recorded: Recorded) -> None:
    tap: Any = answer_tap(recorded.dialect, recorded.operation, status=200, headers=recorded.headers)
    tap.feed(recorded.body)
    # A method that waits for its turn is printed with what it belongs to.
    printed = repr([tap, tap.feed, tap._reader.seen, tap._reader])
    expected = recorded.expected
    said = [expected.msg_id, *(one.input for one in expected.tools), *(one.content for one in expected.thoughts)]
    said += [value for _, value in recorded.headers]
    assert not [one for one in said if len(one) > 4 and one in printed]
    assert len(printed) < 1000


@every_stream
def test_a_cut_stream_leaves_what_was_seen_and_is_marked(recorded: Recorded) -> None:
    output_tokens = 0
    for cut in range(len(recorded.body)):
        found = seen(recorded, [recorded.body[:cut]], whole=False)
        if not found.partial:
            # All that was cut is the blank line behind the last event, or what follows the one that says it is over.
            assert structs.replace(found, troubles=frozenset()) == recorded.expected
            continue
        assert found.usage is None or found.usage.partial
        if found.usage is not None:
            assert found.usage.output_tokens >= output_tokens
            output_tokens = found.usage.output_tokens
        whole_tools = [tool for tool in found.tools if not tool.partial]
        assert whole_tools == list(recorded.expected.tools[: len(whole_tools)])
        for thought, expected in zip(found.thoughts, recorded.expected.thoughts, strict=False):
            assert expected.content.startswith(thought.content)
            assert thought.partial or thought == expected


@every_stream
def test_the_end_of_a_connection_alone_does_not_make_a_stream_whole(recorded: Recorded) -> None:
    found = seen(recorded, [recorded.body[: len(recorded.body) // 2]], whole=True)
    assert found.partial


@every_document
def test_a_cut_document_is_partial(recorded: Recorded) -> None:
    for cut in range(len(recorded.body.rstrip())):
        found = seen(recorded, [recorded.body[:cut]], whole=False)
        assert found.partial, cut
        assert found.usage is None or found.usage.partial


@every_document
def test_usage_is_read_from_a_document_that_was_cut_after_it(recorded: Recorded) -> None:
    body = recorded.body.rstrip()
    cut = body.rstrip(b"]}\n").rfind(b'"') if recorded.dialect is GENERATE else len(body) - 1
    found = seen(recorded, [body[:cut]], whole=False)
    assert found.usage is not None
    assert recorded.expected.usage is not None
    assert found.usage.output_tokens == recorded.expected.usage.output_tokens


LINE_ENDS = [b"\n", b"\r\n", b"\r"]


@every_events
@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_lines_may_end_in_any_way_and_be_cut_there(recorded: Recorded, line_end: bytes) -> None:
    body = recorded.body.replace(b"\n", line_end)
    assert seen(recorded, [body]) == recorded.expected
    for cut in [found.start() + 1 for found in re.finditer(rb"[\r\n]", body)]:
        assert seen(recorded, [body[:cut], body[cut:]]) == recorded.expected


def _without_spaces(body: bytes) -> bytes:
    return body.replace(b"data: ", b"data:").replace(b"event: ", b"event:")


def _with_comments(body: bytes) -> bytes:
    return b": hello\n\n" + body.replace(b"data: ", b": keepalive\ndata: ").replace(b"\n\n", b"\n\n:\n\n")


def _with_other_fields(body: bytes) -> bytes:
    return body.replace(b"data: ", b"id: 7\nretry: 10\nnonsense\ndata: ")


def _with_unknown_events(body: bytes) -> bytes:
    unknown = b'event: news\ndata: {"type":"news","about":["x"]}\n\n'
    first, rest = body.split(b"\n\n", 1)
    return first + b"\n\n" + unknown + rest.replace(b"\n\n", b"\n\n" + unknown, 3)


def _with_byte_order_mark(body: bytes) -> bytes:
    return b"\xef\xbb\xbf" + body


def _on_many_lines(body: bytes) -> bytes:
    def split(line: bytes) -> bytes:
        if not line.startswith(b"data: {"):
            return line
        return b"\n".join(b"data: " + part.encode() for part in json.dumps(json.loads(line[6:]), indent=1).split("\n"))

    return b"\n".join(split(line) for line in body.split(b"\n"))


@every_events
def test_data_on_many_lines_may_be_cut_inside_a_cr_lf(recorded: Recorded) -> None:
    body = _on_many_lines(recorded.body).replace(b"\n", b"\r\n")
    for cut in [found.start() + 1 for found in re.finditer(rb"\r", body)]:
        assert replace_input(seen(recorded, [body[:cut], body[cut:]])) == replace_input(recorded.expected)


@every_events
def test_a_long_event_may_be_cut_inside_the_blank_line_behind_it(recorded: Recorded) -> None:
    first, rest = recorded.body.split(b"\n\n", 1)
    long = b'data: {"long":"' + b"x" * 10_000 + b'"}\n\n'
    for cut in range(len(long) - 4, len(long) + 1):
        assert seen(recorded, [first + b"\n\n", long[:cut], long[cut:], rest]) == recorded.expected
        assert seen(recorded, [first + b"\n\n" + long[:cut], long[cut:] + rest]) == recorded.expected
        cut_twice = [first + b"\n\n", long[:5000], long[5000:cut], long[cut:], rest]
        assert seen(recorded, cut_twice) == recorded.expected


def _with_blank_lines(body: bytes) -> bytes:
    return b"\n\n\n" + body.replace(b"\n\n", b"\n\n\n\n\n")


@every_events
@pytest.mark.parametrize(
    "spelt",
    [
        _without_spaces,
        _with_comments,
        _with_other_fields,
        _with_unknown_events,
        _with_byte_order_mark,
        _on_many_lines,
        _with_blank_lines,
    ],
)
def test_how_an_upstream_spells_its_events_does_not_matter(recorded: Recorded, spelt: object) -> None:
    assert callable(spelt)
    body = spelt(recorded.body)
    assert replace_input(seen(recorded, [body])) == replace_input(recorded.expected)
    for cut in range(0, len(body), 7):
        assert replace_input(seen(recorded, [body[:cut], body[cut:]])) == replace_input(recorded.expected)


def replace_input(records: AnswerRecords) -> AnswerRecords:
    """Gemini's arguments are kept as they were sent, white space and all."""
    return structs.replace(
        records, tools=tuple(structs.replace(tool, input="".join(tool.input.split())) for tool in records.tools)
    )


@every_events
@pytest.mark.parametrize(
    "garbage", [b'data: {"usage": nonsense}\n\n', b"data: [DONE\n\n", b"\xff\xfe\n\n", b"data: {\n\n"]
)
def test_garbage_between_events_does_not_stop_a_tap(recorded: Recorded, garbage: bytes) -> None:
    first, rest = recorded.body.split(b"\n\n", 1)
    found = seen(recorded, [first + b"\n\n" + garbage + rest])
    assert structs.replace(found, troubles=frozenset()) == recorded.expected


@every_events
def test_the_last_blank_line_may_be_missing(recorded: Recorded) -> None:
    assert seen(recorded, [recorded.body.rstrip(b"\n")]) == recorded.expected


@every
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_bytes_make_a_tap_fail(recorded: Recorded, data: st.DataObject) -> None:
    body = bytearray(recorded.body)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(body)))
        match data.draw(st.sampled_from(["change", "insert", "delete"])):
            case "change":
                body[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
            case "insert":
                body[at:at] = data.draw(
                    st.sampled_from([b"\r", b"\n\n", b'"', b"{", b"\\ud83d", b"data:", b"\x00\xff"])
                )
            case _:
                del body[at : at + data.draw(st.integers(1, 300))]
    cut = data.draw(st.integers(0, len(body)))
    found = seen(recorded, [bytes(body[:cut]), bytes(body[cut:])], whole=data.draw(st.booleans()))
    assert found == seen(recorded, [bytes(body[:cut]), bytes(body[cut:])], whole=True) or found.partial


@given(pieces=st.lists(st.binary(max_size=60), max_size=12), recorded=st.sampled_from(ALL))
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_seen_as_nothing(pieces: list[bytes], recorded: Recorded) -> None:
    found = seen(recorded, pieces, whole=False)
    assert found.usage is None
    assert found.partial


ERROR_BODIES = [
    ('{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', "overloaded_error", "Overloaded"),
    ('{"error":{"message":"slow down","type":"rate_limit","code":"rate_limit_exceeded"}}', "rate_limit", "slow down"),
    ('{"error":{"message":"no","type":null,"code":"model_not_found"}}', "model_not_found", "no"),
    ('{"error":{"code":400,"message":"bad","status":"INVALID_ARGUMENT"}}', "INVALID_ARGUMENT", "bad"),
    ('[{"error":{"code":400,"message":"bad","status":"INVALID_ARGUMENT"}}]', "INVALID_ARGUMENT", "bad"),
    ('{"message":"bad input","__type":"ValidationException"}', "ValidationException", "bad input"),
    ('{"error":"model is loading"}', "", "model is loading"),
    ("<html>bad gateway</html>", "", ""),
    ('{"error":{"message":7,"type":["x"]}}', "", ""),
    ("", "", ""),
]


@pytest.mark.parametrize(("body", "error_type", "message"), ERROR_BODIES)
def test_an_error_is_read_for_its_type_and_words(body: str, error_type: str, message: str) -> None:
    for size in (1, 7, 1000):
        tap = answer_tap(CHAT, "openai.chat_completions", status=429, headers=JSON)
        assert tap is not None
        raw = body.encode()
        for start in range(0, len(raw), size):
            tap.feed(raw[start : start + size])
        found = tap.end(whole=True)
        assert (found.error_type, found.error_message, found.usage) == (error_type, message, None)


def test_the_words_of_an_error_about_a_key_are_not_kept() -> None:
    for status in (401, 403):
        tap = answer_tap(CHAT, "openai.chat_completions", status=status, headers=JSON)
        assert tap is not None
        tap.feed(b'{"error":{"message":"Incorrect API key provided: sk-pr****cdef","type":"invalid_request_error"}}')
        found = tap.end(whole=True)
        assert (found.error_type, found.error_message) == ("invalid_request_error", "")


def test_the_name_of_an_error_of_aws_stands_in_a_header() -> None:
    headers = (*JSON, ("x-amzn-ErrorType", "ThrottlingException:http://internal.amazon.com/"))
    tap = answer_tap(DialectName.BEDROCK, "bedrock.converse", status=429, headers=headers)
    assert tap is not None
    tap.feed(b'{"message":"Too many tokens"}')
    found = tap.end(whole=True)
    assert (found.error_type, found.error_message) == ("ThrottlingException", "Too many tokens")


def test_an_error_without_an_end_holds_a_bounded_amount_of_it() -> None:
    tap = answer_tap(CHAT, "openai.chat_completions", status=500, headers=JSON)
    assert isinstance(tap, ErrorTap)
    for _ in range(100):
        tap.feed(b"x" * 10_000)
    assert len(tap._data) <= MAX_BODY_BYTES
    assert tap.end(whole=False).partial


@pytest.mark.parametrize("status", [101, 199, 301, 304])
def test_what_is_neither_an_answer_nor_an_error_has_no_tap(status: int) -> None:
    assert answer_tap(CHAT, "openai.chat_completions", status=status, headers=JSON) is None


def test_comments_behind_the_last_events_hide_nothing() -> None:
    error = b'data: {"error":{"type":"server_error","message":"boom"}}\n\n'
    found = tapped([error, b": keepalive\n\n" * 20], dialect=CHAT)
    assert (found.error_type, found.error_message) == ("server_error", "boom")


class _NoUsualEnd(ChatReader):
    usual_end = b""


LAST_EVENTS = st.sampled_from(
    [
        *[b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'] * 4,
        b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
        b'data: {"error":{"type":"server_error","message":"boom"}}\n\n',
        b'data: {"choices":[]}\r\n\r\ndata: {"error":"boom"}\r\n\r\n',
        b'event: error\ndata: {"error":{"type":"late"}}\n\n',
        b'data: {"usage":{"completion_tokens":3}}\n\n',
        b": keepalive\n\n",
        b": data: \n\n",
        b"\n\n",
        b"data:[DONE]\n\n",
        b"data: [DONE]\r\n\r\n",
        b"data: [DONE]\n\n",
        b"data: [DONE]",
    ]
)


@given(st.lists(LAST_EVENTS, max_size=9), st.booleans(), st.lists(st.integers(1, 200), min_size=1, max_size=5))
def test_a_stream_that_ends_as_most_do_is_read_as_any_other(
    events: list[bytes], is_done: bool, sizes: list[int]
) -> None:
    body = b"".join(events) + (b"data: [DONE]\n\n" if is_done else b"")
    found: list[AnswerRecords] = []
    for reader in (ChatReader(), _NoUsualEnd()):
        tap, left = EventsTap(reader), body
        for size in itertools.cycle(sizes):
            tap.feed(left[:size])
            left = left[size:]
            if not left:
                break
        found.append(tap.end(whole=True))
    assert found[0] == found[1]


def test_an_error_before_the_usual_end_is_told() -> None:
    text, error = (
        b'data: {"choices":[{"delta":{}}]}\n\n',
        b'data: {"error":{"type":"server_error","message":"boom"}}\n\n',
    )
    for behind in range(3):
        found = tapped([text * 9 + error + text * behind + b"data: [DONE]\n\n"], dialect=CHAT)
        assert found.error_type == "server_error"


@every_events
@pytest.mark.parametrize("size", [1000, 4000, 5000, 100_000])
def test_all_of_a_stream_is_seen_with_kilobytes_of_comments_behind_each_event(recorded: Recorded, size: int) -> None:
    body = recorded.body.replace(b"\n\n", b"\n\n" + b": keepalive\n\n" * 500)
    assert seen(recorded, [body[at : at + size] for at in range(0, len(body), size)]) == recorded.expected
    # The piece that is cut out of the former ends inside a comment.
    first, last = recorded.body.rstrip().rsplit(b"\n\n", 1)
    pieces = [first + b"\n\n: " + b"x" * 5000 + b"\n\n", last + b"\n\n"]
    assert seen(recorded, pieces) == recorded.expected


def test_what_usage_says_first_counts_where_it_is_not_said_again() -> None:
    whole = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}}
    usages = [whole, *({"prompt_tokens": 9, "completion_tokens": count} for count in range(2, 200))]
    events = [
        b"data: " + json.dumps({"id": "c", "choices": [{"delta": {"content": "x"}}], "usage": one}).encode() + b"\n\n"
        for one in usages
    ]
    for pieces in (events, [b"".join(events)]):
        usage = tapped([b'data: {"id":"c"}\n\n', *pieces, b"data: [DONE]\n\n"], dialect=CHAT).usage
        assert usage is not None
        assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (5, 4, 199)


# -- Anthropic Messages ---------------------------------------------------------------------------------------------


def _messages(*events: dict[str, object]) -> bytes:
    return b"".join(
        b"event: " + str(event["type"]).encode() + b"\ndata: " + json.dumps(event).encode() + b"\n\n"
        for event in events
    )


START = {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 9, "output_tokens": 5}}}
STOP = {"type": "message_stop"}


def test_output_tokens_that_are_cumulative_are_not_summed() -> None:
    delta = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 61}}
    found = tapped([_messages(START, delta, delta, STOP)], dialect=MESSAGES)
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens) == (9, 61)


@pytest.mark.parametrize("together", [True, False])
def test_a_message_that_begins_after_a_ping_is_seen(together: bool) -> None:
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x" * 900}}
    delta = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 61}}
    pieces = [_messages({"type": "ping"}), _messages(START, *[text] * 9), _messages(delta, STOP)]
    found = tapped([b"".join(pieces)] if together else pieces, dialect=MESSAGES)
    assert found.msg_id == "m"
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens) == (9, 61)


BLOCK_EVENTS = st.sampled_from(
    [
        *[
            {"type": "content_block_start", "index": index, "content_block": {"type": kind, "id": "i", "name": "f"}}
            for index, kind in enumerate(("text", "thinking", "tool_use"))
        ],
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "thinking_delta", "thinking": "y"}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "z"}},
        {"type": "content_block_stop", "index": 2},
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 61}},
    ]
)


@given(st.lists(BLOCK_EVENTS, max_size=30))
def test_blocks_of_any_kind_in_any_order_are_seen_together_as_one_by_one(events: list[dict[str, object]]) -> None:
    one_by_one = [_messages(event) for event in (START, *events, STOP)]
    # The first event is looked at by itself.
    together = [one_by_one[0], b"".join(one_by_one[1:])]
    assert tapped(together, dialect=MESSAGES) == tapped(one_by_one, dialect=MESSAGES)


def _iteration(kind: str, *counts: object) -> dict[str, object]:
    names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return {"type": kind, **dict(zip(names, counts, strict=True))}


COMPACTED = {
    "input_tokens": 23, "output_tokens": 10, "cache_read_input_tokens": 5,
    "iterations": [_iteration("compaction", 1000, 35, 2, 1), _iteration("compaction", 500, 5, 0, 0),
                   _iteration("message", 23, 10, 5, 0), _iteration("advisor_message", 823, 161, 0, 0)],
}  # fmt: skip


def test_what_it_took_to_compact_a_conversation_is_counted_and_advice_of_another_model_beside() -> None:
    delta = {"type": "message_delta", "delta": {}, "usage": COMPACTED}
    whole = {"type": "message", "id": "m", "content": [{"type": "text", "text": "x"}], "usage": COMPACTED}
    assert anthropic_messages.usual(json.dumps(whole).encode()) is None
    for found in (
        tapped([_messages(START, delta, delta, STOP)], dialect=MESSAGES),
        tapped([json.dumps(whole).encode()], dialect=MESSAGES, headers=JSON),
    ):
        usage = found.usage
        assert usage is not None
        assert (usage.input_tokens, usage.output_tokens) == (1523, 50)
        assert (usage.cache_read_input_tokens, usage.cache_write_input_tokens) == (7, 1)
        metadata = {"compaction_input": 1500, "compaction_output": 40, "compaction_cache_read": 2}
        assert usage.metadata == metadata | {"compaction_cache_write": 1, "advisor_input": 823, "advisor_output": 161,
                                             "advisor_cache_read": 0, "advisor_cache_write": 0}  # fmt: skip
        assert not found.troubles


def test_more_iterations_than_there_can_be_are_not_looked_at() -> None:
    usage = COMPACTED | {"iterations": [_iteration("compaction", 1000, 35, 2, 1)] * 1000}
    whole = {"type": "message", "id": "m", "content": [{"type": "text", "text": "x"}], "usage": usage}
    assert anthropic_messages.usual(json.dumps(whole).encode()) is None
    found = tapped([json.dumps(whole).encode()], dialect=MESSAGES, headers=JSON)
    assert found.usage is not None
    assert (found.usage.input_tokens, found.troubles) == (23, {Trouble.OVERLONG})


@pytest.mark.parametrize("iterations", [None, [], 7, [7], [_iteration("message", 1000, 35, 2, 1)], [{"type": None}]])
def test_other_iterations_are_in_the_counts_already(iterations: object) -> None:
    delta = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 61, "iterations": iterations}}
    found = tapped([_messages(START, delta, STOP)], dialect=MESSAGES)
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens, found.usage.metadata) == (9, 61, {})


def test_zero_counts_are_kept_and_null_is_no_count() -> None:
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 0, "output_tokens": 0}}}
    delta = {"type": "message_delta", "usage": {"input_tokens": None, "output_tokens": 0}}
    found = tapped([_messages(start, delta, STOP)], dialect=MESSAGES)
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens) == (0, 0)


def test_an_upstream_that_reports_nothing_leaves_no_usage() -> None:
    assert tapped([_messages({"type": "message_start", "message": {"id": "m"}}, STOP)], dialect=MESSAGES).usage is None
    assert tapped([b'data: {"id":"c","choices":[],"usage":{}}\n\ndata: [DONE]\n\n'], dialect=CHAT).usage is None


def test_an_error_in_the_stream_is_told_with_what_was_seen() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    found = tapped([_messages(START, error)], dialect=MESSAGES)
    assert (found.error_type, found.error_message) == ("overloaded_error", "Overloaded")
    assert found.partial
    assert found.usage is not None


@pytest.mark.parametrize("before_bytes", [0, 900, 5000])
def test_an_error_in_the_stream_may_have_many_words(before_bytes: int) -> None:
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x" * before_bytes}}
    error = {"type": "error", "error": {"type": "api_error", "message": "words " * 600}}
    for stream in (_messages(START, text, error), _messages(START, text) + b": a comment\n\n" + _messages(error)):
        for pieces in ([stream], stream.splitlines(keepends=True)):
            assert tapped(pieces, dialect=MESSAGES).error_type == "api_error"


@pytest.mark.parametrize("dialect", [MESSAGES, RESPONSES])
def test_an_error_may_have_no_type_of_event(dialect: DialectName) -> None:
    error = b'data: {"error":{"type":"timeout_error","message":"the model is gone"}}\n\n'
    ping = b'event: ping\ndata: {"type":"ping"}\n\n'
    for pieces in ([ping + error], [ping, error], [error]):
        found = tapped(pieces, dialect=dialect)
        assert (found.error_type, found.error_message, found.partial) == ("timeout_error", "the model is gone", True)


def test_a_refusal_is_an_answer_like_any_other() -> None:
    delta = {"type": "message_delta", "delta": {"stop_reason": "refusal"}, "usage": {"output_tokens": 2}}
    found = tapped([_messages(START, delta, STOP)], dialect=MESSAGES)
    assert not found.partial
    assert not found.error_type


def test_half_an_emoji_does_not_hide_what_stands_beside_it() -> None:
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}
    text = b'data: {"type":"content_block_delta","index":0,"delta":{"thinking":"a\\ud83d","type":"thinking_delta"}}\n\n'
    found = tapped([_messages(START, block) + text + _messages(STOP)], dialect=MESSAGES)
    assert found.thoughts[0].content == "a\ufffd"


# -- OpenAI Chat ----------------------------------------------------------------------------------------------------


def _chat(*chunks: object, done: bool = True) -> bytes:
    body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    return body + (b"data: [DONE]\n\n" if done else b"")


def _calls(*calls: dict[str, object]) -> dict[str, object]:
    return {"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": list(calls)}}]}


def test_usage_that_every_chunk_repeats_counts_once() -> None:
    chunks = [
        {"id": "c", "choices": [{"index": 0, "delta": {"content": "x"}}], "usage": usage}
        for usage in [{"prompt_tokens": 10, "completion_tokens": count} for count in (1, 2, 3)]
    ]
    found = tapped([_chat(*chunks)], dialect=CHAT)
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens) == (10, 3)


def test_usage_that_another_chunk_follows_is_kept() -> None:
    usage = {"id": "c", "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 0}}
    after = {"id": "c", "choices": [], "usage": None}
    found = tapped([_chat(usage, *[after] * 50)], dialect=CHAT)
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens) == (10, 0)


@pytest.mark.parametrize("end", [{"id": "c", "choices": [], "usage": None}, None])
def test_usage_may_have_much_behind_it_in_its_own_chunk(end: object) -> None:
    text = {"id": "c", "choices": [{"index": 0, "delta": {"content": "x" * 900}}]}
    usage = {"id": "c", "usage": {"prompt_tokens": 10, "completion_tokens": 4}, "search_results": ["found" * 500] * 5}
    stream = _chat(*[text] * 9, usage, *([end] if end else []))
    for pieces in ([stream], [stream[:5000], stream[5000:]], stream.splitlines(keepends=True)):
        found = tapped(pieces, dialect=CHAT)
        assert found.usage is not None
        assert (found.usage.input_tokens, found.usage.output_tokens) == (10, 4)


@pytest.mark.parametrize("index", [{}, {"index": 0}])
def test_parallel_calls_are_told_apart_by_their_ids_where_the_index_does_not(index: dict[str, object]) -> None:
    found = tapped(
        [
            _chat(
                _calls({**index, "id": "a", "function": {"name": "f", "arguments": '{"x"'}}),
                _calls({**index, "function": {"arguments": ":1}"}}),
                _calls(
                    {**index, "id": "b", "function": {"name": "g", "arguments": "{}"}},
                    {**index, "id": "c", "function": {"name": "g", "arguments": "{}"}},
                ),
            )
        ],
        dialect=CHAT,
    )
    calls = [(call.tool_call_id, call.tool, call.input) for call in found.tools]
    assert calls == [("a", "f", '{"x":1}'), ("b", "g", "{}"), ("c", "g", "{}")]


def _call(name: str, arguments: str, **more: object) -> dict[str, object]:
    return {**more, "function": {"name": name, "arguments": arguments} if name else {"arguments": arguments}}


@pytest.mark.parametrize(
    ("deltas", "calls"),
    [
        # Without ids: each is named, and stands beside another.
        ([[_call("f", "1"), _call("f", "2")]], [("f", "1", ""), ("f", "2", "")]),
        ([[_call("f", "1", id=""), _call("g", "2", id="")]], [("f", "1", ""), ("g", "2", "")]),
        ([[_call("f", "1", index=0, id=None), _call("f", "2", index=0)]], [("f", "1", ""), ("f", "2", "")]),
        ([[_call("f", "1", id="a"), _call("g", "2")]], [("f", "1", "a"), ("g", "2", "")]),
        # Or comes after another.
        ([[_call("f", "1")], [_call("", "2")], [_call("g", "3")]], [("f", "12", ""), ("g", "3", "")]),
        ([[_call("f", "1")], [_call("f", "2")]], [("f", "12", "")]),
        ([[_call("f", "1")], [_call("g", "2", id="b")]], [("f", "1", ""), ("g", "2", "b")]),
        # The id comes late.
        ([[_call("f", "1")], [_call("f", "2", id="a")]], [("f", "12", "a")]),
        # A new id in each fragment.
        ([[_call("f", "1", index=0, id="a")], [_call("", "2", index=0, id="b")]], [("f", "12", "a")]),
        # An id that is longer than what is kept of it.
        (
            [[_call("f", "1", index=0, id="x" * 600)], [_call("f", "2", index=0, id="x" * 600)]],
            [("f", "12", "x" * 512)],
        ),
        # A name in fragments is cut, and no call of its own.
        ([[_call("get_", "", index=0, id="a")], [_call("it", "1", index=0)]], [("get_", "1", "a")]),
    ],
)
def test_calls_are_told_apart_however_an_upstream_names_and_numbers_them(
    deltas: list[list[dict[str, object]]], calls: list[tuple[str, str, str]]
) -> None:
    streamed = tapped([_chat(*[_calls(*delta) for delta in deltas])], dialect=CHAT)
    assert [(call.tool, call.input, call.tool_call_id) for call in streamed.tools] == calls
    if len(deltas) == 1:
        whole = json.dumps({"id": "c", "choices": [{"message": {"tool_calls": deltas[0]}}]}).encode()
        assert tapped([whole], dialect=CHAT, headers=JSON).tools == streamed.tools


def test_an_id_that_is_repeated_with_every_fragment_is_one_call() -> None:
    fragment = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "1"}}
    found = tapped([_chat(_calls(fragment), _calls(fragment))], dialect=CHAT)
    assert [call.input for call in found.tools] == ["11"]


def test_calls_of_several_choices_and_of_custom_tools_are_seen() -> None:
    custom = {"index": 0, "id": "k", "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}}
    other = {"id": "c", "choices": [{"index": 1, "delta": {"tool_calls": [custom]}}]}
    found = tapped(
        [_chat(_calls({"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}), other)], dialect=CHAT
    )
    assert [(call.tool, call.input) for call in found.tools] == [("f", "{}"), ("patch", "*** Begin")]


def test_a_chat_stream_without_done_is_whole_if_it_has_a_reason_to_finish() -> None:
    finish = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    assert not tapped([_chat(finish, done=False)], dialect=CHAT).partial
    assert tapped([_chat({"id": "c", "choices": []}, done=False)], dialect=CHAT).partial


def test_a_chat_stream_that_fails_after_its_reason_to_finish_is_partial() -> None:
    finish = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    error = {"error": {"message": "the model fell over", "type": "server_error"}}
    assert tapped([_chat(finish, error, done=False)], dialect=CHAT).partial


def test_an_error_chunk_is_told() -> None:
    error = {"error": {"message": "slow down", "type": "rate_limit_error", "code": 429}}
    stream = _chat({"id": "c", "choices": []}, error)
    for pieces in ([stream], [event + b"\n\n" for event in stream.split(b"\n\n") if event]):
        found = tapped(pieces, dialect=CHAT)
        assert (found.error_type, found.error_message) == ("rate_limit_error", "slow down")


@pytest.mark.parametrize(("told", "kind"), [({"code": "server_error"}, "server_error"), ({"code": 502}, "502")])
def test_an_error_chunk_without_a_type_has_a_code(told: dict[str, object], kind: str) -> None:
    error = {"id": "c", "error": {"message": "gone", **told}, "choices": [{"delta": {}, "finish_reason": "error"}]}
    found = tapped([_chat({"id": "c", "choices": []}, error)], dialect=CHAT)
    assert (found.error_type, found.error_message) == (kind, "gone")


def test_an_error_may_stand_in_a_choice() -> None:
    choice = {"index": 0, "finish_reason": "error", "error": {"code": 502, "message": "the provider returned an error"}}
    told = {"id": "c", "choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    whole = json.dumps(told).encode()
    assert openai_chat.usual(whole) is None
    streamed = tapped([_chat({"id": "c", "choices": []}, told, done=False)], dialect=CHAT)
    assert streamed.partial
    for found in (streamed, tapped([_chat(told)], dialect=CHAT), tapped([whole], dialect=CHAT, headers=JSON)):
        assert (found.error_type, found.error_message) == ("502", "the provider returned an error")


def test_an_error_may_be_words_alone() -> None:
    found = tapped([_chat({"id": "c", "choices": []}, {"error": "out of memory"})], dialect=CHAT)
    assert (found.error_type, found.error_message) == ("error", "out of memory")
    found = tapped([b'{"error":"no such model"}'], dialect=CHAT, headers=JSON)
    assert (found.error_type, found.error_message, found.troubles) == ("error", "no such model", frozenset())


@pytest.mark.parametrize(
    ("model", "usage", "output"),
    [
        ("gpt-5", {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19}, 7),
        ("gemini-2.5-pro", {"prompt_tokens": 12, "completion_tokens": 7}, 7),
        ("google/gemini-2.5-pro", {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 119}, 107),
        (
            "grok-4",
            {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 119,
             "completion_tokens_details": {"reasoning_tokens": 100}},
            107,
        ),
        # What else a total may have in it is no output.
        (
            "gpt-5",
            {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 119,
             "completion_tokens_details": {"reasoning_tokens": 5}},
            7,
        ),
        (
            "claude",
            {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 24,
             "prompt_tokens_details": {"cached_tokens": 5}},
            7,
        ),
        ("", {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 119}, 7),
        ("gemini-2.5-pro", {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 3}, 7),
        ("gemini-2.5-pro", {"completion_tokens": 7, "total_tokens": 19}, 7),
    ],
)  # fmt: skip
def test_thoughts_that_only_the_total_counts_are_output(model: str, usage: dict[str, object], output: int) -> None:
    choices = [{"message": {"content": "x"}, "finish_reason": "stop"}]
    answer = {"id": "c", "model": model, "choices": choices, "usage": usage}
    at_once = openai_chat.usual(json.dumps(answer).encode())
    assert at_once is None or at_once[2] == output
    for found in (
        tapped([json.dumps(answer).encode()], dialect=CHAT, headers=JSON),
        tapped([_chat({"id": "c", "model": model, "choices": [], "usage": usage})], dialect=CHAT),
    ):
        assert found.usage is not None
        assert found.usage.output_tokens == output
        assert "total" not in found.usage.metadata


@pytest.mark.parametrize(
    "told",
    [{"cached_tokens": 9}, {"prompt_cache_hit_tokens": 9, "prompt_cache_miss_tokens": 3},
     {"cached_tokens": 1, "prompt_tokens_details": {"cached_tokens": 9}}],
)  # fmt: skip
def test_cached_tokens_may_be_told_beside_the_details(told: dict[str, object]) -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19, **told}
    answer = {"id": "c", "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}
    assert openai_chat.usual(json.dumps(answer).encode()) is None
    for found in (
        tapped([json.dumps(answer).encode()], dialect=CHAT, headers=JSON),
        tapped([_chat({"id": "c", "choices": [], "usage": usage})], dialect=CHAT),
        tapped([_chat({"id": "c", "choices": [{"delta": {}, "finish_reason": "stop", "usage": usage}]})], dialect=CHAT),
    ):
        assert found.usage is not None
        counts = (found.usage.input_tokens, found.usage.cache_read_input_tokens, found.usage.output_tokens)
        assert counts == (3, 9, 7)


@pytest.mark.parametrize(
    ("beside", "in_details", "input_tokens", "written"),
    [
        ({"cache_creation_input_tokens": 600}, {}, 100, 600),
        ({}, {"cache_creation_tokens": 600}, 100, 600),
        ({"cache_creation_input_tokens": 600}, {"cache_creation_tokens": 600}, 100, 600),
        ({"cache_creation_input_tokens": 600}, {"cache_write_tokens": 500}, 200, 500),
        ({"cache_creation_input_tokens": None}, {"cache_creation_tokens": None}, 700, 0),
        ({"cache_creation_input_tokens": 0, "cache_read_input_tokens": 300}, {"cache_creation_tokens": 0}, 700, 0),
        # Of a gateway that counts otherwise.
        ({"cache_creation_input_tokens": 900}, {}, 0, 900),
    ],
)
def test_what_litellm_says_went_into_a_cache_is_no_input(
    beside: dict[str, object], in_details: dict[str, object], input_tokens: int, written: int
) -> None:
    details = {"cached_tokens": 300, "audio_tokens": None, **in_details}
    usage = {"prompt_tokens": 1000, "completion_tokens": 7, "total_tokens": 1007, **beside}
    usage["prompt_tokens_details"] = details
    whole = json.dumps({"id": "c", "choices": [{"message": {"content": "x"}}], "usage": usage}).encode()
    at_once = openai_chat.usual(whole)
    # The quick way leaves them alone, and takes what says that there are none, as LiteLLM does of most.
    assert at_once == (None if written else ("c", input_tokens, 7, 300, 0, ""))
    for found in (
        tapped([whole], dialect=CHAT, headers=JSON),
        tapped([_chat({"id": "c", "choices": [], "usage": usage})], dialect=CHAT),
    ):
        counted = found.usage
        assert counted is not None
        assert (counted.input_tokens, counted.output_tokens) == (input_tokens, 7)
        assert (counted.cache_read_input_tokens, counted.cache_write_input_tokens) == (300, written)
        assert not found.troubles


def test_more_cached_tokens_than_tokens_are_no_negative_count() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 9}}
    found = tapped([json.dumps({"usage": usage}).encode()], dialect=CHAT, headers=JSON)
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.cache_read_input_tokens) == (0, 9)


def test_fields_of_wrong_types_do_not_hide_usage() -> None:
    chunk = {"id": 7, "choices": "none", "usage": {"prompt_tokens": 5, "completion_tokens": 1}}
    found = tapped([_chat(chunk)], dialect=CHAT)
    assert found.usage is not None
    assert found.usage.output_tokens == 1
    assert found.troubles == {Trouble.GARBAGE}


@pytest.mark.parametrize("count", [-1, MAX_COUNT + 1, 10**13, 2**70, "many", 1.5, True, [1]])
def test_a_count_that_cannot_be_one_is_not_counted(count: object) -> None:
    chunk = {"id": "c", "choices": [], "usage": {"prompt_tokens": count, "completion_tokens": count}}
    assert tapped([_chat(chunk)], dialect=CHAT).usage is None


@pytest.mark.parametrize("count", [-1, 10**13, 10**18, "many", 1.5])
def test_a_count_that_cannot_be_one_hides_nothing_else(count: object) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 4.0, "completion_tokens_details": {"reasoning_tokens": count}}
    call = {"id": "call_1", "function": {"name": "ls", "arguments": "{}"}}
    answer = {"id": "c", "model": "m", "choices": [{"message": {"tool_calls": [call]}}], "usage": usage}
    found = tapped([json.dumps(answer).encode()], dialect=CHAT, headers=JSON)
    assert (found.msg_id, found.model, len(found.tools), found.partial) == ("c", "m", 1, False)
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens, found.usage.metadata) == (10, 4, {})
    assert found.troubles == {Trouble.GARBAGE}


# -- OpenAI Responses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed"])
def test_usage_counts_however_a_response_ended(kind: str) -> None:
    event = {
        "type": f"response.{kind}",
        "response": {
            "id": "r",
            "usage": {"input_tokens": 4, "output_tokens": 2},
            "error": {"code": "server_error", "message": "m"} if kind == "failed" else None,
        },
    }
    found = tapped([_messages(event)], dialect=RESPONSES)
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens) == (4, 2)
    assert not found.partial
    assert found.error_type == ("server_error" if kind == "failed" else "")


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "rate_limit", "message": "m", "param": None},
        {"type": "error", "error": {"code": "rate_limit", "message": "m"}},
        {"type": "error", "error": {"type": "rate_limit", "message": "m"}},
    ],
)
def test_an_error_event_is_told(event: dict[str, object]) -> None:
    found = tapped([_messages({"type": "response.created", "response": {"id": "r"}}, event)], dialect=RESPONSES)
    assert (found.msg_id, found.error_type, found.error_message) == ("r", "rate_limit", "m")
    assert found.partial


def test_items_that_only_the_end_tells_are_seen() -> None:
    item = {"type": "function_call", "id": "i", "call_id": "k", "name": "f", "arguments": "not json"}
    event = {"type": "response.completed", "response": {"id": "r", "output": [item]}}
    found = tapped([_messages(event)], dialect=RESPONSES)
    assert [(tool.tool, tool.input) for tool in found.tools] == [("f", "not json")]


def test_a_shell_is_a_call_unless_openai_has_it() -> None:
    shells = [
        {"type": "shell_call", "call_id": str(index), "action": {"commands": ["ls"]}, "environment": environment}
        for index, environment in enumerate(({"type": "local"}, None, {"type": "container_reference"}))
    ]
    event = {"type": "response.completed", "response": {"id": "r", "output": shells}}
    found = tapped([_messages(event)], dialect=RESPONSES)
    assert [(tool.tool, tool.tool_call_id) for tool in found.tools] == [("shell", "0"), ("shell", "1")]


def test_what_an_open_model_thought_is_seen_beside_its_summary() -> None:
    texts = [{"type": "reasoning_text", "text": text} for text in ("long", "more")]
    summary = [{"type": "summary_text", "text": "short"}]
    item = {"type": "reasoning", "id": "rs", "summary": summary, "content": texts}
    event = {"type": "response.completed", "response": {"id": "r", "output": [item]}}
    found = tapped([_messages(event)], dialect=RESPONSES)
    said = [(thought.source, thought.content) for thought in found.thoughts]
    assert said == [("reasoning_summary", "short"), ("reasoning_text", "long"), ("reasoning_text", "more")]


@pytest.mark.parametrize(("execution", "seen_as"), [("client", ["tool_search", "f"]), ("server", ["f"])])
def test_a_search_for_tools_is_a_call_if_the_client_runs_it(execution: str, seen_as: list[str]) -> None:
    search = {"type": "tool_search_call", "id": "t", "call_id": "k" if execution == "client" else None,
              "execution": execution, "status": "completed", "arguments": {"goal": "weather"}}  # fmt: skip
    call = {"type": "function_call", "id": "i", "call_id": "l", "name": "f", "arguments": "{}"}
    answer = {"id": "r", "output": [search, call], "usage": {"input_tokens": 4, "output_tokens": 2}}
    done = [
        {"type": "response.output_item.done", "output_index": index, "item": item}
        for index, item in enumerate((search, call))
    ]
    for found in (
        tapped([_messages(*done, {"type": "response.completed", "response": answer})], dialect=RESPONSES),
        tapped([json.dumps(answer).encode()], dialect=RESPONSES, headers=JSON),
    ):
        assert (found.msg_id, found.partial, found.troubles) == ("r", False, frozenset())
        assert [tool.tool for tool in found.tools] == seen_as
        assert [tool.input for tool in found.tools if tool.tool == "tool_search"] in ([], ['{"goal":"weather"}'])


def test_a_call_that_an_incomplete_response_cut_is_marked() -> None:
    item = {"type": "function_call", "call_id": "k", "name": "f", "arguments": '{"x', "status": "incomplete"}
    event = {"type": "response.incomplete", "response": {"id": "r", "output": [item]}}
    found = tapped([_messages(event)], dialect=RESPONSES)
    assert [tool.partial for tool in found.tools] == [True]
    assert not found.partial


@pytest.mark.parametrize("status", ["incomplete", "completed"])
def test_a_thought_that_an_incomplete_response_cut_is_marked(status: str) -> None:
    item = {"type": "reasoning", "id": "k", "summary": [{"text": "First, I"}], "status": status}
    event = {"type": "response.incomplete", "response": {"id": "r", "output": [item]}}
    found = tapped([_messages(event)], dialect=RESPONSES)
    assert [(one.content, one.partial) for one in found.thoughts] == [("First, I", status == "incomplete")]
    assert not found.partial


# -- Gemini ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([{"text": "Well, ", "thought": True}], [("Well, ", True)]),
        ([{"text": "Well", "thought": True}, {"text": "Yes."}], [("Well", False)]),
        (
            [{"text": "Well", "thought": True}, {"text": "Yes."}, {"text": "Then", "thought": True}],
            [("Well", False), ("Then", True)],
        ),
    ],
)
def test_a_thought_of_a_stream_that_was_cut_is_whole_where_something_follows(
    parts: list[dict[str, object]], expected: list[tuple[str, bool]]
) -> None:
    answers = [{"responseId": "r", "candidates": [{"content": {"parts": [part]}}]} for part in parts]
    pieces = [b"data: " + json.dumps(answer).encode() + b"\n\n" for answer in answers]
    found = tapped(pieces, dialect=GENERATE, whole=False)
    assert [(one.content, one.partial) for one in found.thoughts] == expected


def test_a_blocked_prompt_is_a_whole_answer() -> None:
    body = json.dumps({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}).encode()
    found = tapped([body], dialect=GENERATE, headers=JSON)
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens) == (3, 0)
    assert not found.partial


WHOLE_CALL = (
    b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"first","args":{"a":"%b"}}}]}}],"responseId":"r",'
    b'"usageMetadata":{"promptTokenCount":3}}'
)
CUT_CALL = b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"edits":['


@pytest.mark.parametrize(
    "cut",
    [
        b"",
        b",",
        b", ",
        b",{",
        b'\r\n,\t{"candidates"',
        b"," + CUT_CALL,
        *[b"," + CUT_CALL + b'{"a":1},' * count for count in (1, 60, 80, 1000)],
        b"," + CUT_CALL + b'"}}}}',
        b"," + CUT_CALL + b'"\\ud83d',
        b"," + CUT_CALL + b'"\xe2\x82',
        b"," + CUT_CALL + b"[" * 100_000,
        b",{]}" * 100,
        b"nonsense",
    ],
    ids=range(16),
)
@pytest.mark.parametrize("text", ["", "}]}, {", "\\n\\ud83d\\\\", "\ufffd", "ü€\U0001f600"])
def test_all_that_is_whole_of_an_array_that_was_cut_is_seen(cut: bytes, text: str) -> None:
    whole = WHOLE_CALL % text.encode()
    found = tapped([b" [\n" + whole + b" ,\n" + whole + cut], dialect=GENERATE, headers=JSON)
    asked = '{"a":"' + text.replace(r"\ud83d", r"\ufffd") + '"}'
    assert [(tool.tool, tool.input, tool.partial) for tool in found.tools] == [("first", asked, False)] * 2
    assert found.usage is not None
    assert (found.msg_id, found.usage.input_tokens, found.usage.partial) == ("r", 3, True)
    assert found.partial
    assert found.troubles == {Trouble.GARBAGE}


def test_a_letter_that_is_none_costs_nothing_but_itself_in_an_array_that_was_cut() -> None:
    found = tapped([b"[" + WHOLE_CALL % b"\xff" + b"," + CUT_CALL], dialect=GENERATE, headers=JSON)
    assert (found.msg_id, [tool.input for tool in found.tools]) == ("r", ['{"a":"\ufffd"}'])


def test_tokens_of_tool_use_are_input() -> None:
    usage = {"promptTokenCount": 10, "toolUsePromptTokenCount": 7, "candidatesTokenCount": 1}
    chunk = {"candidates": [{"finishReason": "STOP"}], "usageMetadata": usage}
    found = tapped([b"data: " + json.dumps(chunk).encode() + b"\n\n"], dialect=GENERATE, headers=EVENTS)
    assert found.usage is not None
    assert found.usage.input_tokens == 17
    assert found.usage.metadata == {"input_tool_use": 7}


def test_of_usage_that_is_told_twice_in_an_answer_what_a_choice_says_counts() -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19}
    choices = [{"message": {"content": "x"}, "finish_reason": "stop", "usage": {**usage, "cached_tokens": 9}}]
    answer = json.dumps({"id": "c", "choices": choices, "usage": usage}).encode()
    assert openai_chat.usual(answer) is None
    found = tapped([answer], dialect=CHAT, headers=JSON).usage
    assert found is not None
    assert (found.input_tokens, found.cache_read_input_tokens, found.output_tokens) == (3, 9, 7)
