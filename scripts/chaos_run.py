"""The campaign of scripts/chaos: load, an administrator and faults side by side, then quiet, then the verdicts."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import reconcile_compare
import reconcile_records
import stress_clients
from chaos_admin import Administrator
from chaos_clients import DEADLINE_SECONDS, Asker, Book
from chaos_faults import MAKERS, Scene
from chaos_pair import Certificates, Clock, Disk, Pair, Setting
from chaos_schedule import Step, Window, steps
from chaos_upstream import AnyUpstream, running_any_upstream
from chaos_verdicts import RECOVERY_SECONDS, Facts, Verdict, conclusion, verdicts
from reconcile_clients import Clients
from reconcile_daemons import is_ready, until, upstream
from reconcile_plan import PROVIDERS, Ending, Plan, plan_of
from reconcile_records import ENDLESS, VANISHED, Row
from reconcile_run import APART_SECONDS, FOUND_SECONDS
from stress_pair import script

from tests.fakes.counting_upstream import CountingUpstream, running_counting_upstream
from tests.support.fault_proxy import running_proxy
from tests.support.processes import command, commanded

BRIDGES = 2
# How many requests of scripts/reconcile are under way, and how long each place rests after one.
PLACES, PLACE_REST_SECONDS = 12, 0.3
# The bound of a daemon's process: what it takes when it has begun, and room for what waits during a fault.
BOUND_MIB = 256.0
READY_SECONDS = 30.0
QUIET_SECONDS = 60.0
# So much is waited for at most before a pair that does not get well ends the campaign.
GIVE_UP_SECONDS = 60.0
LOOK_SECONDS = 0.5
READ_TRIES = 5
# credentiald ends what vanished bridges have left behind 60 s after it heard of them last, and looks every 15 s. Its
# clock is set ahead for that, further than any fault set it, because a bridge that was heard of under such a clock
# counts as there until then. It takes the jump for a sleep of the machine, so the 60 s begin with it.
VANISHED_SHIFT_SECONDS, VANISHED_SECONDS = 900.0, 110.0
# What a bridge that is there never heard of ends two of those looks after the bridge has said so.
LEFT_BEHIND_SECONDS = 75.0
RECONCILE_KEY = "sk-reconcile"
# Where the upstream breaks off, its client's connection may do so, too.
_UPSTREAM_ENDS = frozenset({Ending.CUT, Ending.FAILS, Ending.SILENT})


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """What is done, and for how long."""

    seed: int
    seconds: float
    faults: Sequence[str]
    workers: int = 1
    audit: str = "on"


@dataclass(kw_only=True)
class Stage:
    """Everything that runs."""

    campaign: Campaign
    folder: Path
    pair: Pair
    scene: Scene
    book: Book
    asker: Asker
    administrator: Administrator
    calm: CountingUpstream
    anything: AnyUpstream
    clients: Clients
    plans: dict[int, Plan] = field(default_factory=dict)
    windows: list[Window] = field(default_factory=list)
    rotations: list[str] = field(default_factory=list)
    rotation_problems: list[str] = field(default_factory=list)
    drained: int = 0


async def run(campaign: Campaign, folder: Path) -> int:
    """Do it, and print what came of it; how many promises were violated."""
    print(f"seed {campaign.seed}, {campaign.seconds:.0f} s, faults: {', '.join(campaign.faults)}", flush=True)
    async with _stage(campaign, folder) as stage:
        began = time.monotonic()
        async with _load(stage):
            await _harm(stage)
        load_seconds = time.monotonic() - began
        troubles = await _quiet(stage)
        facts = await _facts(stage, troubles)
    found = verdicts(facts)
    _print(stage, facts, found, load_seconds)
    return sum(one.violated for one in found)


# What runs


@asynccontextmanager
async def _stage(campaign: Campaign, folder: Path) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        disk = Disk(folder / "disk")
        stack.callback(disk.close)
        clocks = {name: Clock(folder / f"{name}.clock") for name in ("credentiald", "bridged")}
        certificates = Certificates(folder)
        anything, any_port = await stack.enter_async_context(running_any_upstream(campaign.seed))
        calm = await stack.enter_async_context(running_counting_upstream())
        stress = stack.enter_context(script("stress_upstream.py", str(1 << 20), "1"))
        assert stress.stdout is not None
        stress_port = int(await asyncio.to_thread(stress.stdout.readline))
        to_upstream = await stack.enter_async_context(running_proxy(lambda: f"127.0.0.1:{any_port}"))
        names = [f"bridge {number}" for number in range(BRIDGES)]
        # The pair is there before anybody connects to a proxy.
        pairs: list[Pair] = []
        to_plane, to_bridge = {}, {}
        for name in names:
            to_plane[name] = await stack.enter_async_context(running_proxy(lambda: pairs[0].plane_address()))
            to_bridge[name] = await stack.enter_async_context(
                running_proxy(lambda name=name: pairs[0].bridge_address(name))
            )
        port = stack.enter_context(upstream(campaign.seed, own_models=True))
        bases = {
            "json": calm.url + "/json", "calm": calm.url + "/calm", "stream": f"http://127.0.0.1:{stress_port}/stream",
            "ticks": f"http://127.0.0.1:{stress_port}/ticks", "garbage": f"http://127.0.0.1:{any_port}/garbage",
            "far": f"{to_upstream.url}/far", "nowhere": "http://127.0.0.1:1", "unnamed": "http://chaos.invalid",
        }  # fmt: skip
        setting = Setting(
            folder=folder,
            environ=_more_providers(bases),
            workers=campaign.workers,
            audit=campaign.audit,
            disk=disk,
            clocks=clocks,
            certificates=certificates,
            to_plane=to_plane,
        )
        pair = await asyncio.to_thread(_pair, setting, port, pairs)
        stack.callback(pair.close)
        if not await until(lambda: all(is_ready(one) for one in pair.bridges.values()), READY_SECONDS):
            raise RuntimeError(f"the bridges do not get ready: {list(pair.output())}")
        book = Book()
        asker = Asker(book, pair.token)
        administrator = Administrator(pair, asker, calm, campaign.seed)
        await administrator.prepare(calm.url)
        scene = Scene(
            pair=pair, disk=disk, clocks=clocks, certificates=certificates, to_plane=to_plane, to_bridge=to_bridge,
            to_upstream=to_upstream, rotate=lambda: _rotate(stage),
        )  # fmt: skip
        stage = Stage(
            campaign=campaign, folder=folder, pair=pair, scene=scene, book=book, asker=asker, calm=calm,
            administrator=administrator, anything=anything, clients=Clients(pair.addresses, pair.token),
        )  # fmt: skip
        yield stage


def _pair(setting: Setting, port: int, pairs: list[Pair]) -> Pair:
    pair = Pair.__new__(Pair)
    # Bridges connect while it is being made.
    pairs.append(pair)
    pair.__init__(setting, port, BRIDGES)  # type: ignore[misc]
    return pair


def _more_providers(bases: dict[str, str]) -> dict[str, str]:
    first = len(set(PROVIDERS.values()))
    return {
        f"CODER_AIBRIDGE_PROVIDER_{number}_{name}": value
        for number, (provider, base) in enumerate(bases.items(), first)
        for name, value in (
            ("TYPE", "openai"), ("NAME", provider), ("KEY", _key_of(provider)), ("BASE_URL", f"{base}/v1")
        )
    }  # fmt: skip


def _key_of(provider: str) -> str:
    return f"sk-{provider}-canary-7d41"


@asynccontextmanager
async def _load(stage: Stage) -> AsyncIterator[None]:
    """Clients and the administrator, for the length of the block. What they have begun they end."""
    pair, asker, scene = stage.pair, stage.asker, stage.scene
    direct = pair.addresses
    crooked = [proxy.address for proxy in scene.to_bridge.values()]
    lanes: list[Any] = [
        *(asker.keep_asking("json", direct, "json", stream=False, rest_seconds=0.05) for _ in range(2)),
        *(asker.keep_asking("stream", direct, "stream", stream=True, rest_seconds=0.1) for _ in range(2)),
        *(asker.keep_asking("far", direct, "far", stream=bool(n), rest_seconds=0.1) for n in range(2)),
        *(asker.keep_asking("crooked", lambda: crooked, "far", stream=bool(n), rest_seconds=0.1) for n in range(2)),
        asker.keep_asking("garbage", direct, "garbage", stream=False, rest_seconds=0.1),
        asker.keep_asking("nowhere", direct, "nowhere", stream=False, rest_seconds=0.5),
        asker.keep_asking("unnamed", direct, "unnamed", stream=False, rest_seconds=0.5),
        _misbehave(stage),
        stage.administrator.work(),
        _look(stage),
    ]
    numbers = itertools.count()
    ending = asyncio.Event()
    places = [asyncio.create_task(_ask_plans(stage, numbers, ending)) for _ in range(PLACES)]
    tasks = [asyncio.create_task(one) for one in lanes]
    try:
        yield
    finally:
        failed = [one for one in (*tasks, *places) if one.done() and not one.cancelled() and one.exception()]
        for task in tasks:
            task.cancel()
        ending.set()
        await asyncio.wait(places, timeout=QUIET_SECONDS)
        for task in places:
            task.cancel()
        await asyncio.gather(*tasks, *places, return_exceptions=True)
        for one in failed:
            raise RuntimeError("a client of the campaign failed") from one.exception()


async def _ask_plans(stage: Stage, numbers: Any, ending: asyncio.Event) -> None:
    while not ending.is_set():
        number = next(numbers)
        plan = stage.plans[number] = plan_of(stage.campaign.seed, number, own_models=True)
        await stage.clients.ask(plan)
        await asyncio.sleep(random.uniform(0, 2 * PLACE_REST_SECONDS))


async def _misbehave(stage: Stage) -> None:
    """Slow heads, and clients that vanish: whatever they meet, only that they are there counts."""
    while True:
        for address in stage.pair.addresses():
            host, _, port = address.rpartition(":")
            bridge = stress_clients.Bridge(host=host, port=int(port), token=stage.pair.token)
            with contextlib.suppress(OSError, EOFError):
                await asyncio.wait_for(stress_clients.vanishing(bridge, 3), 10.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stress_clients.slow_heads(bridge, 3), 3.0)
        await asyncio.sleep(0.5)


async def _look(stage: Stage) -> None:
    while True:
        await asyncio.to_thread(stage.pair.look)
        await asyncio.sleep(LOOK_SECONDS)


# What is done to it


async def _harm(stage: Stage) -> None:
    campaign = stage.campaign
    await asyncio.sleep(1.0)
    end = time.monotonic() + campaign.seconds
    for step in steps(campaign.seed, campaign.faults):
        window = await _make(stage, step)
        print(_line(window), flush=True)
        if window.recovered is None or time.monotonic() >= end:
            return
        await asyncio.sleep(step.rest_seconds)


async def _make(stage: Stage, step: Step) -> Window:
    if step.fault == "kill-bridge":
        # Only where both die before the bridge has told credentiald's successor is an interception lost that nobody can
        # know of (docs/records.md). It is not what is tried here.
        await until(stage.pair.has_found_plane, FOUND_SECONDS)
        await asyncio.sleep(APART_SECONDS)
    window = Window(fault=step.fault, began=time.monotonic(), ended=float("inf"))
    stage.windows.append(window)
    window.detail = await MAKERS[step.fault](stage.scene, step, random.Random(step.dice))
    window.ended = time.monotonic()
    stage.drained += step.fault == "drain-bridge"
    if await _well_again(stage):
        window.recovered = time.monotonic()
    return window


async def _well_again(stage: Stage) -> bool:
    """Whether every bridge answered a request in time: nobody helps it."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    for name in list(stage.pair.bridges):
        while True:
            address = stage.pair.bridge_address(name)
            with contextlib.suppress(TimeoutError):
                answered = await asyncio.wait_for(stage.asker.ask("probe", address, "json"), 10.0)
                if answered.good:
                    break
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.1)
    return True


