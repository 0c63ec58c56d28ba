"""The gRPC listeners of a credentiald that is sealed: everything is refused with SEALED, and health is NOT_SERVING.

No rpc is answered, not even one that needs no secret: what authenticates pages, receipts and ids is sealed as well.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from credentiald.errors import Sealed
from credentiald.rpc import access, status
from credentiald.rpc.server import SERVER_OPTIONS, RpcListener, bind
from daemonkit.logs import announce


class _Refusing(grpc.GenericRpcHandler):
    """Every rpc of ours, refused before anything of it is read."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        if not access.is_ours(handler_call_details.method):
            return None
        return grpc.stream_stream_rpc_method_handler(_refuse)


async def _refuse(requests: Any, context: Any) -> None:
    await status.abort(context, Sealed())


@asynccontextmanager
async def sealed_listening(listeners: Sequence[RpcListener], *, is_worker: bool) -> AsyncIterator[list[RpcListener]]:
    """Listen for the length of the block; the listeners with their real addresses."""
    servers: list[grpc.aio.Server] = []
    real = []
    try:
        for listener in listeners:
            server = grpc.aio.server(options=(("grpc.so_reuseport", int(is_worker)), *SERVER_OPTIONS))
            servers.append(server)
            server.add_generic_rpc_handlers((_Refusing(),))
            servicer = health.aio.HealthServicer()
            health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
            for service in ("", *listener.services):
                await servicer.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)
            bound = [bind(server, listener, address) for address in listener.addresses]
            await server.start()
            for address in () if is_worker else bound:
                announce(listener.name, address)
            real.append(replace(listener, addresses=bound, was_sealed=True))
        yield real
    finally:
        await asyncio.gather(*(server.stop(0) for server in servers))
