"""Questions to credentiald over a stream of batches: order, refusals, bounds, and what becomes of them in trouble."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
import trustme

from bridged.metrics import Metrics
from bridged.model import Refused, Resolution, Source
from bridged.readiness import Readiness
from bridged.resolve_queue import MAX_ITEMS, Waiting
from bridged.resolver import ClientTls, Identities, Identity, Outcome, Question, Resolver, running_resolver
from bridged.resolver_peer import Peer
from bridged.resolver_pool import MAX_WAITING, Pool
from bridged.resolver_unary import PING_TIMEOUT_SECONDS
from daemonkit.secret import Secret
from tests.fakes.credentiald import SERVICE_TOKEN, FakeCredentiald, Refuse, provider, running_credentiald
from tests.support.bridge import until

# What is measured here would be another thing beside other tests.
pytestmark = pytest.mark.alone

KEY = "sk-upstream-key"


@pytest.fixture
async def fake() -> AsyncIterator[FakeCredentiald]:
    async with running_credentiald() as running:
        running.providers["corp"] = provider("anthropic", "https://upstream.example", api_key=KEY)
        yield running


def question(name: str = "corp", **fields: Any) -> Question:
    values: dict[str, Any] = {
        "provider": name,
        "access_token": Secret("dbu_x"),
        "operation": "anthropic.messages",
        "model": "m",
        "presented_key": False,
        "interception_id": "i",
    }
    return Question(**values | fields)


@asynccontextmanager
async def resolver_of(
    target: str,
    *,
    timeout_seconds: float = 2.0,
    metrics: Metrics | None = None,
    tls: ClientTls | None = None,
    **more: Any,
) -> AsyncIterator[Resolver]:
    async with running_resolver(
        target,
        Identities(Identity(token=Secret(SERVICE_TOKEN), tls=tls)),
        timeout_seconds=timeout_seconds,
        readiness=Readiness(),
        metrics=metrics or Metrics(),
        **more,
    ) as resolver:
        yield resolver


async def ask(resolver: Resolver, *questions: Question) -> list[Outcome]:
    """What each got, all asked at once."""
    outcomes: dict[int, Outcome] = {}
    everything = asyncio.Event()

    def got(place: int, outcome: Outcome) -> None:
        assert place not in outcomes, "answered twice"
        outcomes[place] = outcome
        if len(outcomes) == len(questions):
            everything.set()

    for place, one in enumerate(questions):
        resolver.submit(one, lambda outcome, place=place: got(place, outcome))  # type: ignore[misc]
    async with asyncio.timeout(20):
        await everything.wait()
    return [outcomes[place] for place in range(len(questions))]


def said(outcomes: Sequence[Outcome]) -> Counter[str]:
    return Counter(one.reason if isinstance(one, Refused) else "OK" for one in outcomes)


def streams_opened(metrics: Metrics) -> float:
    """How many streams the bridge has opened and found to be good."""
    return metrics.registry.get_sample_value("bridged_resolve_streams_opened_total") or 0.0


async def until_streaming(metrics: Metrics, opened: int = 1) -> None:
    await until(lambda: streams_opened(metrics) >= opened)


async def test_ten_thousand_questions_get_each_its_own_answer_in_batches_of_bounded_size(fake: FakeCredentiald) -> None:
    names = [f"p{number}" for number in range(97)]
    for name in names[:-1]:
        fake.providers[name] = provider("anthropic", f"https://{name}.example", api_key=f"sk-{name}")
    dice = random.Random(7)
    async with resolver_of(fake.target) as resolver:
        wrong: list[str] = []
        answered = 0
        done = asyncio.Event()

        def check(name: str, outcome: Outcome) -> None:
            nonlocal answered
            answered += 1
            if isinstance(outcome, Refused):
                right = name == names[-1] and outcome.reason == "PROVIDER_NOT_FOUND"
            else:
                right = outcome.provider_name == name and outcome.base_url == f"https://{name}.example"
            if not right:
                wrong.append(name)
            if answered == 10_000:
                done.set()

        for _ in range(10_000):
            name = dice.choice(names)
            resolver.submit(question(name), lambda outcome, name=name: check(name, outcome))  # type: ignore[misc]
            if dice.random() < 0.02:
                await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await done.wait()

    assert wrong == []
    assert sum(fake.batches) == 10_000
    assert 1 < max(fake.batches) <= MAX_ITEMS
    assert fake.streams_opened == 1
    assert fake.unary_resolves == 0


async def test_an_answer_over_the_stream_is_the_one_that_a_single_call_brings(fake: FakeCredentiald) -> None:
    for name, more in {
        "bearer": {"bearer": "tok"},
        "own": {"presented": True},
        "actors": {"api_key": KEY, "send_actor_headers": True, "upstream_model": "claude"},
    }.items():
        fake.providers[name] = provider("anthropic", "https://x.example", **more)
    fake.providers["aws"] = provider("bedrock", "https://x.example")
    keys = fake.providers["aws"].credential.aws_credentials
    keys.access_key_id, keys.secret_access_key = "AKIA", "secret"
    fake.providers["aws"].provider.bedrock.region = "eu-central-1"
    questions = [question(name) for name in fake.providers]
    found = []
    for has_stream in (True, False):
        fake.has_stream = has_stream
        await fake.stop()
        await fake.start()
        async with resolver_of(fake.target) as resolver:
            found.append(await ask(resolver, *questions))

    assert found[0] == found[1]
    assert said(found[0]) == {"OK": 5}
    assert fake.unary_resolves == 5


async def test_a_refusal_is_one_items_business_and_keeps_its_words_and_its_wait(fake: FakeCredentiald) -> None:
    async with resolver_of(fake.target) as resolver:
        good, bad, again = await ask(resolver, question(), question("other"), question())
        fake.refuse = Refuse(
            code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="KEY_POOL_EXHAUSTED", message="wait", retry_seconds=42
        )
        with pytest.raises(Refused) as exhausted:
            await resolver.resolve(question())
        fake.refuse = Refuse(code=grpc.StatusCode.UNAUTHENTICATED, reason="ACCESS_TOKEN_INVALID", domain="else.example")
        with pytest.raises(Refused) as foreign:
            await resolver.resolve(question())
        fake.refuse = Refuse(code=grpc.StatusCode.INTERNAL)
        with pytest.raises(Refused) as internal:
            await resolver.resolve(question())

    assert isinstance(good, Resolution)
    assert isinstance(again, Resolution)
    assert isinstance(bad, Refused)
    assert (bad.reason, bad.message, bad.http_status) == ("PROVIDER_NOT_FOUND", "no such provider", 404)
    assert (exhausted.value.retry_after_seconds, exhausted.value.http_status) == (42, 429)
    assert foreign.value.reason == internal.value.reason == "CREDENTIALD_UNREACHABLE"


async def test_what_is_to_be_asked_singly_is_and_the_stream_goes_on_meanwhile(fake: FakeCredentiald) -> None:
    fake.providers["aws"] = provider("anthropic", "https://aws.example", api_key=KEY)
    fake.ask_singly = {"aws", "gone"}
    metrics = Metrics()
    async with resolver_of(fake.target, metrics=metrics) as resolver:
        await until_streaming(metrics)
        fake.hang(batches=False)
        outcomes: list[Outcome] = []
        for name in ("aws", "corp", "gone", "aws"):
            resolver.submit(question(name), outcomes.append)
        await until(lambda: fake.unary_resolves == 3)
        assert said(await ask(resolver, *[question()] * 9)) == {"OK": 9}
        answered_in_the_stream = said(outcomes)
        fake.go_on()
        await until(lambda: len(outcomes) == 4)

    assert answered_in_the_stream == {"OK": 1}
    assert said(outcomes) == {"OK": 3, "PROVIDER_NOT_FOUND": 1}
    assert fake.unary_resolves == 3
    assert fake.streams_opened == 1


async def test_a_question_that_is_asked_singly_has_what_is_left_of_its_time(fake: FakeCredentiald) -> None:
    fake.ask_singly = {"corp"}
    metrics = Metrics()
    async with resolver_of(fake.target, metrics=metrics, timeout_seconds=0.6) as resolver:
        await until_streaming(metrics)
        fake.hang(batches=False)
        began = time.monotonic()
        outcomes = await ask(resolver, question())
        took_seconds = time.monotonic() - began

    assert said(outcomes) == {"CREDENTIALD_UNREACHABLE": 1}
    assert 0.4 < took_seconds < 1.0


async def test_a_single_question_that_is_to_be_asked_singly_is_trouble_and_not_asked_again(
    fake: FakeCredentiald,
) -> None:
    fake.ask_singly = {"corp"}
    fake.refuse = Refuse(code=grpc.StatusCode.UNAVAILABLE, reason="ASK_SINGLY")
    async with resolver_of(fake.target) as resolver:
        outcomes = await ask(resolver, question())

    assert said(outcomes) == {"CREDENTIALD_UNREACHABLE": 1}
    assert fake.unary_resolves == 1


async def test_nobody_asks_singly_for_one_who_has_gone(fake: FakeCredentiald) -> None:
    fake.ask_singly = {"corp"}
    metrics = Metrics()
    async with resolver_of(fake.target, metrics=metrics) as resolver:
        await until_streaming(metrics)
        fake.hang(unary=False)
        waiting = resolver.submit(question(), lambda _: pytest.fail("it was cancelled"))
        await until(lambda: fake.batches == [1])
        assert waiting is not None
        waiting.cancel()
        fake.go_on()
        assert said(await ask(resolver, question("other"))) == {"PROVIDER_NOT_FOUND": 1}

    assert fake.unary_resolves == 0


async def test_a_cancelled_question_is_not_answered_and_its_neighbours_are(fake: FakeCredentiald) -> None:
    async with resolver_of(fake.target) as resolver:
        got: list[str] = []
        first = resolver.submit(question(), lambda _: got.append("first"))
        resolver.submit(question(), lambda _: got.append("second"))
        assert first is not None
        first.cancel()
        await until(lambda: bool(got))
        asking = asyncio.create_task(resolver.resolve(question()))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        assert isinstance(await resolver.resolve(question()), Resolution)

    assert asking.cancelled()
    assert got == ["second"]


async def test_what_happens_after_an_answer_is_its_own_trouble(
    fake: FakeCredentiald, caplog: pytest.LogCaptureFixture
) -> None:
    def break_down(_: Outcome) -> None:
        raise RuntimeError("a bug behind the answer")

    async with resolver_of(fake.target) as resolver:
        resolver.submit(question(), break_down)
        assert isinstance(await resolver.resolve(question()), Resolution)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "unhandled error after an answer of credentiald"
    ]
    assert fake.streams_opened == 1


async def test_more_questions_than_may_wait_are_refused_at_once(fake: FakeCredentiald) -> None:
    async with resolver_of(fake.target) as resolver:
        await resolver.resolve(question())
        fake.hang()
        outcomes: list[Outcome] = []
        for _ in range(MAX_WAITING + 3):
            resolver.submit(question(), outcomes.append)
        refused = list(outcomes)
        fake.go_on()
        await until(lambda: len(outcomes) == MAX_WAITING + 3, timeout_seconds=20)
        assert isinstance(await resolver.resolve(question()), Resolution)

    assert said(refused) == {"CAPACITY": 3}
    assert {one.http_status for one in refused if isinstance(one, Refused)} == {503}
    assert said(outcomes) == {"CAPACITY": 3, "OK": MAX_WAITING}


async def test_large_questions_are_split_and_what_is_too_large_or_no_text_is_refused_by_itself(
    fake: FakeCredentiald,
) -> None:
    async with resolver_of(fake.target) as resolver:
        large = [question(model="m" * 200_000) for _ in range(40)]
        outcomes = await ask(
            resolver, *large, question(model="m" * 300_000), question(model="\ud800"), question(model="é" * 100_000)
        )

    assert said(outcomes) == {"OK": 41, "INVALID_ARGUMENT": 2}
    assert len(fake.batches) >= 3
    assert fake.streams_opened == 1


async def test_a_stuck_batch_is_asked_once_more_by_single_calls(fake: FakeCredentiald) -> None:
    metrics = Metrics()
    async with resolver_of(fake.target, timeout_seconds=1.0, metrics=metrics) as resolver:
        await until_streaming(metrics)
        fake.hang(unary=False)
        began = time.monotonic()
        outcomes = await ask(resolver, *[question()] * 5)
        took_seconds = time.monotonic() - began
        fake.go_on()
        await until_streaming(metrics, 2)

    assert said(outcomes) == {"OK": 5}
    assert fake.unary_resolves == 5
    assert 0.4 < took_seconds < 1.0


async def test_a_credentiald_that_hangs_is_a_refusal_in_time_for_those_in_the_batch_and_those_behind_it(
    fake: FakeCredentiald,
) -> None:
    async with resolver_of(fake.target, timeout_seconds=0.6) as resolver:
        await resolver.resolve(question())
        fake.hang()
        began = time.monotonic()
        outcomes = await ask(resolver, *[question()] * 600)
        took_seconds = time.monotonic() - began
        fake.go_on()
        healing = time.monotonic()
        while said(await ask(resolver, question())) != {"OK": 1}:
            await asyncio.sleep(0.01)
        healed_seconds = time.monotonic() - healing

    assert said(outcomes) == {"CREDENTIALD_UNREACHABLE": 600}
    assert took_seconds < 1.2
    assert healed_seconds < 2


async def test_a_credentiald_that_is_gone_refuses_at_once_and_its_return_is_noticed(fake: FakeCredentiald) -> None:
    async with resolver_of(fake.target, timeout_seconds=5) as resolver:
        await resolver.resolve(question())
        await fake.stop()
        gone = time.monotonic()
        while time.monotonic() - gone < 3:
            began = time.monotonic()
            assert said(await ask(resolver, *[question()] * 3)) == {"CREDENTIALD_UNREACHABLE": 3}
            assert time.monotonic() - began < 1.5
            await asyncio.sleep(0.01)
        await fake.start()
        back = time.monotonic()
        while said(await ask(resolver, question())) != {"OK": 1}:
            assert time.monotonic() - back < 2, "not healed in time"
            await asyncio.sleep(0.01)


async def test_a_reply_that_does_not_fit_its_batch_answers_nobody(fake: FakeCredentiald) -> None:
    async with resolver_of(fake.target) as resolver:
        await resolver.resolve(question())
        fake.short_replies = True
        outcomes = await ask(resolver, question(), question("other"))

    # Both were asked again, singly: no answer was taken for a neighbour's.
    assert [type(one) for one in outcomes] == [Resolution, Refused]
    assert fake.unary_resolves == 2


async def test_streams_that_the_server_ends_are_opened_again_before_anybody_asks(fake: FakeCredentiald) -> None:
    metrics = Metrics()
    async with resolver_of(fake.target, metrics=metrics) as resolver:
        await resolver.resolve(question())
        for number in range(2, 5):
            await until(lambda: fake.open_streams == 1)
            fake.end_streams()
            await until_streaming(metrics, number)
        assert said(await ask(resolver, *[question()] * 10)) == {"OK": 10}

    assert fake.unary_resolves == 0


async def test_without_a_stream_questions_go_singly_until_another_server_is_there(fake: FakeCredentiald) -> None:
    fake.has_stream = False
    await fake.stop()
    await fake.start()
    metrics = Metrics()
    async with resolver_of(fake.target, metrics=metrics) as resolver:
        assert said(await ask(resolver, *[question()] * 20, question("other"))) == {"OK": 20, "PROVIDER_NOT_FOUND": 1}
        assert fake.unary_resolves == 21
        await fake.stop()
        fake.has_stream = True
        await fake.start()
        await until_streaming(metrics)
        unary_resolves = fake.unary_resolves
        assert said(await ask(resolver, *[question()] * 20)) == {"OK": 20}

    assert fake.unary_resolves == unary_resolves
    assert sum(fake.batches) == 20


async def test_a_refused_bridge_passes_the_reason_on_and_asks_nothing(fake: FakeCredentiald) -> None:
    fake.stream_refuse = Refuse(code=grpc.StatusCode.UNAUTHENTICATED, reason="SERVICE_TOKEN_INVALID")
    async with resolver_of(fake.target) as resolver:
        outcomes = await ask(resolver, *[question()] * 3)
        fake.stream_refuse = None
        await until(lambda: fake.streams_opened >= 2)
        await until_answered(resolver)

    assert said(outcomes) == {"SERVICE_TOKEN_INVALID": 3}
    assert fake.unary_resolves == 0


async def test_a_refusal_of_the_stream_of_which_grpc_does_not_tell_is_found_out_by_a_single_call(
    fake: FakeCredentiald,
) -> None:
    # So it looks where the status meets the first write: an INTERNAL of gRPC's own in place of what was said.
    fake.stream_refuse = Refuse(code=grpc.StatusCode.INTERNAL)
    fake.ping_refuse = Refuse(code=grpc.StatusCode.UNAVAILABLE, reason="SEALED")
    async with resolver_of(fake.target) as resolver:
        told = [await ask(resolver, question()) for _ in range(20)]
        fake.stream_refuse = fake.ping_refuse = None
        await until_answered(resolver)

    assert sum((said(one) for one in told), Counter()) == {"SEALED": 20}


class NoPings(Refuse):
    """Pings that get no answer."""

    async def abort(self, context: Any) -> None:
        await asyncio.Event().wait()


async def test_what_was_under_way_on_a_stream_waits_for_no_such_call(fake: FakeCredentiald) -> None:
    metrics = Metrics()
    # As long as a ping is waited for.
    async with resolver_of(fake.target, metrics=metrics, timeout_seconds=PING_TIMEOUT_SECONDS) as resolver:
        await until_streaming(metrics)
        fake.ping_refuse = NoPings(code=grpc.StatusCode.UNAVAILABLE)
        fake.refuse_batches = Refuse(code=grpc.StatusCode.INTERNAL)
        assert said(await ask(resolver, *[question()] * 3)) == {"OK": 3}


async def test_a_stream_that_ends_for_trouble_with_the_store_costs_no_answer_that_a_single_call_would_bring(
    fake: FakeCredentiald,
) -> None:
    metrics = Metrics()
    async with resolver_of(fake.target, metrics=metrics) as resolver:
        await until_streaming(metrics)
        fake.refuse_batches = Refuse(code=grpc.StatusCode.UNAVAILABLE, reason="STORE_UNAVAILABLE")
        outcomes = await ask(resolver, *[question()] * 3)
        fake.refuse_batches = None
        await until_streaming(metrics, 2)
        outcomes += await ask(resolver, question())

    assert said(outcomes) == {"OK": 4}
    assert fake.unary_resolves == 3


async def test_what_is_in_trouble_for_longer_refuses_in_its_own_words(fake: FakeCredentiald) -> None:
    metrics = Metrics()
    async with resolver_of(fake.target, metrics=metrics) as resolver:
        await until_streaming(metrics)
        trouble = Refuse(code=grpc.StatusCode.UNAVAILABLE, reason="STORE_UNAVAILABLE")
        fake.refuse = fake.stream_refuse = fake.refuse_batches = trouble
        told = [await ask(resolver, question()) for _ in range(20)]
        fake.refuse = fake.stream_refuse = fake.refuse_batches = None
        await until_answered(resolver)

    assert sum((said(one) for one in told), Counter()) == {"STORE_UNAVAILABLE": 20}


async def until_answered(resolver: Resolver) -> None:
    async with asyncio.timeout(5):
        while said(await ask(resolver, question())) != {"OK": 1}:
            await asyncio.sleep(0.01)


async def test_a_name_that_does_not_exist_is_unreachable_at_once_and_found_when_it_appears(
    fake: FakeCredentiald,
) -> None:
    addresses: list[tuple[str, int]] = []

    async def lookup(host: str, port: int) -> list[tuple[str, int]]:
        assert (host, port) == ("credentiald.internal", 7410)
        if not addresses:
            raise OSError("no such name")
        return addresses

    async with resolver_of("dns:///credentiald.internal:7410", lookup=lookup) as resolver:
        assert said(await ask(resolver, *[question()] * 3)) == {"CREDENTIALD_UNREACHABLE": 3}
        addresses.append(("127.0.0.1", int(fake.address.rpartition(":")[2])))
        await until_answered(resolver)


class Replicas:
    """Several fakes behind one name."""

    def __init__(self, fakes: list[FakeCredentiald]) -> None:
        self.fakes = fakes
        self.named = list(fakes)

    async def lookup(self, host: str, port: int) -> list[tuple[str, int]]:
        del host, port
        return [("127.0.0.1", int(fake.address.rpartition(":")[2])) for fake in self.named]


@asynccontextmanager
async def replicas(count: int) -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as stack:
        fakes = [await stack.enter_async_context(running_credentiald()) for _ in range(count)]
        for fake in fakes:
            fake.providers["corp"] = provider("anthropic", "https://upstream.example", api_key=KEY)
        yield Replicas(fakes)


NAME = "dns:///credentiald.internal:7410"


async def test_batches_are_spread_over_the_replicas(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    async with replicas(2) as pair, resolver_of(NAME, lookup=pair.lookup, metrics=metrics) as resolver:
        await until_streaming(metrics, 2)
        for _ in range(40):
            await resolver.resolve(question())

    shares = [sum(fake.batches) for fake in pair.fakes]
    assert sum(shares) == 40
    assert min(shares) >= 15


async def test_a_replica_that_dies_or_hangs_costs_no_answer() -> None:
    metrics = Metrics()
    async with (
        replicas(2) as pair,
        resolver_of(NAME, lookup=pair.lookup, timeout_seconds=1.0, metrics=metrics) as resolver,
    ):
        await until_streaming(metrics, 2)
        pair.fakes[0].hang()
        outcomes = []
        for _ in range(6):
            outcomes += await ask(resolver, *[question()] * 50)
        pair.fakes[0].go_on()
        await pair.fakes[0].stop()
        for _ in range(6):
            outcomes += await ask(resolver, *[question()] * 50)
        await pair.fakes[0].start()
        shares = sum(pair.fakes[0].batches)
        await until_share(resolver, pair.fakes[0], shares)

    assert said(outcomes) == {"OK": 600}
    assert sum(fake.unary_resolves for fake in pair.fakes) == 0


async def until_share(resolver: Resolver, fake: FakeCredentiald, more_than: int) -> None:
    async with asyncio.timeout(5):
        while sum(fake.batches) <= more_than:
            await resolver.resolve(question())


async def test_a_question_is_asked_at_most_twice() -> None:
    metrics = Metrics()
    async with (
        replicas(2) as pair,
        resolver_of(NAME, lookup=pair.lookup, timeout_seconds=10, metrics=metrics) as resolver,
    ):
        await until_streaming(metrics, 2)
        for fake in pair.fakes:
            fake.short_replies = True
        began = time.monotonic()
        outcomes = await ask(resolver, question())
        took_seconds = time.monotonic() - began

    assert said(outcomes) == {"CREDENTIALD_UNREACHABLE": 1}
    assert [fake.batches for fake in pair.fakes] == [[1], [1]]
    assert took_seconds < 2


async def test_addresses_that_leave_the_name_are_left_and_new_ones_are_used() -> None:
    async with replicas(3) as three:
        gone, stays, new = three.fakes
        three.named = [gone, stays]
        metrics = Metrics()
        async with resolver_of(NAME, lookup=three.lookup, metrics=metrics) as resolver:
            await until_streaming(metrics, 2)
            await until(lambda: gone.open_streams == stays.open_streams == 1)
            three.named = [stays, new]
            # A lost stream makes the bridge look the name up before it is time.
            stays.end_streams()
            await until(lambda: (gone.open_streams, stays.open_streams, new.open_streams) == (0, 1, 1))
            outcomes = []
            for _ in range(10):
                outcomes += await ask(resolver, *[question()] * 20)

    assert said(outcomes) == {"OK": 200}
    assert gone.batches == []
    assert min(sum(stays.batches), sum(new.batches)) > 0


async def test_an_address_that_comes_back_while_it_still_settles_is_used_again_at_once() -> None:
    async with replicas(2) as pair:
        back, other = pair.fakes
        pair.named = [back]
        back.providers["slow"] = back.providers["corp"]
        back.ask_singly.add("slow")
        metrics, late = Metrics(), list[Outcome]()
        async with resolver_of(NAME, lookup=pair.lookup, timeout_seconds=20, metrics=metrics) as resolver:
            await until_streaming(metrics)
            back.hang(batches=False)
            resolver.submit(question("slow"), late.append)
            await until(lambda: back.batches == [1])
            pair.named = [other]
            back.end_streams()
            await until(lambda: (back.open_streams, other.open_streams) == (0, 1))
            pair.named = [back]
            other.end_streams()
            await until(lambda: (back.open_streams, other.open_streams) == (1, 0))
            assert said(await ask(resolver, question())) == {"OK": 1}
            assert not late
            back.go_on()
            await until(lambda: said(late) == {"OK": 1})
            # The first peer has gone now, and took nothing of the second with it.
            assert said(await ask(resolver, question())) == {"OK": 1}


@asynccontextmanager
async def peer_of(fake: FakeCredentiald, pool: Pool) -> AsyncIterator[tuple[Peer, asyncio.Task[None]]]:
    async with grpc.aio.insecure_channel(fake.target) as channel:
        peer = Peer(channel, pool, Identities(Identity()))
        running = asyncio.create_task(peer.run())
        yield peer, running
        running.cancel()
        await asyncio.wait([running])


async def test_nothing_waits_for_a_replica_that_was_told_to_leave() -> None:
    metrics = Metrics()
    pool = Pool(timeout_seconds=10, readiness=Readiness(), metrics=metrics, bridge_instance_id="b-1")
    async with replicas(2) as pair:
        leaving, without_stream = pair.fakes
        without_stream.has_stream = False
        await without_stream.stop()
        await without_stream.start()
        async with peer_of(leaving, pool) as (peer, run), peer_of(without_stream, pool) as (other, other_run):
            await until_streaming(metrics)
            await until(lambda: other.is_unary)
            leaving.hang()
            resolver, outcomes = Resolver(pool), list[Outcome]()
            resolver.submit(question(), outcomes.append)
            await until(lambda: leaving.batches == [1])
            for _ in range(5):
                resolver.submit(question(), outcomes.append)
            assert len(pool.queue) == 5
            peer.leave()
            assert len(pool.queue) == 0
            await until(lambda: len(outcomes) == 5)
            assert without_stream.unary_resolves == 5
            leaving.go_on()
            await until(run.done)
            # Nor does one without a stream stay, though nothing happens to its connection.
            other.leave()
            await until(other_run.done)

    assert said(outcomes) == {"OK": 6}


async def test_an_answer_that_is_older_than_answers_may_be_is_none() -> None:
    pool = Pool(timeout_seconds=10, readiness=Readiness(), metrics=Metrics(), bridge_instance_id="b-1")
    resolution = Resolution(
        provider_id="p", provider_name="corp", provider_type="openai", wire_type="openai", base_url="https://up",
        user_id="u", username="ann", source=Source.CENTRAL_KEY, credential_id="c", receipt=b"r", revision=7,
    )  # fmt: skip
    now, outcomes = asyncio.get_running_loop().time(), list[Outcome]()
    for age_seconds in (9.0, 10.1):
        # As after a process was stopped and goes on: the answer lies in its socket.
        submitted = now - age_seconds
        pool.settle(Waiting(b"", outcomes.append, submitted, submitted + 10), resolution)
    young, old = outcomes
    assert young is resolution
    assert isinstance(old, Refused)
    assert old.reason == "CREDENTIALD_UNREACHABLE"
    # What it says of the state of the store is true all the same.
    assert pool.revision == 7


@pytest.mark.parametrize(("certified", "told"), [("credentiald.internal", "OK"), ("other.internal", "no")])
async def test_the_certificate_of_a_replica_is_for_its_name_and_not_for_its_address(
    fake: FakeCredentiald, certified: str, told: str
) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert(certified)
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    fake.tls = grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain)])
    await fake.stop()
    await fake.start()
    tls = ClientTls(ca=authority.cert_pem.bytes())

    async def lookup(host: str, port: int) -> list[tuple[str, int]]:
        del host, port
        return [("127.0.0.1", int(fake.address.rpartition(":")[2]))]

    async with resolver_of(NAME, lookup=lookup, tls=tls) as resolver:
        outcomes = said(await ask(resolver, question()))

    assert outcomes == {"OK" if told == "OK" else "CREDENTIALD_UNREACHABLE": 1}
    assert fake.streams_opened == (1 if told == "OK" else 0)


async def test_what_still_waits_when_the_bridge_stops_is_refused(fake: FakeCredentiald) -> None:
    outcomes: list[Outcome] = []
    async with resolver_of(fake.target, timeout_seconds=10) as resolver:
        await resolver.resolve(question())
        fake.hang()
        for _ in range(MAX_ITEMS + 10):
            resolver.submit(question(), outcomes.append)
        await until(lambda: len(fake.batches) == 2)
        assert outcomes == []

    assert said(outcomes) == {"CREDENTIALD_UNREACHABLE": MAX_ITEMS + 10}


async def test_no_key_or_token_is_in_the_log_or_in_what_can_be_printed(
    fake: FakeCredentiald, caplog: pytest.LogCaptureFixture
) -> None:
    canary = "dbu_canary-of-the-client"
    async with resolver_of(fake.target) as resolver:
        waiting = resolver.submit(question(access_token=Secret(canary)), lambda _: None)
        outcomes = await ask(resolver, question(access_token=Secret(canary)))
        fake.short_replies = True
        outcomes += await ask(resolver, question(access_token=Secret(canary)))
        await fake.stop()
        outcomes += await ask(resolver, question(access_token=Secret(canary)))

    text = caplog.text + repr(waiting) + repr(outcomes) + "".join(str(one) for one in outcomes)
    assert canary not in text
    assert KEY not in text
    assert SERVICE_TOKEN not in text


async def test_the_time_of_each_question_and_the_streams_are_counted(fake: FakeCredentiald) -> None:
    metrics = Metrics()
    async with resolver_of(fake.target, metrics=metrics) as resolver:
        await ask(resolver, question(), question("other"))
        await until(lambda: fake.open_streams == 1)
        fake.end_streams()
        await until_streaming(metrics, 2)
        await resolver.resolve(question())

    assert metrics.registry.get_sample_value("bridged_resolve_duration_seconds_count") == 3
    assert metrics.registry.get_sample_value("bridged_resolve_streams_opened_total") == 2
