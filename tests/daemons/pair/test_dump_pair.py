"""The API dump of a bridge that runs as processes: with workers, and on a disk that takes no more."""

import asyncio
import resource
import urllib.request
from pathlib import Path

import pytest

from tests.fakes.scripted_upstream import reply
from tests.support.bridge import until
from tests.support.http import send
from tests.support.pair import Pair, running_pair
from tests.support.processes import bridged
from tests.support.workers import pids_of

KEY = "sk-canary-central-7d41f0"
PROVIDERS = {"anthropic": {"TYPE": "anthropic", "KEY": KEY, "BASE_URL": "{upstream}"}}


def metric(pair: Pair, name: str) -> float:
    with urllib.request.urlopen(f"http://{pair.bridged.addresses['metrics']}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


async def asks(pair: Pair, count: int) -> None:
    headers = {"Authorization": f"Bearer {pair.token}", "Content-Type": "application/json"}
    for _ in range(count):
        answer = await send(
            pair.bridged.addresses["http"], "POST", "/anthropic/v1/messages", headers, b'{"model":"claude"}'
        )
        assert (answer.status, len(answer.body)) == (200, 9000)


async def test_every_worker_dumps_into_one_room_and_what_a_disk_does_not_take_costs_no_request(tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    async with running_pair(
        tmp_path, PROVIDERS, "--workers", "2", "--dump-dir", str(dump), "--max-dump", "512KiB"
    ) as pair:
        pair.upstream.default = reply(200, b"x" * 9000, [("Content-Type", "text/plain")])
        workers = pids_of(pair.bridged)
        assert len(workers) == 2
        # Connections are spread by the kernel as it likes.
        await asks(pair, 20)
        await until(lambda: len(list(dump.rglob("*.resp.txt"))) == 20)
        assert await asyncio.to_thread(metric, pair, "bridged_dump_enabled") == 1
        assert await asyncio.to_thread(metric, pair, "bridged_dump_dropped_total") == 0
        await asks(pair, 30)
        async with asyncio.timeout(10):
            while not await asyncio.to_thread(metric, pair, "bridged_dump_removed_total"):
                await asyncio.sleep(0.05)
        for pid in workers:
            # From here on no file of theirs may be longer.
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        await asks(pair, 5)
        dropped = 0.0
        async with asyncio.timeout(10):
            while dropped < 5:
                dropped = await asyncio.to_thread(metric, pair, "bridged_dump_dropped_total")
    warnings = [line for line in pair.bridged.lines if "the API dump is on" in str(line["msg"])]
    assert {(line["level"], line["dump_dir"]) for line in warnings} == {("warning", str(dump))}
    assert [line["why"] for line in pair.bridged.lines if "dumps of requests are dropped" in str(line["msg"])]
    # Nobody writes any more.
    assert sum(path.stat().st_size for path in dump.rglob("*.txt")) <= 512 * 1024
    files = [path.read_text() for path in dump.rglob("*.txt")]
    assert len(files) >= 45
    assert not any(KEY in text or pair.token in text for text in files)
    assert all(len(text) <= 4096 or "# complete: 9000 bytes of body" in text for text in files)


def test_a_folder_that_cannot_be_used_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "dump").write_text("a file")
    told = r"exited with 1(.|\n)*dump_dir: cannot use"
    with (
        pytest.raises(AssertionError, match=told),
        bridged(tmp_path, "127.0.0.1:9", None, "--dump-dir", str(tmp_path / "dump")),
    ):
        raise RuntimeError("it started")
