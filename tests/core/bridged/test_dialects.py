"""Each API's error shapes, and what is read from requests."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.dialects import DIALECTS, refusal_body, refusal_headers, request_facts, stream_ending
from bridged.dialects.facts import MAX_MODEL_CHARACTERS
from bridged.errors import REFUSALS
from bridged.model import DialectName, Headers, Refused, RequestFacts
from bridged.routes import match
from bridged.sse import StreamEnd

BODY_DIALECTS = [DialectName.ANTHROPIC_MESSAGES, DialectName.OPENAI_CHAT, DialectName.OPENAI_RESPONSES]


def test_every_dialect_has_its_row() -> None:
    assert set(DIALECTS) == set(DialectName)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("INVALID_BODY", "invalid_request_error"),
        ("ACCESS_TOKEN_INVALID", "authentication_error"),
        ("USER_KEY_REQUIRED", "permission_error"),
        ("ROUTE_NOT_FOUND", "not_found_error"),
        ("METHOD_NOT_ALLOWED", "invalid_request_error"),
        ("BODY_TOO_LARGE", "request_too_large"),
        ("RATE_LIMITED", "rate_limit_error"),
        ("UPSTREAM_TIMEOUT", "timeout_error"),
        ("CREDENTIALD_UNREACHABLE", "api_error"),
        ("CAPACITY", "overloaded_error"),
        ("BREAKER_OPEN", "overloaded_error"),
    ],
)
def test_anthropics_errors_have_its_documented_types(reason: str, kind: str) -> None:
    body = json.loads(refusal_body(DialectName.ANTHROPIC_MESSAGES, Refused(reason, 'say "hi"'), "iid"))
    assert body == {"type": "error", "error": {"type": kind, "message": 'say "hi"'}, "request_id": "iid"}


@pytest.mark.parametrize("dialect", [DialectName.OPENAI_CHAT, DialectName.OPENAI_RESPONSES])
@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("INVALID_BODY", "invalid_request_error"),
        ("ACCESS_TOKEN_INVALID", "authentication_error"),
        ("USER_KEY_REQUIRED", "permission_error"),
        ("RATE_LIMITED", "rate_limit_error"),
        ("UPSTREAM_UNREACHABLE", "server_error"),
    ],
)
def test_openais_errors_carry_our_reason_as_the_code(dialect: DialectName, reason: str, kind: str) -> None:
    body = json.loads(refusal_body(dialect, Refused(reason, "words"), "iid"))
    assert body == {"error": {"message": "words", "type": kind, "param": None, "code": reason.lower()}}


@pytest.mark.parametrize(
    ("reason", "code", "status"),
    [
        ("INVALID_PATH", 400, "INVALID_ARGUMENT"),
        ("ACCESS_TOKEN_MISSING", 401, "UNAUTHENTICATED"),
        ("USER_KEY_REQUIRED", 403, "PERMISSION_DENIED"),
        ("ROUTE_NOT_FOUND", 404, "NOT_FOUND"),
        ("RATE_LIMITED", 429, "RESOURCE_EXHAUSTED"),
        ("SEALED", 503, "UNAVAILABLE"),
        ("UPSTREAM_TIMEOUT", 504, "DEADLINE_EXCEEDED"),
    ],
)
def test_googles_errors_are_a_status_with_an_error_info(reason: str, code: int, status: str) -> None:
    error = json.loads(refusal_body(DialectName.GOOGLE_GENERATE, Refused(reason, "words"), "iid"))["error"]
    assert (error["code"], error["message"], error["status"]) == (code, "words", status)
    assert error["details"][0]["reason"] == reason


@pytest.mark.parametrize("dialect", DialectName)
@pytest.mark.parametrize("reason", REFUSALS)
def test_an_error_event_is_one_whole_event_in_json(dialect: DialectName, reason: str) -> None:
    event = DIALECTS[dialect].stream_error_event(reason, "two\nlines\r", "iid")
    assert event.endswith(b"\n\n")
    lines = event[:-2].split(b"\n")
    assert lines[-1].startswith(b"data: ")
    assert lines[:-1] in ([], [b"event: error"])
    assert b"\r" not in event
    # What the SDKs look for before they raise.
    assert json.loads(lines[-1][6:])["error"]["message"] == "two\nlines\r"
    assert b"[DONE]" not in event


@pytest.mark.parametrize(
    ("reason", "exception"),
    [
        ("INVALID_BODY", "ValidationException"),
        ("BODY_TOO_LARGE", "ValidationException"),
        ("ACCESS_TOKEN_INVALID", "UnrecognizedClientException"),
        ("USER_KEY_REQUIRED", "AccessDeniedException"),
        ("ROUTE_NOT_FOUND", "ResourceNotFoundException"),
        ("REQUEST_TIMEOUT", "RequestTimeoutException"),
        ("RATE_LIMITED", "ThrottlingException"),
        ("UPSTREAM_UNREACHABLE", "InternalServerException"),
        ("AMBIENT_CREDENTIALS_UNAVAILABLE", "ServiceUnavailableException"),
        ("UPSTREAM_TIMEOUT", "ModelTimeoutException"),
    ],
)
def test_on_bedrocks_own_paths_errors_are_those_of_aws(reason: str, exception: str) -> None:
    refused = Refused(reason, "words")
    headers = dict(refusal_headers(DialectName.BEDROCK, refused, "iid"))
    assert json.loads(refusal_body(DialectName.BEDROCK, refused, "iid")) == {"message": "words"}
    assert (headers["x-amzn-ErrorType"], headers["x-amzn-RequestId"]) == (exception, "iid")
    assert headers["X-Drawbridge-Error"] == reason


@pytest.mark.parametrize(
    ("path", "facts"),
    [
        ("/model/m%3A0/invoke", RequestFacts(model="m:0", stream=False)),
        ("/model/m/invoke-with-response-stream", RequestFacts(model="m", stream=True)),
        ("/model/m/converse-stream", RequestFacts(model="m", stream=True)),
    ],
)
def test_on_bedrocks_own_paths_the_path_says_it_all(path: str, facts: RequestFacts) -> None:
    for body in (b"", b"not json", b'{"model":"other","stream":"x"}'):
        assert request_facts(match("POST", path, (), ""), (), body) == facts


def test_the_responses_error_event_has_its_documented_fields() -> None:
    event = DIALECTS[DialectName.OPENAI_RESPONSES].stream_error_event("UPSTREAM_TIMEOUT", "words", "iid")
    data = json.loads(event.partition(b"data: ")[2])
    assert {key: data[key] for key in ("type", "code", "message", "param")} == {
        "type": "error",
        "code": "upstream_timeout",
        "message": "words",
        "param": None,
    }


@pytest.mark.parametrize(
    ("refused", "extra"),
    [
        (Refused("USER_KEY_REQUIRED", "x"), {}),
        (Refused("CREDENTIALD_UNREACHABLE", "x"), {"Retry-After": "1"}),
        (Refused("METHOD_NOT_ALLOWED", "x", allow=("GET", "HEAD")), {"Allow": "GET, HEAD"}),
        (Refused("UPGRADE_NOT_SUPPORTED", "x"), {"Upgrade": "HTTP/1.1"}),
    ],
)
def test_our_own_errors_carry_the_interception_id_where_every_sdk_looks(
    refused: Refused, extra: dict[str, str]
) -> None:
    ids = dict.fromkeys(("X-Interception-Id", "request-id", "x-request-id"), "iid")
    fixed = {"Content-Type": "application/json", "X-Drawbridge-Error": refused.reason}
    assert dict(refusal_headers(DialectName.OPENAI_CHAT, refused, "iid")) == fixed | ids | extra


@pytest.mark.parametrize("reason", sorted(REFUSALS))
def test_our_own_errors_leave_the_connection_and_the_framing_to_the_server(reason: str) -> None:
    names = {name.lower() for name, _ in refusal_headers(DialectName.OPENAI_CHAT, Refused(reason, "x"), "iid")}
    assert names.isdisjoint({"connection", "transfer-encoding", "content-length"})


def facts(body: bytes, dialect: DialectName = DialectName.OPENAI_CHAT) -> RequestFacts:
    return DIALECTS[dialect].read_request(body)


@pytest.mark.parametrize("dialect", BODY_DIALECTS)
@pytest.mark.parametrize(
    ("body", "model", "stream"),
    [
        (b'{"model":"m","stream":true,"messages":[{"role":"user"}]}', "m", True),
        (b' {"stream" : false, "model": "m\\u00e9"}\n', "m\xe9", False),
        (b'{"model":null,"stream":null}', "", False),
        (b"{}", "", False),
        (b'{"model":"a","model":"b"}', "b", False),
        (b'{"mod\\u0065l":"escaped"}', "escaped", False),
        (b'{"inner":{"model":"not this","stream":true}}', "", False),
        (b'{"text":"\\ud83d","n":1e999,"model":"m"}', "m", False),
        (b'{"text":"\\\\ud83d\\udc00","model":"\\ud83d"}', "\ufffd", False),
        ('{"model":"模型"}'.encode(), "模型", False),
    ],
)
def test_model_and_stream_are_read_from_the_top_of_the_body(
    dialect: DialectName, body: bytes, model: str, stream: bool
) -> None:
    assert facts(body, dialect) == RequestFacts(model=model, stream=stream)


@pytest.mark.parametrize("dialect", BODY_DIALECTS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"canary",
        b'{"model":"canary"',
        b'{"model":"canary"} trailing',
        b"{'model':'canary'}",
        b'{"model":["canary"]}',
        b'{"model":5}',
        b'{"model":"m","stream":"canary"}',
        b'{"model":"m","stream":1}',
        b'{"model":"\\ud800',
        b'{"model":"m","text":"canary\xff"}',
        b"\xff\xfe{\x00}\x00",
        b"[" * 100_000,
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model":"' + b"m" * (MAX_MODEL_CHARACTERS + 1) + b'"}',
    ],
)
def test_what_is_not_a_request_is_400_without_a_word_of_it(dialect: DialectName, body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        facts(body, dialect)
    assert (refused.value.http_status, refused.value.reason) == (400, "INVALID_BODY")
    assert "canary" not in refused.value.message


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    st.lists,
    max_leaves=5,
)


@given(st.dictionaries(st.text(max_size=5), VALUES))
def test_other_fields_do_not_matter(others: dict[str, object]) -> None:
    body = json.dumps(others | {"model": "m", "stream": True}).encode()
    assert facts(body) == RequestFacts(model="m", stream=True)


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "model": st.none() | st.text(st.characters(max_codepoint=0xD7FF), max_size=5) | st.just(5),
        "stream": st.none() | st.booleans() | st.just("true"),
        "messages": st.none() | st.lists(st.just({"role": "user"}), max_size=2) | st.just("text"),
        "text": st.sampled_from(["", "\ud83d", "\U0001f600"]),
    },
)


@given(FIELDS, st.sampled_from(["", "]"]))
def test_two_fields_are_judged_and_of_messages_that_are_none_the_rest_is_read(
    fields: dict[str, object], trailing: str
) -> None:
    body = (json.dumps(fields) + trailing).encode()
    model, stream, messages = fields.get("model"), fields.get("stream"), fields.get("messages")
    if trailing or model == 5 or stream == "true":
        with pytest.raises(Refused, match="INVALID_BODY"):
            facts(body)
        return
    found = facts(body)
    assert found == RequestFacts(model=model or "", stream=bool(stream))
    assert (found.conversation is None) == (messages == "text")


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        assert isinstance(msgspec.json.decode(body), dict) == isinstance(facts(body), RequestFacts)
    except (msgspec.DecodeError, Refused):
        with pytest.raises(Refused):
            facts(body)


@pytest.mark.parametrize(
    ("path", "headers", "body", "expected"),
    [
        ("/v1/messages", (), b'{"model":"m","stream":true}', RequestFacts(model="m", stream=True)),
        ("/v1/messages", (("Content-Encoding", "identity"),), b'{"model":"m"}', RequestFacts(model="m")),
        ("/v1/messages", (("content-encoding", "ZSTD"),), b"\x28\xb5\x2f\xfd", RequestFacts()),
        ("/v1/embeddings", (), b"not json", RequestFacts()),
        ("/v1/embeddings", (), None, RequestFacts()),
        ("/openai/deployments/d%2Dx/chat/completions", (), b"{}", RequestFacts(model="d-x")),
        ("/openai/deployments/d/chat/completions", (), b'{"model":"m"}', RequestFacts(model="d")),
        ("/openai/deployments/d/chat/completions", (), b'{"model":"m","stream":true}', RequestFacts("d", stream=True)),
        ("/openai/deployments/d/responses", (), b'{"model":"m","input":"%s"}' % (b"x" * 9000), RequestFacts(model="d")),
        ("/openai/deployments/d/chat/completions", (("Content-Encoding", "gzip"),), b"\x1f", RequestFacts(model="d")),
        ("/openai/responses", (), b'{"model":"m"}', RequestFacts(model="m")),
        ("/v1beta/models/g:streamGenerateContent", (), None, RequestFacts(model="g", stream=True)),
        ("/v1beta/models/g:generateContent", (), b"{}", RequestFacts(model="g")),
    ],
)
def test_facts_come_from_path_and_body(path: str, headers: Headers, body: bytes | None, expected: RequestFacts) -> None:
    assert request_facts(match("POST", path, (), ""), headers, body) == expected


def test_a_model_in_the_path_has_a_limit_too() -> None:
    long = match("POST", f"/v1beta/models/{'m' * (MAX_MODEL_CHARACTERS + 1)}:generateContent", (), "")
    with pytest.raises(Refused, match="INVALID_BODY"):
        request_facts(long, (), None)


@pytest.mark.parametrize("dialect", DialectName)
def test_only_anthropics_clients_get_the_error_into_an_event_whose_data_was_cut(dialect: DialectName) -> None:
    end = StreamEnd()
    end.feed(b'event: x\ndata: {"cut":')
    ending = stream_ending(dialect, end, Refused("UPSTREAM_UNREACHABLE", "words"), "iid")
    assert ending.startswith(b"\nevent: error\n" if dialect is DialectName.ANTHROPIC_MESSAGES else b"\n\n")


@pytest.mark.parametrize("dialect", DialectName)
def test_a_broken_stream_ends_with_the_error_event_on_lines_of_its_own(dialect: DialectName) -> None:
    end = StreamEnd()
    end.feed(b'data: {"whole":1}\n')
    ending = stream_ending(dialect, end, Refused("UPSTREAM_UNREACHABLE", "words"), "iid")
    assert ending == b"\n" + DIALECTS[dialect].stream_error_event("UPSTREAM_UNREACHABLE", "words", "iid")
