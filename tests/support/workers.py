"""Which worker has which connection, as Linux tells it."""

import os
from collections.abc import Iterable
from pathlib import Path

from tests.support.processes import Daemon


def pids_of(daemon: Daemon) -> list[int]:
    """The workers that have served so far, in the order in which they began."""
    return [int(str(line["pid"])) for line in list(daemon.lines) if line["msg"] == "a worker serves"]


def owner_of(client_port: int, pids: Iterable[int]) -> int | None:
    """The process that has accepted the connection of a client with this port; None if none has yet."""
    wanted = {f"socket:[{inode}]" for inode in _inodes_with_peer(client_port)}
    return next((pid for pid in pids if wanted & set(_links(pid))), None)


def _inodes_with_peer(port: int) -> list[str]:
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return [row[9] for row in rows if int(row[2].rpartition(":")[2], 16) == port]


def _links(pid: int) -> list[str]:
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(entry))
        except FileNotFoundError:
            continue
    return found
