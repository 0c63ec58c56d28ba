"""What bridges tell of keys and breakers: who is believed, how much, and where it is written down."""

import asyncio
from datetime import UTC, timedelta
from typing import Any

import grpc
import pytest
from drawbridge.v1 import admin_service_pb2 as admin
from drawbridge.v1 import credential_service_pb2 as pb

from credentiald import outcome_book
from credentiald.breaker_book import MOST_BREAKERS, Breaker, to_text
from credentiald.bridge_instances import MOST_INSTANCES
from credentiald.key_health import Cooldown, OutcomeKind
from credentiald.metrics import Metrics
from credentiald.outcome_book import OutcomeBook, Told
from credentiald.store import bridge_words, key_health
from credentiald.store.times import to_micros
from tests.support.credentiald import bearer, reason_of, running
from tests.support.key_pools import (
    START,
    Bridge,
    Clock,
    complaints_in_the_file,
    make_pool,
    outcome,
    ping,
    service_id_of,
    service_of,
)


async def test_what_is_told_counts_with_the_callers_own_receipt_once_and_soon(tmp_path):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2")
        await one.make_provider("single", flags=(True, False, False), key="sk-single")
        bridge = Bridge(one, token)
        stranger = Bridge(one, token, token=await one.make_service("bridge-x", "BRIDGE"))
        answer = await bridge.ask()
        assert await stranger.tell(answer, "UNAUTHORIZED") == 1
        assert await bridge.tell_all(pb.CredentialOutcome(receipt=b"nonsense"), outcome(answer, "UNKNOWN")) == 1
        assert await bridge.tell(answer, "UNAUTHORIZED") == 1
        # A pool of one has nothing to spare.
        assert await bridge.tell(await bridge.ask("single"), "UNAUTHORIZED") == 0
        assert complaints_in_the_file(one) == []
        assert [await bridge.key(), await stranger.key(), await bridge.key("single")] == ["sk-1", "sk-1", "sk-single"]
        late = await bridge.ask()
        clock.move(3600)
        assert await bridge.tell(late, "UNAUTHORIZED") == 1


@pytest.mark.parametrize(
    ("role", "fields", "reason"),
    [
        ("INTERNAL", {"bridge_instance_id": "one"}, "CALLER_NOT_ALLOWED"),
        ("BRIDGE", {}, "INVALID_ARGUMENT"),
        ("BRIDGE", {"bridge_instance_id": "x" * 65}, "INVALID_ARGUMENT"),
        ("BRIDGE", {"bridge_instance_id": "one", "outcomes": [pb.CredentialOutcome()] * 101}, "INVALID_ARGUMENT"),
    ],
)
async def test_who_may_not_tell(tmp_path, role, fields, reason):
    async with running(tmp_path) as one:
        token = await one.make_service("caller", role)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await one.credentials.ReportOutcome(pb.ReportOutcomeRequest(**fields), metadata=bearer(token))
        assert reason_of(refused.value) == reason


async def test_a_service_is_listened_to_so_often_a_minute_and_another_one_as_well(tmp_path, caplog):
    clock, metrics = Clock(), Metrics("test")
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2")
        other_token = await one.make_service("bridge-x", "BRIDGE")
        book = OutcomeBook(one.plane, metrics, most_a_minute=3)

        async def tell(caller: Bridge, count: int) -> int:
            answers = [await caller.ask() for _ in range(count)]
            service_id = service_of(one, answers[0])
            return await book.tell(
                (service_id, caller.name),
                [
                    Told(receipt=each.receipt, kind=OutcomeKind.UNKNOWN, retry_after=None, http_status=0, error="")
                    for each in answers
                ],
            )

        assert await tell(Bridge(one, token), 5) == 2
        assert await tell(Bridge(one, token, name="bridge-2"), 1) == 1
        assert await tell(Bridge(one, token, token=other_token), 3) == 0
        clock.move(60)
        assert await tell(Bridge(one, token), 3) == 0
        counts = {
            each: metrics.registry.get_sample_value(
                "credentiald_credential_outcomes_total", {"kind": "UNKNOWN", "outcome": each}
            )
            for each in ("counted", "over_bound", "repeated")
        }
        assert counts == {"counted": 9, "over_bound": 3, "repeated": 0}
        assert caplog.text.count("tells more of keys than counts") == 1


