"""What the demo's dialects share: server-sent events and the text inside message content."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event, as its bytes."""

    encoded: bytes


def named_event(fields: dict[str, Any]) -> Event:
    """An event whose name is its `type`, as Anthropic and the Responses API send them."""
    return Event(f"event: {fields['type']}\ndata: {json.dumps(fields)}\n\n".encode())


def plain_event(fields: dict[str, Any]) -> Event:
    """An event without a name, as Chat Completions sends them."""
    return Event(f"data: {json.dumps(fields)}\n\n".encode())


DONE = Event(b"data: [DONE]\n\n")


def text_of(content: Any) -> str:
    """The text in message content: a string, or a list of parts of which those with `text` count."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))
