"""The spans of credentiald, over real sockets: whose trace each is part of, and what it tells."""

import asyncio

import grpc
import pytest
from drawbridge.v1 import admin_service_pb2 as admin
from drawbridge.v1 import credential_service_pb2 as pb

from credentiald.tracing import Tracing
from tests.support.credentiald import Running, bearer, running
from tests.support.policy_rows import CENTRAL
from tests.support.traces import Traces

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
INTERCEPTION = "0190e2f4-1111-7abc-8def-0123456789a{}"
ONE = "drawbridge.v1.CredentialService/ResolveProvider"
BATCH = "drawbridge.v1.CredentialService/ResolveProviderStream"


@pytest.fixture
def traces() -> Traces:
    return Traces()


def question(token: str, number: int = 0, **fields: str) -> pb.ResolveProviderRequest:
    return pb.ResolveProviderRequest(
        **{
            "provider": "prov",
            "access_token": token,
            "operation": "openai.chat_completions",
            "interception_id": INTERCEPTION.format(number),
            "bridge_instance_id": "b",
            **fields,
        }
    )


async def prepared(one: Running) -> str:
    await one.make_provider("prov", key=CENTRAL)
    _, token = await one.make_user("ann")
    return token


def parent_of(span) -> tuple[str, str] | None:
    return span.parent and (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}")


async def test_a_single_question_is_part_of_the_trace_that_it_names(tmp_path, traces) -> None:
    async with running(tmp_path, tracing=Tracing(traces.tracer)) as one:
        token = await prepared(one)
        await one.credentials.ResolveProvider(question(token, trace_parent=PARENT), metadata=bearer(one.bridge_token))

    span = traces.named(ONE)
    assert parent_of(span) == (TRACE, SPAN)
    assert dict(span.attributes) == {
        "rpc.system.name": "grpc",
        "rpc.method": ONE,
        "drawbridge.interception_id": INTERCEPTION.format(0),
    }
    assert span.end_time > span.start_time


async def test_each_question_of_a_batch_is_part_of_its_own_trace_kept_or_not(tmp_path, traces) -> None:
    other = f"00-{TRACE[::-1]}-{SPAN}-01"
    async with running(tmp_path, tracing=Tracing(traces.tracer)) as one:
        token = await prepared(one)
        stream = one.credentials.ResolveProviderStream(metadata=bearer(one.bridge_token))
        for _ in range(2):
            items = [
                question(token, 1, trace_parent=PARENT),
                question(token, 2),
                question(token, 3, trace_parent=other),
                question("dbu_nobody", 4, trace_parent=PARENT),
                question(token, 5, trace_parent=f"00-{TRACE}-{SPAN}-00"),
            ]
            await stream.write(pb.ResolveProviderStreamRequest(items=items))
            results = (await stream.read()).results
        stream.cancel()

    spans = traces.all_named(BATCH)
    assert [parent_of(span) for span in spans] == [(TRACE, SPAN), (TRACE[::-1], SPAN), (TRACE, SPAN)] * 2
    assert [span.attributes["drawbridge.interception_id"][-1] for span in spans] == ["1", "3", "4"] * 2
    assert [span.attributes.get("error.type") for span in spans] == [None, None, "ACCESS_TOKEN_INVALID"] * 2
    assert [span.attributes.get("drawbridge.resolution_id") for span in spans[3:]] == [
        results[0].response.resolution_id,
        results[2].response.resolution_id,
        None,
    ]
    # A refusal is a decision, and no failure.
    assert {span.status.status_code.name for span in spans} == {"UNSET"}


async def test_a_caller_of_another_kind_names_its_trace_in_the_metadata(tmp_path, traces) -> None:
    async with running(tmp_path, tracing=Tracing(traces.tracer)) as one:
        metadata = (*bearer(one.admin_token), ("traceparent", PARENT))
        await one.admin.ListUsers(admin.ListUsersRequest(), metadata=metadata)
        await one.admin.ListUsers(admin.ListUsersRequest(), metadata=bearer(one.admin_token))
        with pytest.raises(grpc.aio.AioRpcError):
            await one.admin.ListUsers(admin.ListUsersRequest(), metadata=(*bearer("dbu_x"), ("traceparent", "x")))

    spans = traces.all_named("drawbridge.v1.AdminService/ListUsers")
    assert [parent_of(span) for span in spans] == [(TRACE, SPAN), None, None]
    assert spans[2].attributes["error.type"] == "ACCESS_TOKEN_INVALID"


async def test_what_is_no_id_of_an_interception_is_not_told(tmp_path, traces) -> None:
    async with running(tmp_path, tracing=Tracing(traces.tracer)) as one:
        token = await prepared(one)
        with pytest.raises(grpc.aio.AioRpcError):
            await one.credentials.ResolveProvider(
                question(token, interception_id="a secret", trace_parent=PARENT), metadata=bearer(one.bridge_token)
            )

    assert traces.named(ONE).attributes["error.type"] == "INVALID_ARGUMENT"
    assert "a secret" not in "".join(span.to_json() for span in traces.spans)


async def test_a_commit_links_to_the_questions_whose_interceptions_it_stores(tmp_path, traces) -> None:
    async with running(tmp_path, tracing=Tracing(traces.tracer)) as one:
        token = await prepared(one)
        stream = one.credentials.ResolveProviderStream(metadata=bearer(one.bridge_token))
        items = [question(token, 1, trace_parent=PARENT), question(token, 2), question(token, 3, trace_parent=PARENT)]
        await stream.write(pb.ResolveProviderStreamRequest(items=items))
        await stream.read()
        stream.cancel()
        async with asyncio.timeout(5):
            while not traces.all_named("commit records"):
                await asyncio.sleep(0.01)

    asked = {span.context.span_id for span in traces.all_named(BATCH)}
    commit = traces.named("commit records")
    assert {link.context.span_id for link in commit.links} == asked
    assert len(asked) == 2
    assert commit.parent is None
    assert commit.attributes["drawbridge.traced_interceptions"] == 2


async def test_a_commit_of_nothing_that_is_traced_is_no_span(tmp_path, traces) -> None:
    async with running(tmp_path, tracing=Tracing(traces.tracer)) as one:
        token = await prepared(one)
        await one.credentials.ResolveProvider(
            question(token, trace_parent=f"00-{TRACE}-{SPAN}-00"), metadata=bearer(one.bridge_token)
        )
        await one.book.flush()

    assert traces.all_named("commit records") == traces.all_named(ONE) == []
