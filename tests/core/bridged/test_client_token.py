"""Which of the things a client sends is its token, which its own key, and that no copy of either slips through."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.client_token import bearer_of, find_client_token
from bridged.headers import request_headers
from bridged.model import Headers, PresentedKey, Refused
from daemonkit.secret import Secret

TOKEN = "dbu_" + "t" * 49
GOVERNANCE = ("X-Coder-AI-Governance-Token", TOKEN)
SIGNED = (
    "Authorization",
    f"AWS4-HMAC-SHA256 Credential={TOKEN}/20261121/us-east-1/bedrock/aws4_request, "
    "SignedHeaders=host;x-amz-date, Signature=" + "0" * 64,
)


def token_of(headers: Headers, query: str = "") -> str | None:
    token = find_client_token(headers, query).token
    return token.reveal() if token is not None else None


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("", ""),
        ("some-token", ""),
        ("Bearer", ""),
        ("Bearer ", ""),
        ("BeArEr tok", "tok"),
        ("  Bearer \t tok  ", "tok"),
        ("Bearer a b", ""),
        ("Basic tok", ""),
    ],
)
def test_a_bearer_value_has_exactly_two_fields(value: str, token: str) -> None:
    assert bearer_of(value) == token
    assert token_of((("authorization", value),)) == (token or None)


@pytest.mark.parametrize(
    ("headers", "query", "token"),
    [
        ((), "", None),
        ((GOVERNANCE, ("Authorization", "Bearer b"), ("x-api-key", "c")), "?key=d", TOKEN),
        ((("x-api-key", "c"), ("Authorization", "Bearer b")), "", "b"),
        ((("x-goog-api-key", "e"), ("api-key", "d"), ("X-Api-Key", "c")), "?key=f", "c"),
        ((("x-goog-api-key", "e"), ("Api-Key", "d")), "?key=f", "d"),
        ((("X-Goog-Api-Key", "e"),), "?key=f", "e"),
        ((), "?alt=sse&key=f%2Dg", "f-g"),
        ((), "?%6b%65%79=f", "f"),
        ((), "?akey=f&keyx=g&KEY=h", None),
        ((("Authorization", "Bearer"), ("x-api-key", "  "), ("api-key", "d")), "", "d"),
        ((("Authorization", "Basic dXNlcg=="), ("x-api-key", "c")), "", "c"),
        ((("x-api-key", ""), ("x-api-key", "c")), "", "c"),
        ((("X-Coder-AI-Governance-Token", f"Bearer {TOKEN}"), ("Authorization", "Bearer b")), "", TOKEN),
        ((), "?key=&key=f", "f"),
        ((SIGNED,), "", TOKEN),
        ((("authorization", f"AWS4-ECDSA-P256-SHA256 Credential={TOKEN}/20261121/bedrock/aws4_request"),), "", TOKEN),
        ((("Authorization", f"AWS4-HMAC-SHA256 SignedHeaders=host,Credential={TOKEN}/20261121/x"),), "?key=f", TOKEN),
        ((SIGNED, ("x-api-key", "c")), "", "c"),
        ((SIGNED, GOVERNANCE), "", TOKEN),
        ((("Authorization", "AWS4-HMAC-SHA256 Credential=/20261121/x"),), "", None),
        ((("Authorization", "AWS4-HMAC-SHA256 XCredential=a/b"),), "", None),
        ((("Authorization", f"Basic Credential={TOKEN}/x"),), "", None),
    ],
)
def test_the_first_in_order_that_is_not_blank_is_the_token(headers: Headers, query: str, token: str | None) -> None:
    assert token_of(headers, query) == token


def test_without_a_governance_token_no_key_is_presented() -> None:
    assert find_client_token((("Authorization", "Bearer b"), ("x-api-key", "c")), "?key=d").presented is None


def test_beside_a_governance_token_everything_else_is_the_users_own_key() -> None:
    headers = (
        GOVERNANCE,
        ("Authorization", "Bearer own"),
        ("x-api-key", "xk"),
        ("api-key", "ak"),
        ("x-goog-api-key", "gk"),
    )
    assert find_client_token(headers, "?key=qk").presented == PresentedKey(
        authorization=Secret("Bearer own"),
        x_api_key=Secret("xk"),
        api_key=Secret("ak"),
        x_goog_api_key=Secret("gk"),
        query_key=Secret("qk"),
    )


@pytest.mark.parametrize(
    "headers",
    [
        (GOVERNANCE,),
        (GOVERNANCE, ("Authorization", ""), ("x-api-key", " ")),
        (GOVERNANCE, ("Authorization", "Bearer")),
        (GOVERNANCE, ("Authorization", "AWS4-HMAC-SHA256 Credential=AKIA/20261121/us-east-1/bedrock/aws4_request")),
        (GOVERNANCE, ("Authorization", f"Bearer {TOKEN}"), ("x-api-key", TOKEN)),
        (GOVERNANCE, ("Authorization", "Bearer dbu_" + "o" * 49)),
        (("X-Coder-AI-Governance-Token", "odd"), ("x-api-key", "odd")),
        (GOVERNANCE, ("Authorization", "Basic " + base64.b64encode(f"u:{TOKEN}".encode()).decode())),
    ],
)
def test_blank_values_and_copies_of_a_token_of_ours_are_no_presented_key(headers: Headers) -> None:
    assert find_client_token(headers, "").presented is None


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_governance_token_is_missing_and_the_users_own_key_is_not_taken_for_it(value: str) -> None:
    with pytest.raises(Refused) as refused:
        find_client_token((("X-Coder-AI-Governance-Token", value), ("Authorization", "Bearer own")), "")
    assert (refused.value.http_status, refused.value.reason) == (401, "ACCESS_TOKEN_MISSING")
    assert "X-Coder-AI-Governance-Token" in refused.value.message


@pytest.mark.parametrize(
    ("query", "rest"),
    [
        (f"?Key={TOKEN}&x=1", "?x=1"),
        (f"?api_key={TOKEN}&access_token={TOKEN}", ""),
        (f"?x=1;key={TOKEN}&y=2", "?y=2"),
        (f"?x={TOKEN.replace('_', '%5F')}&y", "?y"),
        ("?x=dbu_&y=2", "?x=dbu_&y=2"),
    ],
)
def test_no_parameter_of_any_name_carries_the_token_on(query: str, rest: str) -> None:
    found = find_client_token((("Authorization", f"Bearer {TOKEN}"),), query)
    assert found.query_without_key == rest


def test_two_governance_tokens_are_refused() -> None:
    with pytest.raises(Refused) as refused:
        find_client_token((GOVERNANCE, ("x-coder-ai-governance-token", "other")), "")
    assert (refused.value.http_status, refused.value.reason) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("value", ["tok\xe9n", "tok\udc80n", "tok\x00n"])
def test_a_token_that_is_not_ascii_is_invalid_without_asking(value: str) -> None:
    with pytest.raises(Refused) as refused:
        find_client_token((("x-api-key", value),), "")
    assert (refused.value.http_status, refused.value.reason) == (401, "ACCESS_TOKEN_INVALID")
    assert value not in str(refused.value)


@pytest.mark.parametrize(
    ("query", "rest"),
    [
        ("", ""),
        ("?", "?"),
        ("?key=x", ""),
        ("?alt=sse&key=x", "?alt=sse"),
        ("?key=x&alt=sse&k%65y=y", "?alt=sse"),
        ("?a=%2f&&b=+%zz&c&key", "?a=%2f&&b=+%zz&c"),
        ("?monkey=x&keys=y", "?monkey=x&keys=y"),
    ],
)
def test_the_query_loses_its_key_and_not_another_byte(query: str, rest: str) -> None:
    assert find_client_token((), query).query_without_key == rest


def scattered(value: str) -> Headers:
    return (
        ("AUTHORIZATION", f"Bearer {value}"),
        ("x-API-key", value),
        ("X_Api_Key", value),
        ("api-key", value),
        ("X-Goog-Api-Key", value),
        ("Proxy-Authorization", f"Bearer {value}"),
        ("X-Coder-AI-Governance-Token", value),
        ("X-Coder-AI-Governance-Request-Id", value),
        ("Ocp-Apim-Subscription-Key", value),
        ("Cookie", f"session={value}"),
        ("X-Other", "stays"),
    )


@given(
    st.lists(st.sampled_from(scattered(TOKEN)), unique=True),
    st.lists(st.sampled_from(["key=" + TOKEN, "%6Bey=" + TOKEN, "alt=sse", "a=b"])),
    st.booleans(),
)
def test_no_copy_of_a_token_is_left_for_the_upstream(
    headers: list[tuple[str, str]], parts: list[str], intercepted: bool
) -> None:
    query = "?" + "&".join(parts) if parts else ""
    found = find_client_token(tuple(headers), query)
    assert TOKEN not in repr(found)
    assert found.presented is None
    assert TOKEN not in found.query_without_key
    assert TOKEN not in repr(request_headers(tuple(headers), intercepted=intercepted))
