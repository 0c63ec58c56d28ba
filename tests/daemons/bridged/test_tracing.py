"""The spans of a bridge, and what of a trace goes on to credentiald and to upstreams."""

import asyncio
import json
from pathlib import Path

import grpc
import pytest
from opentelemetry.trace import SpanKind

from bridged.trace_headers import TraceHeaders
from bridged.tracing import Tracing
from tests.fakes.credentiald import FakeCredentiald, Refuse, provider
from tests.fakes.scripted_upstream import CUT, ScriptedUpstream, hang_up, reply, stream
from tests.support.bridge import AUTH, running_bridge, until
from tests.support.raw_http import raw_client, raw_exchange, request
from tests.support.traces import Traces

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACED = ("traceparent", f"00-{TRACE}-{SPAN}-01")
UNSAMPLED = ("traceparent", f"00-{TRACE}-{SPAN}-00")
MESSAGES, BODY = "/anthropic/v1/messages", b'{"model":"claude-x","stream":true,"messages":[]}'
DATA = Path(__file__).parents[2] / "data" / "taps"
# What the model thought, said and did in the recorded answer.
TOLD = ("Two cities", "I look at ", "toolu_01")
EVERYWHERE = TraceHeaders(everywhere=True)


@pytest.fixture
def traces() -> Traces:
    return Traces()


def post(*headers: tuple[str, str], target: str = MESSAGES, body: bytes = BODY) -> bytes:
    return request("POST", target, headers=[AUTH, *headers], body=body)


async def test_a_request_is_three_spans_of_its_clients_trace(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, traces: Traces
) -> None:
    async with running_bridge(credentiald, tracing=Tracing(traces.tracer)) as bridge:
        answer = await raw_exchange(bridge.port, post(TRACED, ("tracestate", "vendor=1")))

    server, resolve, chat = (traces.named(name) for name in ("POST /v1/messages", "resolve", "chat claude-x"))
    assert len(traces.spans) == 3
    assert {f"{span.context.trace_id:032x}" for span in traces.spans} == {TRACE}
    assert f"{server.parent.span_id:016x}" == SPAN
    assert resolve.parent.span_id == chat.parent.span_id == server.context.span_id
    assert [span.kind for span in (server, resolve, chat)] == [SpanKind.SERVER, SpanKind.CLIENT, SpanKind.CLIENT]
    assert all(span.status.is_ok or span.status.status_code.name == "UNSET" for span in traces.spans)
    assert {span.context.trace_state.to_header() for span in traces.spans} == {"vendor=1"}
    interception_id = answer.header("x-interception-id")
    assert {span.attributes["drawbridge.interception_id"] for span in traces.spans} == {interception_id}
    assert {
        name: chat.attributes[name] for name in chat.attributes if name.startswith(("gen_ai.", "http.", "server."))
    } == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-x",
        "gen_ai.request.stream": True,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": int(upstream.url.rpartition(":")[2]),
    }
    assert [event.name for event in chat.events] == ["first_byte"]
    assert server.attributes["http.route"] == "/v1/messages"
    assert server.attributes["drawbridge.provider"] == "anthropic"
    assert server.attributes["drawbridge.resolution_id"] == chat.attributes["drawbridge.resolution_id"] != ""


async def test_the_call_tells_what_the_upstream_said_of_its_answer_and_nothing_of_what_is_in_it(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, traces: Traces
) -> None:
    events = (DATA / "anthropic_messages.sse").read_bytes()
    upstream.script(stream(events))
    async with running_bridge(credentiald, tracing=Tracing(traces.tracer)) as bridge:
        answer = await raw_exchange(bridge.port, post())

    assert answer.body == events
    said = traces.named("chat claude-x").attributes
    assert {name: value for name, value in said.items() if name.startswith(("gen_ai.usage.", "gen_ai.response."))} == {
        "gen_ai.response.id": "msg_01",
        "gen_ai.response.model": "claude-sonnet-4-5-20250929",
        "gen_ai.usage.input_tokens": 3883 + 30464 + 12,
        "gen_ai.usage.output_tokens": 61,
        "gen_ai.usage.cache_read.input_tokens": 30464,
        "gen_ai.usage.cache_creation.input_tokens": 12,
    }
    exported = "".join(span.to_json() for span in traces.spans)
    assert [text for text in TOLD if text in exported or text.encode() not in events] == []


async def test_an_error_within_a_good_answer_is_one_of_the_call(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, traces: Traces
) -> None:
    error = b'{"type":"error","error":{"type":"overloaded_error","message":"the secret of the upstream"}}'
    upstream.script(stream(b"event: error\ndata: " + error + b"\n\n"))
    async with running_bridge(credentiald, tracing=Tracing(traces.tracer)) as bridge:
        await raw_exchange(bridge.port, post())

    chat = traces.named("chat claude-x")
    assert (chat.status.status_code.name, chat.attributes["error.type"]) == ("ERROR", "overloaded_error")
    assert traces.named("POST /v1/messages").status.status_code.name == "UNSET"
    assert "the secret" not in "".join(span.to_json() for span in traces.spans)


