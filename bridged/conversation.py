"""What the bridge reads of a request's body, in one look at it: two fields to act on, and what a turn is read from."""

from typing import Any

import msgspec


class Conversation(msgspec.Struct, gc=False):
    """The top of a JSON body of any dialect that has its model in it; null counts as absent.

    `messages` (Anthropic Messages, OpenAI Chat) and `input` (OpenAI Responses) are not looked into: bodies are long,
    and only their end says what is new.
    """

    model: str | None = None
    stream: bool | None = None
    messages: list[msgspec.Raw] | None = None
    metadata: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


class ShortMessage(msgspec.Struct, gc=False):
    """A message of a short conversation, whatever is in it."""

    role: Any = None
    content: Any = None
    tool_call_id: Any = None


class ShortConversation(msgspec.Struct, gc=False):
    """The same of a short body: looked into at once, because to pass over a text costs as much as to read it."""

    model: str | None = None
    stream: bool | None = None
    messages: list[ShortMessage] | None = None
    metadata: msgspec.Raw = msgspec.Raw()
    input: Any = None


AnyConversation = ShortConversation | Conversation
