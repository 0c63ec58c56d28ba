"""A credentiald for bridge tests: a real gRPC server whose answers a test decides.

    async with running_credentiald() as credentiald:
        credentiald.providers["corp"] = provider("anthropic", upstream.url, api_key="sk-upstream")
        credentiald.refuse = Refuse(grpc.StatusCode.FAILED_PRECONDITION, "USER_KEY_REQUIRED", "add a key")
        ...
        assert credentiald.resolves[0].access_token == "dbu_…"

`providers` maps instance names to answers; other names are PROVIDER_NOT_FOUND. `refuse` refuses every resolve,
`refuse_providers` those for single providers,
`ping_refuse` every ping. `hang` set: rpcs wait until it is cleared. `stop()` and `start()` take it away and bring it
back on the same address. Questions come by stream, `batches` has their numbers; with `has_stream` False it is a
server of before there was one. Providers in `ask_singly` are refused so in batches. `end_streams()` ends those that
are idle, as a server that stops does. `reported` is what it has taken from bridges; `report_refuse` refuses whole
reports, `reject` interceptions with these models, for the reason `rejection`; at reports with models in `fail_at` it
fails. With `has_watch` bridges may watch: `change()` tells them, `acknowledged` is what they said.

`pools` maps names to several answers, one a key (`pool`): the first is given whose key the bridge has neither named as
failed nor reported. `outcomes` is what was reported of keys; `outcome_refuse` refuses that.
"""

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import credential_service_pb2_grpc as pb_grpc
from drawbridge.v1 import provider_pb2, user_pb2
from drawbridge.v1 import record_service_pb2 as record_pb
from drawbridge.v1.record_service_pb2_grpc import RecordServiceServicer, add_RecordServiceServicer_to_server
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from tests.support import ports
from tests.support.usual import messages_of

SERVICE_TOKEN = "dbs_test-service-token"
USER_TOKEN = "dbu_test-user-token"


@dataclass(frozen=True, kw_only=True)
class Refuse:
    """A refusal as credentiald sends it: a status with one ErrorInfo. Without `reason` a bare status."""

    code: grpc.StatusCode
    reason: str = ""
    message: str = "refused by the test"
    metadata: dict[str, str] = field(default_factory=dict)
    retry_seconds: int | None = None
    domain: str = "drawbridge"

    def item(self) -> pb.ResolveRefusal:
        """The same as an item of a batch."""
        delay = None if self.retry_seconds is None else duration_pb2.Duration(seconds=self.retry_seconds)
        domain = self.domain if self.reason else ""
        return pb.ResolveRefusal(
            code=self.code.value[0],
            message=self.message,
            reason=self.reason,
            domain=domain,
            metadata=self.metadata,
            retry_delay=delay,
        )

    async def abort(self, context: Any) -> None:
        if not self.reason:
            await context.abort(self.code, self.message)
        details = [_packed(error_details_pb2.ErrorInfo(reason=self.reason, domain=self.domain, metadata=self.metadata))]
        if self.retry_seconds is not None:
            delay = duration_pb2.Duration(seconds=self.retry_seconds)
            details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
        code = getattr(code_pb2, self.code.name)
        await context.abort_with_status(
            rpc_status.to_status(status_pb2.Status(code=code, message=self.message, details=details))
        )


def provider(
    type_name: str,
    base_url: str,
    *,
    name: str = "",
    wire_type: str = "",
    api_key: str = "",
    bearer: str = "",
    presented: bool = False,
    send_actor_headers: bool = False,
    username: str = "ada",
    upstream_model: str = "",
) -> pb.ResolveProviderResponse:
    """A good answer. `presented`: the source is the client's own key, and no credential comes."""
    credential = None if presented else pb.Credential(credential_id="cred-1")
    if credential is not None and bearer:
        credential.bearer_token.value = bearer
    elif credential is not None:
        credential.api_key.value = api_key
    source = provider_pb2.CREDENTIAL_SOURCE_PRESENTED_KEY if presented else provider_pb2.CREDENTIAL_SOURCE_CENTRAL_KEY
    return pb.ResolveProviderResponse(
        provider=provider_pb2.Provider(
            id=str(uuid.uuid4()),
            name=name,
            type=type_name,
            wire_type=wire_type or type_name,
            base_url=base_url,
            send_actor_headers=send_actor_headers,
        ),
        user=user_pb2.User(id="00000000-0000-7000-8000-00000000ada0", username=username),
        source=source,
        credential=credential,
        resolution_id=str(uuid.uuid4()),
        upstream_model=upstream_model,
        revision=7,
        receipt=b"receipt",
    )