async def _rotate(stage: Stage) -> str:
    """credentiald's own command, as an operator gives it."""
    done = await asyncio.to_thread(command, stage.pair.folder, stage.pair.plane, "sealing", "rotate")
    if "No such command" in done.stderr:
        return "there is no such command yet"
    stage.rotations.append(done.stdout.strip())
    if done.returncode != 0:
        stage.rotation_problems.append(f"sealing rotate ended with {done.returncode}: {done.stderr.strip()[-200:]}")
    return " ".join(done.stdout.split()[:1]) or "no output"


# What came of it


async def _quiet(stage: Stage) -> list[str]:
    """Until nothing is under way or waits; what does not come to an end."""
    pair, troubles = stage.pair, []
    for _ in range(2):
        if not await until(lambda: not pair.waiting(), QUIET_SECONDS):
            troubles.append(f"requests or records still wait in a bridge: {_waiting(pair)}")
            break
        await asyncio.sleep(0.5)
    if not await until(lambda: not pair.waiting_in_plane(), QUIET_SECONDS):
        troubles.append(f"records still wait in credentiald: {pair.waiting_in_plane():.0f}")
    address, token = pair.plane.addresses["admin"], pair.admin_token
    if any(one.fault == "kill-bridge" for one in stage.windows):
        print("waiting until credentiald knows that bridges have vanished", flush=True)
        stage.scene.clocks["credentiald"].shift(VANISHED_SHIFT_SECONDS)
        await until(lambda: _nothing_open(address, token), VANISHED_SECONDS)
        stage.scene.clocks["credentiald"].shift(0.0)
    elif not _nothing_open(address, token, but=_refused(stage)):
        # The client of a refusal may not have got it, so that nobody here knows of it.
        print("waiting until credentiald has ended what no bridge knows of", flush=True)
        await until(lambda: _nothing_open(address, token, but=_refused(stage)), LEFT_BEHIND_SECONDS)
    return troubles


