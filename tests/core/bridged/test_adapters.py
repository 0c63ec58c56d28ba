"""Where requests go and under which credential: the table of interfaces.md, and that no client can change the host."""

from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from bridged.adapters import ADAPTERS, Address, address
from bridged.client_token import find_client_token
from bridged.model import ApiKey, AwsKeys, Bearer, Credential, Headers, PresentedKey, Refused, Resolution, Source
from bridged.paths import split_target
from bridged.routes import match
from credentiald.catalog import CATALOG
from daemonkit.secret import Secret

KEY = ApiKey(value=Secret("sk-central"))
AS_BEARER: Headers = (("Authorization", "Bearer sk-central"),)


def resolution(
    wire_type: str,
    base_url: str,
    *,
    credential: Credential | None = KEY,
    source: Source = Source.CENTRAL_KEY,
) -> Resolution:
    return Resolution(
        provider_id="p",
        provider_name="corp",
        provider_type=wire_type,
        wire_type=wire_type,
        base_url=base_url,
        user_id="u",
        username="ada",
        source=source,
        credential=credential,
    )


def default_base_url(wire_type: str) -> str:
    return CATALOG[wire_type].default_base_url or "https://host.example"


def addressed(wire_type: str, base_url: str, path: str, *, query: str = "", method: str = "POST") -> Address:
    found = match(method, path, (), query)
    return address(resolution(wire_type, base_url), found, query=query, presented=None)


def url(parts: Address) -> str:
    host = f"[{parts.host}]" if ":" in parts.host else parts.host
    port = f":{parts.port}" if parts.port is not None else ""
    return f"{parts.scheme}://{host}{port}{parts.target}"


@pytest.mark.parametrize(
    ("wire_type", "base_url", "path", "expected"),
    [
        ("openai", "https://api.openai.com/v1/", "/v1/chat/completions", "https://api.openai.com/v1/chat/completions"),
        ("openai", "https://api.openai.com/v1", "/v1/responses", "https://api.openai.com/v1/responses"),
        (
            "openai",
            "https://chatgpt.com/backend-api/codex",
            "/v1/responses",
            "https://chatgpt.com/backend-api/codex/responses",
        ),
        ("openai", "http://h:8080", "/v1/embeddings", "http://h:8080/embeddings"),
        ("openai-compat", "http://[::1]:9000/x/v2/", "/v1/responses/r%2Fs", "http://[::1]:9000/x/v2/responses/r%2Fs"),
        ("openrouter", "https://openrouter.ai/api/v1/", "/v1/models", "https://openrouter.ai/api/v1/models"),
        ("vercel", "https://ai-gateway.vercel.sh/v1/", "/v1/models/a:b", "https://ai-gateway.vercel.sh/v1/models/a:b"),
        ("anthropic", "https://api.anthropic.com/", "/v1/messages", "https://api.anthropic.com/v1/messages"),
        ("anthropic", "https://x.example/api/v2", "/v1/models", "https://x.example/api/v2/v1/models"),
        (
            "anthropic",
            "https://x.example/a/",
            "/api/event_logging/batch",
            "https://x.example/a/api/event_logging/batch",
        ),
        (
            "azure",
            "https://r.openai.azure.com",
            "/v1/chat/completions",
            "https://r.openai.azure.com/openai/v1/chat/completions",
        ),
        ("azure", "https://r.openai.azure.com/", "/v1/embeddings", "https://r.openai.azure.com/openai/v1/embeddings"),
        ("azure", "https://r.example/gw/openai/v1/", "/v1/responses", "https://r.example/gw/openai/v1/responses"),
        (
            "azure",
            "https://r.example/openai/v1/",
            "/openai/deployments/d/chat/completions",
            "https://r.example/openai/deployments/d/chat/completions",
        ),
        (
            "google",
            "https://g.example/",
            "/v1beta/models/m:generateContent",
            "https://g.example/v1beta/models/m:generateContent",
        ),
        ("google", "https://g.example", "/v1/models/m:countTokens", "https://g.example/v1/models/m:countTokens"),
        ("google", "https://g.example/", "/v1/models", "https://g.example/v1/models"),
        ("google", "https://g.example/", "/v1/chat/completions", "https://g.example/v1beta/openai/chat/completions"),
        ("google", "https://g.example/p/", "/v1/embeddings", "https://g.example/p/v1beta/openai/embeddings"),
        ("google", "https://g.example/", "/v1beta/openai/embeddings", "https://g.example/v1beta/openai/embeddings"),
        (
            "copilot",
            "https://api.githubcopilot.com",
            "/chat/completions",
            "https://api.githubcopilot.com/chat/completions",
        ),
        ("copilot", "https://api.githubcopilot.com/", "/v1/responses", "https://api.githubcopilot.com/responses"),
        ("copilot", "https://h.example/x/", "/v1/.well-known/y", "https://h.example/x/.well-known/y"),
        ("copilot", "https://h.example/x", "/mcp/", "https://h.example/x/mcp/"),
    ],
)
def test_a_path_goes_where_the_type_has_it(wire_type: str, base_url: str, path: str, expected: str) -> None:
    method = "GET" if "/models" in path and ":generate" not in path and ":count" not in path else "POST"
    assert url(addressed(wire_type, base_url, path, method=method)) == expected


