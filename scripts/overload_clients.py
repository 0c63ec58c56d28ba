"""The clients of scripts/overload, a process of its own.

    python scripts/overload_clients.py HOST:PORT

For each line on its input, a `Load` as JSON, it prints what came of it, `Seen` as JSON. With `at_once` that many
requests are kept under way; otherwise each user asks so often a second, at random times, whatever the answers are. A
connection is used again as long as the bridge leaves it open.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import cast

import uvloop

TARGET = "/api/v2/aibridge/slow/v1/chat/completions"
BODY = json.dumps({"model": "gpt-5-mini", "messages": [{"role": "user", "content": "x" * 900}]}).encode()
# Now and then a body that does not come with its head, so that it matters whether it is read before a refusal.
LARGE_BODY = b" " * 256 * 1024 + BODY
LARGE_PART = 0.02
TICK_SECONDS = 0.001
# How long what is under way at the end may take.
LAST_SECONDS = 15.0
KEPT_PROBLEMS = 20
SLOW_MS = 50.0


@dataclass(frozen=True, kw_only=True)
class Load:
    """What to ask for. `tokens` and `rates`, requests a second, are by user; `settle_seconds` are not counted."""

    seconds: float
    settle_seconds: float
    tokens: dict[str, list[str]]
    rates: dict[str, float]
    at_once: int = 0


@dataclass(kw_only=True)
class Seen:
    """What came of it. `late_ms` is by how much this process itself was late."""

    asked: Counter[str] = field(default_factory=Counter)
    good: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    problems: int = 0
    first_problems: list[str] = field(default_factory=list)
    refusal_p50_ms: float = 0.0
    refusal_p99_ms: float = 0.0
    refusal_max_ms: float = 0.0
    slow_refusals: int = 0
    late_ms: float = 0.0


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._data = b""
        self._user = ""
        self._sent_time = 0.0
        self.is_open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are no subclasses.
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, user: str, request: bytes) -> None:
        """Send a request of this user."""
        self._user = user
        self._sent_time = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, separator, body = self._data.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            user, self._user, self._data = self._user, "", b""
            self.is_open = self.is_open and b"\r\nconnection: close" not in head.lower()
            self._clients.answered(self, user, head, body, time.perf_counter() - self._sent_time)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._user:
            self._clients.broken(self._user, exc)


class Clients:
    """All of them."""

    def __init__(self, address: str, load: Load) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._load = load
        self._requests = {
            user: [(self._request(token, BODY), self._request(token, LARGE_BODY)) for token in tokens]
            for user, tokens in load.tokens.items()
        }
        self._idle: deque[Connection] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._chance = random.Random(1)
        self._count_from = time.perf_counter() + load.settle_seconds
        self._end_time = self._count_from + load.seconds
        self._under_way = 0
        self._refusals: list[float] = []
        self.seen = Seen()

    async def run(self) -> Seen:
        """Ask as the load says."""
        users = list(self._load.tokens)
        for place in range(self._load.at_once):
            self._ask(users[place % len(users)])
        rates, start_time = self._load.rates, time.perf_counter()
        next_times = {user: start_time + self._chance.expovariate(rate) for user, rate in rates.items()}
        while (now := time.perf_counter()) < self._end_time:
            for user, next_time in next_times.items():
                if next_time <= now and now >= self._count_from:
                    self.seen.late_ms = max(self.seen.late_ms, (now - next_time) * 1e3)
                while next_time <= now:
                    self._ask(user)
                    next_time += self._chance.expovariate(rates[user])
                next_times[user] = next_time
            await asyncio.sleep(TICK_SECONDS)
        deadline = time.perf_counter() + LAST_SECONDS
        while self._under_way and time.perf_counter() < deadline:  # noqa: ASYNC110 - this loop has nothing else to do
            await asyncio.sleep(0.01)
        if self._under_way:
            self._note(f"{self._under_way} requests have no answer")
        took_ms = sorted(seconds * 1e3 for seconds in self._refusals)
        if took_ms:
            self.seen.refusal_p50_ms = took_ms[len(took_ms) // 2]
            self.seen.refusal_p99_ms = took_ms[len(took_ms) * 99 // 100]
            self.seen.refusal_max_ms = took_ms[-1]
            self.seen.slow_refusals = sum(ms > SLOW_MS for ms in took_ms)
        return self.seen

    def answered(self, connection: Connection, user: str, head: bytes, body: bytes, seconds: float) -> None:
        """A whole answer came."""
        self._under_way -= 1
        now = time.perf_counter()
        if connection.is_open:
            self._idle.append(connection)
        counted = self._count_from <= now < self._end_time
        status = int(head[9:12])
        if status == 200:
            self.seen.good[user] += counted
        else:
            if problem := problem_of(status, head, body):
                self._note(problem)
            if counted:
                self.seen.refused[user] += 1
                self.seen.reasons[f"{status} {field_of(head, 'x-drawbridge-error')}"] += 1
                self._refusals.append(seconds)
        if self._load.at_once and now < self._end_time:
            self._ask(user)

    def broken(self, user: str, problem: Exception | None) -> None:
        """A connection ended without the whole answer."""
        self._under_way -= 1
        self._note(f"{user}: no answer: {problem!r}")

    def _ask(self, user: str) -> None:
        self._under_way += 1
        now = time.perf_counter()
        self.seen.asked[user] += self._count_from <= now
        small, large = self._chance.choice(self._requests[user])
        request = large if not self._load.at_once and self._chance.random() < LARGE_PART else small
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                connection.ask(user, request)
                return
        task = asyncio.ensure_future(self._connect(user, request))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, user: str, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: Connection(self), self._host, self._port)
        except OSError as problem:
            self.broken(user, problem)
            return
        connection.ask(user, request)

    def _request(self, token: str, body: bytes) -> bytes:
        head = f"POST {TARGET} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nAuthorization: Bearer {token}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def _note(self, problem: str) -> None:
        self.seen.problems += 1
        if len(self.seen.first_problems) < KEPT_PROBLEMS:
            self.seen.first_problems.append(problem)


def field_of(head: bytes, name: str) -> str:
    """The value of a header, empty where there is none."""
    for line in head.decode("latin-1").split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name:
            return value.strip()
    return ""


def problem_of(status: int, head: bytes, body: bytes) -> str:
    """What is wrong with a refusal; empty where it is as it should be."""
    reason, wait = field_of(head, "x-drawbridge-error"), field_of(head, "retry-after")
    if (status, reason) not in ((429, "RATE_LIMITED"), (503, "CAPACITY")):
        return f"a refusal with status {status}, reason {reason or 'none'}"
    if not (wait.isdigit() and int(wait) >= 1):
        return f"a refusal with Retry-After {wait!r}"
    try:
        error = json.loads(body)["error"]
        return "" if error["message"] and error["type"] and error["code"] == reason.lower() else f"an error {error}"
    except (ValueError, LookupError, TypeError):
        return "a refusal that is not in the shape of the API"


async def main(address: str) -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        seen = await Clients(address, Load(**json.loads(line))).run()
        print(json.dumps(vars(seen)), flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
