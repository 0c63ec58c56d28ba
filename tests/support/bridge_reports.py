"""Turns that a bridge reports, and what is read of its reports."""

import json

from drawbridge.v1 import record_pb2
from drawbridge.v1 import record_service_pb2 as pb
from prometheus_client import CollectorRegistry

from tests.fakes.credentiald import FakeCredentiald
from tests.support.bridge import AUTH, until
from tests.support.raw_http import request

CHAT_ANSWER = (
    b'{"id":"c-1","model":"gpt-5-2026","choices":[{"message":{"content":"Hi","tool_calls":[{"id":"call-1","type":"function",'
    b'"function":{"name":"ls","arguments":"{\\"path\\":\\".\\"}"}}]},"finish_reason":"tool_calls"}],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":6}}}'
)
USAGE = b'data: {"id":"c-1","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":4}}\n\n'
CHUNKS = [
    b'data: {"id":"c-1","model":"gpt-5-2026","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n',
    b'data: {"id":"c-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
]
DONE = b"data: [DONE]\n\n"


def chat(**more: object) -> bytes:
    return json.dumps({"model": "gpt-5", "messages": [{"role": "user", "content": "list the files"}], **more}).encode()


def ask(body: bytes, target: str = "/openai/v1/chat/completions", *headers: tuple[str, str]) -> bytes:
    return request("POST", target, headers=[AUTH, ("User-Agent", "codex_cli_rs/0.169"), *headers], body=body)


async def reported(credentiald: FakeCredentiald, count: int = 1) -> list[pb.InterceptionRecords]:
    await until(lambda: len(credentiald.reported) >= count)
    assert len(credentiald.reported) == count
    return credentiald.reported


def outcome(report: pb.InterceptionRecords) -> tuple[str, str, str, int]:
    end = report.end
    return (
        record_pb2.InterceptionOutcome.Name(end.outcome).removeprefix("INTERCEPTION_OUTCOME_"),
        record_pb2.UpstreamErrorCategory.Name(end.error_category).removeprefix("UPSTREAM_ERROR_CATEGORY_"),
        end.error_reason,
        end.http_status,
    )


def sample(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return registry.get_sample_value(name, labels) or 0.0
