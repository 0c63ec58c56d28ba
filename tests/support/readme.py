"""The fenced blocks of README.md, by what they begin with."""

import re
from dataclasses import dataclass

from tests.support.clone import ROOT

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its language and its text."""

    language: str
    text: str


def blocks() -> list[Block]:
    """All fenced blocks, in order."""
    return [Block(language, text) for language, text in _FENCE.findall((ROOT / "README.md").read_text())]


def block_with(part: str) -> str:
    """The text of the one block that has `part` in it."""
    (found,) = [block.text for block in blocks() if part in block.text]
    return found
