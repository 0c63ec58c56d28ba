"""The campaign of scripts/reconcile: requests and kills side by side, then quiet, then the comparison."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import reconcile_compare
import reconcile_records
from reconcile_clients import Clients
from reconcile_daemons import Daemons, running, until
from reconcile_plan import Plan, plan_of

# How many requests are under way at a time.
AT_ONCE = 60
# How long credentiald lives at most and at least before it is killed, and for how long it stays away.
LIFE_SECONDS = (0.3, 4.0)
# After a bridge has found the new credentiald, or has died itself. An opening is in memory for a second, and what a
# bridge knows of is told as soon as there is a credentiald again: only where both die before that is an interception
# lost that nobody can know of. It is not what is tried here.
APART_SECONDS = 1.5
FOUND_SECONDS = 15.0
DEAD_SECONDS = (0.0, 0.8)
QUIET_SECONDS = 60.0
AFTERWARDS_SECONDS = 0.3
# A bridge has vanished when it was not heard of for 60 s, which is looked at every 15 s.
VANISHED_SECONDS = 100.0
_SHOWN_FAULTS = 20


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """What is done."""

    seed: int
    streams: int
    kills: int
    kills_bridges: bool


async def reconcile(campaign: Campaign, folder: Path) -> int:
    """Do it, print what came out; the number of faults."""
    own_models = campaign.kills_bridges
    plans = [plan_of(campaign.seed, number, own_models=own_models) for number in range(campaign.streams)]
    print(f"seed {campaign.seed}", flush=True)
    bridges = 2 if campaign.kills_bridges else 1
    async with running(folder, seed=campaign.seed, own_models=own_models, bridges=bridges) as daemons:
        clients = Clients(daemons.addresses, daemons.token)
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(_ask_all(clients, plans))
            killing = group.create_task(_kill(campaign, daemons, asking))
        kills = killing.result()
        took_seconds = time.monotonic() - began
        troubles = await _quiet(campaign, daemons)
        rows, sums = await asyncio.to_thread(
            reconcile_records.read, daemons.plane.addresses["admin"], daemons.admin_token
        )
        account = await asyncio.to_thread(daemons.account)
        # One that does not answer has been told of already.
        lost = 0.0 if troubles else await asyncio.to_thread(daemons.said_lost)
    found = reconcile_compare.compare(account, rows, sums, clients.seen, {plan.number: plan for plan in plans})
    faults = troubles + found.faults
    if lost:
        faults.append(f"bridges say that they have lost the records of {lost:.0f} interceptions")
    for provider, measures in found.upstream.items():
        faults += [f"{provider}: {one} differ" for one in measures if found.difference(provider, one)]
    seen = clients.seen
    print(*reconcile_compare.table(found, with_lost=campaign.kills_bridges), sep="\n")
    print(
        f"{len(plans)} requests in {took_seconds:.0f} s, {len(account)} of them at the upstream; {kills}; "
        f"{seen.reasons.total()} refused meanwhile and asked again, {len(seen.left)} left by their clients, "
        f"{len(seen.broken)} broken off before their end"
    )
    for fault in faults[:_SHOWN_FAULTS]:
        print(f"FAULT  {fault}")
    if len(faults) > _SHOWN_FAULTS:
        print(f"       and {len(faults) - _SHOWN_FAULTS} more")
    print(f"{len(faults)} faults" if faults else "reconciled: no difference", flush=True)
    return len(faults)


async def _ask_all(clients: Clients, plans: list[Plan]) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(plan: Plan) -> None:
        async with gate:
            await clients.ask(plan)

    async with asyncio.TaskGroup() as group:
        for plan in plans:
            group.create_task(ask(plan))


async def _kill(campaign: Campaign, daemons: Daemons, asking: asyncio.Task[None]) -> str:
    """Kill and start again, while requests are asked; what was done."""
    planes = bridges = 0
    for number in range(campaign.kills * (2 if campaign.kills_bridges else 1)):
        # The random points of the kills.
        life_seconds = random.uniform(*LIFE_SECONDS) / (4 if campaign.kills_bridges else 1)
        await asyncio.wait([asking], timeout=life_seconds)
        if asking.done():
            break
        if campaign.kills_bridges:
            await asyncio.sleep(APART_SECONDS)
        if campaign.kills_bridges and number % 2:
            await asyncio.to_thread(daemons.restart_bridge)
            bridges += 1
        else:
            before = await asyncio.to_thread(daemons.streams_opened)
            await asyncio.to_thread(daemons.restart_plane, random.uniform(*DEAD_SECONDS))
            planes += 1
            if campaign.kills_bridges:
                await until(lambda before=before: _have_found_it(daemons, before), FOUND_SECONDS)
    return f"credentiald killed {planes} times" + (f", bridges {bridges} times" if campaign.kills_bridges else "")


def _have_found_it(daemons: Daemons, before: Mapping[str, float]) -> bool:
    """Whether each bridge has another stream than before."""
    now = daemons.streams_opened()
    return all(now[name] > count for name, count in before.items())


async def _quiet(campaign: Campaign, daemons: Daemons) -> list[str]:
    """Until nothing is under way or waits any more; what does not come to an end."""
    troubles = []
    # Twice: a bridge makes its reports a moment after the requests have ended.
    for _ in range(2):
        if not await until(lambda: not daemons.waiting(), QUIET_SECONDS):
            troubles.append("requests or records still wait in a bridge")
            break
        await asyncio.sleep(AFTERWARDS_SECONDS)
    if not await until(lambda: not daemons.waiting_in_plane(), QUIET_SECONDS):
        troubles.append("records still wait in credentiald")
    if campaign.kills_bridges:
        left_seconds = daemons.plane_start_time + VANISHED_SECONDS - time.monotonic()
        address, token = daemons.plane.addresses["admin"], daemons.admin_token
        print("waiting until credentiald knows that bridges have vanished", flush=True)
        await until(lambda: not reconcile_records.open_ids(address, token), max(left_seconds, 1.0))
    return troubles
