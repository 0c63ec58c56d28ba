"""Where Anthropic has another model answer, the tokens of those that declined are recorded beside its own."""

import json
from typing import Any

import pytest

from bridged.model import DialectName
from bridged.records import TokenUsage
from bridged.taps import anthropic_messages
from tests.support.taps import JSON, tapped

MESSAGES = DialectName.ANTHROPIC_MESSAGES
NAMES = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
COLUMNS = ("input", "output", "cache_read", "cache_write")
ASKED, SERVED, OTHER = "claude-fable-5", "claude-opus-4-8", "claude-sonnet-5"

Counts = tuple[int, int, int, int]
TOP: Counts = (2, 13658, 79214, 0)


def usage_of(counts: Counts, *iterations: dict[str, object]) -> dict[str, Any]:
    return dict(zip(NAMES, counts, strict=True)) | ({"iterations": list(iterations)} if iterations else {})


def took(kind: str, model: str | None, *counts: int) -> dict[str, object]:
    named = {} if model is None else {"model": model}
    return {"type": kind, **named, **dict(zip(NAMES, counts, strict=True))}


def lifetimes(five_minutes: int, hour: int) -> dict[str, object]:
    return {"cache_creation": {"ephemeral_5m_input_tokens": five_minutes, "ephemeral_1h_input_tokens": hour}}


def recorded(body: bytes, **how: Any) -> TokenUsage:
    found = tapped([body], dialect=MESSAGES, **how)
    assert (found.partial, found.troubles) == (False, frozenset())
    assert found.usage is not None
    return found.usage


def streamed(*usages: dict[str, object]) -> TokenUsage:
    start, *deltas = usages
    events: list[dict[str, object]] = [{"type": "message_start", "message": {"id": "m", "usage": start}}]
    events += [{"type": "message_delta", "delta": {}, "usage": usage} for usage in deltas]
    events.append({"type": "message_stop"})
    return recorded(b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events))


def counts_of(usage: TokenUsage) -> Counts:
    return (
        usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens, usage.cache_write_input_tokens,
    )  # fmt: skip


DECLINED = took("message", ASKED, 2, 578, 72769, 10421)
FELL_BACK = took("fallback_message", SERVED, *TOP)
ITERATIONS = [
    ("one model declined", [DECLINED, FELL_BACK], (2, 578, 72769, 10421)),
    ("two did", [DECLINED, took("message", OTHER, 3, 20, 1, 4), FELL_BACK], (5, 598, 72770, 10425)),
    ("one of unknown name did", [took("message", None, 7, 8, 0, 0), FELL_BACK], (7, 8, 0, 0)),
    ("one did, before it had said anything", [took("message", ASKED, 412, 0, 0, 0), FELL_BACK], (412, 0, 0, 0)),
    ("one did, and the other ran tools", [DECLINED, took("message", SERVED, 1, 6000, 70000, 0), FELL_BACK],
     (2, 578, 72769, 10421)),
    ("none did that was asked now", [FELL_BACK], None),
    ("none did, and the other ran tools", [took("message", SERVED, 1, 6000, 70000, 0), FELL_BACK], None),
    ("no other model answered", [took("message", ASKED, 1, 2, 3, 4), took("message", ASKED, 1, 13656, 79211, 0)], None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("iterations", "declined"), [row[1:] for row in ITERATIONS], ids=[row[0] for row in ITERATIONS]
)
def test_what_models_took_that_declined_stands_beside_the_counts(
    iterations: list[dict[str, object]], declined: Counts | None
) -> None:
    usage = usage_of(TOP, *iterations)
    whole = json.dumps({"type": "message", "id": "m", "content": [{"type": "text", "text": "x"}], "usage": usage})
    metadata = {} if declined is None else dict(zip(["declined_" + name for name in COLUMNS], declined, strict=True))
    for found in (streamed(usage_of((2, 1, 72769, 0)), usage, usage), recorded(whole.encode(), headers=JSON)):
        assert counts_of(found) == TOP
        assert found.metadata == metadata
    at_once = anthropic_messages.usual(whole.encode())
    assert at_once == (None if declined else ("m", *TOP, ""))


LIFETIMES = [
    ("of the model that declined", 10421, usage_of(TOP, DECLINED, FELL_BACK), {}),
    ("of the model that answered", 10421, usage_of((2, 9, 0, 10421), DECLINED, FELL_BACK), {"5m": 10421, "1h": 0}),
    ("told again", 10421, usage_of((2, 9, 0, 7), DECLINED, FELL_BACK) | lifetimes(3, 4), {"5m": 3, "1h": 4}),
    ("of the only model", 10421, usage_of((2, 9, 0, 10421)), {"5m": 10421, "1h": 0}),
    ("of the only model, which ran tools", 10421, usage_of((2, 9, 0, 20000)), {"5m": 10421, "1h": 0}),
    ("of a fallback that ran tools", 7, usage_of((2, 9, 0, 20), took("fallback_message", SERVED, 2, 9, 0, 13)),
     {"5m": 7, "1h": 0}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "usage", "kept"), [row[1:] for row in LIFETIMES], ids=[row[0] for row in LIFETIMES]
)
def test_how_long_a_cache_lives_is_not_told_of_a_model_that_declined(
    written: int, usage: dict[str, Any], kept: dict[str, int]
) -> None:
    found = streamed(usage_of((2, 1, 0, written)) | lifetimes(written, 0), usage)
    metadata = {name: count for name, count in found.metadata.items() if name.startswith("cache_ephemeral")}
    assert metadata == {f"cache_ephemeral_{name}_input": count for name, count in kept.items()}
    assert counts_of(found) == tuple(usage[name] for name in NAMES)