@pytest.mark.parametrize("query", ["?api-version=2024-10-21", "?a=%2F&b=//x@y#".removesuffix("#"), "?"])
def test_the_query_leaves_as_it_came(query: str) -> None:
    assert addressed("openai", "https://h.example/v1", "/v1/responses", query=query).target == "/v1/responses" + query


@pytest.mark.parametrize(
    ("wire_type", "path", "expected"),
    [
        *((name, "/v1/chat/completions", AS_BEARER) for name in ("openai", "openai-compat", "openrouter", "vercel")),
        ("anthropic", "/v1/messages", (("x-api-key", "sk-central"),)),
        ("azure", "/v1/responses", (("api-key", "sk-central"),)),
        ("azure", "/openai/deployments/d/embeddings", (("api-key", "sk-central"),)),
        ("google", "/v1beta/models/m:generateContent", (("x-goog-api-key", "sk-central"),)),
        ("google", "/v1/chat/completions", AS_BEARER),
        ("google", "/v1beta/openai/chat/completions", AS_BEARER),
        ("copilot", "/chat/completions", AS_BEARER),
    ],
)
def test_a_key_goes_into_the_header_of_the_type(wire_type: str, path: str, expected: Headers) -> None:
    assert addressed(wire_type, default_base_url(wire_type), path).headers == expected


@pytest.mark.parametrize("wire_type", sorted(ADAPTERS))
def test_a_bearer_token_is_a_bearer_token_everywhere(wire_type: str) -> None:
    token = resolution(wire_type, "https://h.example", credential=Bearer(value=Secret("sk-central")))
    assert address(token, match("POST", "/v1/responses", (), ""), query="", presented=None).headers == AS_BEARER


ALL = PresentedKey(
    authorization=Secret("Bearer own"),
    x_api_key=Secret("xk"),
    api_key=Secret("ak"),
    x_goog_api_key=Secret("gk"),
    query_key=Secret("qk"),
)
OWN: Headers = (("Authorization", "Bearer own"),)


@pytest.mark.parametrize(
    ("wire_type", "path", "presented", "expected"),
    [
        ("anthropic", "/v1/messages", ALL, (("x-api-key", "xk"),)),
        ("anthropic", "/v1/messages", PresentedKey(authorization=Secret("Bearer own")), OWN),
        ("openai", "/v1/responses", ALL, OWN),
        ("azure", "/v1/responses", ALL, (("api-key", "ak"),)),
        ("azure", "/v1/responses", PresentedKey(authorization=Secret("Bearer own")), OWN),
        ("google", "/v1beta/models/m:generateContent", ALL, (("x-goog-api-key", "gk"),)),
        (
            "google",
            "/v1beta/models/m:generateContent",
            PresentedKey(query_key=Secret("qk")),
            (("x-goog-api-key", "qk"),),
        ),
        ("google", "/v1beta/openai/chat/completions", ALL, OWN),
        (
            "google",
            "/v1/chat/completions",
            PresentedKey(x_goog_api_key=Secret("gk")),
            (("Authorization", "Bearer gk"),),
        ),
        ("copilot", "/chat/completions", ALL, OWN),
        (
            "copilot",
            "/chat/completions",
            PresentedKey(authorization=Secret("token ghu_x")),
            (("Authorization", "token ghu_x"),),
        ),
    ],
)
def test_a_presented_key_goes_out_alone_in_the_form_of_the_type(
    wire_type: str, path: str, presented: PresentedKey, expected: Headers
) -> None:
    answer = resolution(wire_type, "https://h.example", credential=None, source=Source.PRESENTED_KEY)
    assert address(answer, match("POST", path, (), ""), query="", presented=presented).headers == expected