async def test_a_bridge_that_complains_of_every_key_for_ever_takes_no_provider_down(tmp_path):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        ids = await make_pool(one, "sk-1", "sk-2", "sk-3")
        own = Bridge(one, token, token=await one.make_service("bridge-x", "BRIDGE"))
        neighbour = Bridge(one, token, name="bridge-2")
        served = []
        for turn in range(12):
            kind = ("UNAUTHORIZED", "RATE_LIMITED", "SPEND_LIMITED")[turn % 3]
            # A new instance each time, or the same one, and whichever key it can have.
            liar = Bridge(one, token, name=f"liar-{turn % 7}")
            for place in range(len(ids)):
                failed = [*ids[:place], *ids[place + 1 :]]
                try:
                    answer = await liar.ask(failed=failed)
                except grpc.aio.AioRpcError:
                    continue
                await liar.tell(answer, kind, wait=1_000_000)
            for honest in (own, neighbour):
                answer = await honest.ask()
                served.append(answer.credential.credential_id)
                if answer.probe:
                    await honest.tell(answer, "ACCEPTED")
                # Also when it has lost a key itself.
                served.append((await honest.ask(failed=[ids[turn % 3]])).credential.credential_id)
            clock.move((1, 61, 4000)[turn % 3])
        assert len(served) == 48
        assert set(served) <= set(ids)


async def test_what_is_told_together_is_stored_together_and_only_where_it_changes_something(tmp_path):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2")
        bridges = [Bridge(one, token, name=f"bridge-{number}") for number in range(20)]
        answers = [[await bridge.ask() for _ in range(3)] for bridge in bridges]
        state = one.plane.db.state()

        async def tell(place: int) -> None:
            told = zip(bridges, answers, strict=True)
            await asyncio.gather(*(bridge.tell(each[place], "UNAUTHORIZED") for bridge, each in told))

        await tell(0)
        assert len(complaints_in_the_file(one)) == 20
        assert 1 <= one.plane.db.state()[0] - state[0] < 20
        state = one.plane.db.state()
        await tell(1)
        # The key rests already; and a good answer to what was no probe says nothing.
        await bridges[0].tell(answers[0][2], "ACCEPTED")
        assert one.plane.db.state() == state


async def test_a_bridges_last_word_of_its_breakers_counts_and_there_is_a_bound_to_it(tmp_path):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        await make_pool(one, "sk-1")

        async def shown() -> list[int]:
            request = admin.GetProviderHealthRequest(name="corp")
            found = await one.admin.GetProviderHealth(request, metadata=bearer(one.admin_token))
            return [len(each.breakers) for each in found.bridges]

        breaker = pb.BreakerState(provider="corp", state="BREAKER_PHASE_OPEN", last_error="x")
        await ping(one, "bridge-1", *[breaker] * 100)
        await ping(one, "bridge-2", pb.BreakerState(provider="corp", operation="x" * 1000, state=9))
        assert sorted(await shown()) == [1, 64]
        clock.move(2)
        await ping(one, "bridge-1")
        assert await shown() == [1]
        clock.move(120)
        assert await shown() == []


async def test_what_the_store_did_not_take_does_not_count_and_may_be_told_again(tmp_path):
    async with running(tmp_path, clock=Clock()) as one:
        _, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2")
        bridge = Bridge(one, token)
        answer = await bridge.ask()
        path, aside = one.folder / "credentiald.db", one.folder / "aside.db"
        path.rename(aside)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await bridge.tell(answer, "UNAUTHORIZED")
        assert reason_of(refused.value) == "STORE_UNAVAILABLE"
        aside.rename(path)
        assert await bridge.tell(answer, "UNAUTHORIZED") == 0
        assert await bridge.key() == "sk-2"


async def test_no_key_is_in_the_log_of_what_was_told(tmp_path, caplog):
    async with running(tmp_path, clock=Clock()) as one:
        _, token = await one.make_user("ann")
        first, _ = await make_pool(one, "sk-canary-1", "sk-canary-2")
        bridge = Bridge(one, token)
        await bridge.tell(await bridge.ask(), "UNAUTHORIZED", error="x" * 1000)
        [record] = [each for each in caplog.records if each.message == "a key rests"]
        assert (record.provider, record.credential_id, record.kind) == ("corp", first, "UNAUTHORIZED")
        assert record.until == (START + timedelta(seconds=60)).isoformat()
        assert "sk-canary" not in str([vars(each) for each in caplog.records])