async def test_credentiald_is_told_the_span_that_asks(credentiald: FakeCredentiald, traces: Traces) -> None:
    async with running_bridge(credentiald, tracing=Tracing(traces.tracer)) as bridge:
        await raw_exchange(bridge.port, post(TRACED))

    asked = f"{traces.named('resolve').context.span_id:016x}"
    assert credentiald.resolves[0].trace_parent == f"00-{TRACE}-{asked}-01"


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", "nonsense")],
        [("traceparent", f"00-{'0' * 32}-{SPAN}-01")],
        [TRACED, TRACED],
        [("tracestate", "vendor=1")],
        [],
    ],
)
async def test_without_a_valid_parent_a_trace_begins_here(
    credentiald: FakeCredentiald, traces: Traces, headers: list[tuple[str, str]]
) -> None:
    async with running_bridge(credentiald, tracing=Tracing(traces.tracer)) as bridge:
        answer = await raw_exchange(bridge.port, post(*headers))

    server = traces.named("POST /v1/messages")
    assert answer.status == 200
    assert server.parent is None
    assert not server.context.trace_state
    assert {span.context.trace_id for span in traces.spans} == {server.context.trace_id}


async def test_what_the_client_does_not_record_nobody_records(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, traces: Traces
) -> None:
    async with running_bridge(credentiald, tracing=Tracing(traces.tracer), send_trace_headers=EVERYWHERE) as bridge:
        answer = await raw_exchange(bridge.port, post(UNSAMPLED))

    assert answer.status == 200
    assert traces.spans == ()
    assert credentiald.resolves[0].trace_parent == ""
    sent = upstream.requests[0].header("traceparent")
    assert sent is not None
    assert sent.startswith(f"00-{TRACE}-")
    assert sent.endswith("-00")


@pytest.mark.parametrize("with_tracing", [True, False])
@pytest.mark.parametrize("sends", [None, TraceHeaders(frozenset({"openai"}))])
async def test_no_upstream_is_told_of_a_trace_unless_its_provider_is_named(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, traces: Traces, with_tracing: bool, sends: object
) -> None:
    tracing = Tracing(traces.tracer) if with_tracing else None
    async with running_bridge(credentiald, tracing=tracing, send_trace_headers=sends) as bridge:  # type: ignore[arg-type]
        await raw_exchange(bridge.port, post(TRACED, ("tracestate", "a=1"), ("baggage", "b=2")))

    sent = {name.lower() for name, _ in upstream.requests[0].headers}
    assert sent.isdisjoint({"traceparent", "tracestate", "baggage"})
    assert TRACE.encode() not in upstream.requests[0].raw_head


@pytest.mark.parametrize("sends", [EVERYWHERE, TraceHeaders(frozenset({"openai", "anthropic"}))])
async def test_an_upstream_that_may_know_is_told_our_span(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, traces: Traces, sends: TraceHeaders
) -> None:
    async with running_bridge(credentiald, tracing=Tracing(traces.tracer), send_trace_headers=sends) as bridge:
        await raw_exchange(bridge.port, post(TRACED, ("tracestate", "a=1"), ("baggage", "b=2")))

    arrived = upstream.requests[0]
    called = f"{traces.named('chat claude-x').context.span_id:016x}"
    assert arrived.header("traceparent") == f"00-{TRACE}-{called}-01"
    assert arrived.header("tracestate") == "a=1"
    assert arrived.header("baggage") == "b=2"


