"""What a request says of the conversation: the prompt, and the tool call whose result it brings.

    Messages, Converse, Gemini   the last message is the user's: its text, or the last text among its parts
    InvokeModel                  likewise; models that know no messages have the whole text in a field of their own
    Chat                         likewise; a last message `tool` has the id of its call
    Responses                    `input` is a text, or its last item is the user's: its text, or all texts in lines

What a client puts behind the user's message with the role `system` (Claude Code and aider do) is passed over. Texts are
not trimmed. One of a wrong type is no prompt: the upstream judges the request.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, TypeVar

import msgspec

from bridged.conversation import Conversation, ShortConversation
from bridged.model import DialectName
from bridged.records import NO_TURN, Turn
from bridged.taps.typed_json import decoded

MAX_PROMPT_BYTES = 1024 * 1024
# A character has at most four bytes, so nearly all prompts are known to fit.
_SURELY_FITS_CHARACTERS = MAX_PROMPT_BYTES // 4
MAX_ID_CHARACTERS = 512
MAX_MODEL_CHARACTERS = 512
_CHAT, _RESPONSES = DialectName.OPENAI_CHAT, DialectName.OPENAI_RESPONSES
# How many messages of the system there may be behind the user's.
MAX_BEHIND = 64
_BEHIND = frozenset({"system", "developer"})
# Older Claude Code: user_…_account_…_session_….
_SESSION = re.compile(r"_session_(.+)$")
# A union with None would take nothing but null.
_NOTHING = msgspec.Raw()


class _Metadata(msgspec.Struct, gc=False):
    user_id: Any = None


class _Text(msgspec.Struct, gc=False):
    """Bodies of InvokeModel without messages (docs.aws.amazon.com, "Inference request parameters")."""

    # Llama's, Mistral's and DeepSeek's, Titan's, Cohere's.
    prompt: str | None = None
    input_text: str | None = msgspec.field(default=None, name="inputText")
    message: str | None = None


class _Result(msgspec.Struct, gc=False, rename="camel"):
    tool_use_id: str | None = None


class _GuardedText(msgspec.Struct, gc=False):
    text: str | None = None


# Converse: what a guardrail is to look at.
class _Guarded(msgspec.Struct, gc=False):
    text: _GuardedText | None = None


class _Part(msgspec.Struct, gc=False):
    """A part of any of the APIs but Gemini's; the fields of one are missing in the others."""

    type: str = ""
    text: str | None = None
    tool_use_id: str | None = None
    converse_result: _Result | None = msgspec.field(default=None, name="toolResult")
    guarded: _Guarded | None = msgspec.field(default=None, name="guardContent")


class _Message(msgspec.Struct, gc=False):
    role: str = ""
    type: str = ""
    tool_call_id: str | None = None
    call_id: str | None = None
    content: msgspec.Raw = _NOTHING


class _FunctionResponse(msgspec.Struct, gc=False):
    id: str | None = None


class _GeneratePart(msgspec.Struct, gc=False):
    """A part of Gemini's, whose requests may name what is in them in either way (protobuf.dev, "ProtoJSON Format")."""

    text: str | None = None
    function_response: _FunctionResponse | None = msgspec.field(default=None, name="functionResponse")
    snake_response: _FunctionResponse | None = msgspec.field(default=None, name="function_response")


class _GenerateMessage(msgspec.Struct, gc=False):
    role: str = ""
    parts: list[_GeneratePart] | None = None


class _Contents(msgspec.Struct, gc=False):
    contents: list[msgspec.Raw] | None = None


M = TypeVar("M", _Message, _GenerateMessage)


class _TextMessage(msgspec.Struct, gc=False):
    """A message of the user whose content is a text, as most are: read in one go."""

    content: str
    role: Literal["user"]


class _Session(msgspec.Struct, gc=False):
    session_id: str | None = None


_conversations = msgspec.json.Decoder(Conversation)
_contents = msgspec.json.Decoder(_Contents)
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_messages = msgspec.json.Decoder(_Message)
_generate_messages = msgspec.json.Decoder(_GenerateMessage)
_text_messages = msgspec.json.Decoder(_TextMessage)
_texts = msgspec.json.Decoder(str)
_parts = msgspec.json.Decoder(list[_Part])
_text_bodies = msgspec.json.Decoder(_Text)
_metadata = msgspec.json.Decoder(_Metadata)
_sessions = msgspec.json.Decoder(_Session)


def turn_of(dialect: DialectName, conversation: Conversation) -> Turn:
    """What a request says of its conversation; NO_TURN for what cannot be read."""
    # An Enum's members are hashed in Python.
    return _chat_turn(conversation) if dialect is _CHAT else _TURNS[dialect](conversation)


def turn_of_short(dialect: DialectName, conversation: ShortConversation) -> Turn | None:
    """The same of a short one that ends with a text of the user; None for any other."""
    text: object = None
    if dialect is _RESPONSES:
        text = conversation.input
    elif conversation.messages:
        last = conversation.messages[-1]
        text = last.content if last.role == "user" else None
    if type(text) is not str:
        return None
    if dialect is _CHAT or dialect is _RESPONSES:
        return Turn(text)
    return Turn(text, 0, "", _session_of(conversation.metadata))


def turn_of_parts(dialect: DialectName, conversation: ShortConversation) -> Turn | None:
    """The same of a short one that ends with parts of the user's, or with a tool's result; None for any other.

    What is None here and above has to be read from the body.
    """
    if dialect is _RESPONSES or not conversation.messages:
        return None
    last = conversation.messages[-1]
    if dialect is _CHAT and last.role == "tool" and isinstance(last.tool_call_id, str):
        return _turn(None, [last.tool_call_id])
    if last.role != "user":
        return None
    try:
        parts = msgspec.convert(last.content, list[_Part])
    except msgspec.ValidationError:
        return None
    if dialect is _CHAT:
        return _turn(_last_text(parts), ())
    return _turn(_last_text(parts), _results_of(parts), session_id=_session_of(conversation.metadata))


