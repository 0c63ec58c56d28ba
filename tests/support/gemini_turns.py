"""Answers of Gemini as the vendor writes them, blocking and streamed, and what they say.

Shapes: ai.google.dev, "GenerateContentResponse", "Gemini thinking", "Function calling". Each piece of a stream is an
answer with the next parts and the counts so far; calls have ids with some models only.
"""

from collections.abc import Sequence
from typing import Any

from tests.support.kept_records import Sent, body

Event = dict[str, Any]


def text(words: str) -> Event:
    return {"text": words}


def thought(words: str) -> Event:
    return {"text": words, "thought": True}


def call(name: str, call_id: str = "", **arguments: Any) -> Event:
    made = {"name": name, "args": arguments, **({"id": call_id} if call_id else {})}
    return {"functionCall": made, "thoughtSignature": "CiQB4Kq7"}


def usage(prompt: int = 120, candidates: int | None = 44, **more: int) -> Event:
    counts = {
        "promptTokenCount": prompt,
        **({} if candidates is None else {"candidatesTokenCount": candidates}),
        **more,
    }
    total = sum(value for name, value in counts.items() if name != "cachedContentTokenCount")
    details = [{"modality": "TEXT", "tokenCount": prompt}]
    return {**counts, "totalTokenCount": total, "promptTokensDetails": details}


# Name: parts, why it stopped, usage.
TURNS: dict[str, tuple[Sequence[Event], str, Event]] = {
    "text": ([text("Hello, “world”.")], "STOP", usage()),
    "tool": ([call("get_weather", city="Köln")], "STOP", usage()),
    "parallel-tools": (
        [text("I look."), call("get_weather", "fc-a", city="Rome"), call("list_cities", "fc-b"),
         call("get_weather", "fc-c", city='"quoted" \\ {}')],
        "STOP",
        usage(),
    ),
    "thinking": (
        [thought("**Two steps**\n\nFirst this."), text("42"), thought("Then that."), call("done", "fc-d")],
        "STOP",
        usage(thoughtsTokenCount=832),
    ),
    "cached": ([text("From the cache.")], "STOP", usage(prompt=4999, cachedContentTokenCount=4096)),
    "searched": ([text("It rains.")], "STOP", usage(toolUsePromptTokenCount=77)),
    "safety": ([text("I")], "SAFETY", usage(candidates=1)),
    "length": ([text("Too lo")], "MAX_TOKENS", usage(candidates=2, thoughtsTokenCount=9)),
}  # fmt: skip
BLOCKED: Event = {
    "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": usage(candidates=None),
    "modelVersion": "gemini-3-pro", "responseId": "gen-blocked",
}  # fmt: skip


def document(name: str) -> Event:
    """The blocking answer."""
    parts, reason, counts = TURNS[name]
    return _answer(name, parts, counts, finishReason=reason)


def _answer(name: str, parts: Sequence[Event], counts: Event, **more: Any) -> Event:
    candidate = {"content": {"parts": list(parts), "role": "model"}, "index": 0, **more}
    return {"candidates": [candidate], "usageMetadata": counts, "modelVersion": "gemini-3-pro",
            "responseId": f"gen-{name}"}  # fmt: skip


def pieces(name: str) -> list[Event]:
    """The streamed answer: texts are cut, counts grow, and the last piece has the end."""
    parts, reason, counts = TURNS[name]
    made: list[Event] = []
    for part in parts:
        if "text" not in part:
            made.append(_answer(name, [part], usage(counts["promptTokenCount"], len(made) + 1)))
            continue
        for at in range(0, len(part["text"]), 9):
            piece = {**part, "text": part["text"][at : at + 9]}
            so_far = len(made) if made else None
            made.append(_answer(name, [piece], usage(counts["promptTokenCount"], so_far)))
    return [*made, _answer(name, [text("")], counts, finishReason=reason)]


def events(made: Sequence[Event]) -> list[bytes]:
    """As they are sent."""
    return [b"data: " + body(piece) + b"\r\n\r\n" for piece in made]


def said(made: Sequence[Event]) -> Sent:
    """What an answer says, or as many pieces of it as came."""
    if not made:
        return Sent(over=False)
    counts: Event = {}
    parts: list[Event] = []
    reason = None
    for piece in made:
        counts |= piece["usageMetadata"]
        for candidate in piece.get("candidates", ()):
            parts += candidate["content"]["parts"]
            reason = candidate.get("finishReason")
    cached, thoughts = counts.get("cachedContentTokenCount", 0), counts.get("thoughtsTokenCount", 0)
    searched = counts.get("toolUsePromptTokenCount", 0)
    return Sent(
        response_id=made[0]["responseId"],
        tokens=(counts["promptTokenCount"] - cached + searched, counts.get("candidatesTokenCount", 0) + thoughts,
                cached, 0),
        metadata={**({"output_reasoning": thoughts} if "thoughtsTokenCount" in counts else {}),
                  **({"input_tool_use": searched} if searched else {})},
        tools=tuple((one["name"], one.get("id", ""), "", body(one["args"]).decode())
                    for part in parts if (one := part.get("functionCall"))),
        thoughts=tuple(("thought", words) for words in _joined(parts)),
        over=reason is not None or "promptFeedback" in made[-1],
    )  # fmt: skip


def _joined(parts: Sequence[Event]) -> list[str]:
    """Thoughts that follow each other are one."""
    joined: list[str] = []
    before = False
    for part in parts:
        is_thought = part.get("thought", False)
        if is_thought and before:
            joined[-1] += part["text"]
        elif is_thought:
            joined.append(part["text"])
        before = is_thought
    return joined
