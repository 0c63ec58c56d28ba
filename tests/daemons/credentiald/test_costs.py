"""Prices of models, and what requests cost by them, over real sockets and real files."""

import asyncio
import csv
import io
import json
import logging
import sqlite3
from contextlib import closing
from uuid import uuid4

import grpc
import pytest
from drawbridge.v1 import admin_service_pb2 as admin
from drawbridge.v1 import model_pb2, provider_pb2, record_pb2
from drawbridge.v1 import record_service_pb2 as pb
from drawbridge.v1 import usage_service_pb2 as usage

from credentiald import bootstrap
from credentiald.errors import StoreUnavailable
from credentiald.metrics import Metrics
from credentiald.model import EnvironmentProvider, Gateway, KeyPolicy, ModelPrices, Origin, Provider
from credentiald.price_list import PriceList
from credentiald.store import models
from credentiald.store.database import open_database
from daemonkit.logs import json_line
from tests.support.credentiald import Running, bearer, info_of, running
from tests.support.credentiald_cli import run
from tests.support.reports import Bridge, whole
from tests.support.store import NOW, a_model

KEY = "sk-1234567890"
# Of the usage that `whole` reports: 10 input, 20 output and 30 cached tokens.
PRICES = {"input_price_micros": 1_250_000, "output_price_micros": 10_000_000, "cache_read_price_micros": 125_000}
COST = 216  # 12.5 + 200 + 3.75 = 216.25


def a_message(name: str = "gpt-5", provider: str = "corp", **fields) -> model_pb2.Model:
    return model_pb2.Model(provider=provider, name=name, **fields)


async def create(one: Running, name: str = "gpt-5", provider: str = "corp", **fields) -> model_pb2.Model:
    request = admin.CreateModelRequest(model=a_message(name, provider, **fields))
    return await one.admin.CreateModel(request, metadata=bearer(one.admin_token))


async def update(one: Running, *paths: str, name: str = "gpt-5", **fields) -> model_pb2.Model:
    request = admin.UpdateModelRequest(model=a_message(name, **fields))
    request.update_mask.paths.extend(paths)
    return await one.admin.UpdateModel(request, metadata=bearer(one.admin_token))


async def delete(one: Running, name: str = "gpt-5", etag: str = "") -> None:
    request = admin.DeleteModelRequest(provider="corp", name=name, etag=etag)
    await one.admin.DeleteModel(request, metadata=bearer(one.admin_token))


