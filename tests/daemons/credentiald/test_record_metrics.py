"""What credentiald counts of records: each token once, under names that somebody has configured."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from drawbridge.v1 import admin_service_pb2 as admin
from drawbridge.v1 import provider_pb2, record_pb2, record_service_pb2

from credentiald import record_rounds
from credentiald.metrics import Metrics
from credentiald.record_metrics import StoreSizes
from credentiald.record_rounds import Rounds, running_book
from credentiald.record_rules import KeepRules, StrayNames, parse_keep_rule
from credentiald.watching import look, tell_strays
from tests.support.credentiald import bearer, running
from tests.support.pair import environment_of
from tests.support.processes import credentiald
from tests.support.reports import INSTANCE, Bridge, whole


class Clock:
    def __init__(self):
        self.now = datetime.now(UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def metrics():
    return Metrics("test")


def series(metrics, name):
    """The samples of a metric by the values of their labels, zeros left out."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == name and sample.value
    }


def a_usage(**changes):
    values = {
        "id": str(uuid4()), "response_id": "r", "input_tokens": 1, "output_tokens": 20,
        "cache_read_input_tokens": 300, "cache_write_input_tokens": 4000,
    }  # fmt: skip
    return record_pb2.TokenUsage(**values | changes)


async def provider_and_token(one, name="corp"):
    _, token = await one.make_user(f"user-of-{name}")
    await one.make_provider(name, flags=(True, False, False), key="sk-test-4711")
    return token


async def test_each_token_counts_once_and_in_one_kind_however_often_it_is_reported(tmp_path, metrics):
    async with running(tmp_path, metrics=metrics) as one:
        token = await provider_and_token(one)
        bridge = Bridge(one)
        _, receipt = await bridge.resolve(token)
        report = whole(receipt, token_usages=[a_usage(), a_usage()])
        for _ in range(3):
            assert await bridge.report(report) == {}

    assert series(metrics, "credentiald_tokens_total") == {
        ("corp", "other", "input"): 2,
        ("corp", "other", "output"): 40,
        ("corp", "other", "cache_read"): 600,
        ("corp", "other", "cache_write"): 8000,
    }
    assert series(metrics, "credentiald_records_stored_total") == {
        ("interception", "corp"): 1,
        ("token_usage", "corp"): 2,
        ("prompt", "corp"): 1,
        ("tool_call", "corp"): 1,
        ("model_thought", "corp"): 1,
    }
    assert series(metrics, "credentiald_interceptions_ended_total") == {("COMPLETED", "corp", "openai", "none"): 1}


async def test_models_that_clients_make_up_share_one_name_and_configured_ones_have_theirs(tmp_path, metrics):
    async with running(tmp_path, metrics=metrics) as one:
        token = await provider_and_token(one)
        metrics.records.know({"corp": "openai"}, {("corp", "gpt-5"), ("other-provider", "made-up-1")})
        bridge = Bridge(one)
        for model in ("gpt-5", "made-up-1", "made-up-2"):
            _, receipt = await bridge.resolve(token, model=model)
            await bridge.report(whole(receipt, token_usages=[a_usage()]))

    counted = series(metrics, "credentiald_tokens_total")
    assert {model for _, model, _ in counted} == {"gpt-5", "other"}
    assert (counted["corp", "gpt-5", "input"], counted["corp", "other", "input"]) == (1, 2)


async def test_models_that_a_provider_maps_to_have_their_names_without_a_price(tmp_path, metrics):
    mapped = provider_pb2.BedrockOptions(
        region="us-east-1", model="big-v1", small_fast_model="small-v1", models={"claude-fast": "fast-v1"}
    )
    async with running(tmp_path, metrics=metrics) as one:
        _, token = await one.make_user("ann")
        await one.make_provider("corp", "bedrock", key="ABSKc2VjcmV0", bedrock=mapped)
        await look(one.plane, one.stored, metrics)
        bridge = Bridge(one)
        for model in ("anything", "claude-haiku", "claude-fast"):
            _, receipt = await bridge.resolve(token, operation="anthropic.messages", model=model)
            await bridge.report(whole(receipt, token_usages=[a_usage()]))

    counted = {model for _, model, _ in series(metrics, "credentiald_tokens_total")}
    assert counted == {"big-v1", "small-v1", "fast-v1"}


