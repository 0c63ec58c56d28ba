"""Processes that tests start to crash them, or to let them meet: `python -m tests.support.store_child WHAT …`."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from credentiald import bootstrap, ids
from credentiald.model import User
from credentiald.store import users
from credentiald.store.database import open_database
from tests.support.store import NOW

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = str(ROOT / "credentiald")


def start(*arguments: str) -> "subprocess.Popen[str]":
    """A child of the test with pipes to its stdin and stdout."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.store_child", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def url_in(folder: str | Path) -> str:
    return f"sqlite:///{folder}/store.db"


def crash_while_preparing(folders: list[str], step: int) -> None:
    """Prepare a database in each folder, in a process each that kills itself after so many lines of our code.

    The first gets through `step` lines, the second twice as many, and so on. Prints the number of those that died.
    """
    died = 0
    for number, folder in enumerate(folders, start=1):
        child = os.fork()
        if child == 0:
            sys.settrace(Countdown(number * step))
            bootstrap.prepare(url_in(folder), None, now=NOW)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        died += os.WIFSIGNALED(status)
    print(died)


class Countdown:
    """A trace function that kills this process at the n-th line of credentiald's code."""

    def __init__(self, lines: int) -> None:
        self.lines = lines

    def __call__(self, frame: FrameType, event: str, argument: Any) -> "Countdown | None":
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            self.lines -= 1
            if self.lines <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def prepare_on_demand() -> None:
    """For each line of stdin, a folder: prepare the database there and say what came of it."""
    print("ready", flush=True)
    for line in sys.stdin:
        prepared = bootstrap.prepare(url_in(line.strip()), None, now=NOW)
        print("created" if prepared.created else "found", flush=True)


async def write_for_ever(folder: str, start_at: int) -> None:
    """Create users on four tasks at once, and print the name of each that was acknowledged."""
    prepared = bootstrap.prepare(url_in(folder), None, now=NOW)
    async with open_database(url_in(folder), prepared.sealer) as database:

        async def write(task: int) -> None:
            for number in range(start_at + task, sys.maxsize, 4):
                name = f"user-{number}"
                user = User(id=ids.uuid7(NOW), username=name, create_time=NOW, update_time=NOW)
                await database.write(users.create, user)
                print(name, flush=True)

        await asyncio.gather(*(write(task) for task in range(4)))


def main(what: str, *arguments: str) -> None:
    match what:
        case "crash":
            crash_while_preparing(list(arguments[1:]), int(arguments[0]))
        case "prepare":
            prepare_on_demand()
        case "write":
            asyncio.run(write_for_ever(arguments[0], int(arguments[1])))


if __name__ == "__main__":
    main(*sys.argv[1:])