async def test_what_is_told_soon_after_something_else_does_not_wait(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        pools = [await make_pool(one, "sk-one", "sk-two", name=f"pool-{number}") for number in range(8)]
        first, second = Bridge(one, token), Bridge(one, token, name="bridge-2")
        given = [await first.ask(f"pool-{number}") for number in range(len(pools))]
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number, answer in enumerate(given):
            assert not await first.tell(answer, "RATE_LIMITED")
            assert await second.key(f"pool-{number}") == "sk-two"
        assert loop.time() - start < (len(pools) - 1) * outcome_book.PAUSE_SECONDS


async def test_what_is_forgotten_goes_when_something_else_is_told(tmp_path):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2")
        for name in ("bridge-1", "bridge-2"):
            bridge = Bridge(one, token, name=name)
            await bridge.tell(await bridge.ask(), "RATE_LIMITED", wait=1)
            clock.move(3700)
        assert [instance for _, instance, _ in complaints_in_the_file(one)] == ["bridge-2"]
        # It counts for nothing any more: no probe, and one answer for all.
        assert await bridge.key() == "sk-1"


async def test_a_store_of_records_that_takes_nothing_keeps_no_bridge_from_being_heard(tmp_path):
    async with running(tmp_path, clock=Clock()) as one:
        path = one.folder / "credentiald.records.db"
        path.rename(one.folder / "aside")
        await ping(one, "bridge-1", pb.BreakerState(provider="corp", state="BREAKER_PHASE_OPEN"))
        (one.folder / "aside").rename(path)
        # Its next word is written down, though it says nothing new.
        await ping(one, "bridge-1", pb.BreakerState(provider="corp", state="BREAKER_PHASE_OPEN"))
        assert '"OPEN"' in await one.stored.read(bridge_words.breakers_of, (await service_id_of(one), "bridge-1"))


async def test_however_many_complain_a_batch_of_questions_is_answered(tmp_path):
    clock = Clock()

    def complain(conn: Any) -> None:
        for provider_id, credential_id in conn.execute(
            "SELECT provider_id, credential_id FROM central_keys"
        ).fetchall():
            for number in range(5 * key_health.MOST_OF_ONE_SERVICE):
                key_health.put(
                    conn,
                    Cooldown(
                        credential_id=credential_id, provider_id=provider_id,
                        teller=(f"service-{number % 5}", f"{number:036}"), kind=OutcomeKind.UNAUTHORIZED,
                        since_time=START, until_time=START + timedelta(seconds=60 + number), strikes=1, error="",
                        http_status=401,
                    ),
                )  # fmt: skip

    async with running(tmp_path, clock=clock) as one:
        tokens = [(await one.make_user(f"user-{number}"))[1] for number in range(16)]
        await make_pool(one, *(f"sk-{number}" for number in range(5)))
        await one.plane.db.write(complain)
        bridges = [Bridge(one, tokens[number % 16], name=f"bridge-{number}") for number in range(256)]
        stream = bridges[0].stream()
        assert await bridges[0].batch(stream, *(bridge.question() for bridge in bridges)) == ["sk-0"] * 256
        stream.cancel()


async def test_bridges_that_tell_as_much_as_they_can_hide_no_health(tmp_path):
    breakers = [
        Breaker(f"corp-{number % 4}", "x" * 128, "y" * 128, "OPEN", to_micros(START), 5, "z" * 128)
        for number in range(MOST_BREAKERS)
    ]

    def fill(conn: Any) -> None:
        for number in range(1000):
            teller = (f"service-{number % 3}", f"{number:064}")
            bridge_words.tell_breakers(conn, teller, to_text(breakers), now_micros=to_micros(START))

    def complain(conn: Any) -> None:
        for provider_id, credential_id in conn.execute(
            "SELECT provider_id, credential_id FROM central_keys"
        ).fetchall():
            for number in range(200):
                key_health.put(
                    conn,
                    Cooldown(
                        credential_id=credential_id, provider_id=provider_id,
                        teller=(f"service-{number % 3}", f"{number:064}"), kind=OutcomeKind.UNAUTHORIZED,
                        since_time=START, until_time=START + timedelta(seconds=number), strikes=1,
                        error="\U0001f511" * 128,
                        http_status=401,
                    ),
                )  # fmt: skip

    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        names = [f"corp-{number}" for number in range(4)]
        for name in names:
            await make_pool(one, *(f"sk-{number}" for number in range(5)), name=name)
        await one.stored.write(fill)
        await one.plane.db.write(complain)
        metadata, request, shown = bearer(one.admin_token), admin.ListProviderHealthRequest(), []
        while not shown or request.page_token:
            page = await one.admin.ListProviderHealth(request, metadata=metadata)
            shown.extend(page.providers)
            request.page_token = page.next_page_token
        assert [each.provider for each in shown] == names
        for each in shown:
            assert each == await one.admin.GetProviderHealth(
                admin.GetProviderHealthRequest(name=each.provider), metadata=metadata
            )
            assert {len(key.complaints) for key in each.keys} == {64}
            assert each.keys[0].rest_until.ToDatetime(tzinfo=UTC) == START + timedelta(seconds=199)
            assert len(each.bridges) == 64


async def test_a_bridge_that_is_one_too_many_of_its_service_has_no_word_written_down(tmp_path):
    async with running(tmp_path, clock=Clock()) as one:
        await make_pool(one, "sk-1")
        service_id = await service_id_of(one)
        for number in range(MOST_INSTANCES):
            one.book.instances.heard((service_id, f"made-up-{number}"), to_micros(START))
        await ping(one, "bridge-1", pb.BreakerState(provider="corp", state="BREAKER_PHASE_OPEN"))
        assert await one.stored.read(lambda conn: conn.execute("SELECT id FROM bridge_instances").fetchall()) == []
