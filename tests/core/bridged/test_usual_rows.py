"""What is read at once of a usual interception is what its report says, to the byte."""

import json
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.conversation import Conversation
from bridged.headers import is_plain, request_id_of
from bridged.interception import Interception
from bridged.model import DialectName, Headers, RequestFacts, Resolution
from bridged.recording import Recording, new_recording
from bridged.report_messages import Row, row_of
from bridged.routes import ROUTES, match
from bridged.taps import USUAL, answer_tap, anthropic_messages, openai_chat, openai_responses

PATHS = {
    "anthropic.messages": "/v1/messages",
    "openai.chat_completions": "/v1/chat/completions",
    "openai.responses": "/v1/responses",
}
END = (2.0, 1_700_000_000.125)
AGENT = (("User-Agent", "codex_cli_rs/0.1"), ("session-id", "s-1"))
JSON = ("Content-Type", "application/json; charset=utf-8")

# Most of what is drawn is usual, or the short way would hardly ever be taken.
USUALLY = st.integers(0, 9).map(bool)
COUNTS = USUALLY.flatmap(
    lambda usual: st.integers(0, 300) if usual else st.sampled_from([-1, None, 10**11, 10**11 + 1, 3.0, 3.5, "7", True])
)
TEXTS = st.text(max_size=20) | st.none()


def _objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def _answers(usage: st.SearchStrategy[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"usage": usage}, optional=fields)


# Of some upstreams only; LiteLLM says 0 of nearly all requests.
BESIDE = st.sampled_from([0, 0, 0, None, 7, -1, "7"])
CHAT_DETAILS = (
    _objects(cached_tokens=COUNTS, cache_write_tokens=COUNTS, audio_tokens=COUNTS, cache_creation_tokens=BESIDE)
    | st.none()
)
CHAT_USAGE = _objects(
    prompt_tokens=COUNTS,
    completion_tokens=COUNTS,
    prompt_tokens_details=CHAT_DETAILS,
    completion_tokens_details=_objects(reasoning_tokens=COUNTS) | st.none(),
    cached_tokens=BESIDE,
    prompt_cache_hit_tokens=BESIDE,
    cache_creation_input_tokens=BESIDE,
)
CHAT_MESSAGE = _objects(
    content=TEXTS,
    tool_calls=st.lists(_objects(id=TEXTS, function=_objects(name=TEXTS, arguments=TEXTS)), max_size=2) | st.none(),
)
CHAT = _answers(
    CHAT_USAGE,
    id=TEXTS,
    model=TEXTS,
    choices=st.lists(_objects(message=CHAT_MESSAGE, delta=CHAT_MESSAGE, finish_reason=TEXTS), max_size=2),
    error=_objects(type=TEXTS, message=TEXTS) | st.none(),
)
MESSAGES = _answers(
    _objects(
        input_tokens=COUNTS,
        output_tokens=COUNTS,
        cache_read_input_tokens=COUNTS,
        cache_creation_input_tokens=COUNTS,
        cache_creation=_objects(ephemeral_1h_input_tokens=COUNTS) | st.none(),
        server_tool_use=_objects(web_search_requests=COUNTS) | st.none(),
        output_tokens_details=_objects(thinking_tokens=COUNTS) | st.none(),
    ),
    id=TEXTS,
    type=st.sampled_from(["message", "error"]),
    content=st.lists(
        _objects(type=st.sampled_from(["text", "thinking", "tool_use", "other"]), thinking=TEXTS, name=TEXTS, id=TEXTS),
        max_size=2,
    ),
    error=_objects(type=TEXTS, message=TEXTS) | st.none(),
)
RESPONSES = _answers(
    _objects(
        input_tokens=COUNTS,
        output_tokens=COUNTS,
        input_tokens_details=_objects(cached_tokens=COUNTS, cache_write_tokens=COUNTS) | st.none(),
        output_tokens_details=_objects(reasoning_tokens=COUNTS) | st.none(),
    ),
    id=TEXTS,
    output=st.lists(
        _objects(
            type=st.sampled_from(["message", "reasoning", "function_call", "web_search_call"]),
            phase=st.sampled_from(["commentary", "final_answer"]),
            name=TEXTS,
            call_id=TEXTS,
            content=st.just([{"text": "so"}]),
        ),
        max_size=2,
    ),
    error=_objects(code=TEXTS, message=TEXTS) | st.none(),
)
ANSWERS = {"anthropic.messages": MESSAGES, "openai.chat_completions": CHAT, "openai.responses": RESPONSES}
HEADERS = st.lists(
    st.sampled_from([JSON, ("content-type", "text/plain")])
    | st.tuples(st.just("content-encoding"), st.sampled_from(["gzip", "identity"]))
    | st.tuples(st.sampled_from(["X-Request-Id", "request-id", "Date"]), st.sampled_from(["", "a", "b"])),
    max_size=4,
)


