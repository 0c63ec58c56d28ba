"""Which headers pass, each way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.headers import REQUEST_DROPPED, RESPONSE_DROPPED, actor_headers, request_headers, response_headers
from bridged.model import Headers, Refused, Resolution, Source

ID = ("X-Interception-Id", "iid")
NAMES = st.text("abcdefgXYZ-_", min_size=1, max_size=12)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=12)

KEPT = (
    ("User-Agent", "claude-cli/2.1.197 (external, sdk-cli)"),
    ("anthropic-version", "2023-06-01"),
    ("Anthropic-Beta", "a,b"),
    ("anthropic-beta", "c"),
    ("X-Claude-Code-Session-Id", "s"),
    ("session_id", "s"),
    ("x-codex-turn-metadata", "{" + "x" * 1200 + "}"),
    ("X-Stainless-Retry-Count", "0"),
    ("Editor-Version", "vscode/1"),
    ("Copilot-Integration-Id", "vscode-chat"),
    ("Content-Type", "application/json"),
    ("Content-Encoding", "zstd"),
    ("X-Latin", "\xe9"),
    ("Accept", "text/event-stream"),
    ("sec-fetch-mode", "cors"),
)


def resolution(*, send_actor_headers: bool, username: str = "ada") -> Resolution:
    return Resolution(
        provider_id="p",
        provider_name="corp",
        provider_type="openai",
        wire_type="openai",
        base_url="https://api.example/v1",
        user_id="u-1",
        username=username,
        source=Source.CENTRAL_KEY,
        send_actor_headers=send_actor_headers,
    )


def test_what_clients_say_of_themselves_passes_in_order_and_case() -> None:
    assert request_headers(KEPT, intercepted=False) == KEPT
    assert request_headers(KEPT, intercepted=True) == (*KEPT, ("Accept-Encoding", "identity"))


@pytest.mark.parametrize(
    "name",
    [
        *sorted(REQUEST_DROPPED),
        "X-Forwarded-For",
        "x-forwarded-host",
        "X_Forwarded_Proto",
        "X-AI-Bridge-Actor-ID",
        "x-ai-bridge-actor-metadata-anything",
        "X_AI_Bridge_Actor_ID",
        "X-Coder-AI-Governance-Token",
        "X-Coder-AI-Governance-Request-Id",
        "X-Drawbridge-Error",
    ],
)
def test_what_belongs_to_the_connection_or_the_bridge_ends_here(name: str) -> None:
    for spelling in (name, name.upper(), name.title(), name.replace("-", "_")):
        assert request_headers(((spelling, "canary"),), intercepted=False) == ()


def test_headers_named_in_connection_end_here_both_ways() -> None:
    named: Headers = (("Connection", "close, X-Private ,x_under"), ("connection", "x-more"), ("x-private", "1"))
    named += (("X-Under", "1"), ("X-More", "1"), ("X-Kept", "1"))
    assert request_headers(named, intercepted=False) == (("X-Kept", "1"),)
    assert response_headers(named, interception_id="iid") == (("X-Kept", "1"), ID)


def test_an_intercepted_answer_is_asked_for_uncompressed_and_any_other_as_the_client_wants_it() -> None:
    client: Headers = (("accept-encoding", "zstd,gzip"), ("A", "1"))
    assert request_headers(client, intercepted=True) == (("A", "1"), ("Accept-Encoding", "identity"))
    assert request_headers(client, intercepted=False) == client


def test_the_credential_is_added_last_and_stands_alone() -> None:
    client: Headers = (("Authorization", "Bearer mine"), ("A", "1"), ("x-api-key", "mine"))
    added: Headers = (("x-api-key", "theirs"),)
    assert request_headers(client, intercepted=False, added=added) == (("A", "1"), ("x-api-key", "theirs"))


@pytest.mark.parametrize(
    "bad",
    [
        ("X", "canary\r\nEvil: b"),
        ("X", "a\ncanary"),
        ("X", "canary\x00"),
        ("X canary", "a"),
        ("", "canary"),
        ("canary:", "a"),
        ("X\xe9", "canary"),
    ],
)
def test_headers_that_http_does_not_allow_are_refused_and_not_repeated(bad: tuple[str, str]) -> None:
    with pytest.raises(Refused) as refused:
        request_headers((bad,), intercepted=False)
    assert (refused.value.http_status, refused.value.reason) == (400, "INVALID_REQUEST")
    assert "canary" not in refused.value.message
    with pytest.raises(Refused) as refused:
        response_headers((bad,), interception_id="iid")
    assert (refused.value.http_status, refused.value.reason) == (502, "UPSTREAM_UNREACHABLE")


def test_upstreams_learn_who_asks_only_where_the_provider_says_so() -> None:
    assert actor_headers(resolution(send_actor_headers=False)) == ()
    assert actor_headers(resolution(send_actor_headers=True, username="ada@x\r\né")) == (
        ("X-AI-Bridge-Actor-ID", "u-1"),
        ("X-AI-Bridge-Actor-Metadata-Username", "ada@x%0D%0A%C3%A9"),
    )


def test_what_upstreams_say_of_the_request_passes() -> None:
    kept: Headers = (
        ("Content-Type", "application/json"),
        ("Content-Length", "12"),
        ("Content-Encoding", "gzip"),
        ("request-id", "req_1"),
        ("x-request-id", "r"),
        ("anthropic-ratelimit-requests-remaining", "3"),
        ("x-ratelimit-limit-tokens", "9"),
        ("Retry-After", "7"),
        ("retry-after-ms", "7000"),
        ("x-should-retry", "false"),
        ("openai-processing-ms", "8"),
        ("Server", "upstream"),
        ("Date", "today"),
        ("Location", "https://elsewhere.example/"),
        ("WWW-Authenticate", "Bearer"),
    )
    assert response_headers(kept, interception_id="iid") == (*kept, ID)


@pytest.mark.parametrize("name", sorted(RESPONSE_DROPPED))
def test_what_is_about_the_upstreams_host_or_connection_ends_here(name: str) -> None:
    assert response_headers(((name.title(), "canary"),), interception_id="iid") == (ID,)


@pytest.mark.parametrize("content_type", ["text/event-stream", "Text/Event-Stream; charset=utf-8"])
def test_an_event_stream_is_open_ended_and_held_back_by_no_proxy(content_type: str) -> None:
    upstream: Headers = (("Content-Type", content_type), ("Content-Length", "9"), ("X-Accel-Buffering", "yes"))
    unbuffered = ("X-Accel-Buffering", "no")
    assert response_headers(upstream, interception_id="iid") == (
        ("Content-Type", content_type),
        ID,
        unbuffered,
        ("Cache-Control", "no-cache"),
    )
    cached: Headers = (("Content-Type", content_type), ("Cache-Control", "no-store"))
    assert response_headers(cached, interception_id="iid") == (*cached, ID, unbuffered)


def test_a_compressed_event_stream_passes_as_it_is() -> None:
    upstream: Headers = (("Content-Type", "text/event-stream"), ("Content-Encoding", "gzip"), ("Content-Length", "9"))
    assert response_headers(upstream, interception_id="iid") == (*upstream, ID)


@given(st.lists(st.tuples(NAMES, VALUES)), st.booleans())
def test_every_header_is_dropped_whole_or_passes_unchanged_in_order(
    pairs: list[tuple[str, str]], intercepted: bool
) -> None:
    sent = request_headers(tuple(pairs), intercepted=intercepted)
    rest = iter(pairs)
    assert all(pair in rest for pair in sent if pair != ("Accept-Encoding", "identity"))


def test_a_connection_header_cannot_take_the_length_of_a_body_away() -> None:
    named = (("Connection", "close, content-length, X-Own"), ("Content-Length", "3"), ("X-Own", "1"))
    assert response_headers(named, interception_id="iid") == (("Content-Length", "3"), ID)
