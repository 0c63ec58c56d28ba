"""Answers of Bedrock as Anthropic's clients get them: events as they arrive, errors, counts, and nothing made up."""

import base64
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.bedrock.answers import MAX_GATHERED_BYTES, Answer, Gathered, PassingAnswer
from bridged.bedrock.errors import CREDENTIAL_REFUSED, TYPE_BY_EXCEPTION
from bridged.bedrock.messages_answer import EVENT_STREAM, CountAnswer, InvokeAnswer
from bridged.model import Headers, Refused
from tests.support.event_stream import event, exception, message

STREAM: Headers = (("Content-Type", EVENT_STREAM), ("x-amzn-RequestId", "rid"), ("X-Amzn-Bedrock-Content-Type", "x"))
JSON: Headers = (("content-type", "application/json"), ("x-amzn-RequestId", "rid"))

EVENTS = (
    b'{"type":"message_start","message":{"id":"msg_1","usage":{"input_tokens":5}}}',
    b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"h\\u00e9 \xf0\x9f\x99\x82"}}',
    b'{"index":0,"delta":{"text":"half \\ud83d"},"type":"content_block_delta"}',
    b'{ "type" : "message_delta" , "usage":{"output_tokens":1e400}}',
    b'{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":5}}',
)
SERVER_SENT = (
    b"event: message_start\ndata: " + EVENTS[0] + b"\n\n"
    b"event: content_block_delta\ndata: " + EVENTS[1] + b"\n\n"
    b"event: content_block_delta\ndata: " + EVENTS[2] + b"\n\n"
    b"event: message_delta\ndata: " + EVENTS[3] + b"\n\n"
    b"event: message_stop\ndata: " + EVENTS[4] + b"\n\n"
)


def chunk(data: bytes) -> bytes:
    return event("chunk", json.dumps({"bytes": base64.b64encode(data).decode(), "p": "abcdef"}).encode())


def streaming() -> InvokeAnswer:
    answer = InvokeAnswer(credential_is_the_users=False)
    answer.head(200, STREAM)
    return answer


def begun() -> InvokeAnswer:
    """A stream of which the client has seen something."""
    answer = streaming()
    assert answer.feed(chunk(EVENTS[0])) == SERVER_SENT[: len(b"event: message_start\ndata: " + EVENTS[0] + b"\n\n")]
    return answer


def gathered(answer: Answer, status: int, headers: Headers, body: bytes) -> tuple[Gathered, dict[str, Any]]:
    answer.head(status, headers)
    assert answer.feed(body[:3]) + answer.feed(body[3:]) == b""
    assert answer.whole is None
    answer.end()
    assert (answer.failure, answer.headers) == (None, None)
    whole = answer.whole
    assert whole is not None
    assert dict(whole.headers)["Content-Length"] == str(len(whole.body))
    found = json.loads(whole.body)
    assert isinstance(found, dict)
    return whole, found


def error_of(status: int, headers: Headers, body: bytes, *, users: bool = False) -> tuple[int, str, str]:
    whole, found = gathered(InvokeAnswer(credential_is_the_users=users), status, headers, body)
    assert (found["type"], set(found)) == ("error", {"type", "error", "request_id"})
    return whole.status, found["error"]["type"], found["error"]["message"]


# -- streams -----------------------------------------------------------------------------------------------------


def test_a_stream_is_anthropics_with_the_bytes_of_its_json() -> None:
    answer = streaming()
    assert answer.feed(b"".join(map(chunk, EVENTS))) == SERVER_SENT
    answer.end()
    assert answer.failure is None


def test_each_event_leaves_when_its_last_byte_is_there() -> None:
    answer, sent = streaming(), b""
    for data in EVENTS:
        framed = chunk(data)
        assert answer.feed(framed[:-1]) == b""
        sent += answer.feed(framed[-1:])
        assert sent.endswith(data + b"\n\n")
    assert sent == SERVER_SENT


