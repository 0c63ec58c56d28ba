"""Traces of the pair as they reach a collector: one for a request, without secrets, and none where they are off."""

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.fakes.otlp_collector import Collector, running_collector
from tests.fakes.scripted_upstream import hang_up, reply
from tests.support.http import Answer, send
from tests.support.pair import CENTRAL_KEY, Pair, running_pair

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACED = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
PROVIDERS = {
    "corp": {"TYPE": "anthropic", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}"},
    "lab": {"TYPE": "openai", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}/v1"},
}
PROMPT = "a prompt that nobody else may read"
BODY = json.dumps({"model": "claude-x", "messages": [{"role": "user", "content": PROMPT}]}).encode()
RESOLVE = "drawbridge.v1.CredentialService/ResolveProviderStream"
COLLECTORS_KEY = "collector-canary-55aa"
DEBUG = {"CREDENTIALD_LOG_LEVEL": "debug"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as running:
        yield running


def exported(collector: Collector) -> dict[str, str]:
    """The variables that users of OpenTelemetry set."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"api-key={COLLECTORS_KEY}",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }


async def ask(pair: Pair, provider: str = "corp", path: str = "/v1/messages", **headers: str) -> Answer:
    bearer = {"Authorization": f"Bearer {pair.token}", **headers}
    return await send(pair.bridged.addresses["http"], "POST", f"/{provider}{path}", bearer, BODY)


async def stop(pair: Pair) -> None:
    """Both daemons send what they still have."""
    for daemon in (pair.bridged, pair.credentiald):
        assert await asyncio.to_thread(daemon.stop) == 0


async def test_a_request_is_one_trace_from_its_client_through_both_daemons(tmp_path, collector) -> None:
    async with running_pair(tmp_path, PROVIDERS, "--log-level", "debug", **exported(collector), **DEBUG) as pair:
        answer = await ask(pair, **TRACED)
        await stop(pair)

    server, asks, chat = (collector.span(name) for name in ("POST /v1/messages", "resolve", "chat claude-x"))
    resolved = collector.span(RESOLVE)
    assert {one.trace_id for one in (server, asks, chat, resolved)} == {TRACE}
    assert (server.parent_id, server.service, server.kind) == (SPAN, "bridged", "SERVER")
    assert asks.parent_id == chat.parent_id == server.span_id
    assert (resolved.parent_id, resolved.service, resolved.kind) == (asks.span_id, "credentiald", "SERVER")
    # One request in traces, in what the client is told, and in the log.
    interception_id = answer.header("x-interception-id")
    for one in (server, asks, chat, resolved):
        assert one.attributes["drawbridge.interception_id"] == interception_id
    assert resolved.attributes["drawbridge.resolution_id"] == chat.attributes["drawbridge.resolution_id"]
    [line] = [line for line in pair.bridged.lines if line["msg"] == "request"]
    assert (line["interception_id"], line["trace_id"]) == (interception_id, TRACE)
    # The commit of its records is no part of it, but says that it was in there.
    commits = collector.named("commit records", "credentiald")
    assert commits
    assert {tuple(one.linked_traces) for one in commits} == {(TRACE,)}
    assert TRACE not in {one.trace_id for one in commits}
    assert {resource["deployment.environment.name"] for resource in collector.resources} == {"test"}


async def test_administration_is_traced_as_well_and_pings_are_not(tmp_path, collector) -> None:
    async with running_pair(tmp_path, PROVIDERS, **exported(collector)) as pair:
        pair.command("users", "list")
        await stop(pair)

    assert {one.kind for one in collector.named("drawbridge.v1.AdminService/ListUsers")} == {"SERVER"}
    assert not [one for one in collector.spans if "Ping" in one.name]


async def test_what_fails_is_marked_with_its_reason(tmp_path, collector) -> None:
    async with running_pair(tmp_path, PROVIDERS, **exported(collector)) as pair:
        pair.upstream.script(hang_up())
        broken = await ask(pair)
        other = "y" if pair.token.endswith("x") else "x"
        refused = await ask(pair, Authorization=f"Bearer {pair.token[:-1]}{other}")
        await stop(pair)

    assert (broken.status, refused.status) == (502, 401)
    chat = collector.span("chat claude-x")
    assert (chat.is_error, chat.attributes["error.type"]) == (True, "UPSTREAM_UNREACHABLE")
    by_status = {one.attributes["http.response.status_code"]: one for one in collector.named("POST /v1/messages")}
    assert (by_status[502].is_error, by_status[401].is_error) == (True, False)
    reasons = {one.attributes.get("error.type") for one in collector.named(RESOLVE)}
    assert reasons == {None, by_status[401].attributes["error.type"]}


async def test_nothing_secret_is_exported(tmp_path, collector) -> None:
    own, stray = "sk-canary-own-93b2aa", "sk-canary-stray-7d41f0"
    async with running_pair(tmp_path, PROVIDERS, **exported(collector)) as pair:
        pair.upstream.default = reply(200, json.dumps({"id": "msg_1", "content": f"an answer, {stray}"}).encode())
        await ask(pair, **TRACED, tracestate=f"a={stray}", baggage=f"b={stray}", cookie=stray)
        await ask(pair, **TRACED, tracestate="a canary-in-a-state")
        await ask(pair, **{"X-Coder-AI-Governance-Token": pair.token, "Authorization": f"Bearer {own}"})
        await ask(pair, provider=pair.token)
        await ask(pair, path=f"/{pair.token}?key={stray}")
        await ask(pair, path=f"/v1/messages?key={stray}")
        await ask(pair, Authorization=f"Bearer {stray}")
        model = json.dumps({"model": pair.token, "messages": []}).encode()
        bearer = {"Authorization": f"Bearer {pair.token}"}
        await send(pair.bridged.addresses["http"], "POST", "/corp/v1/messages", bearer, model)
        tokens = [(tmp_path / f"credentiald.{role}-token").read_text().strip() for role in ("admin", "bridge")]
        user = json.loads(pair.command("users", "list", "--json"))[0]
        await stop(pair)

    assert len(collector.named("POST /v1/messages")) >= 4
    for secret in (CENTRAL_KEY, own, stray, pair.token, *tokens, PROMPT, "an answer", "ann", user["id"]):
        assert secret.encode() not in collector.raw.replace(COLLECTORS_KEY.encode(), b""), secret[:12]
    # What the collector is asked with is its own, and nobody else's.
    assert COLLECTORS_KEY.encode() in collector.raw
    assert COLLECTORS_KEY not in pair.output
    assert "canary-in-a-state" not in pair.output


async def test_a_third_party_is_told_nothing_unless_it_is_named(tmp_path, collector) -> None:
    sends = ("--send-trace-headers", "lab")
    async with running_pair(tmp_path, PROVIDERS, *sends, **exported(collector)) as pair:
        await ask(pair, **TRACED, tracestate="a=1", baggage="b=2")
        await ask(pair, provider="lab", path="/v1/chat/completions", **TRACED)
        await stop(pair)
        third, own = pair.upstream.requests

    assert not [name for name, _ in third.headers if name.lower() in ("traceparent", "tracestate", "baggage")]
    assert TRACE.encode() not in third.raw_head
    [called] = [one for one in collector.named("chat claude-x") if one.attributes["drawbridge.provider"] == "lab"]
    assert own.header("traceparent") == f"00-{TRACE}-{called.span_id}-01"


async def test_a_collector_that_is_away_delays_neither_requests_nor_the_end(tmp_path) -> None:
    async with running_pair(tmp_path, PROVIDERS, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9") as pair:
        answers = [await ask(pair) for _ in range(5)]
        async with asyncio.timeout(12):
            await stop(pair)

    assert {answer.status for answer in answers} == {200}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
    ],
)
async def test_nothing_of_opentelemetry_is_loaded_while_traces_are_off(tmp_path, environ) -> None:
    async with running_pair(tmp_path, PROVIDERS, PYTHONPROFILEIMPORTTIME="1", **environ) as pair:
        assert (await ask(pair, **TRACED)).status == 200
        await stop(pair)

    for daemon in (pair.bridged, pair.credentiald):
        loaded = {line.rpartition("|")[2].strip() for line in daemon.errors if line.startswith("import time:")}
        assert {"uvloop", "daemonkit.trace_settings"} <= loaded
        assert not [name for name in loaded if name.startswith("opentelemetry")]
        assert loaded.isdisjoint({"daemonkit.tracing", "bridged.tracing", "credentiald.tracing"})
