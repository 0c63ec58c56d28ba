"""What only Bedrock's answers have."""

import json

import pytest

from bridged.model import DialectName, Headers
from bridged.records import AnswerRecords, Trouble
from tests.support.event_stream import event, exception, message
from tests.support.taps import MESSAGES, WHOLE, invoke_chunk, tapped


def bedrock(operation: str, body: bytes, headers: Headers = MESSAGES) -> AnswerRecords:
    return tapped([body], dialect=DialectName.BEDROCK, operation=f"bedrock.{operation}", headers=headers)


def test_models_of_other_vendors_are_counted_by_bedrock() -> None:
    metrics = {"inputTokenCount": 7, "outputTokenCount": 3, "cacheReadInputTokenCount": 2}
    last = {"generation": "", "stop_reason": "stop", "amazon-bedrock-invocationMetrics": metrics}
    found = bedrock(
        "invoke_model_stream", invoke_chunk(b'{"generation":"Hi"}') + invoke_chunk(json.dumps(last).encode())
    )
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens, found.usage.cache_read_input_tokens) == (7, 3, 2)
    assert found.msg_id == "req-1"
    assert not found.partial


def test_a_whole_answer_of_other_vendors_is_counted_by_its_headers() -> None:
    headers = (
        ("Content-Type", "application/json"),
        ("X-Amzn-Bedrock-Input-Token-Count", "7"),
        ("X-Amzn-Bedrock-Output-Token-Count", "3"),
    )
    found = bedrock("invoke_model", b'{"generation":"Hi"}', headers)
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens) == (7, 3)


METRICS = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 10, "outputTokenCount": 5}}


@pytest.mark.parametrize(
    "said",
    [
        {"message": "", "finishReason": "stop"},
        {"usage": "none", "index": None, "type": None},
        {"delta": "Hi", "error": None, "content_block": 7, "type": "content-delta"},
        {"message": {"id": 7, "usage": {"prompt_tokens": 10}}},
    ],
)
def test_an_event_of_another_vendor_may_have_fields_of_anthropics_names(said: dict[str, object]) -> None:
    """Also before the last one; and what has no count of Bedrock's has none."""
    for before, with_count in ((said, said | METRICS), (said, METRICS)):
        chunks = [invoke_chunk(json.dumps(one).encode()) for one in (before, before, with_count)]
        found = bedrock("invoke_model_stream", b"".join(chunks))
        assert found.usage is not None
        assert (found.usage.input_tokens, found.usage.output_tokens) == (10, 5)
        assert (found.partial, found.troubles) == (False, frozenset())
        cut = bedrock("invoke_model_stream", b"".join(chunks[:2]))
        assert (cut.usage, cut.partial, cut.troubles) == (None, True, frozenset())


@pytest.mark.parametrize(
    "answer",
    [
        {"id": 1234, "prompt": {"text": "Hi"}, "completions": [{"data": {"text": "Hello"}}]},
        {"message": "Hello", "content": "Hello", "model": ["m"]},
        {"id": "x", "type": 5, "usage": [10, 5]},
        [{"generated_text": "Hello"}],
    ],
)
def test_a_whole_answer_of_another_vendor_is_whole_whatever_its_fields_are(answer: object) -> None:
    headers = (
        ("Content-Type", "application/json"),
        ("X-Amzn-Bedrock-Input-Token-Count", "10"),
        ("X-Amzn-Bedrock-Output-Token-Count", "5"),
    )
    found = bedrock("invoke_model", json.dumps(answer).encode(), headers)
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens, found.usage.partial) == (10, 5, False)
    assert (found.partial, found.troubles) == (False, frozenset())


@pytest.mark.parametrize(
    "broken",
    [
        b'{"type":"message_delta","delta":"Hi","content":"Hi","usage":{"output_tokens":5}}',
        b'{"usage":{"output_tokens":5},"x":',
    ],
)
def test_an_event_that_is_one_of_anthropics_or_no_json_is_garbage(broken: bytes) -> None:
    found = bedrock("invoke_model_stream", invoke_chunk(b'{"type":"ping"}') + invoke_chunk(broken))
    assert (found.partial, found.troubles) == (True, {Trouble.GARBAGE})
    whole = bedrock("invoke_model", broken.replace(b"message_delta", b"message"), WHOLE)
    assert (whole.partial, whole.troubles) == (True, {Trouble.GARBAGE})
    for one in (found, whole):
        assert one.usage is not None
        assert one.usage.output_tokens == 5


def test_bedrocks_count_is_read_beside_what_is_garbage() -> None:
    last = {"type": "message_stop", "index": "none", **METRICS}
    found = bedrock("invoke_model_stream", invoke_chunk(json.dumps(last).encode()))
    assert found.usage is not None
    assert (found.usage.output_tokens, found.partial, found.troubles) == (5, False, {Trouble.GARBAGE})


def test_the_vendors_own_count_comes_first() -> None:
    headers = (("Content-Type", "application/json"), ("x-amzn-bedrock-output-token-count", "99"))
    found = bedrock("invoke_model", b'{"usage":{"input_tokens":1,"output_tokens":2}}', headers)
    assert found.usage is not None
    assert found.usage.output_tokens == 2


def test_the_first_chunk_gives_the_id_also_without_a_count() -> None:
    start = b'{"type":"message_start","message":{"id":"m","model":"x"}}'
    assert bedrock("invoke_model_stream", invoke_chunk(start)).msg_id == "m"


def test_no_count_at_all_is_no_usage() -> None:
    headers = (("Content-Type", "application/json"), ("x-amzn-bedrock-output-token-count", "many"))
    assert bedrock("invoke_model", b'{"generation":"Hi"}', headers).usage is None


def test_a_tool_that_bedrock_runs_is_no_call_of_the_client() -> None:
    tool = {"toolUseId": "t", "name": "nova_grounding", "type": "server_tool_use"}
    own = {"toolUseId": "u", "name": "get_weather"}
    parts = [
        ("contentBlockStart", {"contentBlockIndex": 0, "start": {"toolUse": tool}}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"toolUse": {"input": '{"q":1}'}}}),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("contentBlockStart", {"contentBlockIndex": 1, "start": {"toolUse": own}}),
        ("contentBlockStop", {"contentBlockIndex": 1}),
    ]
    whole = {"output": {"message": {"content": [{"toolUse": tool | {"input": {}}}, {"toolUse": own | {"input": {}}}]}}}
    stream = b"".join(event(kind, json.dumps(said).encode()) for kind, said in parts)
    for found in (bedrock("converse_stream", stream), bedrock("converse", json.dumps(whole).encode(), WHOLE)):
        assert [(call.tool, call.input) for call in found.tools] == [("get_weather", "{}")]


def test_exceptions_and_errors_of_a_stream_are_told() -> None:
    body = event("messageStart", b'{"role":"assistant"}') + exception("throttlingException", b'{"message":"slow"}')
    found = bedrock("converse_stream", body)
    assert (found.error_type, found.error_message, found.partial) == ("throttlingException", "slow", True)
    headers = {":message-type": "error", ":error-code": "InternalError", ":error-message": "oops"}
    found = bedrock("invoke_model_stream", message(headers))
    assert (found.error_type, found.error_message, found.partial) == ("InternalError", "oops", True)