@pytest.mark.parametrize(
    ("wire_type", "path", "presented"),
    [
        ("anthropic", "/v1/messages", PresentedKey(api_key=Secret("ak"), x_goog_api_key=Secret("gk"))),
        ("openai", "/v1/responses", PresentedKey(x_api_key=Secret("xk"))),
        ("copilot", "/chat/completions", PresentedKey(x_api_key=Secret("xk"), query_key=Secret("qk"))),
        ("azure", "/v1/responses", PresentedKey(x_api_key=Secret("xk"))),
        ("google", "/v1beta/models/m:generateContent", PresentedKey(x_api_key=Secret("xk"))),
    ],
)
def test_a_key_for_another_vendor_never_goes_out(wire_type: str, path: str, presented: PresentedKey) -> None:
    answer = resolution(wire_type, "https://h.example", credential=None, source=Source.PRESENTED_KEY)
    with pytest.raises(Refused) as refused:
        address(answer, match("POST", path, (), ""), query="", presented=presented)
    assert refused.value.reason == "USER_KEY_REQUIRED"


@pytest.mark.parametrize("wire_type", sorted(ADAPTERS))
def test_a_resolved_credential_is_never_replaced_by_what_the_client_presented(wire_type: str) -> None:
    answer = resolution(wire_type, "https://h.example")
    sent = address(answer, match("POST", "/v1/responses", (), ""), query="", presented=ALL).headers
    assert len(sent) == 1
    assert sent[0][1].endswith("sk-central")


@pytest.mark.parametrize(
    ("credential", "source", "presented", "reason"),
    [
        (None, Source.PRESENTED_KEY, None, "USER_KEY_REQUIRED"),
        (None, Source.PRESENTED_KEY, PresentedKey(), "USER_KEY_REQUIRED"),
        (None, Source.CENTRAL_KEY, ALL, "CREDENTIALD_UNREACHABLE"),
        (
            AwsKeys(access_key_id=Secret("a"), secret_access_key=Secret("s")),
            Source.AMBIENT,
            None,
            "CREDENTIALD_UNREACHABLE",
        ),
    ],
)
def test_without_a_fitting_credential_nothing_goes_out(
    credential: Credential | None, source: Source, presented: PresentedKey | None, reason: str
) -> None:
    for wire_type in ADAPTERS:
        answer = resolution(wire_type, "https://h.example", credential=credential, source=source)
        with pytest.raises(Refused) as refused:
            address(answer, match("POST", "/v1/responses", (), ""), query="", presented=presented)
        assert refused.value.reason == reason


@pytest.mark.parametrize("value", ["", "sk\r\nHost: evil", "sk\nx", "sk\x00", "sk\u00e9", "sk\ud800"])
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (Source.PRESENTED_KEY, "INVALID_REQUEST"),
        (Source.USER_KEY, "USER_KEY_REQUIRED"),
        (Source.CENTRAL_KEY, "CENTRAL_KEY_MISSING"),
    ],
)
def test_a_key_cannot_break_out_of_its_header(value: str, source: Source, reason: str) -> None:
    answer = resolution("google", "https://h.example", credential=ApiKey(value=Secret(value)), source=source)
    presented = PresentedKey(query_key=Secret(value))
    found = match("POST", "/v1beta/models/m:generateContent", (), "")
    with pytest.raises(Refused) as refused:
        address(answer, found, query="", presented=presented)
    assert refused.value.reason == reason
    assert not value or value not in refused.value.message


def test_no_credential_is_printed() -> None:
    sent = addressed("openai", "https://h.example/v1", "/v1/responses")
    assert "sk-central" in sent.headers[0][1]
    assert "sk-central" not in repr(sent) + str(sent)


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "h.example",
        "//h.example",
        "ftp://h.example",
        "file:///etc/passwd",
        "https://",
        "https:///v1",
        "https://user@h.example",
        "https://user:pw@h.example",
        "https://h.example#@evil",
        "https://h.example?x",
        "https://h.example\\@evil",
        "https://h.example/\\x",
        "https://h.example:0",
        "https://h.example:99999",
        "https://h.example:x",
        "https://h exa",
        "https://h\nevil",
        "https://h\u00e9.example",
        "https://[::1]evil",
        "https://[zz]/",
        "https://[::1",
        "https://[:::]",
        "https://[1.2.3.4]",
        "https://h%2eexample",
    ],
)
def test_a_base_url_that_is_none_gets_no_credential(base_url: str) -> None:
    with pytest.raises(Refused) as refused:
        addressed("openai", base_url, "/v1/responses")
    assert (refused.value.http_status, refused.value.reason) == (502, "UPSTREAM_UNREACHABLE")


@pytest.mark.parametrize(("wire_type", "path"), [("openai", "/chat/completions"), ("azure", "/api/event_logging/x")])
def test_a_path_that_a_type_cannot_have_is_not_found(wire_type: str, path: str) -> None:
    with pytest.raises(Refused) as refused:
        addressed(wire_type, "https://h.example", path)
    assert (refused.value.http_status, refused.value.reason) == (404, "OPERATION_NOT_ALLOWED")


