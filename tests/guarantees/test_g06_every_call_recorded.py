"""G6: every upstream call has exactly one complete set of records (ok, error, partial, aborted), through kill -9 of
credentiald, restarts and slow stores; what cannot be kept is counted and said.

Proved against an upstream that keeps its own count: the short form of scripts/reconcile, in which credentiald is killed
(kill -9) and started again under traffic of five APIs, finds no difference; a store that takes nothing for a while
costs no record and no answer; and what is more than a bridge may hold meanwhile is in its metrics and its log, to the
last interception, each of which gets its end from credentiald.

Wider: tests/daemons/credentiald/test_records_durability.py, tests/daemons/bridged/test_reports_in_trouble.py,
tests/daemons/pair/test_records_of_*.py (each API in every detail).
"""

import asyncio
import contextlib
import json
import re
import sqlite3
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drawbridge.v1 import record_pb2
from drawbridge.v1 import usage_service_pb2 as usage_pb

from tests.fakes.scripted_upstream import CUT, JSON, STALL, Exchange, Script, reply, stream
from tests.support.bridge import until
from tests.support.campaigns import campaign
from tests.support.kept_records import kept_records
from tests.support.pair import Pair, running_pair
from tests.support.raw_http import raw_client, raw_exchange, request

PROVIDERS = {"openai": {"TYPE": "openai", "KEY": "sk-central-canary-61", "BASE_URL": "{upstream}/v1"}}
EVENT = b'data: {"id":"r","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
TOKENS = b'"usage":{"prompt_tokens":7,"completion_tokens":2}'
USAGE = b'data: {"id":"r","object":"chat.completion.chunk","choices":[],%b}\n\n' % TOKENS
DONE = b"data: [DONE]\n\n"
WHOLE = b'{"id":"r","object":"chat.completion","choices":[],%b}' % TOKENS
# What the upstream does, by the model that is asked for, and how that is kept.
ENDS: dict[str, tuple[Script, str]] = {
    "ok": (reply(200, WHOLE), "COMPLETED"),
    "streamed": (stream(EVENT, USAGE, DONE), "COMPLETED"),
    "error": (reply(500, b'{"error":{"message":"no"}}', JSON), "UPSTREAM_ERROR"),
    "partial": (stream(EVENT, CUT), "UPSTREAM_ERROR"),
    "aborted": (stream(EVENT, STALL), "CLIENT_GONE"),
}
EACH = 12


async def test_records_are_what_the_upstream_counted_though_credentiald_is_killed():
    lines = await campaign("reconcile", "--short")

    assert lines[-1] == "reconciled: no difference"
    assert "credentiald killed 0 times" not in lines[-2]


@contextmanager
def store_that_takes_nothing(folder: Path) -> Iterator[None]:
    """Another process writes to the records all the time."""
    with contextlib.closing(sqlite3.connect(folder / "credentiald.records.db", isolation_level=None)) as file:
        file.execute("BEGIN IMMEDIATE")
        yield
        file.execute("ROLLBACK")


async def answer_by_model(exchange: Exchange) -> None:
    script, _ = ENDS[json.loads(exchange.request.body)["model"]]
    await script(exchange)


async def ask(pair: Pair, model: str, text: str = "Hi") -> None:
    streamed = model in ("streamed", "partial", "aborted")
    body = {"model": model, "stream": streamed, "messages": [{"role": "user", "content": text}]}
    data = request(
        "POST", "/openai/v1/chat/completions",
        headers=[("Authorization", f"Bearer {pair.token}")], body=json.dumps(body).encode(),
    )  # fmt: skip
    port = int(pair.bridged.addresses["http"].rpartition(":")[2])
    if model != "aborted":
        await raw_exchange(port, data)
        return
    async with raw_client(port) as client:
        await client.send(data)
        assert (await client.read_head()).status == 200
        assert await client.read_some()
        client.leave()


async def test_a_store_that_takes_nothing_for_a_while_costs_no_record_and_no_answer(tmp_path):
    async with running_pair(tmp_path, PROVIDERS) as pair:
        pair.upstream.default = answer_by_model
        # One that is recorded as usual, so that everything stands before the store is taken away.
        await ask(pair, "ok")
        with store_that_takes_nothing(tmp_path):
            await asyncio.gather(*(ask(pair, model) for model in ENDS for _ in range(EACH)))
        sent = Counter(json.loads(one.body)["model"] for one in pair.upstream.requests)
        assert sent == {model: EACH + (model == "ok") for model in ENDS}
        async with kept_records(pair) as kept:
            found = await kept.interceptions(sum(sent.values()))
            assert Counter(one.model for one in found) == sent
            assert len({one.id for one in found}) == len(found)
            for one in found:
                assert outcome_of(one) == ENDS[one.model][1], one
                told = (one.tokens.input_tokens, one.tokens.output_tokens)
                assert told == ((7, 2) if one.model in ("ok", "streamed") else (0, 0)), one
            detail = await kept.detail(found[-1].id)
            assert [prompt.text for prompt in detail.prompts] == ["Hi"]
        assert counted(pair, "bridged_records_lost_total") == 0


async def test_what_does_not_fit_while_the_store_takes_nothing_is_counted_named_and_ended(tmp_path):
    async with running_pair(tmp_path, PROVIDERS, "--record-queue", "1MiB") as pair:
        pair.upstream.default = reply(200, WHOLE)
        await ask(pair, "ok")
        with store_that_takes_nothing(tmp_path):
            # Ten times as much as the bridge holds.
            for _ in range(4):
                await asyncio.gather(*(ask(pair, "ok", "y" * 100_000) for _ in range(25)))
            await until(lambda: counted(pair, "bridged_records_lost_total") > 0)
        sent = len(pair.upstream.requests)
        async with kept_records(pair) as kept:
            # credentiald looks every quarter of a minute, twice, for what bridges know nothing of any more.
            found = await kept.interceptions(sent, within_seconds=90)
        assert counted(pair, "bridged_records_waiting_bytes") == 0
        lost = int(counted(pair, "bridged_records_lost_total"))
        assert 0 < lost < sent - 1
        lines = [line for line in pair.bridged.lines if line["msg"] == "records of interceptions are lost"]
        named = [one for line in lines for one in line["interception_ids"]]
        assert len(named) == lost
        for one in found:
            told = (outcome_of(one), one.tokens.input_tokens)
            assert told == (("BRIDGE_VANISHED", 0) if one.id in named else ("COMPLETED", 7)), one


def outcome_of(one: usage_pb.Interception) -> str:
    return record_pb2.InterceptionOutcome.Name(one.outcome).removeprefix("INTERCEPTION_OUTCOME_")


def counted(pair: Pair, name: str) -> float:
    """The sum of a metric of the bridge over its labels."""
    with urllib.request.urlopen(f"http://{pair.bridged.addresses['metrics']}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(rf"{name}[ {{]", line))
