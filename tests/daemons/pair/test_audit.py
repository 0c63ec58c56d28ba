"""The audit of a pair as it runs: the commands, workers, and clients of a strict credentiald that cannot write."""

import asyncio
import json
from pathlib import Path

from tests.support.chats import chat
from tests.support.pair import CENTRAL_KEY, Pair, running_pair
from tests.support.processes import command, credentiald

PROVIDERS = {"openai": {"TYPE": "openai", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}/v1"}}
FILE = "credentiald.audit.db"


async def asked(pair: Pair, *words: str, key: str | None = None) -> str:
    found = await asyncio.to_thread(command, pair.folder, pair.credentiald, "audit", *words, key=key)
    assert found.returncode == 0, found.stderr
    return found.stdout


async def released(pair: Pair, count: int) -> list[dict[str, object]]:
    """The releases that are told of, once they are so many."""
    async with asyncio.timeout(10):
        while True:
            found = json.loads(await asked(pair, "list", "--kind", "release", "--json"))
            if len(found) >= count:
                return found


async def test_a_client_of_a_strict_credentiald_gets_503_while_nothing_can_be_written_down(tmp_path: Path) -> None:
    async with running_pair(tmp_path, PROVIDERS, CREDENTIALD_AUDIT="strict") as pair:
        before = [await chat(pair), await chat(pair)]
        (tmp_path / FILE).rename(tmp_path / "away")
        refused = [await chat(pair), await chat(pair)]
        suspended = await asyncio.to_thread(command, tmp_path, pair.credentiald, "users", "suspend", "ann")
        (tmp_path / "away").rename(tmp_path / FILE)
        after = await chat(pair)

        assert [answer.status for answer in (*before, after)] == [200, 200, 200]
        for answer in refused:
            assert (answer.status, answer.header("X-Drawbridge-Error")) == (503, "AUDIT_UNAVAILABLE")
            assert answer.header("Retry-After") == "5"
        assert "AUDIT_UNAVAILABLE" in suspended.stderr
        told = await released(pair, 3)
        assert [one["interception_id"] for one in told] == [
            answer.header("X-Interception-Id") for answer in (after, *reversed(before))
        ]
        assert (await asked(pair, "verify")).startswith("whole: ")


async def test_the_commands_tell_of_all_workers_in_one_chain(tmp_path: Path) -> None:
    async with running_pair(tmp_path, PROVIDERS, CREDENTIALD_WORKERS="2") as pair:
        answers = await asyncio.gather(*(chat(pair) for _ in range(4)))
        for name in ("bob", "cid", "dan", "eve"):
            await asyncio.to_thread(command, tmp_path, pair.credentiald, "users", "create", name)
        told = await released(pair, 4)
        assert {one["interception_id"] for one in told} == {answer.header("X-Interception-Id") for answer in answers}
        heads, *lines = (await asked(pair, "list", "--kind", "act", "--user", "eve")).splitlines()
        assert heads.split()[:6] == ["SEQUENCE", "TIME", "KIND", "WHO", "WHAT", "OUTCOME"]
        [line] = lines
        assert line.split()[2:7] == ["act", "admin", "CreateUser", "DONE", "eve"]

        head = (await asked(pair, "head")).strip()
        assert (await asked(pair, "verify", "--head", head)).splitlines()[-1] == f"head: {head}"
        hashed = (await asked(pair, "hash", key=pair.token)).strip()
        [made] = [
            one
            for one in json.loads(await asked(pair, "list", "--kind", "act", "--json"))
            if one["what"] == "CreateToken"
        ]
        assert made["secrets"] == [{"field": "access_token", "hash": hashed}]
        assert json.loads(await asked(pair, "verify", "--json"))["whole"] is True
        forged = f"{head.partition(':')[0]}:{'0' * 64}"
        damaged = await asyncio.to_thread(command, tmp_path, pair.credentiald, "audit", "verify", "--head", forged)
        assert (damaged.returncode, "rewritten" in damaged.stdout) == (1, True)
        assert "whole" not in damaged.stdout, "a head of a chain that was made anew is none to keep"
        assert (tmp_path / FILE).stat().st_mode & 0o077 == 0
    heads = [line for line in pair.credentiald.lines if line["msg"] == "audit head"]
    assert heads


def test_what_was_done_while_the_audit_was_off_is_told_when_it_is_on_again(tmp_path: Path) -> None:
    with credentiald(tmp_path, {}, "--audit=off") as running:
        assert command(tmp_path, running, "users", "create", "ann").returncode == 0
        refused = command(tmp_path, running, "audit", "head")
        assert (refused.returncode, "AUDIT_UNAVAILABLE" in refused.stderr) == (1, True)
        assert [line["level"] for line in running.lines if "the audit is off" in str(line["msg"])] == ["warning"]
    with credentiald(tmp_path) as running:
        assert command(tmp_path, running, "users", "create", "bob").returncode == 0
    with credentiald(tmp_path, {}, "--audit=off") as running:
        assert command(tmp_path, running, "users", "suspend", "bob").returncode == 0
    with credentiald(tmp_path) as running:
        told = json.loads(command(tmp_path, running, "audit", "list", "--json").stdout)
        assert [one["kind"] for one in told] == ["start", "unattributed", "act", "start", "unattributed", "genesis"]
        unseen = [[(step["kind"], step["name"]) for step in told[place]["revisions"]] for place in (1, 4)]
        assert unseen == [[("user.suspended", "bob")], [("user.created", "ann")]]
        warned = [line for line in running.lines if "does not know who" in str(line["msg"])]
        assert [line["changes"] for line in warned] == [1]
        running.stop()
    heads = [line["sequence"] for line in running.lines if line["msg"] == "audit head"]
    assert heads == [6], "the head of a start after which nothing happens is exported, too"