@given(st.lists(st.integers(0, 2000), max_size=8))
def test_a_stream_may_be_cut_anywhere(cuts: list[int]) -> None:
    whole = b"".join(map(chunk, EVENTS))
    places = [0, *sorted(place % len(whole) for place in cuts), len(whole)]
    answer = streaming()

    sent = b"".join(answer.feed(whole[start:end]) for start, end in pairwise(places))
    answer.end()

    assert (sent, answer.failure) == (SERVER_SENT, None)


def test_a_stream_that_stops_anywhere_before_its_end_is_said_to_be_broken() -> None:
    whole = b"".join(map(chunk, EVENTS))
    for length in range(len(whole)):
        answer = streaming()
        sent = answer.feed(whole[:length])
        answer.end()
        assert SERVER_SENT.startswith(sent)
        assert answer.failure is not None
        assert answer.failure.reason == "UPSTREAM_UNREACHABLE"


def test_a_byte_that_changed_ends_the_stream_after_the_events_before_it() -> None:
    first, second = chunk(EVENTS[0]), chunk(EVENTS[1])
    for place in range(len(second)):
        damaged = bytearray(second)
        damaged[place] ^= 1
        answer = streaming()
        sent = answer.feed(first + bytes(damaged) + chunk(EVENTS[4]))
        assert sent == SERVER_SENT[: len(sent)]
        assert EVENTS[0] in sent
        assert EVENTS[4] not in sent
        answer.end()
        assert answer.failure is not None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("throttlingException", "rate_limit_error"),
        ("modelStreamErrorException", "api_error"),
        ("internalServerException", "api_error"),
        ("validationException", "invalid_request_error"),
        ("modelTimeoutException", "timeout_error"),
        ("serviceUnavailableException", "overloaded_error"),
        ("exceptionOfTomorrow", "api_error"),
    ],
)
def test_an_exception_in_a_stream_is_an_error_event_and_its_end(name: str, kind: str) -> None:
    answer = streaming()
    sent = answer.feed(chunk(EVENTS[0]) + exception(name, b'{"message":"two\\nlines"}') + chunk(EVENTS[4]))
    assert answer.feed(chunk(EVENTS[4])) == b""
    answer.end()

    events = sent.split(b"\n\n")
    assert events[1].startswith(b"event: error\ndata: ")
    assert json.loads(events[1].partition(b"data: ")[2]) == {
        "type": "error",
        "error": {"type": kind, "message": "two\nlines"},
    }
    assert (events[2:], answer.failure) == ([b""], None)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b'{"originalStatusCode":500,"originalMessage":"the model said"}', "the model said"),
        (b'{"message":""}', "Bedrock ended the stream with modelStreamErrorException"),
        (b"not json", "Bedrock ended the stream with modelStreamErrorException"),
        (b"", "Bedrock ended the stream with modelStreamErrorException"),
        (b"[1]", "Bedrock ended the stream with modelStreamErrorException"),
    ],
)
def test_an_exception_without_words_still_has_some(payload: bytes, text: str) -> None:
    sent = begun().feed(exception("modelStreamErrorException", payload))
    assert json.loads(sent.partition(b"data: ")[2])["error"]["message"] == text


def test_an_error_message_of_the_protocol_is_an_error_event_too() -> None:
    headers = {":message-type": "error", ":error-code": "InternalFailure", ":error-message": "oh"}
    sent = begun().feed(message(headers))
    assert json.loads(sent.partition(b"data: ")[2])["error"] == {"type": "api_error", "message": "oh"}


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("throttlingException", 429, "rate_limit_error"),
        ("modelStreamErrorException", 424, "api_error"),
        ("internalServerException", 500, "api_error"),
        ("validationException", 400, "invalid_request_error"),
        ("modelTimeoutException", 408, "timeout_error"),
        ("serviceUnavailableException", 503, "overloaded_error"),
        ("exceptionOfTomorrow", 500, "api_error"),
        ("", 500, "api_error"),
    ],
)
def test_an_exception_in_place_of_a_stream_is_an_error_with_its_status(name: str, status: int, kind: str) -> None:
    answer = streaming()
    framed = event("initial-response", b"{}") + exception(name, b'{"message":"slow down"}')
    assert answer.feed(framed[:-1]) == b""
    assert answer.whole is None
    assert answer.feed(framed[-1:] + chunk(EVENTS[0])) == b""
    answer.end()

    assert (answer.failure, answer.headers) == (None, None)
    whole = answer.whole
    assert whole is not None
    assert json.loads(whole.body) == {
        "type": "error",
        "error": {"type": kind, "message": "slow down"},
        "request_id": "rid",
    }
    assert whole.status == status
    assert whole.headers == (
        ("x-amzn-RequestId", "rid"),
        ("X-Amzn-Bedrock-Content-Type", "x"),
        ("request-id", "rid"),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(whole.body))),
    )