@pytest.mark.parametrize("changes", [{}, {"tool_calls": []}])
async def test_what_ends_after_its_provider_is_gone_counts_as_other(tmp_path, metrics, changes):
    async with running(tmp_path, metrics=metrics) as one:
        token = await provider_and_token(one)
        bridge = Bridge(one)
        await look(one.plane, one.stored, metrics)
        _, receipt = await bridge.resolve(token)
        await one.admin.DeleteProvider(admin.DeleteProviderRequest(name="corp"), metadata=bearer(one.admin_token))
        await look(one.plane, one.stored, metrics)
        await bridge.report(whole(receipt, **changes))
        counted = [
            series(metrics, f"credentiald_{name}_total") for name in ("tokens", "records_stored", "interceptions_ended")
        ]
        assert not any("corp" in labels for one_series in counted for labels in one_series)
        assert counted[1]["token_usage", "other"] == 1
        assert counted[2]["COMPLETED", "other", "openai", "none"] == 1
        # Of one that is there again it is told again.
        await one.make_provider("corp", flags=(True, False, False), key="sk-test-4711")
        await look(one.plane, one.stored, metrics)
        _, receipt = await bridge.resolve(token)
        await bridge.report(whole(receipt))
        assert series(metrics, "credentiald_records_stored_total")["token_usage", "corp"] == 1


async def test_ends_are_told_by_provider_and_kind_of_error(tmp_path, metrics):
    overloaded = record_service_pb2.InterceptionEnd(
        outcome=record_pb2.INTERCEPTION_OUTCOME_UPSTREAM_ERROR,
        error_category=record_pb2.UPSTREAM_ERROR_CATEGORY_OVERLOADED,
        http_status=529,
    )
    async with running(tmp_path, metrics=metrics) as one:
        tokens = {name: await provider_and_token(one, name) for name in ("fails", "serves")}
        bridge = Bridge(one)
        for name, changes in (("fails", {"end": overloaded}), ("serves", {}), ("fails", {"end": overloaded})):
            _, receipt = await bridge.resolve(tokens[name], provider=name)
            await bridge.report(whole(receipt, **changes))

    assert series(metrics, "credentiald_interceptions_ended_total") == {
        ("UPSTREAM_ERROR", "fails", "openai", "OVERLOADED"): 2,
        ("COMPLETED", "serves", "openai", "none"): 1,
    }


async def test_the_series_of_a_provider_end_with_it(tmp_path, metrics):
    async with running(tmp_path, metrics=metrics) as one:
        for name in ("stays", "goes"):
            token = await provider_and_token(one, name)
            bridge = Bridge(one)
            _, receipt = await bridge.resolve(token, provider=name)
            await bridge.report(whole(receipt))
        await look(one.plane, one.stored, metrics)
        before = {provider for provider, *_ in series(metrics, "credentiald_tokens_total")}
        await one.admin.DeleteProvider(admin.DeleteProviderRequest(name="goes"), metadata=bearer(one.admin_token))
        await look(one.plane, one.stored, metrics)

    assert before == {"stays", "goes"}
    assert {provider for provider, *_ in series(metrics, "credentiald_tokens_total")} == {"stays"}
    assert {provider for _, provider in series(metrics, "credentiald_records_stored_total")} == {"stays"}
    ends = [one for family in metrics.registry.collect() for one in family.samples if "interceptions_ended" in one.name]
    assert {one.labels["provider"] for one in ends} == {"stays", "other"}


async def test_bridges_are_heard_of_for_a_minute_and_what_they_leave_open_is_an_end(tmp_path, metrics):
    clock = Clock()
    async with running(tmp_path, clock=clock, metrics=metrics) as one:
        token = await provider_and_token(one)
        for instance in (INSTANCE, "22222222-2222-4333-8444-555555555555"):
            await Bridge(one, instance=instance).resolve(token)
        await one.book.flush()
        await look(one.plane, one.stored, metrics)
        heard = metrics.registry.get_sample_value("credentiald_bridges_heard")
        rounds = Rounds(one.stored, one.book, metrics, clock, retention=timedelta())
        clock.now += timedelta(seconds=61)
        await rounds.end_vanished()
        await look(one.plane, one.stored, metrics)

    assert heard == 2
    assert metrics.registry.get_sample_value("credentiald_bridges_heard") == 0
    assert series(metrics, "credentiald_interceptions_ended_total") == {
        ("BRIDGE_VANISHED", "corp", "openai", "none"): 2
    }


async def test_what_waits_has_a_number_and_an_age(tmp_path, metrics):
    clock = Clock()
    async with running(tmp_path, clock=clock, metrics=metrics) as one:
        token = await provider_and_token(one)
        await Bridge(one).resolve(token)
        clock.now += timedelta(seconds=5)
        await Bridge(one).resolve(token)
        waiting = metrics.registry.get_sample_value("credentiald_records_waiting")
        age_seconds = metrics.registry.get_sample_value("credentiald_records_waiting_age_seconds")
        await one.book.flush()

        assert (waiting, age_seconds) == (2, 5)
        assert metrics.registry.get_sample_value("credentiald_records_waiting") == 0
        assert metrics.registry.get_sample_value("credentiald_records_waiting_age_seconds") == 0