async def listed(one: Running, provider: str = "", page_size: int = 0) -> list[tuple[str, str]]:
    request, found = admin.ListModelsRequest(provider=provider, page_size=page_size), []
    while True:
        page = await one.admin.ListModels(request, metadata=bearer(one.admin_token))
        found += [(model.provider, model.name) for model in page.models]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def refused(call) -> tuple[str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    info = info_of(error.value)
    return info.reason, dict(info.metadata)


async def asked(one: Running, token: str, **fields) -> str:
    """The id of an interception that has ended with one usage of tokens."""
    bridge = Bridge(one)
    interception_id, receipt = await bridge.resolve(token, **fields)
    assert await bridge.report(whole(receipt)) == {}
    return interception_id


async def command(one: Running, *arguments: str) -> str:
    """What a command of an administrator prints."""
    env = {"CREDENTIALD_ADMIN": f"unix:{one.folder / 'admin.sock'}", "CREDENTIALD_ADMIN_TOKEN": one.admin_token}
    result = await asyncio.to_thread(run, *arguments, env=env)
    assert result.exit_code == 0, result.output
    return result.stdout


async def usages_of(one: Running, interception_id: str) -> list[record_pb2.TokenUsage]:
    found = await one.usage.GetInterception(
        usage.GetInterceptionRequest(id=interception_id), metadata=bearer(one.admin_token)
    )
    return [each for detail in found.thread for each in detail.token_usages]


async def test_a_model_is_made_changed_and_deleted_with_its_etag(tmp_path):
    async with running(tmp_path) as one:
        await one.make_provider("corp", key=KEY)
        chosen = str(uuid4())
        made = await create(one, id=chosen, input_price_micros=0, etag="77")
        assert (made.id, made.provider, made.name, made.input_price_micros) == (chosen, "corp", "gpt-5", 0)
        assert [field.name for field, _ in made.ListFields() if "price" in field.name] == ["input_price_micros"]
        assert made.HasField("create_time")
        changed = await update(
            one, "input_price_micros", "output_price_micros", output_price_micros=5, cache_read_price_micros=9,
            etag=made.etag,
        )  # fmt: skip
        assert [field.name for field, _ in changed.ListFields() if "price" in field.name] == ["output_price_micros"]
        assert changed.etag != made.etag
        stale = update(one, "input_price_micros", etag=made.etag)
        assert await refused(stale) == ("ETAG_MISMATCH", {"resource": "model", "name": "gpt-5"})
        assert (await refused(delete(one, etag=made.etag)))[0] == "ETAG_MISMATCH"
        got = await one.admin.GetModel(
            admin.GetModelRequest(provider="corp", name="gpt-5"), metadata=bearer(one.admin_token)
        )
        assert got == changed
        await delete(one, etag=changed.etag)
        assert await refused(delete(one)) == ("MODEL_NOT_FOUND", {"provider": "corp", "model": "gpt-5"})
        assert await listed(one) == []


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"provider": "nobody"}, "PROVIDER_NOT_FOUND", ""),
        ({"name": ""}, "INVALID_ARGUMENT", "model.name"),
        ({"name": "x" * 257}, "INVALID_ARGUMENT", "model.name"),
        ({"name": " gpt-5"}, "INVALID_ARGUMENT", "model.name"),
        ({"name": "gpt\n5"}, "INVALID_ARGUMENT", "model.name"),
        ({"id": "not-a-uuid"}, "INVALID_ARGUMENT", "model.id"),
        ({"input_price_micros": -1}, "INVALID_ARGUMENT", "model.input_price_micros"),
        ({"cache_write_price_micros": 10**12 + 1}, "INVALID_ARGUMENT", "model.cache_write_price_micros"),
        ({"name": "taken"}, "ALREADY_EXISTS", ""),
    ],
)
async def test_what_must_not_be_saved_is_refused_and_leaves_nothing(tmp_path, fields, reason, field):
    async with running(tmp_path) as one:
        await one.make_provider("corp", key=KEY)
        await create(one, "taken")
        found, facts = await refused(create(one, **fields))
        assert (found, facts.get("field", "")) == (reason, field)
        assert await listed(one) == [("corp", "taken")]


@pytest.mark.parametrize(
    ("paths", "fields", "field"),
    [
        ([], {}, "update_mask"),
        (["name"], {}, "update_mask"),
        (["price"], {}, "update_mask"),
        (["output_price_micros"], {"output_price_micros": -5}, "model.output_price_micros"),
    ],
)
async def test_an_update_that_must_not_be_is_refused_and_changes_nothing(tmp_path, paths, fields, field):
    async with running(tmp_path) as one:
        await one.make_provider("corp", key=KEY)
        made = await create(one, **PRICES)
        reason, facts = await refused(update(one, *paths, **fields))
        assert (reason, facts["field"]) == ("INVALID_ARGUMENT", field)
        request = admin.GetModelRequest(provider="corp", name="gpt-5")
        assert await one.admin.GetModel(request, metadata=bearer(one.admin_token)) == made


async def test_models_of_configured_providers_are_listed_in_pages_and_go_with_their_provider(tmp_path):
    policy = KeyPolicy(central_key_enabled=False, user_keys_allowed=True, central_key_fallback=False)
    fixed = Provider(
        id="0190e2f4-0000-7000-8000-000000000001", name="env", type="openai", policy=policy, origin=Origin.ENVIRONMENT
    )
    gateway = Gateway(environment_providers=(EnvironmentProvider(provider=fixed),))
    async with running(tmp_path, gateway=gateway) as one:
        for name in ("corp", "lab"):
            await one.make_provider(name, key=KEY)
        expected = [(provider, f"m-{number}") for provider in ("corp", "env", "lab") for number in range(3)]
        for provider, name in reversed(expected):
            await create(one, name, provider)
        assert await listed(one) == expected
        assert await listed(one, page_size=2) == expected
        assert await listed(one, provider="env", page_size=2) == expected[3:6]
        first = await one.admin.ListModels(admin.ListModelsRequest(page_size=1), metadata=bearer(one.admin_token))
        elsewhere = admin.ListModelsRequest(provider="lab", page_token=first.next_page_token)
        reason, facts = await refused(one.admin.ListModels(elsewhere, metadata=bearer(one.admin_token)))
        assert (reason, facts["field"]) == ("INVALID_ARGUMENT", "page_token")
        reason, _ = await refused(listed(one, provider="nobody"))
        assert reason == "PROVIDER_NOT_FOUND"
        await one.admin.DeleteProvider(admin.DeleteProviderRequest(name="lab"), metadata=bearer(one.admin_token))
        assert await listed(one) == expected[:6]
        await one.make_provider("lab", key=KEY)
        assert await listed(one, provider="lab") == []
    async with running(tmp_path) as one:
        assert await listed(one) == expected[:3]
    async with running(tmp_path, gateway=gateway) as one:
        assert await listed(one) == expected[:6]


