"""The room that dumps may take on a disk: the oldest files go, and nothing that is not ours."""

import asyncio
import contextlib
import errno
from pathlib import Path

import pytest

from bridged.dump.folder import DumpFolder
from bridged.dump.names import Place
from bridged.dump.room import Room
from tests.fakes.credentiald import FakeCredentiald
from tests.fakes.scripted_upstream import ScriptedUpstream, reply, stream
from tests.support.bridge import AUTH, running_bridge, until
from tests.support.bridge_reports import sample
from tests.support.raw_http import raw_client, raw_exchange, request

MOST_BYTES = 64 * 1024
MESSAGES = "/anthropic/v1/messages"
BODY = b'{"model":"m"}'
EVENT = b'event: x\ndata: {"text":"an answer"}\n\n'


def sizes(folder: Path) -> dict[str, int]:
    """Dumped files by their names, oldest first. Any of them may be removed meanwhile."""
    found = {}
    for path in sorted(folder.rglob("*-*.txt"), key=lambda path: path.name):
        with contextlib.suppress(FileNotFoundError):
            found[path.name] = path.stat().st_size
    return found


async def asks(port: int, count: int) -> list[str]:
    """Ids of interceptions that got an answer, in their order."""
    ids = []
    for _ in range(count):
        answer = await raw_exchange(port, request("POST", MESSAGES, headers=[AUTH], body=BODY))
        assert (answer.status, answer.complete) == (200, True)
        ids.append(answer.header("x-interception-id"))
    return ids


async def test_the_oldest_files_go_and_what_is_not_ours_stays(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    dump, elsewhere = tmp_path / "dump", tmp_path / "elsewhere"
    model = dump / "anthropic" / "m"
    for folder in (model, elsewhere):
        folder.mkdir(parents=True, mode=0o700)
    kept = [model / "notes.txt", dump / "1-top.req.txt", elsewhere / "1-behind-a-link.req.txt"]
    for path in kept:
        path.write_bytes(b"x" * MOST_BYTES)
    (dump / "anthropic" / "link").symlink_to(elsewhere)
    (model / "2-of-an-earlier-start.req.txt").write_bytes(b"x" * MOST_BYTES)
    upstream.default = reply(200, b"x" * 6000, [("Content-Type", "text/plain")])
    async with running_bridge(credentiald, dump_dir=str(dump), max_dump_bytes=MOST_BYTES) as bridge:
        ids = await asks(bridge.port, 30)
        registry = bridge.metrics.registry
        await until(lambda: sample(registry, "bridged_dump_files_total") == 60)
    # All is written now, also what made the last file longer.
    removed = sample(registry, "bridged_dump_removed_total")
    assert sample(registry, "bridged_dump_dropped_total", reason="disk") == 0
    assert [path.stat().st_size for path in kept] == [MOST_BYTES] * 3
    found = sizes(model)
    assert removed == 61 - len(found)
    assert MOST_BYTES / 3 < sum(found.values()) <= MOST_BYTES
    # What is left are the last ones, without a gap but for one that is half gone.
    left = [number for number, one in enumerate(ids) if f"{one}.resp.txt" in " ".join(found)]
    assert left == list(range(30 - len(left), 30))


async def test_a_file_that_is_still_written_goes_too_and_the_answer_is_whole(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    go_on = asyncio.Event()
    upstream.script(stream(EVENT * 40, go_on, EVENT))
    upstream.default = reply(200, b"x" * 6000, [("Content-Type", "text/plain")])
    async with running_bridge(credentiald, dump_dir=str(tmp_path), max_dump_bytes=MOST_BYTES) as bridge:
        registry = bridge.metrics.registry
        async with raw_client(bridge.port) as client:
            await client.send(request("POST", MESSAGES, headers=[AUTH], body=BODY))
            await client.read_head()
            await until(lambda: any(size > 500 for name, size in sizes(tmp_path).items() if "resp" in name))
            [long] = [name for name in sizes(tmp_path) if "resp" in name]
            await asks(bridge.port, 10)
            await until(lambda: long not in sizes(tmp_path))
            go_on.set()
            body = b""
            while piece := await client.read_some():
                body += piece
        assert body == EVENT * 41
        await until(lambda: sample(registry, "bridged_dump_dropped_total", reason="disk") == 1)
        await asks(bridge.port, 1)
    assert long not in sizes(tmp_path)


def place(number: int) -> Place:
    return Place(provider="p", folder=f"m{number % 5}", stem=f"{1_700_000_000_000 + number}-id")


def test_several_writers_share_the_room(tmp_path: Path) -> None:
    removed: list[int] = []
    rooms = [Room(MOST_BYTES, writers=3, removed=removed.append) for _ in range(3)]
    folders = [DumpFolder(str(tmp_path), room) for room in rooms]
    for number in range(200):
        file = folders[number % 3].new_file(place(number), ".resp.txt")
        file.write(b"x" * 1500)
        file.write(b"x" * (number * 37 % 5000))
        file.close()
        # On disk, where a file takes whole blocks.
        assert sum(-(-size // 4096) * 4096 for size in sizes(tmp_path).values()) <= MOST_BYTES
    for folder in folders:
        folder.close()
    assert len(sizes(tmp_path)) == 200 - sum(removed) > 5


def test_what_is_written_at_once_has_room_made_for_all_of_it_or_is_not_written(tmp_path: Path) -> None:
    folder = DumpFolder(str(tmp_path), Room(MOST_BYTES))
    for number in range(20):
        folder.new_file(place(number), ".req.txt").write(b"x" * 4000)
    kept = sizes(tmp_path)
    large = folder.new_file(place(20), ".req.txt")
    with pytest.raises(OSError, match="larger than the room"):
        large.write(b"x" * (MOST_BYTES + 1))
    assert sizes(tmp_path).keys() - kept.keys() == {f"{place(20).stem}.req.txt"}
    large.write(b"x" * (MOST_BYTES // 2))
    assert MOST_BYTES // 2 <= sum(sizes(tmp_path).values()) <= MOST_BYTES
    folder.close()


def test_where_nothing_can_be_removed_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = DumpFolder(str(tmp_path), Room(MOST_BYTES))
    folder.new_file(place(1), ".req.txt").write(b"x" * (MOST_BYTES * 9 // 10))

    def refuses(name: str, *, dir_fd: int) -> None:
        raise OSError(errno.EROFS, name)

    monkeypatch.setattr("os.unlink", refuses)
    with pytest.raises(OSError, match="cannot be removed"):
        folder.new_file(place(2), ".req.txt")
    folder.close()
    assert len(sizes(tmp_path)) == 1