def _nothing_open(address: str, token: str, *, but: frozenset[str] = frozenset()) -> bool:
    try:
        return reconcile_records.open_ids(address, token) <= but
    except grpc.RpcError:
        # A list of all may take longer than a call may, while the machine is busy.
        return False


async def _read_records(pair: Pair) -> tuple[list[Row], list[Any]]:
    """All of them; again where that takes longer than a call may."""
    for left in reversed(range(READ_TRIES)):
        try:
            address, counted = pair.plane.addresses["admin"], frozenset(PROVIDERS.values())
            return await asyncio.to_thread(reconcile_records.read, address, pair.admin_token, counted)
        except grpc.RpcError as problem:
            if not left:
                raise
            print(f"records cannot be read: {problem.details()}; once more", flush=True)  # type: ignore[attr-defined]
            await asyncio.sleep(2.0)
    raise AssertionError("it was tried")


def _waiting(pair: Pair) -> str:
    return ", ".join(
        f"{name} {metric} {pair.metric(one, metric):.0f}"
        for name, one in pair.bridges.items()
        for metric in ("bridged_requests_in_flight", "bridged_records_waiting")
    )


async def _facts(stage: Stage, troubles: list[str]) -> Facts:
    pair, administrator, book = stage.pair, stage.administrator, stage.book
    rows, sums = await _read_records(pair)
    account = await asyncio.to_thread(pair.account)
    lost = 0.0 if troubles else await asyncio.to_thread(pair.said_lost)
    unreconciled, reconciled = _reconciled(stage, rows, sums, account)
    if lost:
        said = "; ".join(
            line
            for text in (await asyncio.to_thread(_metrics, pair)).values()
            for line in text.splitlines()
            if line.startswith("bridged_records_lost_total{") and not line.endswith(" 0.0")
        )
        unreconciled.append(f"bridges say that they have lost the records of {lost:.0f} interceptions: {said}")
    explained = await _explained(stage)
    kept, not_kept = await asyncio.to_thread(_kept, stage)
    metrics = await asyncio.to_thread(_metrics, pair)
    administrator.forget_requests()
    carried = Counter(administrator.carried) + Counter(stage.anything.keys)
    for one in account:
        carried.update(("reconcile", key) for key in one["credentials"])
    allowed = {name: frozenset({_key_of(name)}) for name in ("json", "calm", "far", "garbage")}
    allowed["reconcile"] = frozenset({RECONCILE_KEY})
    allowed["changing"] = frozenset(one for one in administrator.secrets if one.startswith("sk-changing"))
    tampered = await _tampered(stage)
    pair.look()
    dropped = [
        f"request {number} broke off at {address}, which was not killed"
        for number, address in stage.clients.seen.broken.items()
        if address not in pair.killed_addresses and stage.plans[number].ending not in _UPSTREAM_ENDS
    ]
    files = {
        path.name: path.read_bytes() for path in sorted(pair.folder.iterdir()) if path.is_file() and ".db" in path.name
    }
    keys = {value for name, value in pair.environ.items() if name.endswith("_KEY")}
    secrets = {pair.token, pair.admin_token, *administrator.secrets, *keys}
    secrets |= {(pair.folder / "credentiald.bridge-token").read_text().strip()}
    for line in (pair.folder / "credentiald.sealing").read_text().splitlines():
        if ":" in line and not line.startswith("#"):
            secrets.add(line.partition(":")[2].strip())
    places = [
        *((f"the log of {name}", text.encode()) for name, text in zip(_names(pair), pair.output(), strict=True)),
        *((f"the file {name}", data) for name, data in files.items()),
        *((f"metrics of {name}", text.encode()) for name, text in metrics.items()),
        ("answers of ours", b"\n".join(book.said)),
        ("records", repr(rows).encode()),
    ]
    return Facts(
        windows=stage.windows,
        counts=book.counts,
        bad=book.bad,
        secrets=secrets,
        places=places,
        carried=carried,
        allowed=allowed,
        revoked=administrator.revoked,
        confirmed=administrator.confirmed,
        changed_keys=administrator.changed_keys,
        after=administrator.after,
        administration=administrator.wrong,
        explained=explained,
        unreconciled=[*troubles, *unreconciled],
        reconciled=reconciled,
        kept=kept,
        not_kept=not_kept,
        tampered=tampered,
        rotations=stage.rotations,
        rotation_problems=stage.rotation_problems,
        dropped=dropped,
        drained=stage.drained,
        begun_streams=len(stage.clients.seen.whole),
        noise=stage.scene.noise,
        garbage=stage.anything.garbage,
        hung=stage.scene.hung,
        died=pair.ended_by_themselves(),
        tracebacks=pair.tracebacks(),
        tls_problems=stage.scene.tls_problems,
        peak_mib=pair.peak_mib,
        bound_mib=BOUND_MIB,
        longest_seconds=book.longest_seconds,
        # With its connecting, and what a busy machine takes.
        deadline_seconds=DEADLINE_SECONDS + 10.0,
    )


