"""What is masked in a dump: secrets in every form, whole and in pieces."""

import base64
import json
import random
import re
import urllib.parse

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridged.dump.needles import MASK, Masking, Needles

KEY = 'sk-Key/of+an==upstream "quoted\\" é%'
SESSION_TOKEN = "".join(random.Random(7).choices("ABCDEFabcdef0123456789+/=", k=1800))
SECRETS = (KEY, SESSION_TOKEN, "plainkey12345678")

FORMS = {
    "as it is": lambda text: text.encode(),
    "one byte a character": lambda text: text.encode("latin-1"),
    "JSON": lambda text: json.dumps(text).encode(),
    "JSON that is not ASCII": lambda text: json.dumps(text, ensure_ascii=False).encode(),
    "JSON with slashes escaped": lambda text: json.dumps(text).replace("/", "\\/").encode(),
    "a URL": lambda text: urllib.parse.quote(text, safe="").encode(),
    "a path": lambda text: urllib.parse.quote(text).encode(),
    "a form": lambda text: urllib.parse.quote_plus(text).encode(),
    "a URL in lower case": lambda text: re.sub(
        "%..", lambda found: found[0].lower(), urllib.parse.quote(text, safe="")
    ).encode(),
    "a URL that escapes everything": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()).encode(),
    "hex": lambda text: text.encode().hex().encode(),
    "hex in capitals": lambda text: text.encode().hex().upper().encode(),
    "base64": lambda text: base64.b64encode(text.encode()),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()),
    "base64 of a user and a password": lambda text: base64.b64encode(b"me:" + text.encode()),
    "base64 of something longer": lambda text: base64.b64encode(b"{'a':'" + text.encode() + b"'}" * 5),
    "base64 in JSON": lambda text: json.dumps(base64.b64encode(text.encode()).decode()).replace("/", "\\/").encode(),
    "base64 in a URL": lambda text: urllib.parse.quote(base64.b64encode(text.encode()).decode(), safe="").encode(),
}


def traces_of(secret: str) -> list[bytes]:
    """Stretches of a secret of which none may be left, in any of the forms."""
    # The ends of a form depend on what stands around it.
    return [form(secret)[6:-6] for form in FORMS.values()]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_masked_in_every_form(form: str, secret: str) -> None:
    written = b"before " + FORMS[form](secret) + b" after"
    masked = Needles(SECRETS).masked(written)
    assert MASK in masked
    assert masked.startswith(b"before ")
    assert masked.endswith(b" after")
    # What is left are the ends of an encoding, of which none says a byte.
    assert len(masked) < len(b"before  after") + len(MASK) + (60 if "base64" in form else 4)
    assert not any(trace in masked for trace in traces_of(secret))


@pytest.mark.parametrize("before", range(7))
def test_base64_that_is_masked_says_no_byte_of_the_secret(before: int) -> None:
    secret = "0123456789abcdefghij"
    written = base64.b64encode(b"x" * before + secret.encode() + b"y" * 9)
    head, mask, tail = Needles([secret]).masked(written).partition(MASK)
    assert mask
    # Four characters are three bytes: those that are left end before the secret's first whole byte, and begin after it.
    assert len(head) * 6 < (before + 1) * 8
    assert len(tail) * 6 < (9 + 1) * 8 + 3 * 6


@pytest.mark.parametrize(
    "text",
    [
        "dbu_" + "a1" * 24 + "b",
        "dbs_" + "Z" * 49,
        "sk-ant-api03-abcdefghijklmnop",
        "sk-proj-0123456789abcdef",
        "AKIAIOSFODNN7EXAMPLE",
        "ASIAIOSFODNN7EXAMPLE",
        "AIza" + "S" * 35,
        "ghp_" + "x" * 36,
        "xoxb-123456789012-abcdefgh",
    ],
)
def test_what_looks_like_a_credential_is_masked_without_being_known(text: str) -> None:
    assert Needles().masked(f'"{text}"'.encode()) == b'"***"'


@pytest.mark.parametrize(
    "text", ["task-force-of-many-people", "sk-short", "dbu_", "AKIA", "a task-1234567890123456789"]
)
def test_what_only_begins_like_one_is_not(text: str) -> None:
    assert Needles().masked(text.encode()) == text.encode()


def test_what_is_short_is_no_secret() -> None:
    assert Needles(["model", "", "claude"]).masked(b"the model claude") == b"the model claude"


def test_a_head_in_which_escapes_hide_a_secret_is_not_shown() -> None:
    needles = Needles(["plainkey12345678"])
    assert needles.masked_text("/v1/%70lainkey1234567%38") == "***"
    assert needles.masked_text("/v1/a%2Fb/plainkey12345678") == "/v1/a%2Fb/***"
    assert needles.masked_text("/v1/a%2Fb") == "/v1/a%2Fb"


def in_pieces(needles: Needles, data: bytes, cuts: list[int]) -> bytes:
    masking, place, found = Masking(needles), 0, b""
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        found += masking.feed(data[place:cut])
        place = cut
    return found + masking.end()


ALPHABET = st.sampled_from(
    [b"aaaaaaaa", b"a", b"ab", b"dbu_" + b"x" * 49, b"dbu_", KEY.encode(), KEY.encode()[:9], b" "]
)


@given(
    st.lists(ALPHABET, max_size=80).map(b"".join),
    st.lists(st.integers(min_value=0, max_value=4000), max_size=30),
)
@example(b"a" * 3000, [1, 500, 1000, 1001])
def test_a_text_in_pieces_is_masked_as_the_whole_is(data: bytes, cuts: list[int]) -> None:
    needles = Needles(["aaaaaaaaab", "aaaaaaaaa", KEY])
    assert in_pieces(needles, data, cuts) == needles.masked(data)


def test_every_cut_through_a_secret_leaves_nothing_of_it() -> None:
    needles, written = Needles([KEY]), b"x" * 400 + KEY.encode() + b"y" * 400
    for cut in range(len(written)):
        assert in_pieces(needles, written, [cut]) == b"x" * 400 + MASK + b"y" * 400
    assert in_pieces(needles, written, list(range(len(written)))) == b"x" * 400 + MASK + b"y" * 400


def test_what_is_held_back_of_a_stream_has_a_bound() -> None:
    masking, needles = Masking(Needles(["a" * 16])), Needles(["a" * 16])
    given_bytes = written_bytes = 0
    for _ in range(100):
        written_bytes += len(masking.feed(b"a" * 4096))
        given_bytes += 4096
    assert b"a" not in masking.end()
    assert needles.longest_bytes < 1024
    assert written_bytes < 1000
