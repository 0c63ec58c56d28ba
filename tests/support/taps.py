"""Answers for taps: streams and wholes of every dialect, and how to feed them."""

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import structs

from bridged.model import DialectName, Headers
from bridged.records import AnswerRecords, ModelThought, TokenUsage, ToolUsage
from bridged.taps import answer_tap
from tests.support.event_stream import event

DATA = Path(__file__).parent.parent / "data" / "taps"

EVENTS: Headers = (("Content-Type", "text/event-stream; charset=utf-8"),)
JSON: Headers = (("Content-Type", "application/json"),)
MESSAGES: Headers = (("Content-Type", "application/vnd.amazon.eventstream"), ("x-amzn-RequestId", "req-1"))
WHOLE: Headers = (("Content-Type", "application/json"), ("x-amzn-RequestId", "req-1"))


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One answer, and what is to be seen in it."""

    name: str
    dialect: DialectName
    operation: str
    headers: Headers
    body: bytes
    expected: AnswerRecords = field(repr=False)

    def __str__(self) -> str:
        return self.name


def tapped(
    pieces: Iterable[bytes],
    *,
    dialect: DialectName,
    operation: str = "",
    headers: Headers = EVENTS,
    whole: bool = True,
) -> AnswerRecords:
    tap = answer_tap(dialect, operation, status=200, headers=headers)
    assert tap is not None
    for piece in pieces:
        tap.feed(piece)
    # Whether anything could have followed is no record.
    return structs.replace(tap.end(whole=whole), over=False)


def seen(recorded: Recorded, pieces: Iterable[bytes], *, whole: bool = True) -> AnswerRecords:
    return tapped(pieces, dialect=recorded.dialect, operation=recorded.operation, headers=recorded.headers, whole=whole)


def data(name: str) -> bytes:
    return (DATA / name).read_bytes()


def _converse_stream() -> bytes:
    lines = data("bedrock_converse.jsonl").decode().splitlines()
    return b"".join(event(kind, payload.encode()) for kind, _, payload in (line.partition(" ") for line in lines))


def invoke_chunk(text: bytes) -> bytes:
    return event("chunk", json.dumps({"bytes": base64.b64encode(text).decode(), "p": "abcd"}).encode())


def _invoke_stream() -> bytes:
    events = [line[6:] for line in data("anthropic_messages.sse").splitlines() if line.startswith(b"data: ")]
    metrics = b',"amazon-bedrock-invocationMetrics":{"inputTokenCount":3883,"outputTokenCount":61}}'
    return b"".join(invoke_chunk(text) for text in [*events[:-1], events[-1][:-1] + metrics])


MESSAGES_RECORDS = AnswerRecords(
    msg_id="msg_01",
    model="claude-sonnet-4-5-20250929",
    usage=TokenUsage(
        input_tokens=3883,
        output_tokens=61,
        cache_read_input_tokens=30464,
        cache_write_input_tokens=12,
        metadata={"cache_ephemeral_5m_input": 12, "cache_ephemeral_1h_input": 0, "web_search_requests": 1},
    ),
    tools=(
        ToolUsage(tool="get_weather", input='{"city": "Paris"}', tool_call_id="toolu_01"),
        ToolUsage(tool="list_cities", input="{}", tool_call_id="toolu_02"),
    ),
    thoughts=(ModelThought(content="Two cities, so two calls: “ü”.", source="thinking"),),
)
CHAT_RECORDS = AnswerRecords(
    msg_id="chatcmpl-1",
    model="gpt-5-2025-08-07",
    usage=TokenUsage(
        input_tokens=20,
        output_tokens=44,
        cache_read_input_tokens=100,
        metadata={
            "prompt_audio": 0,
            "completion_reasoning": 30,
            "completion_audio": 0,
            "completion_accepted_prediction": 0,
            "completion_rejected_prediction": 0,
        },
    ),
    tools=(
        ToolUsage(tool="get_weather", input='{"city":"Köln"}', tool_call_id="call_a"),
        ToolUsage(tool="get_time", input="{}", tool_call_id="call_b"),
    ),
)
RESPONSES_RECORDS = AnswerRecords(
    msg_id="resp_1",
    model="gpt-5-codex",
    usage=TokenUsage(
        input_tokens=904,
        output_tokens=321,
        cache_read_input_tokens=4096,
        metadata={"output_reasoning": 256},
    ),
    tools=(
        ToolUsage(tool="read_file", input='{"path":"a.py"}', tool_call_id="call_1", item_id="fc_1"),
        ToolUsage(tool="apply_patch", input="*** Begin Patch", tool_call_id="call_2", item_id="ctc_1"),
    ),
    thoughts=(
        ModelThought(content="Looking around", source="reasoning_summary"),
        ModelThought(content="Then calling", source="reasoning_summary"),
        ModelThought(content="I will read two files.", source="commentary"),
    ),
)
GENERATE_RECORDS = AnswerRecords(
    msg_id="gen-1",
    model="gemini-2.5-pro",
    usage=TokenUsage(
        input_tokens=50,
        output_tokens=29,
        cache_read_input_tokens=150,
        metadata={"output_reasoning": 9},
    ),
    tools=(
        ToolUsage(tool="get_weather", input='{"city":"Rome"}'),
        ToolUsage(tool="get_time", input="{}", tool_call_id="fc-2"),
    ),
    thoughts=(ModelThought(content="Thinking of weather.", source="thought"),),
)
CONVERSE_RECORDS = AnswerRecords(
    msg_id="req-1",
    usage=TokenUsage(
        input_tokens=30,
        output_tokens=12,
        cache_read_input_tokens=90,
        cache_write_input_tokens=10,
        metadata={"cache_ephemeral_5m_input": 10},
    ),
    tools=(ToolUsage(tool="get_weather", input='{"city":"Rome"}', tool_call_id="tooluse_1"),),
    thoughts=(ModelThought(content="Rome first.", source="reasoning_content"),),
)

_GENERATE_EVENTS = [line[6:] for line in data("google_generate.sse").splitlines() if line]

STREAMS = (
    Recorded(
        name="Messages",
        dialect=DialectName.ANTHROPIC_MESSAGES,
        operation="anthropic.messages",
        headers=EVENTS,
        body=data("anthropic_messages.sse"),
        expected=MESSAGES_RECORDS,
    ),
    Recorded(
        name="Chat",
        dialect=DialectName.OPENAI_CHAT,
        operation="openai.chat_completions",
        headers=EVENTS,
        body=data("openai_chat.sse"),
        expected=CHAT_RECORDS,
    ),
    Recorded(
        name="Responses",
        dialect=DialectName.OPENAI_RESPONSES,
        operation="openai.responses",
        headers=EVENTS,
        body=data("openai_responses.sse"),
        expected=RESPONSES_RECORDS,
    ),
    Recorded(
        name="Gemini",
        dialect=DialectName.GOOGLE_GENERATE,
        operation="google.stream_generate_content",
        headers=EVENTS,
        body=data("google_generate.sse"),
        expected=GENERATE_RECORDS,
    ),
)
BINARY_STREAMS = (
    Recorded(
        name="ConverseStream",
        dialect=DialectName.BEDROCK,
        operation="bedrock.converse_stream",
        headers=MESSAGES,
        body=_converse_stream(),
        expected=CONVERSE_RECORDS,
    ),
    Recorded(
        name="InvokeModelWithResponseStream",
        dialect=DialectName.BEDROCK,
        operation="bedrock.invoke_model_stream",
        headers=MESSAGES,
        body=_invoke_stream(),
        expected=MESSAGES_RECORDS,
    ),
)
DOCUMENTS = (
    Recorded(
        name="Messages, whole",
        dialect=DialectName.ANTHROPIC_MESSAGES,
        operation="anthropic.messages",
        headers=JSON,
        body=data("anthropic_messages.json"),
        expected=MESSAGES_RECORDS,
    ),
    Recorded(
        name="Chat, whole",
        dialect=DialectName.OPENAI_CHAT,
        operation="openai.chat_completions",
        headers=JSON,
        body=data("openai_chat.json"),
        expected=CHAT_RECORDS,
    ),
    Recorded(
        name="Responses, whole",
        dialect=DialectName.OPENAI_RESPONSES,
        operation="openai.responses",
        headers=JSON,
        body=data("openai_responses.json"),
        expected=RESPONSES_RECORDS,
    ),
    Recorded(
        name="Gemini, whole",
        dialect=DialectName.GOOGLE_GENERATE,
        operation="google.generate_content",
        headers=JSON,
        body=data("google_generate.json"),
        expected=GENERATE_RECORDS,
    ),
    Recorded(
        name="Gemini, a stream as an array",
        dialect=DialectName.GOOGLE_GENERATE,
        operation="google.stream_generate_content",
        headers=JSON,
        body=b"[" + b"\n,\r\n".join(_GENERATE_EVENTS) + b"\n]\n",
        expected=GENERATE_RECORDS,
    ),
    Recorded(
        name="Converse",
        dialect=DialectName.BEDROCK,
        operation="bedrock.converse",
        headers=WHOLE,
        body=data("bedrock_converse.json"),
        expected=CONVERSE_RECORDS,
    ),
    Recorded(
        name="InvokeModel",
        dialect=DialectName.BEDROCK,
        operation="bedrock.invoke_model",
        headers=WHOLE,
        body=data("anthropic_messages.json"),
        expected=MESSAGES_RECORDS,
    ),
)
ALL = (*STREAMS, *BINARY_STREAMS, *DOCUMENTS)