def test_a_stream_has_a_head_from_its_first_event_on() -> None:
    answer, first = streaming(), chunk(EVENTS[0])
    answer.feed(event("ofTomorrow", b"x") + first[:-1])
    assert answer.headers is None
    assert answer.feed(first[-1:]) != b""
    assert answer.headers is not None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not json",
        b"{}",
        b'{"bytes":"%"}',
        b'{"bytes":5}',
        json.dumps({"bytes": base64.b64encode(b"[]").decode()}).encode(),
        json.dumps({"bytes": base64.b64encode(b'{"type":5}').decode()}).encode(),
        json.dumps({"bytes": base64.b64encode(b'{"type":').decode()}).encode(),
    ],
)
def test_a_chunk_without_an_event_is_damage(payload: bytes) -> None:
    answer = streaming()
    assert answer.feed(event("chunk", payload)) == b""
    assert answer.failure is not None


def test_an_error_event_of_the_models_is_the_end_as_well() -> None:
    answer = streaming()
    data = b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}'
    assert answer.feed(chunk(data) + chunk(EVENTS[4])) == b"event: error\ndata: " + data + b"\n\n"
    answer.end()
    assert answer.failure is None


def test_events_of_kinds_to_come_are_passed_over() -> None:
    answer = streaming()
    assert answer.feed(event("initial-response", b"{}") + event("ofTomorrow", b"x")) == b""
    assert answer.failure is None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{\n"type":\r\n"ping"\r}', b'event: ping\ndata: {\ndata: "type":\ndata: "ping"\ndata: }\n\n'),
        (b'{"type":"a\\nb: c"}', b'data: {"type":"a\\nb: c"}\n\n'),
        (b'{"type":""}', b'data: {"type":""}\n\n'),
    ],
)
def test_no_json_breaks_out_of_its_event(data: bytes, expected: bytes) -> None:
    assert streaming().feed(chunk(data)) == expected


def test_the_head_of_a_stream_is_one_of_server_sent_events() -> None:
    answer = InvokeAnswer(credential_is_the_users=False)
    answer.head(200, (*STREAM, ("Content-Length", "9")))
    answer.feed(chunk(EVENTS[0]))
    assert answer.headers == (
        ("x-amzn-RequestId", "rid"),
        ("X-Amzn-Bedrock-Content-Type", "x"),
        ("request-id", "rid"),
        ("Content-Type", "text/event-stream; charset=utf-8"),
    )


def test_a_compressed_stream_was_not_asked_for() -> None:
    with pytest.raises(Refused) as refused:
        InvokeAnswer(credential_is_the_users=False).head(200, (*STREAM, ("Content-Encoding", "gzip")))
    assert refused.value.http_status == 502


# -- whole answers -----------------------------------------------------------------------------------------------------


@given(st.binary(max_size=50))
def test_a_blocking_answer_passes_as_it_is(body: bytes) -> None:
    answer = InvokeAnswer(credential_is_the_users=False)
    headers = (*JSON, ("Content-Length", str(len(body))), ("Content-Encoding", "gzip"))
    answer.head(200, headers)
    assert answer.headers == (*headers, ("request-id", "rid"))
    assert answer.feed(body) == body
    answer.end()
    assert answer.failure is None