async def test_openings_that_could_not_be_stored_are_as_old_as_before(tmp_path, metrics):
    clock = Clock()
    async with running(tmp_path, clock=clock, metrics=metrics) as one:
        token = await provider_and_token(one)
        with closing(sqlite3.connect(tmp_path / "credentiald.records.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await Bridge(one).resolve(token)
            flushing = asyncio.create_task(one.book.flush())
            await asyncio.sleep(0)
            clock.now += timedelta(seconds=5)
            await Bridge(one).resolve(token)
            await flushing
            age_seconds = metrics.registry.get_sample_value("credentiald_records_waiting_age_seconds")
            other.execute("ROLLBACK")

    assert age_seconds == 5


async def test_retention_says_when_it_was_done_and_before_that_when_it_began(tmp_path, metrics):
    clock = Clock()
    name = "credentiald_retention_last_success_timestamp_seconds"
    async with running(tmp_path, clock=clock, metrics=metrics) as one:
        assert metrics.registry.get_sample_value(name) is None
        await Rounds(one.stored, one.book, metrics, clock, retention=timedelta()).purge()
        assert metrics.registry.get_sample_value(name) is None
        rounds = Rounds(one.stored, one.book, metrics, clock, retention=timedelta(days=60))
        began = clock.now.timestamp()
        clock.now += timedelta(hours=7)
        assert metrics.registry.get_sample_value(name) == began
        await rounds.purge()

    assert metrics.registry.get_sample_value(name) == clock.now.timestamp() == began + 7 * 3600


async def test_a_credentiald_that_never_runs_for_ten_minutes_removes_what_is_old_all_the_same(
    tmp_path, metrics, monkeypatch
):
    monkeypatch.setattr(record_rounds, "_FIRST_PURGE_SECONDS", 0.01)
    clock = Clock()
    name = "credentiald_retention_last_success_timestamp_seconds"
    async with (
        running(tmp_path, clock=clock) as one,
        running_book(one.stored, metrics, clock, retention=timedelta(days=60)),
        asyncio.timeout(10),
    ):
        clock.now += timedelta(seconds=1)
        while metrics.registry.get_sample_value(name) != clock.now.timestamp():
            await asyncio.sleep(0.01)


def test_a_file_of_the_store_is_as_large_as_with_its_log(tmp_path, metrics):
    path = tmp_path / "credentiald.db"
    path.write_bytes(bytes(100))
    path.with_name("credentiald.db-wal").write_bytes(bytes(20))
    metrics.registry.register(StoreSizes({"database": path, "records": tmp_path / "not there yet"}))

    assert metrics.registry.get_sample_value("credentiald_store_bytes", {"file": "database"}) == 120
    assert metrics.registry.get_sample_value("credentiald_store_bytes", {"file": "records"}) == 0


def test_what_should_never_happen_is_there_as_nothing_before_it_does(metrics):
    value = metrics.registry.get_sample_value

    assert value("credentiald_records_rejected_total", {"reason": "RECEIPT_INVALID"}) == 0
    assert value("credentiald_openings_dropped_total") == 0
    labels = {"outcome": "BRIDGE_VANISHED", "provider": "other", "provider_type": "other", "error_category": "none"}
    assert value("credentiald_interceptions_ended_total", labels) == 0
    metrics.records.know({"corp": "bedrock"}, set())
    labels |= {"provider": "corp", "provider_type": "bedrock"}
    assert value("credentiald_interceptions_ended_total", labels) == 0
    labels |= {"outcome": "UPSTREAM_ERROR", "error_category": "TIMEOUT"}
    assert value("credentiald_interceptions_ended_total", labels) == 0


async def test_a_name_in_a_rule_that_is_no_providers_is_told_at_the_start_and_when_a_provider_goes(
    tmp_path, metrics, caplog
):
    rules = KeepRules(prompts=parse_keep_rule("on,goes=off,lba=off"))
    async with running(tmp_path, metrics=metrics) as one:
        await provider_and_token(one, "goes")
        strays = StrayNames(rules)
        for _ in range(2):
            tell_strays(strays, await look(one.plane, one.stored, metrics))
        await one.admin.DeleteProvider(admin.DeleteProviderRequest(name="goes"), metadata=bearer(one.admin_token))
        for _ in range(2):
            tell_strays(strays, await look(one.plane, one.stored, metrics))
    told = [record for record in caplog.records if record.msg == "a setting names what is no provider"]
    assert [(record.levelname, record.setting, record.names) for record in told] == [
        ("WARNING", "record_prompts", ["lba"]),
        ("WARNING", "record_prompts", ["goes"]),
    ]


async def test_a_daemon_tells_of_such_names_of_both_kinds_of_providers(tmp_path):
    environ = environment_of({"lab": {"TYPE": "openai", "KEY": "sk-1", "BASE_URL": "https://localhost/"}})
    environ["CREDENTIALD_RECORD_TOOL_INPUTS"] = "on,lab=off,lba=off"
    with credentiald(tmp_path, environ) as daemon:
        async with asyncio.timeout(30):
            while not (told := [line for line in daemon.lines if "is no provider" in str(line["msg"])]):
                await asyncio.sleep(0.05)
    assert [(line["level"], line["setting"], line["names"]) for line in told] == [
        ("warning", "record_tool_inputs", ["lba"])
    ]
