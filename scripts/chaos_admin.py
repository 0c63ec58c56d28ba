"""The administrator of scripts/chaos: makes users, revokes tokens, changes a key, and keeps what was acknowledged."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import grpc
from chaos_clients import Asker
from chaos_pair import Pair
from drawbridge.v1 import admin_service_pb2 as pb
from drawbridge.v1 import provider_pb2, user_pb2
from drawbridge.v1.admin_service_pb2_grpc import AdminServiceStub

from tests.fakes.counting_upstream import CountingUpstream
from tests.support.credentiald import bearer

RPC_SECONDS = 8.0
_AGAIN_SECONDS = 0.2
_UNACKNOWLEDGED = "drawbridge-unacknowledged"


class Administrator:
    """What was done, and what must hold for it. Marks are those of requests (`chaos_clients`)."""

    def __init__(self, pair: Pair, asker: Asker, upstream: CountingUpstream, seed: int) -> None:
        self._pair = pair
        self._asker = asker
        self._upstream = upstream
        self._dice = random.Random(f"{seed}:administrator")
        self.secrets: set[str] = set()
        self.users: set[str] = set()
        self.revoked = self.confirmed = self.changed_keys = 0
        # Requests that were begun after what they use was taken away, and what they may not reach.
        self.after = 0
        self.wrong: list[str] = []
        self.refused_calls = 0
        # What each path was called with: its first segment, and the key.
        self.carried: Counter[tuple[str, str]] = Counter()

    async def call(self, name: str, message: Any, *, until_done: bool = True) -> tuple[Any, bool]:
        """The answer, and whether every bridge has confirmed; again and again where credentiald is in trouble."""
        while True:
            try:
                async with grpc.aio.insecure_channel(
                    self._pair.plane.addresses["admin"], options=(("grpc.enable_http_proxy", 0),)
                ) as channel:
                    method = getattr(AdminServiceStub(channel), name)
                    calling = method(message, metadata=bearer(self._pair.admin_token), timeout=RPC_SECONDS)
                    answer = await calling
                    trailing = dict(await calling.trailing_metadata() or ())
                    return answer, _UNACKNOWLEDGED not in trailing
            except (grpc.aio.AioRpcError, KeyError) as problem:
                code = problem.code() if isinstance(problem, grpc.aio.AioRpcError) else None
                if code in (grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.NOT_FOUND):
                    return None, False
                if code in (
                    grpc.StatusCode.UNAUTHENTICATED,
                    grpc.StatusCode.PERMISSION_DENIED,
                    grpc.StatusCode.INTERNAL,
                ):
                    self.wrong.append(f"{name}: {code}: {problem}")
                self.refused_calls += 1
                if not until_done:
                    raise
                await asyncio.sleep(_AGAIN_SECONDS)

    async def prepare(self, base_url: str) -> None:
        """The provider whose key changes."""
        self.secrets.add("sk-changing-0-canary")
        await self.call(
            "CreateProvider",
            pb.CreateProviderRequest(
                provider=provider_pb2.Provider(name="changing", type="openai", base_url=f"{base_url}/changing/v1"),
                central_key=provider_pb2.KeyMaterial(api_key="sk-changing-0-canary"),
            ),
        )

    async def work(self) -> None:
        """One thing after another, for ever."""
        while True:
            work = self._dice.choice((self.make_user, self.make_user, self.revoke, self.change_key))
            await work()
            self.forget_requests()
            await asyncio.sleep(self._dice.uniform(0.02, 0.2))

    async def make_user(self) -> None:
        """One more user; it must be there for ever once this was answered."""
        name = f"made-{self._dice.randrange(10**12)}"
        answer, _ = await self.call("CreateUser", pb.CreateUserRequest(user=user_pb2.User(username=name)))
        if answer is not None:
            self.users.add(name)

    async def revoke(self) -> None:
        """A new token, used at every bridge until it is revoked, and once more afterwards."""
        made, _ = await self.call("CreateToken", pb.CreateTokenRequest(user="reconcile"))
        self.secrets.add(made.access_token)
        mark = f"token-{made.token.id}"
        using = [asyncio.create_task(self._use(name, mark, made.access_token)) for name in list(self._pair.bridges)]
        try:
            await asyncio.sleep(self._dice.uniform(0.0, 0.3))
            _, confirmed = await self.call("RevokeToken", pb.RevokeTokenRequest(id=made.token.id))
            sent = self._upstream.arrived()
        finally:
            for task in using:
                task.cancel()
        self.revoked += 1
        self.confirmed += confirmed
        answers = await self._everywhere(f"{mark}-after", "calm", token=made.access_token)
        for answer in answers:
            self.after += 1
            if answer.status == 200:
                self.wrong.append(f"{mark}: answered with 200 after its revocation")
        await asyncio.gather(*using, return_exceptions=True)
        self._upstream.arrived()
        for request in self._upstream.requests[sent:] if confirmed else ():
            if mark.encode() in request.body:
                self.wrong.append(f"{mark}: sent upstream after its revocation had been confirmed")
        if any(f"{mark}-after".encode() in request.body for request in self._upstream.requests):
            self.wrong.append(f"{mark}: a request that was begun after the revocation reached the upstream")

    async def _use(self, name: str, mark: str, token: str) -> None:
        while True:
            if name in self._pair.bridges:
                await self._asker.ask("revoked", self._pair.bridge_address(name), "calm", mark, token=token)
            await asyncio.sleep(0.02)

    async def change_key(self) -> None:
        """Another key; what is asked afterwards has it."""
        self.changed_keys += 1
        key = f"sk-changing-{self.changed_keys}-canary"
        self.secrets.add(key)
        await self.call(
            "SetCentralKey",
            pb.SetCentralKeyRequest(provider="changing", central_key=provider_pb2.KeyMaterial(api_key=key)),
        )
        mark = f"key-{self.changed_keys}"
        await self._everywhere(mark, "changing")
        self._upstream.arrived()
        for request in self._upstream.requests:
            if f'"{mark}"'.encode() in request.body and request.key != key:
                self.wrong.append(f"{mark}: the upstream got {request.key}")

    async def _everywhere(self, mark: str, provider: str, *, token: str | None = None) -> Sequence[Any]:
        names = list(self._pair.bridges)
        lane = "after a revocation" if token else "after a change"
        return await asyncio.gather(
            *(self._asker.ask(lane, self._pair.bridge_address(one), provider, mark, token=token) for one in names)
        )

    def forget_requests(self) -> None:
        """What was judged need not be kept: a campaign may last for hours."""
        self._upstream.arrived()
        self.carried.update((one.path.split("/")[1], one.key) for one in self._upstream.requests)
        self._upstream.requests.clear()