def read_turn(dialect: DialectName, body: bytes) -> Turn:
    """The same of a body that nobody has looked at."""
    if dialect is DialectName.GOOGLE_GENERATE:
        return _generate_turn(body)
    conversation = decoded(_conversations, body)
    if conversation is None:
        return NO_TURN
    turn = turn_of(dialect, conversation)
    if dialect is DialectName.BEDROCK and conversation.messages is None:
        turn = _text_turn(body)
    model = (conversation.model or "")[:MAX_MODEL_CHARACTERS]
    return msgspec.structs.replace(turn, model=model, streaming=bool(conversation.stream))


def _messages_turn(conversation: Conversation) -> Turn:
    """Anthropic Messages, and InvokeModel and Converse, whose messages are built alike."""
    message = _last(conversation.messages, _messages)
    parts = _parts_of(message) if message and message.role == "user" else ()
    return _turn(_last_text(parts), _results_of(parts), session_id=_session_of(conversation.metadata))


def _text_turn(body: bytes) -> Turn:
    said = decoded(_text_bodies, body)
    return NO_TURN if said is None else _turn(said.prompt or said.input_text or said.message, ())


def _chat_turn(conversation: Conversation) -> Turn:
    raws = conversation.messages
    try:
        text = _text_messages.decode(raws[-1]).content if raws else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = None
    if text is not None:
        return Turn(text) if len(text) <= _SURELY_FITS_CHARACTERS else _turn(text, ())
    message = _last(raws, _messages)
    if message is None:
        return NO_TURN
    if message.role == "tool":
        return _turn(None, [message.tool_call_id])
    return _turn(_last_text(_parts_of(message)) if message.role == "user" else None, ())


def _responses_turn(conversation: Conversation) -> Turn:
    raw = bytes(conversation.input)
    if raw.lstrip().startswith(b'"'):
        return _turn(decoded(_texts, raw), ())
    item = _last(decoded(_raws, raw), _messages)
    if item is None:
        return NO_TURN
    if item.type.endswith("_output"):
        return _turn(None, [item.call_id])
    if item.role != "user":
        return NO_TURN
    texts = [part.text or "" for part in _parts_of(item) if part.type in ("input_text", "")]
    return _turn("\n".join(texts) if texts else None, ())


def _generate_turn(body: bytes) -> Turn:
    request = decoded(_contents, body)
    message = _last(request.contents, _generate_messages) if request else None
    if message is None or message.role not in ("user", "function", ""):
        return NO_TURN
    parts = message.parts or ()
    texts = (part.text for part in reversed(parts) if part.text is not None)
    responses = (part.function_response or part.snake_response for part in parts)
    return _turn(next(texts, None), (response.id for response in responses if response))


_TURNS: dict[DialectName, Callable[[Conversation], Turn]] = {
    DialectName.ANTHROPIC_MESSAGES: _messages_turn,
    DialectName.BEDROCK: _messages_turn,
    _CHAT: _chat_turn,
    _RESPONSES: _responses_turn,
}


def _last(raws: Sequence[msgspec.Raw] | None, decoder: msgspec.json.Decoder[M]) -> M | None:
    """The last message that is of the conversation; None if there is none or it cannot be read."""
    for raw in islice(reversed(raws or ()), MAX_BEHIND + 1):
        message = decoded(decoder, bytes(raw))
        if message is None or message.role not in _BEHIND:
            return message
    return None


def _parts_of(message: _Message) -> Sequence[_Part]:
    """The content as parts; a text is the only part of its own."""
    raw = bytes(message.content)
    if raw.lstrip().startswith(b'"'):
        return [_Part(text=decoded(_texts, raw))]
    return decoded(_parts, raw) or ()


def _results_of(parts: Sequence[_Part]) -> Iterator[str | None]:
    """The calls whose results are among the parts."""
    return (part.converse_result.tool_use_id if part.converse_result else part.tool_use_id for part in parts)


def _last_text(parts: Sequence[_Part]) -> str | None:
    for part in reversed(parts):
        if part.text is not None:
            return part.text
        if part.guarded is not None and part.guarded.text is not None:
            return part.guarded.text.text
    return None


def _turn(prompt: str | None, results: Iterable[str | None], *, session_id: str = "") -> Turn:
    ids = [result for result in results if result]
    prompt_bytes = 0
    if prompt is not None and len(prompt) > _SURELY_FITS_CHARACTERS:
        encoded = prompt.encode()
        if len(encoded) > MAX_PROMPT_BYTES:
            prompt_bytes, prompt = len(encoded), encoded[:MAX_PROMPT_BYTES].decode("utf-8", "ignore")
    return Turn(prompt, prompt_bytes, ids[-1][:MAX_ID_CHARACTERS] if ids else "", session_id)


def _session_of(raw: msgspec.Raw) -> str:
    """Claude Code's, in `metadata.user_id`: a JSON text with `session_id`, or an older form of one word."""
    metadata = decoded(_metadata, bytes(raw)) if bytes(raw) else None
    if metadata is None or not isinstance(metadata.user_id, str):
        return ""
    session = decoded(_sessions, metadata.user_id.encode("utf-8", "replace"))
    if session is not None:
        return (session.session_id or "").strip()
    found = _SESSION.search(metadata.user_id)
    return found[1].strip() if found else ""