async def test_a_token_usage_has_the_cost_of_its_time_whatever_prices_become(tmp_path, caplog):
    metrics = Metrics("test")
    async with running(tmp_path, metrics=metrics, writes_log=True) as one:
        _, token = await one.make_user("ann")
        await one.make_provider("corp", key=KEY)
        before = await asked(one, token)
        await create(one, **PRICES)
        priced = await asked(one, token)
        await update(one, "output_price_micros", output_price_micros=20_000_000)
        dearer = await asked(one, token)
        await delete(one)
        after = await asked(one, token)
        expected = {before: None, priced: COST, dearer: COST + 200, after: None}
        for interception_id, cost in expected.items():
            [only] = await usages_of(one, interception_id)
            assert (only.cost_micros if only.HasField("cost_micros") else None) == cost
        shown = await one.usage.ListInterceptions(usage.ListInterceptionsRequest(), metadata=bearer(token))
        assert {each.id: each.cost for each in shown.interceptions} == {
            interception_id: usage.CostTotals(cost_micros=cost or 0, unpriced_token_usages=int(cost is None))
            for interception_id, cost in expected.items()
        }
        totals = usage.CostTotals(cost_micros=2 * COST + 200, unpriced_token_usages=2)
        sessions = await one.usage.ListSessions(usage.ListSessionsRequest(), metadata=bearer(token))
        assert [each.cost for each in sessions.sessions] == [totals]
        rows = await one.usage.QueryUsage(usage.QueryUsageRequest(), metadata=bearer(token))
        assert [(each.token_usages, each.cost) for each in rows.rows] == [(4, totals)]
        lines = [json.loads(json_line(each)) for each in caplog.records if each.msg == "interception log"]
        logged = {
            line["interception_id"]: line["cost_micros"] for line in lines if line["record_type"] == "token_usage"
        }
        assert logged == expected
        assert metrics.registry.get_sample_value("credentiald_unpriced_token_usages_total", {"provider": "corp"}) == 2
        changes = [
            (each.msg, each.provider, each.model, each.caller) for each in caplog.records
            if each.name == "credentiald.admin" and each.levelno == logging.INFO and "model" in each.msg
        ]  # fmt: skip
        assert changes == [(f"model {what}", "corp", "gpt-5", "admin") for what in ("created", "updated", "deleted")]