@dataclass(kw_only=True)
class Ended:
    """What a recording reads of an interception."""

    facts: RequestFacts
    error: str = ""
    stopped: bool = False
    status: int = 200
    started_seconds: float = 1.0
    first_byte_seconds: float | None = 0.25
    attempts: tuple[()] = ()
    client: None = None


@dataclass(kw_only=True)
class Resolved:
    """What it reads of a resolution."""

    receipt: bytes = b"receipt"
    upstream_model: str = "m-1"
    credential: None = None


def recorded(
    operation: str, headers: Headers, pieces: list[bytes], prompt: str | None, *, knows_length: bool
) -> Recording:
    recording = new_recording("0190e2f4-1111-7abc-8def-0123456789ab", _match(operation), AGENT, answer_tap)
    asked = Conversation(messages=[], model="m")
    recording.read_turn(asked, b"", 1024)
    if prompt is not None:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": prompt}], "input": prompt}).encode()
        recording.read_turn(None, body, 1 << 20)
    length_bytes = sum(map(len, pieces)) if knows_length else None
    take = recording.answer_begins(200, headers, False, is_plain(headers), request_id_of(headers), length_bytes)
    assert take is not None
    for piece in pieces:
        take(piece)
    return recording


def _match(operation: str) -> Any:
    return match("POST", PATHS[operation], (), "")


def rows(operation: str, headers: Headers, pieces: list[bytes], prompt: str | None) -> tuple[Row | None, Row | None]:
    """By the short way, None where it does not take it, and by the long one."""
    ended = cast(Interception, Ended(facts=RequestFacts(model="m", stream=False)))
    resolved = cast(Resolution, Resolved())
    short = recorded(operation, headers, pieces, prompt, knows_length=True).usual_row(ended, resolved, END)
    report = recorded(operation, headers, pieces, prompt, knows_length=False).report(ended, resolved, END)
    if short is not None:
        assert not report.answer.troubles, "what is counted as trouble is not usual"
    return short, row_of(report)


@pytest.mark.parametrize("operation", PATHS)
@given(data=st.data())
def test_a_usual_row_is_that_of_the_report(operation: str, data: st.DataObject) -> None:
    answer = json.dumps(data.draw(ANSWERS[operation])).encode()
    cut = 0 if data.draw(USUALLY) else data.draw(st.integers(0, len(answer)))
    pieces = [one for one in (answer[:cut], answer[cut:]) if one]
    headers = (JSON, *(() if data.draw(USUALLY) else data.draw(HEADERS)))
    short, long = rows(
        operation, headers, pieces, data.draw(TEXTS.filter(lambda one: one is None or one.isprintable()))
    )
    assert short is None or short == long