@pytest.mark.parametrize(
    ("status", "name", "kind"),
    [
        (400, "ValidationException", "invalid_request_error"),
        (400, "ServiceQuotaExceededException", "rate_limit_error"),
        (403, "AccessDeniedException", "permission_error"),
        (404, "ResourceNotFoundException", "not_found_error"),
        (408, "ModelTimeoutException", "timeout_error"),
        (413, "RequestEntityTooLargeException", "request_too_large"),
        (424, "ModelErrorException", "api_error"),
        (429, "ModelNotReadyException", "overloaded_error"),
        (429, "ThrottlingException", "rate_limit_error"),
        (429, "TooManyRequestsException", "rate_limit_error"),
        (500, "InternalServerException", "api_error"),
        (503, "ServiceUnavailableException", "overloaded_error"),
        (404, "UnknownOperationException", "not_found_error"),
        (400, "", "invalid_request_error"),
        (403, "", "permission_error"),
        (404, "", "not_found_error"),
        (409, "", "invalid_request_error"),
        (429, "", "rate_limit_error"),
        (500, "", "api_error"),
        (503, "", "overloaded_error"),
        (504, "Of Tomorrow", "timeout_error"),
        (529, "OfTomorrow", "overloaded_error"),
    ],
)
def test_aws_errors_have_anthropics_type_and_their_own_status(status: int, name: str, kind: str) -> None:
    headers = (*JSON, ("x-amzn-ErrorType", name)) if name else JSON
    assert error_of(status, headers, b'{"message":"say \\"hi\\""}') == (status, kind, 'say "hi"')


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ((("X-Amzn-Errortype", "ThrottlingException:http://internal.amazon.com/coral/com.amazon.x/"),), b"{}"),
        ((), b'{"__type":"com.amazon.coral.service#ThrottlingException","Message":"m"}'),
        ((), b'{"code":"ThrottlingException","message":"m"}'),
        ((("x-amzn-errortype", "throttlingException"),), b'{"__type":"ValidationException"}'),
    ],
)
def test_the_name_of_an_error_is_found_in_each_of_its_places(headers: Headers, body: bytes) -> None:
    assert error_of(400, headers + JSON, body)[1] == "rate_limit_error"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"message":5}', b"\xff", b"[" * 100_000])
def test_an_error_that_is_not_of_aws_still_says_its_status(body: bytes) -> None:
    assert error_of(503, JSON, body) == (
        503,
        "overloaded_error",
        "Bedrock answered with status 503 and without a message",
    )


def test_an_error_that_is_longer_than_any_of_aws_is_not_read() -> None:
    for answer in (InvokeAnswer(credential_is_the_users=False), CountAnswer(credential_is_the_users=False)):
        answer.head(500, JSON)
        answer.feed(b'{"message":"'.ljust(MAX_GATHERED_BYTES, b"x"))
        assert answer.whole is None
        answer.feed(b'"')
        # At once: its end may never come.
        assert answer.whole is not None
        assert b"Bedrock answered with status 500 and without a message" in answer.whole.body


def test_waits_and_ids_stay_and_what_was_about_the_body_does_not() -> None:
    headers: Headers = (
        ("Retry-After", "7"),
        ("Content-Type", "text/html"),
        ("Content-Length", "9999"),
        ("x-amzn-RequestId", "rid"),
        ("x-amzn-ErrorType", "ThrottlingException"),
    )
    whole, found = gathered(InvokeAnswer(credential_is_the_users=False), 429, headers, b'{"message":"slow down"}')
    assert whole.headers == (
        ("Retry-After", "7"),
        ("x-amzn-RequestId", "rid"),
        ("x-amzn-ErrorType", "ThrottlingException"),
        ("request-id", "rid"),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(whole.body))),
    )
    assert found["request_id"] == "rid"