async def test_without_traces_an_upstream_that_may_know_gets_the_clients_headers_as_they_came(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    headers = [("Traceparent", "nonsense"), ("tracestate", "a=1"), ("baggage", "b=2"), ("baggage", f"t={AUTH[1][7:]}")]
    async with running_bridge(credentiald, send_trace_headers=EVERYWHERE) as bridge:
        await raw_exchange(bridge.port, post(*headers))

    arrived = [
        pair for pair in upstream.requests[0].headers if pair[0].lower() in ("traceparent", "tracestate", "baggage")
    ]
    # Not the one with the client's token in it.
    assert arrived == headers[:3]


async def test_an_upstreams_error_is_an_error_of_its_span_and_of_ours_only_from_500_on(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    found = {}
    for status in (429, 529):
        traces = Traces()
        upstream.script(reply(status, b"{}"))
        async with running_bridge(credentiald, tracing=Tracing(traces.tracer)) as bridge:
            await raw_exchange(bridge.port, post())
        for name in ("chat claude-x", "POST /v1/messages"):
            span = traces.named(name)
            found[status, name] = (span.status.status_code.name, span.attributes.get("error.type"))

    assert found == {
        (429, "chat claude-x"): ("ERROR", "429"),
        (429, "POST /v1/messages"): ("UNSET", None),
        (529, "chat claude-x"): ("ERROR", "529"),
        (529, "POST /v1/messages"): ("ERROR", "529"),
    }


@pytest.mark.parametrize(
    ("script", "head_sent"), [(hang_up(), False), (stream(b"event: ping\ndata: {}\n\n", CUT), True)]
)
async def test_an_upstream_that_breaks_off_is_an_error_of_both_spans(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, traces: Traces, script: object, head_sent: bool
) -> None:
    upstream.default = script  # type: ignore[assignment]
    async with running_bridge(credentiald, tracing=Tracing(traces.tracer)) as bridge:
        await raw_exchange(bridge.port, post())

    for name in ("chat claude-x", "POST /v1/messages"):
        span = traces.named(name)
        assert span.status.status_code.name == "ERROR"
        assert span.attributes["error.type"] == "UPSTREAM_UNREACHABLE"
        # Text of an error would be somebody's own.
        assert span.status.description is None
    assert bool(traces.named("chat claude-x").events) is head_sent


async def test_a_refusal_of_credentialds_is_told_by_its_reason_and_calls_nobody(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, traces: Traces
) -> None:
    credentiald.refuse = Refuse(code=grpc.StatusCode.PERMISSION_DENIED, reason="PROVIDER_DISABLED")
    async with running_bridge(credentiald, tracing=Tracing(traces.tracer)) as bridge:
        answer = await raw_exchange(bridge.port, post())

    resolve, server = traces.named("resolve"), traces.named("POST /v1/messages")
    assert len(traces.spans) == 2
    assert resolve.attributes["error.type"] == server.attributes["error.type"] == "PROVIDER_DISABLED"
    assert resolve.status.status_code.name == "ERROR"
    assert server.attributes["http.response.status_code"] == answer.status
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("method", "target", "name"),
    [
        ("GET", "/anthropic/secret-in-a-path?key=secret", "GET"),
        ("PROPFIND", "/anthropic/v1/messages", "HTTP"),
        ("GET", "/../secret", "GET"),
    ],
)
async def test_a_request_for_nothing_that_is_forwarded_has_no_path_in_its_span(
    credentiald: FakeCredentiald, traces: Traces, method: str, target: str, name: str
) -> None:
    async with running_bridge(credentiald, tracing=Tracing(traces.tracer)) as bridge:
        answer = await raw_exchange(bridge.port, request(method, target, headers=[AUTH]))

    [server] = traces.spans
    assert server.name == name
    assert server.attributes["http.response.status_code"] == answer.status
    assert "secret" not in json.dumps(dict(server.attributes)) + server.name


async def test_ids_in_a_path_are_not_told(credentiald: FakeCredentiald, traces: Traces) -> None:
    async with running_bridge(credentiald, tracing=Tracing(traces.tracer)) as bridge:
        await raw_exchange(bridge.port, request("GET", "/openai/v1/responses/resp_secret?x=1", headers=[AUTH]))

    assert sorted(span.name for span in traces.spans) == ["GET /v1/responses/{id}", "GET /v1/responses/{id}", "resolve"]
    assert "resp_secret" not in "".join(span.to_json() for span in traces.spans)
    called = [span for span in traces.spans if span.kind is SpanKind.CLIENT and span.name != "resolve"]
    assert not any(name.startswith("gen_ai.") for name in called[0].attributes)


async def test_a_client_that_leaves_ends_the_spans_and_is_nobodys_failure(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, traces: Traces
) -> None:
    never = asyncio.Event()
    upstream.script(stream(b"event: ping\ndata: {}\n\n", never))
    async with running_bridge(credentiald, tracing=Tracing(traces.tracer)) as bridge:
        async with raw_client(bridge.port) as client:
            await client.send(post())
            await client.read_head()
            await client.read_some()
        await until(lambda: len(traces.spans) == 3)

    for name in ("chat claude-x", "POST /v1/messages"):
        span = traces.named(name)
        assert span.attributes["error.type"] == "CLIENT_GONE"
        assert span.status.status_code.name == "UNSET"


async def test_a_client_that_leaves_while_credentiald_is_asked_ends_the_spans(
    credentiald: FakeCredentiald, traces: Traces
) -> None:
    credentiald.hang()
    async with running_bridge(credentiald, tracing=Tracing(traces.tracer)) as bridge:
        async with raw_client(bridge.port) as client:
            await client.send(post())
            await until(lambda: bool(credentiald.resolves))
        await until(lambda: len(traces.spans) == 2)
        credentiald.go_on()

    assert traces.named("resolve").attributes["error.type"] == "CLIENT_GONE"


async def test_an_upstream_that_cannot_be_reached_is_an_error_of_its_span(
    credentiald: FakeCredentiald, traces: Traces
) -> None:
    credentiald.providers["openrouter"] = provider("openrouter", "http://127.0.0.1:9/v1/", api_key="sk-x")
    async with running_bridge(credentiald, tracing=Tracing(traces.tracer)) as bridge:
        answer = await raw_exchange(
            bridge.port, post(target="/openrouter/v1/chat/completions", body=b'{"model":"a/b","messages":[]}')
        )

    assert answer.status == 502
    chat = traces.named("chat a/b")
    assert chat.attributes["gen_ai.provider.name"] == "openrouter"
    assert chat.attributes["error.type"] == "UPSTREAM_UNREACHABLE"
    assert chat.status.status_code.name == "ERROR"