USUAL_ANSWERS = {
    "anthropic.messages": {
        "id": "msg_1",
        "content": [{"type": "text"}],
        "usage": {
            "input_tokens": 3,
            "output_tokens": 4,
            "cache_read_input_tokens": 2,
            "cache_creation_input_tokens": 1,
            "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 1},
        },
    },
    "openai.chat_completions": {
        "id": "chatcmpl-1",
        "choices": [{"message": {"content": "x"}}],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 4,
            "prompt_tokens_details": {"cached_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    },
    "openai.responses": {
        "id": "resp_1",
        "output": [{"type": "message"}],
        "usage": {"input_tokens": 7, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 5}},
    },
}


@pytest.mark.parametrize("operation", PATHS)
def test_an_answer_of_text_and_usage_takes_the_short_way(operation: str) -> None:
    short, long = rows(
        operation, (JSON, ("x-request-id", "r-1")), [json.dumps(USUAL_ANSWERS[operation]).encode()], "hi"
    )
    assert short is not None
    assert short == long


# What has to be looked at: calls, thoughts, errors, counts that are none, and what is of another type.
UNUSUAL: dict[str, list[dict[str, Any]]] = {
    "anthropic.messages": [
        {"content": [{"type": "text"}, {"type": "tool_use", "id": "t", "name": "n", "input": {}}]},
        {"content": [{"type": "thinking", "thinking": "so"}]},
        {"content": [{"type": "text", "id": 1}]},
        {"type": "error", "error": {"type": "overloaded_error", "message": "m"}},
        {"usage": {"input_tokens": -1}},
        {"usage": {"input_tokens": 10**11 + 1}},
        {"usage": {"input_tokens": True}},
        {"usage": {}},
        {"usage": None},
        {"model": 1},
        {"id": "i" * 600},
        {"amazon-bedrock-invocationMetrics": {"outputTokenCount": 1}},
    ],
    "openai.chat_completions": [
        {"choices": [{"message": {"tool_calls": [{"id": "c", "function": {"name": "n", "arguments": "{}"}}]}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]},
        {"choices": [{"index": "0", "message": {}}]},
        {"error": {"type": "server_error", "message": "m"}},
        {"id": "i" * 600},
        {"usage": {"prompt_tokens": 3.0}},
        {"usage": {"prompt_tokens": "7"}},
        {"usage": {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": -1}}},
        {"usage": {"prompt_tokens": 1, "cache_creation_input_tokens": 1}},
        {"usage": {"prompt_tokens": 1, "prompt_tokens_details": {"cache_creation_tokens": 1}}},
        {"usage": {}},
        {"usage": None},
    ],
    "openai.responses": [
        {"output": [{"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"}]},
        {"output": [{"type": "reasoning", "summary": [{"text": "so"}]}]},
        {"output": [{"type": "message", "phase": "commentary", "content": [{"text": "so"}]}]},
        {"output": [{"type": "message", "content": "so"}]},
        {"error": {"code": "server_error", "message": "m"}},
        {"id": "i" * 600},
        {"usage": {"input_tokens": 1, "output_tokens_details": {"reasoning_tokens": -1}}},
        {"usage": {}},
        {"usage": None},
    ],
}


@pytest.mark.parametrize(
    ("operation", "changes"), [(operation, changes) for operation, all_of in UNUSUAL.items() for changes in all_of]
)
def test_what_has_to_be_looked_at_is_left_to_the_report(operation: str, changes: dict[str, Any]) -> None:
    short, _ = rows(operation, (JSON,), [json.dumps({**USUAL_ANSWERS[operation], **changes}).encode()], "hi")
    assert short is None


@pytest.mark.parametrize("knows_length", [True, False])
def test_an_answer_is_held_whether_its_length_is_known_or_not_unless_it_is_long(knows_length: bool) -> None:
    usual = json.dumps(USUAL_ANSWERS["openai.chat_completions"]).encode()
    for pieces, held_bytes in (([usual], len(usual)), ([b" " * 262_144, usual], 0)):
        recording = recorded("openai.chat_completions", (JSON,), pieces, "hi", knows_length=knows_length)
        assert recording.held_bytes == held_bytes
        usage = recording.answer(whole=True).usage
        assert usage is not None
        assert usage.output_tokens == 4


def test_turns_are_read_at_once_as_their_dialects_say() -> None:
    dialects = {
        DialectName.ANTHROPIC_MESSAGES: anthropic_messages.usual,
        DialectName.OPENAI_CHAT: openai_chat.usual,
        DialectName.OPENAI_RESPONSES: openai_responses.usual,
    }
    turns = [route for route in ROUTES if route.intercepted and route.dialect in dialects]
    assert {route.operation: dialects[route.dialect] for route in turns} == USUAL
