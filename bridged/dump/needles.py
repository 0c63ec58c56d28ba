"""Secrets in every form in which they may stand in a text, and the text without them, piece by piece.

A secret may stand in a body as it is, escaped for JSON or for a URL, in hex, or in base64 as part of something longer,
where three bytes are four characters and so there are three ways to write it. Each of these forms is a needle. What
only looks like a credential is masked as well.
"""

import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

MASK = b"***"
# What is shorter is no secret, and may stand in any text (quoted_keys.py).
SHORTEST_BYTES = 8
# Longer ones are looked for by their parts, so that there is a bound to what has to be held back of a stream.
_PART_BYTES, _OVERLAP_BYTES = 512, 8
# Tokens of ours; keys as OpenAI, Anthropic and many others, AWS, Google, GitHub and Slack write them.
_LOOKS_SECRET = re.compile(
    rb"db[us]_[0-9A-Za-z]{16,128}|\bsk-[0-9A-Za-z_\-]{16,200}|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_\-]{35}"
    rb"|\bgh[pousr]_[0-9A-Za-z]{36,200}|\bgithub_pat_[0-9A-Za-z_]{36,200}|\bxox[abeoprs]-[0-9A-Za-z\-]{16,200}"
)
# How those begin: texts without any of these are many, and are told by this in a fraction of the time.
_LOOKS_BEGIN = tuple(b"dbu_ dbs_ sk- AKIA ASIA AIza ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ xox".split())
_LONGEST_LOOK = 256
_UNRESERVED = re.compile(rb"[0-9A-Za-z\-._~]+")
# Where secrets that overlap themselves make one match after the other; what is held back of a stream has this bound.
_MOST_HELD_BYTES = 64 * 1024


class Needles:
    """What is masked. `longest_bytes`: no match is longer, but where several overlap."""

    __slots__ = ("_forms", "longest_bytes")

    def __init__(self, secrets: Iterable[str] = (), *, besides: "Needles | None" = None) -> None:
        parts = {part for secret in secrets for part in _parts(secret)}
        forms: set[bytes] = {form for part in parts for form in _forms(part) if len(form) >= SHORTEST_BYTES}
        self._forms: frozenset[bytes] = frozenset(forms) if besides is None else besides._forms | forms
        self.longest_bytes = max([_LONGEST_LOOK, *map(len, self._forms)])

    def matches(self, data: bytes) -> list[tuple[int, int]]:
        """Where secrets stand, in their order; matches that overlap are one."""
        found: list[tuple[int, int]] = []
        if any(begin in data for begin in _LOOKS_BEGIN):
            found = [match.span() for match in _LOOKS_SECRET.finditer(data)]
        for form in self._forms:
            found += _stretches(data, form)
        found.sort()
        joined: list[tuple[int, int]] = []
        for start, end in found:
            if joined and start < joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((start, end))
        return joined

    def masked(self, data: bytes) -> bytes:
        """A whole text without secrets."""
        return _without(data, self.matches(data)) if data else data

    def masked_text(self, text: str) -> str:
        """The same for text of a head, which stands for bytes (latin-1); nothing of what hides a secret by escapes."""
        data = text.encode("latin-1", "replace")
        if "%" in text and len(self.matches(unquote_to_bytes(data))) > len(self.matches(data)):
            return MASK.decode()
        return self.masked(data).decode("latin-1")

    def masked_lines(self, lines: Sequence[str]) -> list[str]:
        """The same for lines of a head, with one look for all of them."""
        checked = [self.masked_text(line) if "%" in line else line for line in lines]
        return self.masked("\n".join(checked).encode("latin-1", "replace")).decode("latin-1").split("\n")


class Masking:
    """One text that comes in pieces. What may be the beginning of a secret is held back until more is known."""

    __slots__ = ("_held", "_needles")

    def __init__(self, needles: Needles) -> None:
        self._needles = needles
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What is certain of the text now."""
        held = self._held + data
        cut = len(held) - self._needles.longest_bytes + 1
        if cut <= 0:
            self._held = held
            return b""
        matches = self._needles.matches(held)
        for start, end in matches:
            if start < cut < end:
                # What overlaps its end may not be there yet.
                cut = start if len(held) - start <= _MOST_HELD_BYTES else end
        self._held = held[cut:]
        return _without(held[:cut], [match for match in matches if match[1] <= cut])

    def end(self) -> bytes:
        """The rest."""
        held, self._held = self._held, b""
        return self._needles.masked(held)


def _stretches(data: bytes, form: bytes) -> Iterator[tuple[int, int]]:
    """Where a form stands, as often as it does; those that overlap are one, found by their last, not one by one."""
    length = len(form)
    start = data.find(form)
    while start >= 0:
        end = start + length
        while (again := data.rfind(form, end - length + 1, end + length - 1)) >= 0:
            end = again + length
        yield start, end
        start = data.find(form, end)


def _without(data: bytes, matches: list[tuple[int, int]]) -> bytes:
    if not matches:
        return data
    kept, place = [], 0
    for start, end in matches:
        kept += [data[place:start], MASK]
        place = end
    kept.append(data[place:])
    return b"".join(kept)


def _parts(secret: str) -> Iterator[bytes]:
    """The secret as bytes, in parts that together leave nothing out."""
    for whole in {secret.encode("utf-8", "surrogatepass"), secret.encode("latin-1", "replace")}:
        if len(whole) < SHORTEST_BYTES:
            continue
        for start in range(0, max(len(whole) - _OVERLAP_BYTES, 1), _PART_BYTES - _OVERLAP_BYTES):
            end = min(start + _PART_BYTES, len(whole))
            yield whole[max(0, end - _PART_BYTES) : end]


def _forms(part: bytes) -> Iterator[bytes]:
    yield part
    hexadecimal = part.hex("%").encode()
    yield from (b"%" + hexadecimal, b"%" + hexadecimal.upper())
    hexadecimal = hexadecimal.replace(b"%", b"")
    yield from (hexadecimal, hexadecimal.upper())
    for written in _base64(part):
        yield written
        if b"/" in written or b"+" in written:
            yield written.replace(b"/", rb"\/")
            yield quote_from_bytes(written, safe="").encode()
    if _UNRESERVED.fullmatch(part) is not None:
        # Nobody escapes these (RFC 3986, 2.3; RFC 8259, 7).
        return
    for is_ascii in (True, False):
        escaped = _json(part.decode("utf-8", "replace"), is_ascii=is_ascii)
        yield from (escaped, escaped.replace(b"/", rb"\/"))
    for text in _escaped(part):
        yield text.encode()
        yield re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), text).encode()
    yield part.strip()


def _json(text: str, *, is_ascii: bool) -> bytes:
    return json.dumps(text, ensure_ascii=is_ascii)[1:-1].encode("utf-8", "surrogatepass")


def _escaped(part: bytes) -> Iterator[str]:
    for safe in ("", "/", "/:@", "!'()*", "-._~!$&'()*+,;=:@/"):
        yield quote(part, safe=safe)
    yield quote(part, safe=" ").replace(" ", "+")


def _base64(part: bytes) -> Iterator[bytes]:
    """What is certain of base64 in which the part begins at any place."""
    for before in range(3):
        first, last = -(-8 * before // 6), 8 * (before + len(part)) // 6
        for encode in (b64encode, urlsafe_b64encode):
            yield encode(bytes(before) + part)[first:last]