@pytest.mark.parametrize("wire_type", ["of-the-future", ""])
def test_types_that_this_bridge_does_not_know_are_not_found(wire_type: str) -> None:
    with pytest.raises(Refused) as refused:
        addressed(wire_type, "https://h.example", "/v1/messages")
    assert (refused.value.http_status, refused.value.reason) == (404, "OPERATION_NOT_ALLOWED")


def test_every_type_of_the_catalogue_has_an_adapter_and_bedrock_one_of_its_own() -> None:
    assert set(ADAPTERS) == set(CATALOG) - {"bedrock"}


# What has moved destinations elsewhere: other hosts, userinfo, fragments, dots, encoded slashes, absolute forms.
HOSTS = ["evil.example", "//evil.example", "http://evil.example", "@evil.example", "evil.example:80"]
HOSTILE = st.sampled_from(
    [*HOSTS, "#", "?", "..", "%2e%2e", "/", "%2f", "\\", "%5c", ";", "%00", "%40", "&", "v1", "key=x"]
)
HARMLESS = st.sampled_from(["a", "@evil.example", ":80", "%40", "&", "v1", "models", "key=x", "//evil.example", ".."])
KNOWN = st.sampled_from(
    [
        "/v1/models/",
        "/v1/responses/",
        "/v1beta/models/",
        "/openai/models/",
        "/mcp/",
        "/agents/",
        "/models/",
        "/elsewhere/",
    ]
)
CLIENT_HEADERS = st.lists(
    st.tuples(st.sampled_from(["Host", "X-Forwarded-Host", "Forwarded", "X-Original-URL", "x-api-key"]), HOSTILE)
)
BASE_URLS = st.sampled_from(["https://h.example:8443/base/", "http://[2001:db8::1]/", "https://h.example"])


def asked(wire_type: str, base_url: str, raw_target: str, headers: Headers) -> Address | int:
    """Where a raw request goes, or the status it is refused with."""
    try:
        target = split_target(raw_target)
        found = match("GET", target.path, headers, target.query)
        query = find_client_token(headers, target.query).query_without_key
        return address(resolution(wire_type, base_url), found, query=query, presented=None)
    except Refused as refused:
        return refused.http_status


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(ADAPTERS)),
    BASE_URLS,
    KNOWN,
    st.lists(HOSTILE, max_size=3),
    st.lists(HARMLESS, max_size=4),
    CLIENT_HEADERS,
)
def test_no_client_chooses_the_destination(
    wire_type: str, base_url: str, known: str, path: list[str], query: list[str], headers: list[tuple[str, str]]
) -> None:
    """G2: scheme, host and port are the provider's, and the target is below its path."""
    sent = asked(wire_type, base_url, "/corp" + known + "".join(path) + "?" + "".join(query), tuple(headers))
    event("refused" if isinstance(sent, int) else "sent")
    if isinstance(sent, int):
        assert sent in (400, 404, 405)
        return
    base = urlsplit(base_url)
    assert (sent.scheme, sent.host, sent.port) == (base.scheme, base.hostname, base.port)
    # Read again as one URL, as a client library would, it is still the same place.
    again = urlsplit(url(sent))
    assert (again.scheme, again.hostname, again.port, again.fragment) == (base.scheme, base.hostname, base.port, "")
    below = "/openai/" if wire_type == "azure" else base.path.rstrip("/") + "/"
    assert sent.target.startswith((below, base.path.rstrip("/") + "/"))
    assert not {".", ".."} & set(sent.target.partition("?")[0].split("/"))


def used_base(base_url: str) -> str:
    """The beginning of a base URL as it was understood, empty where it was refused."""
    try:
        sent = addressed("anthropic", base_url, "/v1/messages")
    except Refused as refused:
        return "" if refused.reason == "UPSTREAM_UNREACHABLE" else refused.reason
    return f"{sent.scheme}://{sent.host}".lower()


@given(st.sampled_from(["", "https://", "https://h.example"]), st.text(max_size=30))
def test_any_base_url_is_used_as_it_stands_or_refused(prefix: str, text: str) -> None:
    base_url = prefix + text
    assert base_url.replace("[", "").lower().startswith(used_base(base_url))


def test_the_credential_of_one_resolution_does_not_stay_for_the_next() -> None:
    first = resolution("openai", "https://h.example")
    second = replace(first, credential=ApiKey(value=Secret("sk-second")))
    found = match("POST", "/v1/responses", (), "")
    assert address(first, found, query="", presented=None).headers == AS_BEARER
    assert address(second, found, query="", presented=None).headers == (("Authorization", "Bearer sk-second"),)
