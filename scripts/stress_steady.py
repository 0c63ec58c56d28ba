"""The well-behaved client of scripts/stress, a process of its own so that nothing of the abuse slows its clock.

    python scripts/stress_steady.py HOST:PORT          the token comes first on standard input

It asks one thing after another, every tenth time on a new connection. For each further line on its input it prints
what it saw since the last one: {"requests", "failures", "troubles", "p50_ms", "p99_ms", "max_ms"}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time

from stress_figures import TROUBLE_SECONDS, trouble_of

TARGET = "/api/v2/aibridge/calm/v1/chat/completions"
BODY = json.dumps({"model": "gpt-5-mini", "messages": [{"role": "user", "content": "x" * 900}]}).encode()
PAUSE_SECONDS = 0.01
DEADLINE_SECONDS = 30.0
REQUESTS_A_CONNECTION = 10


class Steady:
    """The client, and what it has seen."""

    def __init__(self, address: str, token: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        head = f"POST {TARGET} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
        self._request = head.encode() + BODY
        self._took_ms: list[float] = []
        self._failures: list[str] = []
        self._troubles: list[str] = []

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            try:
                await self._use_connection()
            except (OSError, EOFError, TimeoutError, ValueError) as problem:
                self._failures.append(f"{type(problem).__name__}: {problem}")
                await asyncio.sleep(PAUSE_SECONDS)

    async def _use_connection(self) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            for _ in range(REQUESTS_A_CONNECTION):
                started = time.perf_counter()
                async with asyncio.timeout(DEADLINE_SECONDS):
                    writer.write(self._request)
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
                    await reader.readexactly(length)
                took_seconds = time.perf_counter() - started
                self._took_ms.append(took_seconds * 1e3)
                reason = trouble_of(head)
                if reason and took_seconds <= TROUBLE_SECONDS:
                    self._troubles.append(f"the other client: {reason}, after {took_seconds:.1f} s")
                elif not head.startswith(b"HTTP/1.1 200 "):
                    raise ValueError(f"status {head[9:12].decode('latin-1')}")
                await asyncio.sleep(PAUSE_SECONDS)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def report(self) -> dict[str, object]:
        """What was seen since the last report."""
        took_ms, self._took_ms = sorted(self._took_ms), []
        failures, self._failures = self._failures, []
        troubles, self._troubles = self._troubles, []
        at = [took_ms[min(len(took_ms) - 1, len(took_ms) * percent // 100)] if took_ms else 0.0 for percent in (50, 99)]
        return {
            "requests": len(took_ms),
            "failures": failures[:20],
            "troubles": troubles[:1000],
            "p50_ms": at[0],
            "p99_ms": at[1],
            "max_ms": took_ms[-1] if took_ms else 0.0,
        }


async def main(address: str) -> None:
    loop = asyncio.get_running_loop()
    steady = Steady(address, (await loop.run_in_executor(None, sys.stdin.readline)).strip())
    asking = asyncio.create_task(steady.run())
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(steady.report()), flush=True)
    asking.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
