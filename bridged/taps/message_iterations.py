"""Iterations of a Messages answer: which of them its usage leaves out.

Usage at the top is of the model that answered. What it took to compact the conversation, what another model was asked
for advice, and what models took that declined before one answered (`fallbacks`) stand here only.

Format: platform.claude.com, "Messages" (`usage.iterations`), "Refusals and fallback".
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from bridged.taps.seen import COLUMNS, MAX_COUNT
from bridged.taps.typed_json import Count, decoded

# There are a few, of some hundred bytes each.
MAX_BYTES = 64 * 1024
# The beginnings of the names under which they are recorded.
COMPACTION, DECLINED = "compaction_", "declined_"
_LEFT_OUT = {"compaction": COMPACTION, "advisor_message": "advisor_"}
_ANSWER, _ANSWER_OF_ANOTHER = "message", "fallback_message"


class _Iteration(msgspec.Struct, gc=False):
    type: str = ""
    model: Any = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None


_iterations = msgspec.json.Decoder(list[_Iteration])


def left_out(raw: msgspec.Raw) -> Mapping[str, int]:
    """Sums of what usage leaves out, by kind: of each kind all four of COLUMNS."""
    iterations = decoded(_iterations, bytes(raw)) or ()
    served = next((one for one in reversed(iterations) if one.type == _ANSWER_OF_ANOTHER), None)
    sums: dict[str, int] = {}
    for one in iterations:
        beginning = DECLINED if _has_declined(one, served) else _LEFT_OUT.get(one.type)
        if beginning is None:
            continue
        counts = (
            one.input_tokens, one.output_tokens, one.cache_read_input_tokens, one.cache_creation_input_tokens,
        )  # fmt: skip
        for name, count in zip(COLUMNS, counts, strict=True):
            kind = beginning + name
            sums[kind] = sums.get(kind, 0) + (count if type(count) is int and 0 <= count <= MAX_COUNT else 0)
    return sums


def _has_declined(one: _Iteration, served: _Iteration | None) -> bool:
    """Whether it is of a model that declined. The one that `served` has others too if it ran tools, which usage has."""
    if served is None or one is served or one.type not in (_ANSWER, _ANSWER_OF_ANOTHER):
        return False
    return one.model is None or one.model != served.model
