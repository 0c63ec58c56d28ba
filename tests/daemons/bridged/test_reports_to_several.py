"""Reports where there are several credentialds: what one fails at, or does not take, another may store."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest
from drawbridge.v1 import record_service_pb2 as record_pb

from bridged.metrics import Metrics
from bridged.model import Refused
from bridged.readiness import Readiness
from bridged.report_messages import request_parts
from bridged.resolver import Identities, Identity, Resolver, running_resolver
from daemonkit.secret import Secret
from tests.fakes.credentiald import SERVICE_TOKEN, FakeCredentiald, Refuse, running_credentiald
from tests.support.bridge import until
from tests.support.bridge_reports import sample

FAILS = Refuse(code=grpc.StatusCode.INTERNAL, message="internal error")
AWAY = Refuse(code=grpc.StatusCode.UNAVAILABLE, reason="STORE_UNAVAILABLE")
MALFORMED = Refuse(code=grpc.StatusCode.INVALID_ARGUMENT, reason="INVALID_ARGUMENT")
STORED = "stored"


@asynccontextmanager
async def bridge_of(*says: Refuse | None) -> AsyncIterator[tuple[Resolver, list[FakeCredentiald]]]:
    """A bridge's resolver with a credentiald for each, which says this to reports."""
    async with AsyncExitStack() as stack:
        fakes = [await stack.enter_async_context(running_credentiald()) for _ in says]
        for fake, refuse in zip(fakes, says, strict=True):
            fake.report_refuse = refuse

        async def lookup(host: str, port: int) -> list[tuple[str, int]]:
            del host, port
            return [("127.0.0.1", int(fake.address.rpartition(":")[2])) for fake in fakes]

        metrics = Metrics()
        resolver = await stack.enter_async_context(
            running_resolver(
                "dns:///credentiald.internal:7410",
                Identities(Identity(token=Secret(SERVICE_TOKEN))),
                timeout_seconds=2.0,
                readiness=Readiness(),
                metrics=metrics,
                lookup=lookup,
            )
        )
        await until(lambda: sample(metrics.registry, "bridged_resolve_streams_opened_total") >= len(says))
        yield resolver, fakes


@pytest.mark.parametrize(
    ("says", "outcomes"),
    [
        ((None, None), {STORED}),
        ((FAILS, None), {STORED}),
        ((FAILS, FAILS, None), {STORED}),
        ((FAILS, FAILS), {"INTERNAL"}),
        ((FAILS, MALFORMED), {"INVALID_ARGUMENT"}),
        ((AWAY, AWAY), {"STORE_UNAVAILABLE"}),
        # They take turns, and each gets the next try.
        ((AWAY, None), {"STORE_UNAVAILABLE", STORED}),
        # That one cannot store anything, perhaps for hours, says nothing of what the other fails at.
        ((FAILS, AWAY), {"INTERNAL"}),
    ],
)
async def test_a_report_has_failed_only_where_no_credentiald_stores_it(
    says: tuple[Refuse | None, ...], outcomes: set[str]
) -> None:
    parts = request_parts([record_pb.InterceptionRecords(receipt=b"receipt").SerializeToString()], [])
    async with bridge_of(*says) as (resolver, fakes):
        answers = [await resolver.append_records(parts) for _ in range(4 * len(says))]
        asked = [fake.reports for fake in fakes]
    told = [answer.reason if isinstance(answer, Refused) else STORED for answer in answers]
    # The first go by the order in which the streams were opened.
    assert set(told[len(says) :]) == outcomes
    assert min(asked) > 0
