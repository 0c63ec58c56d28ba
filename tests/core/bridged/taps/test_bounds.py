"""What taps hold is bounded, whatever the stream; usage is found all the same."""

import json
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from bridged.model import DialectName
from bridged.records import AnswerRecords, Trouble
from bridged.taps import answer_tap
from bridged.taps.answer_tap import MAX_DOCUMENT_BYTES
from bridged.taps.scanner import MAX_EVENT_BYTES
from bridged.taps.seen import MAX_ITEMS, MAX_TEXT_BYTES
from tests.support.taps import EVENTS, JSON, MESSAGES, STREAMS, invoke_chunk, tapped

CHAT, ANTHROPIC, RESPONSES = DialectName.OPENAI_CHAT, DialectName.ANTHROPIC_MESSAGES, DialectName.OPENAI_RESPONSES
GENERATE = DialectName.GOOGLE_GENERATE
PIECE = 64 * 1024
ENOUGH_BYTES = 12 * 1024 * 1024


def data(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def in_pieces(body: bytes) -> Iterator[bytes]:
    for at in range(0, len(body), PIECE):
        yield body[at : at + PIECE]


def calls_of(run: Callable[[], object]) -> int:
    """How many functions are called meanwhile, those of C among them."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
    return calls


CREATED = {"type": "response.created", "response": {"id": "r"}}
LONG = {"output": [{"type": "image_generation_call", "result": "A" * (MAX_EVENT_BYTES + PIECE)}]}
USAGE = {"input_tokens": 4, "output_tokens": 2}
FAILED = {"code": "server_error", "message": "m"}
SCHEMA = {"tools": [{"name": "f", "parameters": {"type": "object", "properties": {"type": {"type": "string"}}}}]}
ENDS = [
    ({"type": "response.completed", "response": {"id": "r", **LONG, "usage": USAGE}}, True, ""),
    ({"type": "response.incomplete", "sequence_number": 7, "response": {**LONG, "usage": USAGE}}, True, ""),
    ({"response": {**LONG, "usage": USAGE}, "sequence_number": 7, "type": "response.completed"}, True, ""),
    ({"response": {**LONG, "usage": USAGE}, "type": "response.completed", "sequence_number": 7}, True, ""),
    ({"type": "response.completed", "response": {**SCHEMA, **LONG, "usage": USAGE, "user": None}}, True, ""),
    ({"type": "response.failed", "response": {"error": FAILED, **LONG, "usage": USAGE}}, True, "server_error"),
    ({"type": "response.failed", "response": {**LONG, "error": FAILED, "usage": USAGE}}, True, "server_error"),
    ({"type": "response.in_progress", "response": {**LONG, "usage": None}}, False, ""),
    ({"type": "response.output_item.done", "output_index": 0, "item": LONG["output"][0]}, False, ""),
    ({"response": {**LONG, "user": {"type": "response.completed"}, "usage": None}}, False, ""),
    ({"response": {**LONG, "usage": None, "user": {"type": "response.completed"}}}, False, ""),
]


@pytest.mark.parametrize(("event", "is_end", "error_type"), ENDS, ids=range(len(ENDS)))
@pytest.mark.parametrize("name", [b"", b"event: news\n"])
def test_how_a_response_ended_is_seen_however_long_its_last_event_is_and_is_cut(
    event: dict[str, object], is_end: bool, error_type: str, name: bytes
) -> None:
    body = data(CREATED) + name + data(event)
    for pieces in ([body], in_pieces(body), [body[:-700], body[-700:]], [body[:-1], body[-1:]]):
        tap = answer_tap(RESPONSES, "openai.responses", status=200, headers=EVENTS)
        assert tap is not None
        for piece in pieces:
            tap.feed(piece)
        found = tap.end(whole=False)
        assert (found.partial, found.over, found.error_type) == (not is_end, is_end, error_type)
        assert found.msg_id == "r"
        assert (found.usage is not None) == is_end
        if found.usage is not None:
            assert (found.usage.input_tokens, found.usage.output_tokens, found.usage.partial) == (4, 2, False)


def test_a_response_that_failed_is_told_to_have_where_its_error_is_out_of_reach() -> None:
    response = {"instructions": "x" * 10_000, "error": FAILED, **LONG, "usage": USAGE}
    found = tapped(
        in_pieces(data(CREATED) + data({"type": "response.failed", "response": response})), dialect=RESPONSES
    )
    assert (found.error_type, found.error_message, found.partial) == ("error", "", False)


IMAGE = {"parts": [{"inlineData": {"data": "A" * (MAX_EVENT_BYTES + PIECE)}}], "role": "model"}
COUNTED = {"promptTokenCount": 4, "candidatesTokenCount": 2}


@pytest.mark.parametrize(
    ("candidate", "is_end"),
    [
        ({"content": IMAGE, "finishReason": "STOP", "index": 0}, True),
        ({"finishReason": "STOP", "content": IMAGE}, True),
        ({"content": IMAGE, "finishReason": None, "index": 0}, False),
        ({"content": IMAGE, "finishReason": ""}, False),
        ({"content": IMAGE}, False),
    ],
)
def test_why_an_answer_with_a_long_image_ended_is_seen_however_it_is_cut(
    candidate: dict[str, object], is_end: bool
) -> None:
    body = data({"responseId": "r"}) + data({"candidates": [candidate], "usageMetadata": COUNTED})
    for pieces in ([body], in_pieces(body)):
        found = tapped(pieces, dialect=GENERATE, whole=False)
        assert found.usage is not None
        assert (found.usage.input_tokens, found.usage.output_tokens) == (4, 2)
        assert found.partial == found.usage.partial == (not is_end)


def test_an_event_that_is_too_long_and_cut_ends_nothing() -> None:
    body = data(CREATED) + data(ENDS[0][0])
    for behind in (2, 3, 4, 10, 100):
        found = tapped(in_pieces(body[:-behind]), dialect=RESPONSES, whole=True)
        assert found.partial


def test_an_event_that_is_too_long_is_told_to_be() -> None:
    found = tapped(in_pieces(data(CREATED) + data(ENDS[0][0])), dialect=RESPONSES)
    assert found.troubles == {Trouble.OVERLONG}


@pytest.mark.parametrize("recorded", STREAMS, ids=str)
def test_what_follows_an_event_that_is_too_long_is_seen(recorded: object) -> None:
    assert recorded in STREAMS
    stream = next(stream for stream in STREAMS if stream is recorded)
    first, rest = stream.body.split(b"\n\n", 1)
    body = first + b"\n\n" + b"data: " + b"x" * (3 * MAX_EVENT_BYTES) + b"\n\n" + rest
    found = tapped(in_pieces(body), dialect=stream.dialect)
    assert (found.usage, found.tools) == (stream.expected.usage, stream.expected.tools)
    assert Trouble.OVERLONG in found.troubles


def test_an_event_that_is_too_long_may_be_cut_inside_the_blank_line_behind_it() -> None:
    for cut in (1, 2):
        created = data({"type": "response.created", "response": {"id": "r"}})
        long = b"data: " + b"x" * (3 * MAX_EVENT_BYTES)
        usage = {"input_tokens": 4, "output_tokens": 2}
        last = b"\n\n" + data({"type": "response.completed", "response": {"id": "r", "usage": usage}})
        found = tapped([created, *in_pieces(long), last[:cut], last[cut:]], dialect=RESPONSES)
        assert found.usage is not None
        assert not found.partial


def test_a_document_that_is_too_long_still_gives_its_usage() -> None:
    body = json.dumps(
        {"choices": [{"message": {"content": "A" * (2 * MAX_DOCUMENT_BYTES)}}], "usage": {"completion_tokens": 3}}
    ).encode()
    found = tapped(in_pieces(body), dialect=CHAT, headers=JSON)
    assert found.usage is not None
    assert found.usage.output_tokens == 3
    assert found.partial
    assert found.troubles == {Trouble.OVERLONG}


def _block(index: int, block: dict[str, object], delta: dict[str, object], count: int) -> bytes:
    """A block that begins and goes on so often, and does not end."""
    begun = {"type": "content_block_start", "index": index, "content_block": block}
    return data(begun) + data({"type": "content_block_delta", "index": index, "delta": delta}) * count


def test_tool_inputs_and_thoughts_are_capped_together_and_their_lengths_are_told() -> None:
    tool: dict[str, object] = {"type": "tool_use", "id": "t", "name": "f"}
    fragment: dict[str, object] = {"type": "input_json_delta", "partial_json": "ü" * 999}
    thinking: dict[str, object] = {"type": "thinking_delta", "thinking": "hm"}
    blocks = [
        _block(0, {"type": "thinking", "thinking": ""}, thinking, 5),
        _block(1, tool, fragment, 700),
        data({"type": "content_block_stop", "index": 1}),
        _block(2, tool, fragment, 3),
        _block(3, {"type": "thinking", "thinking": ""}, thinking, 2),
    ]
    for end, of_last in ((data({"type": "message_stop"}), False), (b"", True)):
        found = tapped([*blocks, end], dialect=ANTHROPIC, whole=not of_last)
        texts = [tool.input for tool in found.tools] + [thought.content for thought in found.thoughts]
        assert MAX_TEXT_BYTES - 2 <= sum(len(text.encode()) for text in texts) <= MAX_TEXT_BYTES
        # What a bound has cut and came to its end is whole; of what did not, the length is as far as it came.
        assert [(one.partial, one.input_bytes) for one in found.tools] == [(False, 1998 * 700), (of_last, 1998 * 3)]
        assert [(one.content, one.content_bytes) for one in found.thoughts] == [("hm" * 5, 0), ("", 4)]
        assert [one.partial for one in found.thoughts] == [of_last, of_last]
        assert found.troubles == {Trouble.TEXT_BOUND}


def _calls() -> Iterator[bytes]:
    for index in range(3 * MAX_ITEMS):
        call = {"index": index, "id": f"c{index}", "function": {"name": "f" * 2000, "arguments": "{}"}}
        yield data({"id": "c", "choices": [{"delta": {"tool_calls": [call]}}]})


def test_there_is_a_bound_for_calls() -> None:
    assert len(tapped(_calls(), dialect=CHAT).tools) == MAX_ITEMS


def _letters() -> Iterator[bytes]:
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking"}}
    yield data(start)
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "a"}}
    for _ in range(3000):
        yield data(delta) * 10


def _one_line() -> Iterator[bytes]:
    yield b"data: "
    for _ in range(400):
        yield b'"usage":{' * 5000


def _many_names() -> Iterator[bytes]:
    for at in range(3000):
        yield b"event: content_block_start\n" * 100 + b"data: %d\n" % at


def _brackets() -> Iterator[bytes]:
    yield b"data: {" + b"[" * 900_000 + b"\n\n"


def _items() -> Iterator[bytes]:
    for index in range(20_000):
        item = {"type": "reasoning", "summary": [{"text": "x" * 100}]}
        yield data({"type": "response.output_item.done", "output_index": index, "item": item})


@pytest.mark.parametrize("stream", [_calls, _letters, _one_line, _many_names, _brackets, _items])
@pytest.mark.parametrize("dialect", [CHAT, ANTHROPIC, RESPONSES])
@pytest.mark.parametrize("headers", [EVENTS, JSON])
def test_memory_is_bounded(stream: object, dialect: DialectName, headers: object) -> None:
    assert callable(stream)
    tap = answer_tap(dialect, "", status=200, headers=EVENTS if headers is EVENTS else JSON)
    assert tap is not None
    tracemalloc.start()
    try:
        for piece in stream():
            tap.feed(piece)
        held_bytes, _ = tracemalloc.get_traced_memory()
        records = tap.end(whole=True)
    finally:
        tracemalloc.stop()
    assert isinstance(records, AnswerRecords)
    assert held_bytes < ENOUGH_BYTES


def test_a_binary_stream_that_is_corrupt_is_not_read_on() -> None:
    good = invoke_chunk(b'{"type":"message_start","message":{"id":"m","usage":{"input_tokens":1,"output_tokens":1}}}')
    found = tapped(
        [good + b"\x00" * 20, good],
        dialect=DialectName.BEDROCK,
        operation="bedrock.invoke_model_stream",
        headers=MESSAGES,
    )
    assert found.usage is not None
    assert found.partial
    assert found.troubles == {Trouble.GARBAGE}


MANY = 1000
# What was said, and what is asked for, has braces and escapes.
_SAID = json.dumps({"candidates": [{"content": {"parts": [{"text": "a\n" * MANY}]}}]}).encode()
_ASKED = b'{"candidates":[{"content":{"parts":[{"functionCall":{"args":{"edits":[' + b'{"a":"\\n"},' * MANY


@pytest.mark.parametrize(
    ("body", "dialect"),
    [(b"[" + _SAID + b",\n" + _SAID + b",\n" + _ASKED, GENERATE), (_ASKED, GENERATE), (_SAID[:-9], CHAT)],
    ids=range(3),
)
def test_what_was_cut_is_read_in_a_few_steps_whatever_stands_in_it(body: bytes, dialect: DialectName) -> None:
    assert calls_of(lambda: tapped([body], dialect=dialect, headers=JSON)) < MANY / 2


class Searched(bytes):
    """A piece that counts how much of it is searched."""

    searched_bytes = 0

    def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        found = super().find(sub, start, end)
        self.searched_bytes += (len(self) if found < 0 else found) - start
        return found


@pytest.mark.parametrize(
    "kinds", [("text", "text"), ("text", "thinking"), ("thinking", "tool_use"), ("tool_use", "text")]
)
def test_a_piece_is_searched_a_few_times_however_often_the_marks_change(kinds: tuple[str, str]) -> None:
    starts = [
        {
            "type": "content_block_start",
            "index": index,
            "content_block": {"type": kinds[index % 2], "id": "i", "name": "f"},
        }
        for index in range(MANY)
    ]
    piece = Searched(b"".join(data(start) for start in starts))
    found = tapped([data({"type": "message_start", "message": {"id": "m"}}), piece], dialect=ANTHROPIC)
    assert len(found.tools) == MANY // 2 * kinds.count("tool_use")
    assert piece.searched_bytes < 20 * len(piece)
