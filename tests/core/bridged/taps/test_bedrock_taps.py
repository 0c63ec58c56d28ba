"""What only Bedrock's answers have."""

import json

from bridged.model import DialectName, Headers
from bridged.records import AnswerRecords
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