async def test_a_report_that_is_sent_again_after_a_change_of_prices_costs_what_it_did(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await one.make_provider("corp", key=KEY)
        await create(one, **PRICES)
        bridge = Bridge(one)
        interception_id, receipt = await bridge.resolve(token)
        report = whole(receipt)
        await bridge.report(report)
        await update(one, "output_price_micros", output_price_micros=0)
        await bridge.report(report)
        assert [each.cost_micros for each in await usages_of(one, interception_id)] == [COST]


async def test_the_mapped_model_has_a_price_of_its_own_and_a_bridge_cannot_say_what_it_cost(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await one.make_provider("aws", "bedrock", key=KEY, bedrock=provider_pb2.BedrockOptions(
            region="eu-west-1", models={"opus": "eu.anthropic.claude-opus-4-5"}
        ))  # fmt: skip
        await create(one, "opus", "aws", **{**PRICES, "output_price_micros": 0})
        await create(one, "eu.anthropic.claude-opus-4-5", "aws", **PRICES)
        bridge = Bridge(one)
        interception_id, receipt = await bridge.resolve(
            token, "aws", model="opus", operation="anthropic.messages", client="Claude Code"
        )
        claimed = record_pb2.TokenUsage(
            id=str(uuid4()), input_tokens=10, output_tokens=20, cache_read_input_tokens=30, cost_micros=1
        )
        await bridge.report(whole(receipt, token_usages=[claimed], facts=pb.InterceptionFacts(client="Claude Code")))
        [only] = await usages_of(one, interception_id)
        assert only.cost_micros == COST


async def test_counts_beyond_belief_are_rejected_and_the_largest_ones_add_up(tmp_path):
    most = 10**12
    names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await one.make_provider("corp", key=KEY)
        await create(one, **PRICES, cache_write_price_micros=10**12)
        bridge = Bridge(one)
        _, receipt = await bridge.resolve(token)
        beyond = [record_pb2.TokenUsage(id=str(uuid4()), **{name: most + 1}) for name in names]
        rejected = await bridge.report(*(whole(receipt, token_usages=[each]) for each in beyond))
        assert rejected == dict.fromkeys(range(4), "RECORD_INVALID")
        largest = [record_pb2.TokenUsage(id=str(uuid4()), **dict.fromkeys(names, most)) for _ in range(5)]
        assert await bridge.report(whole(receipt, token_usages=largest)) == {}
        [row] = (await one.usage.QueryUsage(usage.QueryUsageRequest(), metadata=bearer(one.admin_token))).rows
        assert row.tokens == usage.TokenTotals(**dict.fromkeys(names, 5 * most))
        assert row.cost == usage.CostTotals(unpriced_token_usages=5)


async def test_usage_has_costs_as_a_table_csv_and_json(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await one.make_provider("corp", key=KEY)
        await command(
            one, "models", "create", "corp", "gpt-5", "--input", "1.25", "--output", "10", "--cache-read", "0.125"
        )
        await asked(one, token)
        await command(one, "models", "update", "corp", "gpt-5", "--output", "none")
        await asked(one, token)
        await asked(one, token, model="other")
        heads, *rows = csv.reader(io.StringIO(await command(one, "records", "usage", "--by", "model", "--csv")))
        place = heads.index("cost_usd")
        assert heads[place:] == ["cost_usd", "unpriced"]
        assert [(row[0], *row[place:]) for row in rows] == [("gpt-5", "0.000216", "1"), ("other", "", "1")]
        table = (await command(one, "records", "usage", "--by", "model")).splitlines()
        assert [line.split()[-2:] for line in table[1:]] == [["0.000216", "1"], ["-", "1"]]
        as_json = json.loads(await command(one, "records", "usage", "--by", "model", "--json"))
        assert as_json[0]["cost"] == {"cost_micros": 216, "unpriced_token_usages": 1}
        [shown] = json.loads(await command(one, "models", "list", "--json"))
        assert (shown["input_price_micros"], shown["output_price_micros"]) == (1_250_000, None)
        sessions = (await command(one, "records", "sessions")).splitlines()
        assert "0.000216 + unpriced 2" in sessions[1]


async def test_prices_are_read_again_only_when_the_database_has_changed(tmp_path):
    url = f"sqlite:///{tmp_path / 'credentiald.db'}"
    prepared = bootstrap.prepare(url, None, now=NOW)
    statements = []
    async with open_database(url, prepared.sealer) as db:
        for reader in db._idle_readers:
            reader.set_trace_callback(statements.append)
        prices = PriceList(db)
        for _ in range(3):
            assert await prices.current() == {}
        assert sum("FROM models" in one for one in statements) == 1
        await db.write(models.create, a_model(), now=NOW)
        expected = {("p-1", "gpt-5"): ModelPrices(1_250_000, 10_000_000)}
        assert [await prices.current(), await prices.current()] == [expected] * 2
        # As another process changes it.
        with closing(sqlite3.connect(tmp_path / "credentiald.db")) as other, other:
            other.execute("UPDATE models SET input_price_micros = 7")
        assert await prices.current() == {("p-1", "gpt-5"): ModelPrices(7, 10_000_000)}
        assert sum("FROM models" in one for one in statements) == 3


async def test_while_the_database_does_not_answer_the_last_prices_count_and_there_is_no_first_one_without_it(tmp_path):
    url = f"sqlite:///{tmp_path / 'credentiald.db'}"
    prepared = bootstrap.prepare(url, None, now=NOW)
    async with open_database(url, prepared.sealer) as db:
        await db.write(models.create, a_model(), now=NOW)
        known, unread = PriceList(db), PriceList(db)
        before = await known.current()
    assert await known.current() == before != {}
    with pytest.raises(StoreUnavailable):
        await unread.current()
