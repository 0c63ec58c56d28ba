"""What scripts/overload runs and what must hold: the best that is carried, then ten times as much."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from overload_clients import SLOW_MS, Load, Seen
from stress_figures import Verdict, at_most, rss_mib, slope
from stress_pair import NotStarted, script, wait_ready

from tests.support.processes import Daemon, bridged, commanded, credentiald

SLOTS = 100
SERVICE_SECONDS = 0.5
OVERLOAD = 10
# Each user's part of what is carried at best, as asked for; together OVERLOAD times that.
WANTED = {"greedy": 6.0, "ada": 1.3, "bob": 1.3, "eve": 1.3, "modest": 0.1}
TOKENS = {"greedy": 2}
SHORT_SECONDS = 6.0
# Connections are made, pages touched, and slots divided in these.
SETTLE_SECONDS = 3.0
SAMPLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What is good enough. `best_seconds` is how long the best is looked for, before and after."""

    best_seconds: float
    goodput: float
    refusal_p99_ms: float
    user: float
    mib_a_minute: float
    mib: float


FULL = Bounds(best_seconds=5.0, goodput=0.9, refusal_p99_ms=50.0, user=0.5, mib_a_minute=4.0, mib=48.0)
# Memory of some seconds has no slope.
SHORT = Bounds(best_seconds=3.0, goodput=0.8, refusal_p99_ms=250.0, user=0.35, mib_a_minute=1000.0, mib=48.0)


def verdicts(folder: Path, bounds: Bounds, seconds: float) -> Iterator[Verdict]:
    """Start everything, measure, judge."""
    with running(folder) as pair:
        pair.load(3.0, at_once=SLOTS)
        best = sum(pair.load(bounds.best_seconds, at_once=SLOTS).good.values()) / bounds.best_seconds
        yield Verdict(good=best > 0, text=f"best goodput: {best:.0f} requests a second, {SLOTS} at once")
        before_mib = pair.rss_mib()
        with pair.sampled() as samples:
            seen = pair.load(seconds, rates={user: part * best for user, part in WANTED.items()})
        yield from _judged(seen, bounds, best, seconds)
        first = samples[0][0] + SETTLE_SECONDS
        settled = [(at / 60, mib) for at, mib in samples if at >= first]
        yield at_most("memory of the bridge rises by", slope(settled), bounds.mib_a_minute, "MiB a minute")
        yield at_most(
            "memory of the bridge, over that before", max(mib for _, mib in samples) - before_mib, bounds.mib, "MiB"
        )
        again = sum(pair.load(bounds.best_seconds, at_once=SLOTS).good.values()) / bounds.best_seconds
        yield _at_least("goodput afterwards", again, bounds.goodput * best)


def _judged(seen: Seen, bounds: Bounds, best: float, seconds: float) -> Iterator[Verdict]:
    good, asked = sum(seen.good.values()), sum(seen.asked.values())
    offered = asked / seconds / best
    yield Verdict(
        good=offered >= OVERLOAD * 0.9,
        text=f"offered: {asked / seconds:.0f} requests a second, {offered:.1f} times the best; "
        f"the clients were late by {seen.late_ms:.0f} ms at most",
    )
    yield _at_least("goodput", good / seconds, bounds.goodput * best)
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(seen.reasons.items()))
    first = f", first: {seen.first_problems[0]}" if seen.problems else ""
    yield Verdict(
        good=not seen.problems and sum(seen.refused.values()) > 0,
        text=f"refusals: {reasons}; out of shape, or without an answer: {seen.problems}{first}",
    )
    yield at_most(
        f"refusals take p50 {seen.refusal_p50_ms:.1f} ms, longest {seen.refusal_max_ms:.0f} ms, "
        f"{seen.slow_refusals} over {SLOW_MS:.0f} ms, p99",
        seen.refusal_p99_ms,
        bounds.refusal_p99_ms,
        "ms",
    )
    fair = fair_division({user: seen.asked[user] / seconds for user in WANTED}, good / seconds)
    for user, rate in fair.items():
        got = seen.good[user] / seconds
        yield Verdict(
            good=got >= bounds.user * rate,
            text=f"{user}: asked for {seen.asked[user] / seconds:.0f} a second, got {got:.1f}, "
            f"{got / (good / seconds):.0%} of all; a fair division gives {rate:.1f}",
        )


