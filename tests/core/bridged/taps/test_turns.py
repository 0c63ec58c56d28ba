"""What requests say of a conversation: prompts by the rules of each API, tool results, Claude Code's session."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from bridged.model import DialectName
from bridged.records import NO_TURN, Turn
from bridged.taps import read_turn, turns
from bridged.taps.turns import MAX_BEHIND, MAX_PROMPT_BYTES

MESSAGES, CHAT = DialectName.ANTHROPIC_MESSAGES, DialectName.OPENAI_CHAT
RESPONSES, GENERATE, BEDROCK = DialectName.OPENAI_RESPONSES, DialectName.GOOGLE_GENERATE, DialectName.BEDROCK


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


def text(value: str) -> dict[str, object]:
    return {"type": "text", "text": value}


def result(value: str) -> dict[str, object]:
    return {"type": "tool_result", "tool_use_id": value, "content": [text("sunny")]}


IMAGE = {"type": "image", "source": {"type": "base64", "data": "AAAA"}}
ASSISTANT = {"role": "assistant", "content": "Hm."}
SYSTEM = {"role": "system", "content": "Be brief."}
TOOL = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}


def item(kind: str, **fields: object) -> dict[str, object]:
    return {"type": kind, **fields}


def message(*texts: str) -> dict[str, object]:
    return item("message", role="user", content=[item("input_text", text=value) for value in texts])


def turn_of(dialect: DialectName, body: object) -> Turn:
    return conversation_of(read_turn(dialect, json.dumps(body).encode(), max_bytes=1 << 20))


def conversation_of(turn: Turn) -> Turn:
    """Without what is there for compressed bodies only."""
    return structs.replace(turn, model="", streaming=False)


@pytest.mark.parametrize(
    ("messages", "prompt", "tool_call_id"),
    [
        ([user("Hello\n")], "Hello\n", ""),
        ([user("")], "", ""),
        ([user([text("one"), text("two"), IMAGE])], "two", ""),
        ([user("first"), ASSISTANT], None, ""),
        ([user("first"), ASSISTANT, user("second")], "second", ""),
        ([user([IMAGE])], None, ""),
        ([user([result("toolu_1"), result("toolu_2")])], None, "toolu_2"),
        ([user([result("toolu_1"), text("and?")])], "and?", "toolu_1"),
        ([user([result("toolu_1")]), ASSISTANT, user("new")], "new", ""),
        ([user("asked"), SYSTEM], "asked", ""),
        ([user(7)], None, ""),
        ([7], None, ""),
        ([], None, ""),
        ("none", None, ""),
    ],
)
def test_messages(messages: object, prompt: str | None, tool_call_id: str) -> None:
    expected = Turn(prompt=prompt, correlating_tool_call_id=tool_call_id)
    body = {"model": "m", "messages": messages, "tools": [{"name": "x"}]}
    assert turn_of(MESSAGES, body) == expected
    assert turn_of(BEDROCK, body) == expected


@pytest.mark.parametrize(
    ("messages", "prompt", "tool_call_id"),
    [
        ([user("Hello")], "Hello", ""),
        ([user([text("one"), text("two"), {"type": "image_url", "image_url": {"url": "data:"}}])], "two", ""),
        ([user("first"), ASSISTANT], None, ""),
        ([user("first"), ASSISTANT, TOOL], None, "call_1"),
        ([user("first"), SYSTEM], "first", ""),
        ([SYSTEM], None, ""),
        ([user("first"), *[SYSTEM] * MAX_BEHIND], "first", ""),
        # Nobody does that, and bodies may be long.
        ([user("first"), *[SYSTEM] * (MAX_BEHIND + 1)], None, ""),
    ],
)
def test_chat(messages: object, prompt: str | None, tool_call_id: str) -> None:
    assert turn_of(CHAT, {"messages": messages}) == Turn(prompt=prompt, correlating_tool_call_id=tool_call_id)


@pytest.mark.parametrize(
    ("given_input", "prompt", "tool_call_id"),
    [
        ("Hello\n", "Hello\n", ""),
        ("", "", ""),
        ([message("one", "two")], "one\ntwo", ""),
        ([{"role": "user", "content": "Hello"}], "Hello", ""),
        ([message("one"), item("message", role="assistant", content="x")], None, ""),
        ([item("function_call_output", call_id="c1", output="x")], None, "c1"),
        ([item("custom_tool_call_output", call_id="c2", output="x")], None, "c2"),
        ([item("tool_search_output", call_id="c3", tools=[])], None, "c3"),
        ([item("reasoning", summary=[])], None, ""),
        (7, None, ""),
        (None, None, ""),
    ],
)
def test_responses(given_input: object, prompt: str | None, tool_call_id: str) -> None:
    assert turn_of(RESPONSES, {"input": given_input}) == Turn(prompt=prompt, correlating_tool_call_id=tool_call_id)


@pytest.mark.parametrize(
    ("contents", "prompt", "tool_call_id"),
    [
        ([{"role": "user", "parts": [{"text": "one"}, {"text": "two"}]}], "two", ""),
        ([{"parts": [{"text": "one"}]}], "one", ""),
        ([{"role": "user", "parts": [{"text": "one"}]}, {"role": "model", "parts": [{"text": "x"}]}], None, ""),
        ([{"role": "user", "parts": [{"functionResponse": {"id": "f1", "name": "n", "response": {}}}]}], None, "f1"),
    ],
)
def test_gemini(contents: object, prompt: str | None, tool_call_id: str) -> None:
    assert turn_of(GENERATE, {"contents": contents}) == Turn(prompt=prompt, correlating_tool_call_id=tool_call_id)


def test_converse() -> None:
    def turn(content: object) -> Turn:
        return turn_of(BEDROCK, {"messages": [{"role": "user", "content": content}]})

    assert turn([{"text": "Hi"}]) == Turn(prompt="Hi")
    guarded = {"guardContent": {"text": {"text": "Is it safe?", "qualifiers": ["query"]}}}
    assert turn([{"text": "Context"}, guarded, {"cachePoint": {"type": "default"}}]) == Turn(prompt="Is it safe?")
    assert turn([{"toolResult": {"toolUseId": "t1", "content": [{"text": "x"}]}}]) == Turn(
        correlating_tool_call_id="t1"
    )


@pytest.mark.parametrize(
    ("user_id", "session_id"),
    [
        (json.dumps({"device_id": "d", "account_uuid": "", "session_id": " 5f-1 "}), "5f-1"),
        (json.dumps({"device_id": "d"}), ""),
        ("user_ab_account__session_5f-1", "5f-1"),
        ("me", ""),
        (7, ""),
    ],
)
def test_the_session_that_claude_code_puts_into_the_body(user_id: object, session_id: str) -> None:
    body = {"metadata": {"user_id": user_id}, "messages": [user("Hi")]}
    assert turn_of(MESSAGES, body) == Turn(prompt="Hi", session_id=session_id)


def test_a_compressed_body_is_read() -> None:
    body = gzip.compress(json.dumps({"messages": [user("Hi")]}).encode())
    assert conversation_of(read_turn(CHAT, body, content_encoding="gzip", max_bytes=1000)) == Turn(prompt="Hi")
    assert read_turn(CHAT, body, content_encoding="gzip", max_bytes=10) == NO_TURN
    assert read_turn(CHAT, body, content_encoding="rot13", max_bytes=1000) == NO_TURN


def test_a_prompt_over_the_bound_is_cut_and_said_to_be() -> None:
    turn = turn_of(CHAT, {"messages": [user("x" * (MAX_PROMPT_BYTES + 1))]})
    assert turn.prompt == "x" * MAX_PROMPT_BYTES
    assert turn.prompt_bytes == MAX_PROMPT_BYTES + 1


def test_half_an_emoji_does_not_hide_a_prompt() -> None:
    body = b'{"messages":[{"role":"user","content":"a \\ud83d b \\ud83d\\ude00 \\\\ud83d"}]}'
    assert turns.read_turn(CHAT, body) == Turn(prompt="a \ufffd b \U0001f600 \\ud83d")


@pytest.mark.parametrize("dialect", list(DialectName))
@given(
    body=st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda values: (
            st.lists(values)
            | st.dictionaries(
                st.sampled_from(
                    ["messages", "input", "contents", "role", "content", "parts", "text", "type", "metadata"]
                ),
                values,
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_nothing_in_a_body_makes_reading_fail(dialect: DialectName, body: bytes) -> None:
    turn = turns.read_turn(dialect, body)
    assert turn.prompt is None or isinstance(turn.prompt, str)