@pytest.mark.parametrize(
    "name",
    [
        "ExpiredTokenException",
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "MissingAuthenticationTokenException",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
    ],
)
def test_a_credential_that_aws_refuses_is_the_clients_fault_only_if_it_is_theirs(name: str) -> None:
    headers = (*JSON, ("x-amzn-ErrorType", name))
    body = b'{"message":"The Canonical String should have been x-amz-security-token:CANARY"}'

    for answer in (
        InvokeAnswer(credential_is_the_users=False),
        CountAnswer(credential_is_the_users=False),
        PassingAnswer(),
    ):
        answer.head(403, headers)
        assert answer.feed(body) == b""
        answer.end()
        assert answer.headers is None
        assert answer.failure is not None
        assert (answer.failure.http_status, answer.failure.reason) == (502, "UPSTREAM_KEY_REFUSED")
        assert name in answer.failure.message
        assert "CANARY" not in answer.failure.message

    status, kind, text = error_of(403, headers, b'{"message":"The token is expired"}', users=True)
    assert (status, kind, text) == (403, "authentication_error", "The token is expired")


@given(st.sampled_from([400, 403, 404, 429, 500, 503]), st.binary(max_size=60))
def test_any_other_error_on_paths_that_are_not_translated_passes_byte_for_byte(status: int, body: bytes) -> None:
    headers: Headers = (("Content-Length", str(len(body))), ("x-amzn-errortype", "ThrottlingException"))
    answer = PassingAnswer()
    answer.head(status, headers)
    assert answer.feed(body) == b""
    answer.end()
    assert (answer.failure, answer.headers) == (None, None)
    assert answer.whole == Gathered(status=status, headers=headers, body=body)


@given(st.binary(max_size=60))
def test_answers_that_are_not_translated_pass_as_they_come(body: bytes) -> None:
    answer = PassingAnswer()
    answer.head(200, STREAM)
    assert answer.headers == STREAM
    assert answer.feed(body) == body
    answer.end()
    assert answer.failure is None


def test_an_error_that_is_too_long_to_be_held_is_none_of_aws() -> None:
    # Its end may never come.
    answer = PassingAnswer()
    answer.head(500, JSON)
    answer.feed(b"x" * MAX_GATHERED_BYTES + b"x")
    assert answer.failure is not None


@pytest.mark.parametrize("status", [202, 204, 206, 301, 304])
def test_success_that_bedrock_does_not_have_is_no_answer(status: int) -> None:
    for answer in (InvokeAnswer(credential_is_the_users=False), CountAnswer(credential_is_the_users=False)):
        with pytest.raises(Refused, match=str(status)):
            answer.head(status, JSON)


def test_another_gateways_error_passes_as_it_is() -> None:
    body = b'{"type":"error", "error":{"type":"overloaded_error","message":"x"}}'
    whole, _ = gathered(InvokeAnswer(credential_is_the_users=False), 529, JSON, body)
    assert (whole.status, whole.body) == (529, body)


def test_no_error_is_in_two_tables() -> None:
    assert not CREDENTIAL_REFUSED & set(TYPE_BY_EXCEPTION)


# -- counts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 17, 10**9])
def test_a_count_has_anthropics_name(count: int) -> None:
    answer = CountAnswer(credential_is_the_users=False)
    whole, found = gathered(answer, 200, JSON, json.dumps({"inputTokens": count}).encode())
    assert (whole.status, found) == (200, {"input_tokens": count})


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"17", b'{"inputTokens":"17"}', b'{"inputTokens":true}', b'{"inputTokens":-1}', b"{", b"null"]
)
def test_a_count_that_is_not_there_is_a_failure_and_no_number(body: bytes) -> None:
    answer = CountAnswer(credential_is_the_users=False)
    answer.head(200, JSON)
    answer.feed(body)
    answer.end()
    assert answer.failure is not None
    assert answer.failure.http_status == 502


def test_a_model_that_cannot_be_counted_is_a_clear_refusal() -> None:
    headers = (*JSON, ("x-amzn-ErrorType", "ValidationException"))
    body = b'{"message":"The provided model doesn\'t support counting tokens."}'
    whole, found = gathered(CountAnswer(credential_is_the_users=False), 400, headers, body)
    assert whole.status == 400
    assert found["error"] == {
        "type": "invalid_request_error",
        "message": "The provided model doesn't support counting tokens.",
    }