def fair_division(wanted: Mapping[str, float], capacity: float) -> dict[str, float]:
    """What each gets when nobody gets more than it wants, and those who want more get the same (max-min)."""
    given, left = dict[str, float](), capacity
    for place, (user, rate) in enumerate(sorted(wanted.items(), key=lambda item: item[1])):
        given[user] = min(rate, left / (len(wanted) - place))
        left -= given[user]
    return {user: given[user] for user in wanted}


def _at_least(text: str, value: float, limit: float) -> Verdict:
    return Verdict(good=value >= limit, text=f"{text}: {value:.0f} a second (at least {limit:.0f})")


class Pair:
    """The daemons and the clients."""

    def __init__(self, bridge: Daemon, clients: subprocess.Popen[str], tokens: dict[str, list[str]]) -> None:
        self._bridge = bridge
        self._clients = clients
        self._tokens = tokens

    def load(self, seconds: float, *, rates: dict[str, float] | None = None, at_once: int = 0) -> Seen:
        """Have the clients ask."""
        load = Load(
            seconds=seconds,
            settle_seconds=SETTLE_SECONDS if rates else 0.5,
            tokens=self._tokens,
            rates=rates or {},
            at_once=at_once,
        )
        assert self._clients.stdin is not None
        assert self._clients.stdout is not None
        self._clients.stdin.write(json.dumps(asdict(load)) + "\n")
        self._clients.stdin.flush()
        line = self._clients.stdout.readline()
        if not line:
            raise NotStarted("the clients have ended")
        return Seen(**json.loads(line))

    def rss_mib(self) -> float:
        """Memory of the bridge."""
        return rss_mib(self._bridge.process.pid)

    @contextlib.contextmanager
    def sampled(self) -> Iterator[list[tuple[float, float]]]:
        """Seconds and memory, for the length of the block."""
        samples, ended = [(time.monotonic(), self.rss_mib())], threading.Event()

        def sample() -> None:
            while not ended.wait(SAMPLE_SECONDS):
                samples.append((time.monotonic(), self.rss_mib()))

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield samples
        finally:
            ended.set()
            thread.join()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Pair]:
    """All of it, from nothing; stopped at the end of the block."""
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(script("overload_upstream.py", str(SERVICE_SECONDS)))
        assert upstream.stdout is not None
        port = upstream.stdout.readline().strip()
        if not port:
            raise NotStarted("the upstream does not come up")
        environ = {
            f"CODER_AIBRIDGE_PROVIDER_0_{name}": value
            for name, value in (
                ("TYPE", "openai"), ("NAME", "slow"), ("KEY", "overload"), ("BASE_URL", f"http://127.0.0.1:{port}/v1"),
            )
        }  # fmt: skip
        plane = stack.enter_context(credentiald(folder, environ))
        flags = ("--max-concurrency", str(SLOTS))
        bridge = stack.enter_context(bridged(folder, plane.addresses["main"], None, *flags))
        tokens: dict[str, list[str]] = {}
        for user in WANTED:
            commanded(folder, plane, "users", "create", user)
            create = ("tokens", "create", "--user", user)
            tokens[user] = [commanded(folder, plane, *create).strip() for _ in range(TOKENS.get(user, 1))]
        wait_ready(f"http://{bridge.addresses['metrics']}/readyz")
        clients = stack.enter_context(script("overload_clients.py", bridge.addresses["http"]))
        yield Pair(bridge, clients, tokens)
