"""Answers that are kept, and the health of keys: they never say what a fresh look would not."""

import asyncio
import random
import sqlite3

import grpc
import pytest
from drawbridge.v1 import admin_service_pb2 as admin
from drawbridge.v1 import credential_service_pb2 as pb

from credentiald import outcome_book
from credentiald.key_health import Choice, Complaints, choose
from credentiald.metrics import Metrics
from credentiald.store import key_health
from tests.support.credentiald import bearer, running
from tests.support.key_pools import WAIT_SECONDS, Bridge, Clock, complaints_in_the_file, make_pool


async def test_kept_answers_follow_the_health_of_the_keys_bridge_by_bridge(tmp_path):
    clock, metrics = Clock(), Metrics("test")

    def misses() -> float:
        return metrics.registry.get_sample_value("credentiald_answer_cache_total", {"outcome": "miss"}) or 0

    async with running(tmp_path, clock=clock, metrics=metrics) as one:
        _, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2")
        here, there = Bridge(one, token, name="here"), Bridge(one, token, name="there")
        stream = here.stream()
        both = (here, there)

        async def keys() -> list[str]:
            return [(await bridge.batch(stream, bridge.question()))[0] for bridge in both]

        # While nobody complains, an answer is for all.
        assert await keys() == ["sk-1", "sk-1"]
        assert misses() == 1
        first, second = await here.ask(), await there.ask(failed=[(await here.ask()).credential.credential_id])
        await here.tell(first, "RATE_LIMITED", wait=10)
        await there.tell(second, "RATE_LIMITED", wait=20)
        # From now on for each by itself, and as long as nothing changes.
        before = misses()
        assert [await keys() for _ in range(3)] == [["sk-2", "sk-1"]] * 3
        assert misses() == before + 2
        # Also where two bridges' questions should meet in one batch.
        assert await here.batch(stream, *(bridge.question() for bridge in (*both, *both))) == ["sk-2", "sk-1"] * 2
        clock.move(10)
        # The rest of the first key is over. A key that is tried is for one request of a batch.
        assert await here.batch(stream, *(here.question() for _ in range(3))) == ["sk-1?", "sk-2", "sk-2"]
        assert await keys() == ["sk-2", "sk-1"]
        clock.move(10)
        assert [await there.batch(stream, there.question()) for _ in range(2)] == [["sk-2?"], ["sk-1"]]
        stream.cancel()


async def test_however_much_is_told_kept_answers_are_kept_for_a_moment_each(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        ids = await make_pool(one, *(f"sk-{number}" for number in range(5)))
        bridges = [Bridge(one, token, name=f"bridge-{number}") for number in range(20)]
        told = [
            (bridge, await bridge.ask(failed=[*ids[:place], *ids[place + 1 :]]))
            for bridge in bridges
            for place in range(5)
        ]
        loop = asyncio.get_running_loop()
        before, start = one.plane.db.state()[0], loop.time()
        limit = asyncio.Semaphore(3)

        async def tell(bridge: Bridge, answer: pb.ResolveProviderResponse) -> None:
            async with limit:
                await bridge.tell(answer, "UNAUTHORIZED")

        await asyncio.gather(*(tell(*each) for each in told))
        assert len(complaints_in_the_file(one)) == 100
        most = (loop.time() - start) / outcome_book.PAUSE_SECONDS + outcome_book.AT_ONCE
        assert one.plane.db.state()[0] - before <= most


async def test_what_was_told_of_keys_is_not_looked_at_for_a_provider_with_one_key_or_another_source(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2")
        await one.make_provider("single", flags=(True, False, False), key="sk-single")
        await one.make_provider("own", flags=(False, True, False))
        with sqlite3.connect(one.folder / "credentiald.db") as conn:
            conn.execute("DROP TABLE key_cooldowns")
        bridge = Bridge(one, token)
        assert await bridge.key("single") == "sk-single"
        await bridge.ask("own", presented_key=True)
        with pytest.raises(grpc.aio.AioRpcError):
            await bridge.ask()


@pytest.mark.parametrize("seed", range(4))
async def test_a_kept_answer_says_what_a_fresh_look_would_say_whatever_happened_before(tmp_path, seed):
    chance, clock, metrics = random.Random(seed), Clock(), Metrics("test")
    async with running(tmp_path, clock=clock, metrics=metrics) as one:
        _, token = await one.make_user("ann")
        ids = await make_pool(one, "sk-0", "sk-1", "sk-2")
        names = {"here": "", "there": "", "elsewhere": await one.make_service("bridge-x", "BRIDGE")}
        bridges = [Bridge(one, token, name=name, token=own or None) for name, own in names.items()]
        streams = {bridge.name: bridge.stream() for bridge in bridges}
        listed = await one.admin.ListServices(admin.ListServicesRequest(), metadata=bearer(one.admin_token))
        service_ids = {service.name: service.id for service in listed.services}
        given: list[tuple[Bridge, pb.ResolveProviderResponse]] = []
        provider_id = (await bridges[0].ask()).provider.id
        for _ in range(150):
            if chance.random() < 0.15:
                clock.move(chance.choice((0.2, 5, 29, 31, 61, 900)))
            if given and chance.random() < 0.15:
                bridge, answer = given.pop(chance.randrange(len(given)))
                kind = chance.choice(("ACCEPTED", "UNAUTHORIZED", "RATE_LIMITED", "SPEND_LIMITED"))
                await bridge.tell(answer, kind, wait=chance.choice((None, 0.5, 4, 100)))
            bridge = chance.choice(bridges)
            service_id = service_ids["bridge-x" if bridge.name == "elsewhere" else "bridge"]
            wanted = choose(
                ids,
                Complaints(await one.plane.db.read(key_health.of_provider, provider_id, now=clock())),
                one.plane.probes.ends,
                asker=(service_id, bridge.name),
                failed=(),
                now=clock(),
            )
            async with asyncio.timeout(WAIT_SECONDS):
                await streams[bridge.name].write(pb.ResolveProviderStreamRequest(items=[bridge.question()]))
                [result] = (await streams[bridge.name].read()).results
            if isinstance(wanted, Choice):
                found = result.response
                assert (found.credential.credential_id, found.probe) == (ids[wanted.place], wanted.is_probe)
                given.append((bridge, found))
            else:
                assert result.refusal.metadata["cause"] == wanted.cause.value
        for stream in streams.values():
            stream.cancel()
        hits = metrics.registry.get_sample_value("credentiald_answer_cache_total", {"outcome": "hit"})
        assert hits is not None
        assert hits > 5
