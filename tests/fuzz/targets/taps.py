"""Taps of every dialect: nothing an upstream says raises anything, and where it is cut makes no difference.

What is read of an answer at once, without a tap, is what the tap says.

The first byte of an input chooses the dialect and the framing, the next two where it is cut.
"""

import json

import msgspec

from bridged.model import DialectName, Headers
from bridged.records import AnswerRecords, TokenUsage
from bridged.taps import USUAL, answer_tap, read_turn
from tests.support.event_stream import event, message
from tests.support.http1_mutations import cut
from tests.support.taps import DATA, EVENTS, JSON, MESSAGES

DIALECTS = list(DialectName)
FRAMINGS: list[Headers] = [EVENTS, JSON, MESSAGES, (*EVENTS, ("Content-Encoding", "gzip"))]
OPERATIONS = ("bedrock.converse_stream", "bedrock.invoke_model", "")
AT_ONCE = {
    DialectName.ANTHROPIC_MESSAGES: USUAL["anthropic.messages"],
    DialectName.OPENAI_CHAT: USUAL["openai.chat_completions"],
    DialectName.OPENAI_RESPONSES: USUAL["openai.responses"],
}
MAX_BODY_BYTES = 1 << 20
WORDS = [
    b"data: ",
    b"\n\n",
    b"\r\n",
    b"{",
    b"}",
    b"[",
    b"]",
    b'"usage":{',
    b'"prompt_tokens":',
    b'"input_tokens":',
    b'"delta":',
    b'"choices":[',
    b'"type":"message_delta"',
    b'"type":"error"',
    b'"index":0',
    b"null",
    b"-1",
    b"1e400",
    b"99999999999999999999",
    b'"\\ud800"',
    b"true",
    b"[DONE]",
    b'"candidates":[',
    b'"content":',
]
CHAT = (
    b'{"id":"chatcmpl-1","choices":[{"index":0,"message":{"role":"assistant","content":"x","tool_calls":[]},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":4,"prompt_tokens_details":'
    b'{"cached_tokens":5,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":2}}}'
)
SEEDS = [
    bytes([dialect * len(FRAMINGS) + framing, 0, 0]) + path.read_bytes()[:3000]
    for dialect in range(len(DIALECTS))
    for framing, ending in ((0, ".sse"), (1, ".json"))
    for path in sorted(DATA.glob(f"*{ending}"))
] + [
    bytes([DIALECTS.index(DialectName.OPENAI_CHAT) * len(FRAMINGS) + FRAMINGS.index(JSON), 0, 0]) + CHAT,
    bytes([4 * len(FRAMINGS) + 2, 0, 0])
    + event("contentBlockDelta", b'{"delta":{"text":"x"},"contentBlockIndex":0}')
    + event("metadata", b'{"usage":{"inputTokens":1,"outputTokens":2,"totalTokens":3}}')
    + message({}),
]


def one_input(data: bytes) -> None:
    if len(data) < 3:
        return
    choice, places, stream = data[0], [place * 7 for place in data[1:3] if place], data[3:]
    dialect = DIALECTS[choice // len(FRAMINGS) % len(DIALECTS)]
    headers = FRAMINGS[choice % len(FRAMINGS)]
    operation = OPERATIONS[choice % len(OPERATIONS)] if dialect is DialectName.BEDROCK else ""
    whole = _tapped([stream], dialect, operation, headers)
    parts = _tapped(cut(stream, places), dialect, operation, headers)
    assert whole == parts, (dialect, headers, stream, places)
    if headers is JSON and dialect in AT_ONCE and whole is not None:
        usual = AT_ONCE[dialect](stream)
        assert usual is None or _records(*usual) == msgspec.structs.replace(whole, model=""), (dialect, stream)
    read_turn(dialect, stream, content_encoding="", max_bytes=MAX_BODY_BYTES)


def _records(msg_id: str, new: int, out: int, read: int, written: int, further: str) -> AnswerRecords:
    metadata = json.loads(further or "{}")
    return AnswerRecords(msg_id=msg_id, usage=TokenUsage(new, out, read, written, metadata), over=True)


def _tapped(parts: list[bytes], dialect: DialectName, operation: str, headers: Headers) -> AnswerRecords | None:
    tap = answer_tap(dialect, operation, status=200, headers=headers)
    if tap is None:
        return None
    for part in parts:
        tap.feed(part)
    return tap.end(whole=True)
