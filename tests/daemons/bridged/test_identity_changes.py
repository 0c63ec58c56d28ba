"""A bridge that is known by something else from now on: new connections take over, and no question is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import grpc
import pytest

from bridged.metrics import Metrics
from bridged.model import Refused
from bridged.readiness import Readiness
from bridged.resolver import Identities, Identity, Outcome, Question, Resolver, running_resolver
from daemonkit.secret import Secret
from tests.fakes.credentiald import FakeCredentiald, Refuse, provider, running_credentiald
from tests.fakes.silent_server import silent_server
from tests.support.bridge import until

QUESTION = Question(
    provider="corp",
    access_token=Secret("dbu_x"),
    operation="anthropic.messages",
    model="m",
    presented_key=False,
    interception_id="i",
)
NAME = "dns:///credentiald.internal:7410"


@dataclass
class Asking:
    """A resolver that is asked without a pause by some at once, and what they were told."""

    resolver: Resolver
    identities: Identities
    fakes: list[FakeCredentiald]
    answered: int = 0
    refused: list[str] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            try:
                await self.resolver.resolve(QUESTION)
                self.answered += 1
            except Refused as refused:
                self.refused.append(refused.reason)
                await asyncio.sleep(0.005)

    async def more(self, count: int = 100) -> None:
        """Return when so many more questions were answered."""
        wanted = self.answered + count
        await until(lambda: self.answered >= wanted)

    @property
    def stream_tokens(self) -> list[str]:
        return sorted(token for fake in self.fakes for token in fake.stream_tokens)


@asynccontextmanager
async def asking(*, count: int = 1, has_stream: bool = True, valid: set[str] | None = None) -> AsyncIterator[Asking]:
    identities = Identities(Identity(token=Secret("one")))
    identities.changes = True
    async with AsyncExitStack() as stack:
        fakes = [await stack.enter_async_context(running_credentiald()) for _ in range(count)]
        for fake in fakes:
            fake.providers["corp"] = provider("anthropic", "https://upstream.example", api_key="sk-x")
            fake.valid_tokens = valid or set()
            if not has_stream:
                fake.has_stream = False
                await fake.stop()
                await fake.start()

        async def lookup(host: str, port: int) -> list[tuple[str, int]]:
            del host, port
            return [("127.0.0.1", int(fake.address.rpartition(":")[2])) for fake in fakes]

        resolver = await stack.enter_async_context(
            running_resolver(
                NAME if count > 1 else fakes[0].target,
                identities,
                timeout_seconds=2.0,
                readiness=Readiness(),
                metrics=Metrics(),
                lookup=lookup,
            )
        )
        running = Asking(resolver, identities, fakes)
        tasks = [asyncio.create_task(running.run()) for _ in range(5)]
        try:
            await running.more()
            yield running
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


@pytest.mark.parametrize("count", [1, 2])
async def test_a_new_token_takes_over_at_every_credentiald(count: int) -> None:
    async with asking(count=count, valid={"one", "two"}) as one:
        await until(lambda: one.stream_tokens == ["one"] * count)
        one.identities.take_token(Secret("two"))
        await until(lambda: one.stream_tokens == ["two"] * count)
        for fake in one.fakes:
            fake.valid_tokens = {"two"}
        await one.more()
        assert one.refused == []


async def test_while_there_is_another_nobody_is_told_that_requests_are_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def told() -> list[str]:
        return [one.getMessage() for one in caplog.records if "does not answer" in one.getMessage()]

    async with asking(count=2) as one:
        first, second = one.fakes
        await first.stop()
        await until(lambda: bool(told()))
        await one.more()
        assert "503" not in "".join(told())
        await second.stop()
        await until(lambda: "503" in told()[-1])


async def test_a_credentiald_of_before_there_were_streams_is_asked_with_the_new_token() -> None:
    async with asking(has_stream=False, valid={"one", "two"}) as one:
        (fake,) = one.fakes
        one.identities.take_token(Secret("two"))
        await until(lambda: "Bearer two" in fake.authorizations)
        await one.more()
        fake.valid_tokens = {"two"}
        await one.more()
        assert one.refused == []


async def test_a_token_that_is_not_taken_leaves_everything_as_it_was_until_one_is() -> None:
    async with asking(valid={"one", "three"}) as one:
        (fake,) = one.fakes
        one.identities.take_token(Secret("two"))
        await until(lambda: "Bearer two" in fake.authorizations)
        await one.more()
        assert one.stream_tokens == ["one"]

        one.identities.take_token(Secret("three"))
        await until(lambda: one.stream_tokens == ["three"])
        fake.authorizations.clear()
        await one.more()
        assert one.refused == []
        assert fake.authorizations <= {"", "Bearer three"}


async def test_tokens_that_follow_each_other_quickly_end_with_the_last_one() -> None:
    async with asking() as one:
        for number in range(20):
            one.identities.take_token(Secret(f"token-{number}"))
            await asyncio.sleep(0)
        await until(lambda: one.stream_tokens == ["token-19"])
        await one.more()
        assert one.refused == []


async def test_questions_wait_for_the_new_token_when_the_old_one_is_refused_and_doubt_has_the_file_read() -> None:
    async with asking(valid={"one"}) as one:
        (fake,) = one.fakes
        doubts: list[float] = []

        def doubted() -> None:
            doubts.append(asyncio.get_running_loop().time())
            if len(doubts) == 3:
                one.identities.take_token(Secret("two"))

        one.identities.doubted = doubted
        fake.valid_tokens = {"two"}
        await until(lambda: one.stream_tokens == ["two"])
        await one.more()
        assert one.refused == []


@pytest.mark.alone
@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        (False, "SERVICE_TOKEN_INVALID"),
        (True, "CALLER_NOT_ALLOWED"),
    ],
)
async def test_nobody_waits_where_no_other_token_can_come(changes: bool, refusal: str) -> None:
    async with asking() as one:
        (fake,) = one.fakes
        one.identities.changes = changes
        began = asyncio.get_running_loop().time()
        fake.refuse_batches = fake.stream_refuse = Refuse(code=grpc.StatusCode.UNAUTHENTICATED, reason=refusal)
        await until(lambda: len(one.refused) >= 5)
        assert asyncio.get_running_loop().time() - began < 0.8
        assert set(one.refused) == {refusal}


async def test_a_report_that_is_under_way_on_the_old_connection_is_finished() -> None:
    async with asking() as one:
        (fake,) = one.fakes
        fake.hang(batches=False)
        reporting = asyncio.create_task(one.resolver.append_records([]))
        await until(lambda: fake.reports == 1)
        one.identities.take_token(Secret("two"))
        await until(lambda: one.stream_tokens == ["two"])
        await one.more()
        fake.go_on()
        assert await reporting == []


async def test_a_question_that_waits_for_the_first_connection_waits_for_the_one_that_takes_its_place() -> None:
    identities, outcomes = Identities(Identity(token=Secret("one"))), list[Outcome]()
    async with (
        silent_server() as address,
        running_resolver(
            address.removeprefix("https://"),
            identities,
            timeout_seconds=10.0,
            readiness=Readiness(),
            metrics=Metrics(),
        ) as resolver,
    ):
        resolver.submit(QUESTION, outcomes.append)
        for number in range(3):
            identities.take_token(Secret(f"token-{number}"))
            for _ in range(20):
                await asyncio.sleep(0)
        assert outcomes == []

    assert len(outcomes) == 1, "a question was left without an answer at the end"