def _names(pair: Pair) -> list[str]:
    return [name for name, _ in pair.lived]


def _metrics(pair: Pair) -> dict[str, str]:
    from reconcile_daemons import fetch

    here = {"credentiald": pair.plane, **pair.bridges}
    return {name: fetch(f"http://{one.addresses['metrics']}/metrics") for name, one in here.items()}


def _reconciled(
    stage: Stage, rows: Sequence[Row], sums: Sequence[Any], account: Sequence[Any]
) -> tuple[list[str], str]:
    """Faults, and what was compared: every number of the counting upstream, and one end for every other call."""
    counted = frozenset(PROVIDERS.values())
    plans = stage.plans
    own = [row for row in rows if row.provider in counted]
    found = reconcile_compare.compare(
        account, own, [one for one in sums if one.provider in counted], stage.clients.seen, plans
    )
    faults = list(found.faults)
    for provider, measures in found.upstream.items():
        faults += [f"{provider}: {one} differ" for one in measures if found.difference(provider, one)]
    others = [row for row in rows if row.provider not in counted]
    ends = Counter(row.agent.removeprefix("chaos/") for row in others if row.agent.startswith("chaos/"))
    vanished = sum(row.outcome == VANISHED for row in others)
    faults += [
        f"{mark} has {count} interceptions"
        for mark, count in ends.items()
        if count > 1 and not mark.startswith(("token-", "key-"))
    ]
    called = {mark for mark in stage.anything.called if mark}
    missing = sorted(called - ends.keys())
    if len(missing) > vanished:
        faults.append(
            f"{len(missing)} calls have no interception ({missing[0]} is one), and {vanished} are marked as lost"
        )
    endless = [row.id for row in others if row.outcome == ENDLESS]
    refused = _refused(stage)
    faults += [f"{one} has no end" for one in endless if one not in refused]
    marked = f", {vanished} marked as lost with their bridge" if vanished else ""
    return faults, f"{len(account)} calls in every number, {len(called)} by their ends{marked}"


