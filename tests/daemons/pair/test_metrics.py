"""What both daemons export is what docs/metrics.md lists, and nothing that a client says becomes a series."""

import asyncio
import json
import urllib.request
from uuid import uuid4

from prometheus_client.parser import text_string_to_metric_families

from scripts.described_metrics import DAEMONS, described
from tests.fakes.scripted_upstream import reply, stream
from tests.support.http import send
from tests.support.pair import CENTRAL_KEY, running_pair

PROVIDERS = {"corp": {"TYPE": "openai", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}/v1"}}
CHAT = "/corp/v1/chat/completions"
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
ANSWER = json.dumps({"id": "chatcmpl-1", "choices": [], "usage": USAGE}).encode()


def families_of(daemon):
    """What a daemon exports, by name of the family."""
    with urllib.request.urlopen(f"http://{daemon.addresses['metrics']}/metrics", timeout=5) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    # The library tells of its counters when they began, as gauges.
    return {one.name: one for one in families if not one.name.endswith("_created")}


def value_of(families, sample, **labels):
    family = families[sample.removesuffix("_total").removesuffix("_sum").removesuffix("_count")]
    [value] = [one.value for one in family.samples if one.name == sample and one.labels == labels]
    return value


def count_of(family):
    return sum(one.value for one in family.samples if not one.name.endswith("_created"))


def series_of(families):
    return {
        (one.name, *sorted(one.labels.items()))
        for family in families.values()
        for one in family.samples
        if not one.name.endswith("_created")
    }


async def traffic(pair):
    """Requests of every kind, with all that a client can make up made up."""
    name = uuid4().hex
    good = {"Authorization": f"Bearer {pair.token}", "User-Agent": name, "X-Session-Id": name}
    body = json.dumps({"model": name, "user": name, "messages": []}).encode()
    pair.upstream.script(
        reply(200, ANSWER), stream(b"data: [DONE]\n\n"), reply(429, b"{}"), reply(500, b"{}"), reply(302, b"")
    )
    answers = [await ask(pair, "POST", CHAT, good, body) for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 429, 500, 502]
    assert (await ask(pair, "POST", CHAT, {"Authorization": f"Bearer {name}"}, body)).status == 401
    assert (await ask(pair, "POST", f"/{name}/v1/chat/completions", good, body)).status == 404
    assert (await ask(pair, "GET", f"/corp/{name}", good)).status == 404
    assert (await ask(pair, "PROPFIND", CHAT, good)).status == 405
    return len(body)


async def ask(pair, method, path, headers, body=b""):
    return await send(pair.bridged.addresses["http"], method, f"/api/v2/aibridge{path}", headers, body)


async def test_both_daemons_export_what_is_listed_and_no_client_makes_a_series(tmp_path):
    async with running_pair(tmp_path, PROVIDERS) as pair:
        daemons = dict(zip(DAEMONS, (pair.bridged, pair.credentiald), strict=True))

        async def exported():
            return {name: await asyncio.to_thread(families_of, daemon) for name, daemon in daemons.items()}

        async def recorded(count):
            async with asyncio.timeout(10):
                while count_of((await exported())["credentiald"]["credentiald_interceptions_ended"]) < count:
                    await asyncio.sleep(0.05)
            return await exported()

        await traffic(pair)
        before = await recorded(5)
        body_bytes = await traffic(pair)
        after = await recorded(10)

    for daemon, metrics in described().items():
        families = after[daemon]
        assert {one.name.removesuffix("_total") for one in metrics} == families.keys()
        for one in metrics:
            family = families[one.name.removesuffix("_total")]
            assert (family.type, family.documentation) == (one.type, one.meaning)
            for sample in family.samples:
                if not sample.name.endswith("_created"):
                    assert sample.name in one.samples
                    assert sample.labels.keys() == one.sample_labels - ({"le"} - sample.labels.keys())
        assert series_of(families) == series_of(before[daemon])

    bridge, plane = after["bridged"], after["credentiald"]
    chat = {"operation": "openai.chat_completions"}
    assert value_of(bridge, "bridged_request_duration_seconds_count", **chat) == 14
    assert value_of(bridge, "bridged_time_to_first_byte_seconds_count", **chat) == 8
    assert value_of(bridge, "bridged_response_bytes_total", **chat) == 2 * len(ANSWER + b"data: [DONE]\n\n{}{}")
    assert value_of(bridge, "bridged_request_bytes_total", **chat) == 14 * body_bytes
    assert value_of(bridge, "bridged_upstream_responses_total", provider_type="openai", status="2xx") == 4
    assert value_of(bridge, "bridged_upstream_responses_total", provider_type="openai", status="5xx") == 2
    assert value_of(bridge, "bridged_request_failures_total", reason="ACCESS_TOKEN_INVALID") == 2
    assert value_of(bridge, "bridged_request_failures_total", reason="METHOD_NOT_ALLOWED") == 2
    for daemon, families in after.items():
        assert (value_of(families, f"{daemon}_ready"), value_of(families, f"{daemon}_draining")) == (1, 0)
        assert value_of(families, f"{daemon}_workers") == 1
    tokens = {(one.labels["model"], one.labels["kind"]): one.value for one in plane["credentiald_tokens"].samples}
    assert tokens == {
        ("other", "input"): 12,
        ("other", "output"): 10,
        ("other", "cache_read"): 8,
        ("other", "cache_write"): 0,
    }
    assert value_of(bridge, "bridged_interceptions_reported_total") == 10
    ended = {"provider": "corp", "provider_type": "openai"}
    good = {"outcome": "COMPLETED", "error_category": "none"}
    limited = {"outcome": "UPSTREAM_ERROR", "error_category": "RATE_LIMITED"}
    assert value_of(plane, "credentiald_interceptions_ended_total", **ended, **good) == 4
    assert value_of(plane, "credentiald_interceptions_ended_total", **ended, **limited) == 2
    assert value_of(plane, "credentiald_store_bytes", file="database") > 0
    assert value_of(plane, "credentiald_store_bytes", file="records") > 0
    assert value_of(plane, "credentiald_bridges_heard") <= 1


async def test_gauges_of_what_workers_share_are_told_once(tmp_path):
    async with running_pair(tmp_path, PROVIDERS, "--workers", "2", CREDENTIALD_WORKERS="2") as pair:
        bridge = await asyncio.to_thread(families_of, pair.bridged)
        plane = await asyncio.to_thread(families_of, pair.credentiald)
        sizes = [
            path.stat().st_size
            for path in (tmp_path / "credentiald.db", tmp_path / "credentiald.db-wal")
            if path.exists()
        ]

    assert value_of(bridge, "bridged_ready") == 1
    assert value_of(plane, "credentiald_draining") == 0
    assert value_of(plane, "credentiald_store_bytes", file="database") == sum(sizes)
    assert value_of(plane, "credentiald_records_waiting_age_seconds") == 0