def pool(count: int, type_name: str, base_url: str, **more: Any) -> list[pb.ResolveProviderResponse]:
    """Good answers with the keys `sk-1`, `sk-2` … of one provider, which have the ids `cred-1`, `cred-2` …"""
    provider_id = str(uuid.uuid4())
    answers = [provider(type_name, base_url, api_key=f"sk-{number}", **more) for number in range(1, count + 1)]
    for number, answer in enumerate(answers, 1):
        answer.provider.id = provider_id
        answer.credential.credential_id = f"cred-{number}"
        answer.receipt = f"receipt-{number}".encode()
        answer.pool_size = count
    return answers


_ABOUT_A_KEY = (
    pb.CREDENTIAL_OUTCOME_KIND_UNAUTHORIZED,
    pb.CREDENTIAL_OUTCOME_KIND_RATE_LIMITED,
    pb.CREDENTIAL_OUTCOME_KIND_SPEND_LIMITED,
)


class FakeCredentiald(pb_grpc.CredentialServiceServicer, RecordServiceServicer):
    """What `running_credentiald` yields."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.providers: dict[str, pb.ResolveProviderResponse] = {}
        self.pools: dict[str, list[pb.ResolveProviderResponse]] = {}
        self.outcomes: list[pb.CredentialOutcome] = []
        self.outcome_refuse: Refuse | None = None
        # The shortest wait of an empty pool, and why it is empty.
        self.pool_retry_seconds = 60
        self.pool_cause = "failed"
        self._resting: set[bytes] = set()
        self.users: dict[str, str] = {}
        self.refuse: Refuse | None = None
        self.refuse_providers: dict[str, Refuse] = {}
        self.ping_refuse: Refuse | None = None
        self.database_id = "database-1"
        self.revision = 7
        self.resolves: list[pb.ResolveProviderRequest] = []
        self.ask_singly: set[str] = set()
        self.unary_resolves = 0
        self.batches: list[int] = []
        self.has_stream = True
        self.tls: grpc.ServerCredentials | None = None
        self.stream_refuse: Refuse | None = None
        # Ends a stream instead of answering a batch, as when the caller is authenticated again and the store is away.
        self.refuse_batches: Refuse | None = None
        self.streams_opened = 0
        self._streams: set[asyncio.Task[Any]] = set()
        self._to_end: set[asyncio.Task[Any]] = set()
        # Without, it is a server of before bridges could watch.
        self.has_watch = False
        self.watches: list[asyncio.Queue[pb.WatchProvidersResponse]] = []
        # What bridges have said first, and what they have acknowledged since.
        self.watch_begins: list[pb.WatchProvidersRequest] = []
        self.acknowledged: list[int] = []
        # How many questions had come when a bridge said that it leaves.
        self.goodbyes: list[int] = []
        # Watches that begin are told nothing before this.
        self.watches_go_on = asyncio.Event()
        self.watches_go_on.set()
        self.pings = 0
        self.last_ping: pb.PingRequest | None = None
        self.authorizations: set[str] = set()
        # Where there are some, bridges with other tokens are refused (SERVICE_TOKEN_INVALID).
        self.valid_tokens: set[str] = set()
        # The tokens of streams that are open.
        self.stream_tokens: list[str] = []
        self._go_on = asyncio.Event()
        self._go_on.set()
        self._streams_go_on = asyncio.Event()
        self._streams_go_on.set()
        # Replies lack their first result, as those of a server with a bug would.
        self.short_replies = False
        self._server: grpc.aio.Server | None = None
        self._kept_port: socket.socket | None = None
        self.reports = 0
        self.reported: list[record_pb.InterceptionRecords] = []
        self.report_refuse: Refuse | None = None
        self.reject: set[str] = set()
        self.fail_at: set[str] = set()
        self.rejection: int = record_pb.RECORD_REJECTION_RECORD_INVALID
        # Said with every answer, whatever was reported.
        self.odd_rejections: list[record_pb.RejectedRecords] = []

    @property
    def target(self) -> str:
        """What `--credentiald` takes."""
        return self.address

    async def start(self) -> None:
        """Listen; after a stop, on the same address again."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        if self.has_stream:
            pb_grpc.add_CredentialServiceServicer_to_server(self, self._server)
        else:
            self._server.add_generic_rpc_handlers([self._without_stream()])
        add_RecordServiceServicer_to_server(self, self._server)
        if self.tls is None:
            port = self._server.add_insecure_port(self.address)
        else:
            port = self._server.add_secure_port(self.address, self.tls)
        if not self.address.startswith("unix:"):
            self.address = f"{self.address.rpartition(':')[0]}:{port}"
        await self._server.start()
        self.forget()

    async def stop(self) -> None:
        """Gone at once, with whatever was under way. Nobody else gets the port meanwhile."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None
            if not self.address.startswith("unix:"):
                self._kept_port = ports.keep(self.address)

    def forget(self) -> None:
        """Let go of the port that is kept after a stop."""
        if self._kept_port is not None:
            self._kept_port.close()
            self._kept_port = None

    def hang(self, *, unary: bool = True, batches: bool = True) -> None:
        """From now on accept calls and batches and answer none; without `unary` only batches, and the reverse."""
        if batches:
            self._streams_go_on.clear()
        if unary:
            self._go_on.clear()

    def go_on(self) -> None:
        """Answer again, also what has waited."""
        self._streams_go_on.set()
        self._go_on.set()

    @property
    def open_streams(self) -> int:
        """How many streams wait for a batch."""
        return len(self._streams)

    def end_streams(self) -> None:
        """End every stream that waits for a batch, with the status OK, or with that of `stream_refuse`."""
        for reading in self._streams:
            # One that has its batch, and has not gone on yet, cannot be cancelled any more.
            self._to_end.add(reading)
            reading.cancel()

    def _without_stream(self) -> grpc.GenericRpcHandler:
        methods = {
            "ResolveProvider": grpc.unary_unary_rpc_method_handler(
                self.ResolveProvider,
                request_deserializer=pb.ResolveProviderRequest.FromString,
                response_serializer=pb.ResolveProviderResponse.SerializeToString,
            ),
            "Ping": grpc.unary_unary_rpc_method_handler(
                self.Ping,
                request_deserializer=pb.PingRequest.FromString,
                response_serializer=pb.PingResponse.SerializeToString,
            ),
        }
        return grpc.method_handlers_generic_handler("drawbridge.v1.CredentialService", methods)

    async def ResolveProvider(self, request: pb.ResolveProviderRequest, context: Any) -> pb.ResolveProviderResponse:
        self.unary_resolves += 1
        await self._let_in(context)
        self.resolves.append(request)
        await self._go_on.wait()
        answer = self._answer(request)
        if isinstance(answer, Refuse):
            await answer.abort(context)
            raise AssertionError("abort raises")  # noqa: TRY004 - it never gets here
        return answer

    async def ResolveProviderStream(self, request_iterator: Any, context: Any) -> None:
        self.streams_opened += 1
        token = await self._let_in(context)
        if self.stream_refuse is not None:
            await self.stream_refuse.abort(context)
        self.stream_tokens.append(token)
        try:
            await self._serve_stream(context)
        finally:
            self.stream_tokens.remove(token)

    async def _serve_stream(self, context: Any) -> None:
        while True:
            reading = asyncio.ensure_future(context.read())
            self._streams.add(reading)
            try:
                batch = await reading
            except asyncio.CancelledError:
                if not reading.cancelled():
                    raise
                batch = grpc.aio.EOF
            finally:
                self._streams.discard(reading)
                reading.cancel()
            if reading in self._to_end:
                self._to_end.discard(reading)
                if self.stream_refuse is not None:
                    await self.stream_refuse.abort(context)
                return
            if batch is grpc.aio.EOF:
                return
            self.resolves.extend(batch.items)
            await self._let_in(context)
            if batch.items and self.refuse_batches is not None:
                await self.refuse_batches.abort(context)
            if batch.items:
                # An empty batch is about the stream itself, and that is well.
                self.batches.append(len(batch.items))
                await self._streams_go_on.wait()
            results = [self._result(item) for item in batch.items]
            if self.short_replies:
                results = results[1:]
            await context.write(pb.ResolveProviderStreamResponse(results=results))

    def _result(self, request: pb.ResolveProviderRequest) -> pb.ResolveProviderResult:
        answer = self._answer(request)
        if request.provider in self.ask_singly:
            answer = Refuse(code=grpc.StatusCode.UNAVAILABLE, reason="ASK_SINGLY")
        if isinstance(answer, Refuse):
            return pb.ResolveProviderResult(refusal=answer.item())
        return pb.ResolveProviderResult(response=answer)

    def _answer(self, request: pb.ResolveProviderRequest) -> pb.ResolveProviderResponse | Refuse:
        if self.refuse is not None:
            return self.refuse
        if request.provider in self.refuse_providers:
            return self.refuse_providers[request.provider]
        answer = self.providers.get(request.provider)
        if request.provider in self.pools:
            keys = self.pools[request.provider]
            failed = set(request.failed_credential_ids)
            left = [
                one for one in keys if one.credential.credential_id not in failed and one.receipt not in self._resting
            ]
            if not left:
                return Refuse(
                    code=grpc.StatusCode.RESOURCE_EXHAUSTED,
                    reason="KEY_POOL_EXHAUSTED",
                    message="no key is left",
                    metadata={"provider": request.provider, "cause": self.pool_cause},
                    retry_seconds=self.pool_retry_seconds,
                )
            answer = left[0]
        if answer is None:
            facts = {"provider": request.provider}
            return Refuse(
                code=grpc.StatusCode.NOT_FOUND, reason="PROVIDER_NOT_FOUND", message="no such provider", metadata=facts
            )
        answer.provider.name = request.provider
        if request.access_token in self.users:
            answer.user.id = self.users[request.access_token]
        return answer

    async def ReportOutcome(self, request: pb.ReportOutcomeRequest, context: Any) -> pb.ReportOutcomeResponse:
        self._note(context)
        await self._go_on.wait()
        if self.outcome_refuse is not None:
            await self.outcome_refuse.abort(context)
        assert request.bridge_instance_id
        self.outcomes.extend(request.outcomes)
        self._resting.update(one.receipt for one in request.outcomes if one.kind in _ABOUT_A_KEY)
        return pb.ReportOutcomeResponse()

    async def Ping(self, request: pb.PingRequest, context: Any) -> pb.PingResponse:
        self.pings += 1
        self.last_ping = request
        await self._let_in(context)
        await self._go_on.wait()
        if self.ping_refuse is not None:
            await self.ping_refuse.abort(context)
        return pb.PingResponse(version="test", revision=self.revision, database_id=self.database_id)

    async def WatchProviders(self, request_iterator: Any, context: Any) -> None:
        if not self.has_watch:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not here")
        self.watch_begins.append(await context.read())
        await self.watches_go_on.wait()
        told: asyncio.Queue[pb.WatchProvidersResponse] = asyncio.Queue()
        told.put_nowait(self._watched(snapshot=True))
        self.watches.append(told)
        telling = asyncio.ensure_future(self._tell(context, told))
        reading = asyncio.ensure_future(self._acknowledgements(context))
        try:
            await asyncio.wait([telling, reading], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.watches.remove(told)
            telling.cancel()
            reading.cancel()

    async def _tell(self, context: Any, told: "asyncio.Queue[pb.WatchProvidersResponse]") -> None:
        while True:
            await context.write(await told.get())

    async def _acknowledgements(self, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            if request.leaving:
                self.goodbyes.append(len(self.resolves))
                return
            self.acknowledged.append(request.revision)

    def _watched(self, **fields: Any) -> pb.WatchProvidersResponse:
        providers = [
            provider_pb2.Provider(
                id=one.provider.id,
                name=name,
                enabled=True,
                key_policy=provider_pb2.KeyPolicy(central_key_enabled=True, user_keys_allowed=True),
                central_keys=[provider_pb2.CentralKey(credential_id=one.credential.credential_id)],
            )
            for name, one in self.providers.items()
        ]
        providers += [
            provider_pb2.Provider(
                id=keys[0].provider.id,
                name=name,
                enabled=True,
                key_policy=provider_pb2.KeyPolicy(central_key_enabled=True),
                central_keys=[provider_pb2.CentralKey(credential_id=one.credential.credential_id) for one in keys],
            )
            for name, keys in self.pools.items()
            if keys
        ]
        return pb.WatchProvidersResponse(
            database_id=self.database_id, revision=self.revision, providers=providers, **fields
        )

    def change(self, kind: str, resource_id: str = "", *, answers_too: bool = True) -> int:
        """A change that bridges are told of; its revision. `answers_too`: answers are of this revision from now on."""
        self.revision += 1
        if answers_too:
            for one in (*self.providers.values(), *(one for keys in self.pools.values() for one in keys)):
                one.revision = self.revision
        change = pb.AdministrativeChange(revision=self.revision, kind=kind, resource_id=resource_id)
        change.change_time.GetCurrentTime()
        for told in self.watches:
            told.put_nowait(self._watched(changes=[change]))
        return self.revision

    async def AppendRecords(
        self, request: record_pb.AppendRecordsRequest, context: Any
    ) -> record_pb.AppendRecordsResponse:
        self.reports += 1
        self._note(context)
        await self._go_on.wait()
        if self.report_refuse is not None:
            await self.report_refuse.abort(context)
        interceptions = [*request.interceptions, *messages_of(request.usual)]
        if any(one.facts.model in self.fail_at for one in interceptions):
            await Refuse(code=grpc.StatusCode.INTERNAL, message="internal error").abort(context)
        rejected = [place for place, one in enumerate(interceptions) if one.facts.model in self.reject]
        self.reported += [one for place, one in enumerate(interceptions) if place not in rejected]
        why = self.rejection
        answer = record_pb.AppendRecordsResponse(
            rejected=[record_pb.RejectedRecords(index=place, rejection=why) for place in rejected]  # type: ignore[arg-type]
        )
        answer.rejected.extend(self.odd_rejections)
        return answer

    def _note(self, context: Any) -> str:
        metadata = dict(context.invocation_metadata())
        authorization = str(metadata.get("authorization", ""))
        self.authorizations.add(authorization)
        return authorization.removeprefix("Bearer ")

    async def _let_in(self, context: Any) -> str:
        token = self._note(context)
        if self.valid_tokens and token not in self.valid_tokens:
            await Refuse(code=grpc.StatusCode.UNAUTHENTICATED, reason="SERVICE_TOKEN_INVALID").abort(context)
        return token


def _packed(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


@asynccontextmanager
async def running_credentiald(address: str = "127.0.0.1:0") -> AsyncIterator[FakeCredentiald]:
    """A fake credentiald on `HOST:PORT` or `unix:PATH` for the length of the block."""
    fake = FakeCredentiald(address)
    await fake.start()
    try:
        yield fake
    finally:
        fake.go_on()
        await fake.stop()
        fake.forget()