def _refused(stage: Stage) -> frozenset[str]:
    """Openings of which bridges never heard, because credentiald died between answering and being heard."""
    return frozenset(stage.clients.seen.refused | stage.book.refused)


async def _explained(stage: Stage) -> list[tuple[str, bool, bool]]:
    """For each provider whether the user may use it: explained, and done."""
    found = []
    pair = stage.pair
    await asyncio.to_thread(commanded, pair.folder, pair.plane, "providers", "update", "changing", "--disabled")
    for provider in ("json", "far", "changing", "calm"):
        said = await asyncio.to_thread(
            command, pair.folder, pair.plane, "explain", provider, "--user", "reconcile", "--json"
        )
        answer = json.loads(said.stdout) if said.stdout.strip() else {}
        allowed = said.returncode == 0 and not answer.get("reason")
        done = await stage.asker.ask("explained", pair.addresses()[0], provider)
        found.append((provider, allowed, done.status not in (401, 403, 503)))
    await asyncio.to_thread(commanded, pair.folder, pair.plane, "providers", "update", "changing", "--enabled")
    return found


def _kept(stage: Stage) -> tuple[str, list[str]]:
    """What was acknowledged to the administrator is there, the log of changes has no gap, the file is whole."""
    pair, users = stage.pair, stage.administrator.users
    listed = {one["username"] for one in json.loads(commanded(pair.folder, pair.plane, "users", "list", "--json"))}
    problems = [f"the user {one} was acknowledged and is gone" for one in sorted(users - listed)]
    with contextlib.closing(sqlite3.connect(f"file:{pair.folder / 'credentiald.db'}?mode=ro", uri=True)) as conn:
        revisions = [row[0] for row in conn.execute("SELECT revision FROM change_log ORDER BY revision")]
        if conn.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            problems.append("the database is damaged")
    if revisions != list(range(revisions[0], revisions[0] + len(revisions))):
        problems.append("the log of changes has a gap")
    audit = command(pair.folder, pair.plane, "audit", "verify")
    if audit.returncode != 0:
        problems.append(f"the audit is not whole: {(audit.stdout + audit.stderr).strip()[:300]}")
    told = f"{len(users)} acknowledged users kept, {len(revisions)} changes without a gap"
    return f"{told}, audit {audit.stdout.partition(' (')[0]}", problems


