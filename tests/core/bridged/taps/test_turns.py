"""What requests say of a conversation: prompts by the rules of each API, tool results, Claude Code's session."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from bridged.conversation import ShortConversation
from bridged.dialects.facts import read_top_level
from bridged.model import DialectName, Refused
from bridged.records import NO_TURN, Turn
from bridged.taps import read_turn, turns
from bridged.taps.turns import MAX_BEHIND, MAX_PROMPT_BYTES, turn_of_parts, turn_of_short

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
    raw = json.dumps(body).encode()
    read = conversation_of(read_turn(dialect, raw, max_bytes=1 << 20))
    assert at_once(dialect, raw) in (None, read)
    return read


def at_once(dialect: DialectName, body: bytes) -> Turn | None:
    """What is read while the model is; None for what has to be looked at again."""
    try:
        conversation = read_top_level(body).conversation
    except Refused:
        return None
    if not isinstance(conversation, ShortConversation):
        return None
    return turn_of_short(dialect, conversation) or turn_of_parts(dialect, conversation)


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
    ("said", "prompt"),
    [
        ({"prompt": "[INST] Hi [/INST]", "max_gen_len": 9}, "[INST] Hi [/INST]"),
        ({"inputText": "Hi"}, "Hi"),
        ({"message": "Hi", "chat_history": [{"role": "USER", "message": "no"}]}, "Hi"),
        ({"prompt": "no", "messages": [user("Hi")]}, "Hi"),
        ({"prompt": ["no text"]}, None),
        ({"texts": ["no"]}, None),
    ],
)
@pytest.mark.parametrize("padding", [0, 10_000])
def test_models_at_bedrock_without_messages(said: dict[str, object], prompt: str | None, padding: int) -> None:
    assert turn_of(BEDROCK, {**said, "padding": "x" * padding}) == Turn(prompt)


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
        ([{"role": "user", "parts": [{"function_response": {"id": "f1", "name": "n", "response": {}}}]}], None, "f1"),
        (
            [{"parts": [{"functionResponse": {"id": "f1"}}, {"function_response": {"id": "f2"}}, {"text": "so"}]}],
            "so",
            "f2",
        ),
        ([{"role": "user", "parts": [{"function_response": {"name": "n", "response": {}}}]}], None, ""),
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


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (CHAT, {"model": "m", "messages": [SYSTEM, user("Hi \U0001f600")]}),
        (
            MESSAGES,
            {
                "messages": [user([text("one")]), ASSISTANT, user("Hi \U0001f600")],
                "metadata": {"user_id": "u_session_s-1"},
            },
        ),
        (BEDROCK, {"messages": [user("Hi \U0001f600")]}),
        (RESPONSES, {"input": "Hi \U0001f600", "messages": [user("no")]}),
    ],
)
def test_a_text_of_the_user_at_the_end_of_a_short_body_is_read_at_once(dialect: DialectName, body: object) -> None:
    raw = json.dumps(body, ensure_ascii=False).encode()
    turn = at_once(dialect, raw)
    assert turn == conversation_of(read_turn(dialect, raw, max_bytes=1 << 20))
    assert turn is not None
    assert turn.prompt == "Hi \U0001f600"
    assert turn.session_id == ("s-1" if dialect is MESSAGES else "")
    assert at_once(dialect, raw + b" " * 8192) is None


@pytest.mark.parametrize(
    ("dialect", "last", "expected"),
    [
        (CHAT, user([text("one"), text("two"), IMAGE]), Turn("two")),
        (CHAT, TOOL, Turn(correlating_tool_call_id="call_1")),
        (MESSAGES, user([text("one"), result("toolu_1")]), Turn("one", 0, "toolu_1")),
        (BEDROCK, user([{"toolResult": {"toolUseId": "tooluse_1"}}]), Turn(correlating_tool_call_id="tooluse_1")),
    ],
)
def test_parts_of_a_short_body_are_not_read_from_it_again(dialect: DialectName, last: object, expected: Turn) -> None:
    conversation = read_top_level(json.dumps({"messages": [ASSISTANT, last]}).encode()).conversation
    assert isinstance(conversation, ShortConversation)
    assert turn_of_parts(dialect, conversation) == expected


@pytest.mark.parametrize("odd", [b"1e999", b'"\\ud83d"', b"[" * 900 + b"]" * 900, b'{"\\udc00":1}', b"-0", b"9" * 5000])
@pytest.mark.parametrize("place", ["content", "role", "input"])
def test_what_is_odd_deep_in_a_short_body_refuses_nothing_and_hides_no_prompt(odd: bytes, place: str) -> None:
    first = b'{"role":"assistant","content":%b}' % odd if place == "content" else b'{"role":%b}' % odd
    body = b'{"model":"m","input":%b,"messages":[%b,{"role":"user","content":"Hi"}]}' % (
        odd if place == "input" else b"0",
        first,
    )
    assert read_top_level(body).model == "m"
    assert conversation_of(read_turn(CHAT, body, max_bytes=1 << 20)).prompt == "Hi"
    assert at_once(CHAT, body) in (None, Turn("Hi"))


ANYTHING = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.sampled_from(["user", "system", "tool", "text"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "role"]), inner),
    max_leaves=6,
)
PART = st.fixed_dictionaries(
    {},
    optional={
        "type": st.text(max_size=3) | st.just(5),
        "text": st.text(max_size=3) | st.none() | st.just(5),
        "tool_use_id": st.text(max_size=3) | st.none(),
        "toolResult": st.fixed_dictionaries({}, optional={"toolUseId": st.text(max_size=3) | st.just(5)}) | st.none(),
        "guardContent": st.just({"text": {"text": "guarded"}}),
    },
)
SAID = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "user", "tool"]) | ANYTHING,
        "content": st.text(max_size=3) | st.lists(PART, max_size=3) | ANYTHING,
        "tool_call_id": st.text(max_size=3) | st.none(),
    },
)


@given(
    st.sampled_from([CHAT, MESSAGES, BEDROCK, RESPONSES]),
    st.fixed_dictionaries(
        {},
        optional={
            "messages": st.lists(SAID | ANYTHING, max_size=3) | ANYTHING,
            "input": ANYTHING,
            "metadata": st.fixed_dictionaries({}, optional={"user_id": ANYTHING}) | ANYTHING,
        },
    ),
)
def test_what_is_read_at_once_is_what_the_body_says(dialect: DialectName, body: dict[str, object]) -> None:
    raw = json.dumps(body).encode()
    read = conversation_of(read_turn(dialect, raw, max_bytes=1 << 20))
    short = at_once(dialect, raw)
    assert short in (None, read)
