"""What a dump shows of heads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.dump.needles import Needles
from bridged.dump.shown import head_lines, secrets_in, shown_target

NONE = Needles()
TOKEN = "dbu_" + "a1B2" * 12 + "c"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", "Bearer x"),
        ("X-Api-Key", "short"),
        ("api-key", "k"),
        ("X-Goog-Api-Key", "k"),
        ("X-Auth-Token", "k"),
        ("Cookie", "a=b"),
        ("Set-Cookie", "a=b"),
        ("Proxy-Authorization", "Basic eA=="),
        ("Proxy-Authenticate", "Basic"),
        ("WWW-Authenticate", "Bearer"),
        ("X-Amz-Security-Token", "t"),
        ("X-Coder-AI-Governance-Token", TOKEN),
        ("X-Never-Heard-Of", "anything"),
        ("Location", "https://h/?key=k"),
        ("Referer", "https://h/?key=k"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("User-Agent", f"agent {TOKEN}"),
        ("Accept", "Bearer abc"),
        ("Content-Type", "sk-abcdef"),
    ],
)
def test_no_value_is_shown_that_is_not_known_to_be_harmless(name: str, value: str) -> None:
    assert head_lines(((name, value),), NONE) == [f"{name}: ***"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Content-Type", "application/json"),
        ("anthropic-version", "2023-06-01"),
        ("Anthropic-Ratelimit-Tokens-Remaining", "7"),
        ("x-ratelimit-remaining-tokens", "12"),
        ("X-Stainless-Lang", "python"),
        ("request-id", "req_1"),
        ("Retry-After", "3"),
    ],
)
def test_what_helps_to_find_out_and_is_harmless_is_shown(name: str, value: str) -> None:
    assert head_lines(((name, value),), NONE) == [f"{name}: {value}"]


def test_headers_are_sorted_and_repeated_ones_stay_in_their_order() -> None:
    headers = (("Vary", "b"), ("date", "x"), ("Accept", "y"), ("vary", "a"))
    assert head_lines(headers, NONE) == ["Accept: y", "date: x", "Vary: b", "vary: a"]


@given(
    st.from_regex(r"[A-Za-z\-]{1,30}", fullmatch=True),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8),
)
def test_a_secret_is_in_no_line_whatever_header_it_is_in(name: str, secret: str) -> None:
    lines = head_lines(((name, f"a {secret} b"), (f"X-{secret}", "1")), Needles([secret]))
    assert not any(secret in line for line in lines)


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/v1/messages?beta=true", "/v1/messages?beta=true"),
        ("/v1/models?limit=3&key=abc&X-Amz-Signature=def", "/v1/models?limit=3&key=***&X-Amz-Signature=***"),
        ("/v1?nameless", "/v1?***"),
        ("/v1?", "/v1?"),
        ("/v1?limit=sk-abc", "/v1?limit=***"),
        (f"/v1/{TOKEN}?{TOKEN}=1", "/v1/***?***=***"),
        (f"/v1?{'n' * 99}=1", "/v1?***=***"),
        ("/v1?beta=Bearer%20x", "/v1?beta=***"),
    ],
)
def test_a_query_shows_what_is_known_to_be_harmless(target: str, shown: str) -> None:
    assert shown_target(target, NONE) == shown


def test_what_is_not_shown_is_looked_for_elsewhere_too_by_its_parts() -> None:
    signed = (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/bedrock/aws4_request, "
        "SignedHeaders=host;x-amz-date, Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    )
    headers = (("Authorization", signed), ("Cookie", "sid=0123456789abcdefgh"), ("X-App", "cli"), ("X-Id", "i" * 20))
    found = set(secrets_in(headers, "/v1?key=a%20b&z=zz&limit=99999999999999999"))
    assert {signed, "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7", "0123456789abcdefgh"} <= found
    assert {"i" * 20, "a%20b", "a b"} <= found
    assert not {"cli", "zz", "99999999999999999"} & found
