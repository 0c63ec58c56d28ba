"""The request target: what is taken apart, and what is refused."""

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.model import Refused
from bridged.paths import RESERVED_NAMES, Target, roughly, split_target


def refusal(target: str) -> str:
    with pytest.raises(Refused) as refused:
        split_target(target)
    return f"{refused.value.http_status} {refused.value.reason}"


@pytest.mark.parametrize("prefix", ["/", "/api/v2/aibridge/"])
@pytest.mark.parametrize(
    ("rest", "path", "query"),
    [
        ("anthropic-corp/v1/messages?beta=true", "/v1/messages", "?beta=true"),
        ("a/v1/models/models%2Fgemini:x%3Ay", "/v1/models/models%2Fgemini:x%3Ay", ""),
        ("a/v1/responses/r?a=%zz&b=../..&c=http://x//y", "/v1/responses/r", "?a=%zz&b=../..&c=http://x//y"),
        ("a/mcp/", "/mcp/", ""),
        ("a/v1/x?", "/v1/x", "?"),
        ("a/v1/100%25", "/v1/100%25", ""),
        ("a/v1/...", "/v1/...", ""),
        ("a/.well-known/x", "/.well-known/x", ""),
    ],
)
def test_both_forms_of_a_target_come_apart_without_a_changed_byte(
    prefix: str, rest: str, path: str, query: str
) -> None:
    target = split_target(prefix + rest)
    assert (target.path, target.query) == (path, query)
    assert target.provider + target.path + target.query == rest


@pytest.mark.parametrize("target", ["/a", "/a/", "/api/v2/aibridge/a", "/api/v2/aibridge/a/", "/a?x=1"])
def test_an_instance_is_its_own_root_with_or_without_a_slash(target: str) -> None:
    assert split_target(target).is_instance_root


DOT_SEGMENTS = [
    "..",
    ".",
    "%2e%2e",
    ".%2E",
    "%2e.",
    "%252e%252e",
    "%25252e.",
    "..;x=1",
    "..%3bx",
    "%2e%2e%3b",
    "..%20",
    "..%2f..",
    "a%2f..%2fb",
    "a%252f%252e%252e",
]


@pytest.mark.parametrize("segment", DOT_SEGMENTS)
@pytest.mark.parametrize(
    "template", ["/a/v1/{}/models", "/a/v1/models/{}", "/api/v2/aibridge/a/{}/v1/messages", "/{}/a"]
)
def test_dot_segments_are_refused_however_they_are_written(template: str, segment: str) -> None:
    assert refusal(template.format(segment)) == "400 INVALID_PATH"


@pytest.mark.parametrize(
    "target",
    [
        "",
        "*",
        "a/v1/messages",
        "http://evil.example/a/v1/messages",
        "HTTP://evil.example",
        "evil.example:443",
        "/a/v1/messages#x",
        "/a/v1/messages?x#y",
        "/a/v1\\messages",
        "/a/v1/%5c..%5cx",
        "/a/v1/mess ages",
        "/a/v1/x\x00",
        "/a/v1/x%00",
        "/a/v1/x%0d%0aHost:%20evil",
        "/a/v1/x%2500",
        "/a/v1/\xe9",
        "/a/v1/x?q=\xe9",
        "/a/v1/x?q=\r\nX: y",
        "/a/v1/%",
        "/a/v1/%4",
        "/a/v1/%zz",
        "/a/v1/%c0%ae%c0%ae/x",
        "/a/v1/%ff",
        "/a/v1/%2525252525252565",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(target: str) -> None:
    assert refusal(target) == "400 INVALID_PATH"


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "//evil.example/v1/messages",
        "/a//v1/messages",
        "/a/v1//messages",
        "/a//",
        "/A/v1/messages",
        "/a_b/v1/messages",
        "/-a/v1",
        "/a-/v1",
        "/a--b/v1",
        "/%61/v1/messages",
        "/api/v2/aibridge",
        "/api/v2/aibridge/",
        "/api/v2/other/a/v1/messages",
        "/evil.example/v1",
        "/a@evil/v1",
        "/a:80/v1",
        *(f"/{name}/v1/messages" for name in sorted(RESERVED_NAMES)),
        *(f"/api/v2/aibridge/{name}/v1/messages" for name in sorted(RESERVED_NAMES)),
    ],
)
def test_names_that_no_provider_has_and_empty_segments_are_not_found(target: str) -> None:
    assert refusal(target) == "404 ROUTE_NOT_FOUND"


def test_a_target_of_nothing_but_nested_escapes_is_refused_at_once() -> None:
    assert refusal("/a/%" + "25" * 30_000) == "400 INVALID_PATH"


def parts_or_status(target: str) -> Target | int:
    try:
        return split_target(target)
    except Refused as refused:
        return refused.http_status


@given(st.sampled_from(["", "/a/", "/api/v2/aibridge/a/"]), st.text(st.characters(max_codepoint=255), max_size=60))
def test_any_target_is_taken_apart_or_refused_with_a_4xx(prefix: str, text: str) -> None:
    target = prefix + text
    roughly(target)
    parts = parts_or_status(target)
    if isinstance(parts, Target):
        assert target.endswith(parts.provider + parts.path + parts.query)
    else:
        assert parts in (400, 404)


@given(
    st.lists(st.sampled_from(["..", ".", "%2e", "%2E", "%252e", "/", "%2f", "%2F", "a", ";", "%3b", "\\"]), max_size=8)
)
def test_no_accepted_path_decodes_to_a_dot_segment(parts: list[str]) -> None:
    accepted = parts_or_status("/a/" + "".join(parts))
    path = accepted.path if isinstance(accepted, Target) else ""
    for _ in range(4):
        assert not {".", ".."} & {segment.split(";")[0] for segment in path.replace("\\", "/").split("/")}
        path = unquote(path)


def test_the_rough_path_of_a_refused_target_still_tells_the_api() -> None:
    assert roughly("/Nope!/v1/messages?x=1") == ("/v1/messages", "?x=1")
    assert roughly("/api/v2/aibridge/a/v1/messages/../x") == ("/v1/messages/../x", "")
    assert roughly("") == ("", "")