async def _tampered(stage: Stage) -> list[str] | None:
    """Flip a bit of the stored key of one provider: it must not be used, and nothing else may suffer."""
    pair = stage.pair
    with contextlib.closing(sqlite3.connect(pair.folder / "credentiald.db")) as conn:
        if not _flip(conn):
            return None
    before = len(stage.calm.requests)
    if not await _well_again(stage):
        return ["other providers are not served any more"]
    answer = await stage.asker.ask("tampered", pair.addresses()[0], "changing", "tampered")
    stage.calm.arrived()
    sent = [one for one in stage.calm.requests[before:] if one.path.startswith("/changing")]
    problems = [] if answer.status == 503 else [f"answered with {answer.status} {answer.reason}"]
    return problems + [f"the upstream was called with {one.key[:6]}…" for one in sent]


def _flip(conn: sqlite3.Connection) -> bool:
    """One bit in the middle of every sealed central key; whether there was any."""
    rows = conn.execute("SELECT rowid, ciphertext FROM central_keys").fetchall()
    for rowid, data in rows:
        place = len(data) // 2
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        conn.execute("UPDATE central_keys SET ciphertext = ? WHERE rowid = ?", (changed, rowid))
    conn.commit()
    return bool(rows)


# What is printed


def _line(window: Window) -> str:
    lasted = window.ended - window.began
    took = window.recovery_seconds()
    well = "not well again" if took is None else f"well again after {took:.1f} s"
    return f"{window.fault:18}{lasted:5.1f} s, {well}  ({window.detail})"


def _print(stage: Stage, facts: Facts, found: Sequence[Verdict], seconds: float) -> None:
    print()
    print(*found, sep="\n")
    took = sorted(one.recovery_seconds() or 0.0 for one in facts.windows if one.recovered is not None)
    good = len(stage.book.good_times) + len(stage.clients.seen.whole)
    refused = sum(count for (_, what), count in facts.counts.items() if what.startswith("503"))
    refused += sum(stage.clients.seen.reasons.values())
    median = took[len(took) // 2] if took else 0.0
    print(
        f"\n{len(facts.windows)} faults in {seconds:.0f} s ({', '.join(_counted(facts.windows))}); "
        f"well again after {median:.1f} s at the median and {max(took, default=0):.1f} s at "
        f"the most (at most {RECOVERY_SECONDS:.0f}), without help\n"
        f"{facts.total() + len(stage.plans)} requests, {good / seconds:.0f} good answers a second meanwhile, "
        f"{refused} times 503; credentiald's disk was {stage.scene.disk.means}, clocks are Python's, shifted by a file"
    )
    for (lane, what), count in sorted(facts.counts.items()):
        print(f"    {lane:20}{what:40}{count:8}")
    print(conclusion(found, stage.campaign.seed), flush=True)


def _counted(windows: Sequence[Window]) -> list[str]:
    return [f"{name} {count}" for name, count in Counter(one.fault for one in windows).most_common()]
