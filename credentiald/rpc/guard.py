"""What stands before every rpc: who calls, may they, how long may it take, and how a refusal leaves.

Servicers contain no `try`; they ask `current_caller()` for whom the guard let in.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import grpc

from credentiald.authenticate import caller_of
from credentiald.errors import Refusal, StoreUnavailable
from credentiald.metrics import Metrics
from credentiald.model import Caller
from credentiald.plane import Plane
from credentiald.rpc import access, status

log = logging.getLogger("credentiald.rpc")

# A caller without a deadline gets this one.
DEADLINE_SECONDS = 5.0

_caller: ContextVar[Caller] = ContextVar("caller")

if TYPE_CHECKING:
    # Generic to the type checker only.
    Handler = grpc.RpcMethodHandler[Any, Any]

Behaviour = Callable[[Any, "grpc.aio.ServicerContext[Any, Any]"], Awaitable[Any]]


def current_caller() -> Caller:
    """Who calls the rpc that is being answered."""
    return _caller.get()


class Guard(grpc.aio.ServerInterceptor):
    """Authenticates, checks rpc × role, bounds the time, turns refusals into statuses, counts and logs."""

    def __init__(self, plane: Plane, metrics: Metrics) -> None:
        self._plane = plane
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """The handler behind the guard; health and reflection pass as they are."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not access.is_ours(method):
            return handler
        token = _bearer(handler_call_details.invocation_metadata)
        return grpc.unary_unary_rpc_method_handler(
            self._guarded(handler.unary_unary, method, token),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _guarded(self, behaviour: Any, method: str, token: str) -> Any:
        name = method.rpartition("/")[2]

        async def call(request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
            started = time.perf_counter()
            outcome = "INTERNAL"
            try:
                async with asyncio.timeout(_seconds_left(context)):
                    answer = await self._answer(behaviour, method, token, request, context)
                outcome = "OK"
                return answer
            except asyncio.CancelledError:
                outcome = "CANCELLED"
                raise
            except TimeoutError:
                outcome = StoreUnavailable.reason()
                await status.abort(context, StoreUnavailable())
            except Refusal as refusal:
                outcome = refusal.reason()
                log.info("refused", extra={"rpc": name, "reason": outcome, "facts": refusal.facts})
                await status.abort(context, refusal)
            except Exception:
                log.exception("unhandled error", extra={"rpc": name})
                await context.abort(grpc.StatusCode.INTERNAL, "internal error")
            finally:
                self._metrics.rpc_done(name, outcome, time.perf_counter() - started)

        return call

    async def _answer(self, behaviour: Behaviour, method: str, token: str, request: Any, context: Any) -> Any:
        rule = access.ACCESS.get(method)
        caller = await caller_of(self._plane, token, wants_service=rule is not None and rule.wants_service)
        access.check(caller, method)
        _caller.set(caller)
        return await behaviour(request, context)


def _seconds_left(context: Any) -> float:
    """What is left of the caller's deadline, at most the server's own."""
    left = context.time_remaining()
    return DEADLINE_SECONDS if left is None else min(float(left), DEADLINE_SECONDS)


def _bearer(metadata: Any) -> str:
    """The token of `authorization: Bearer <token>`, empty without one (RFC 6750, section 2.1)."""
    for key, value in metadata or ():
        if key == "authorization" and isinstance(value, str):
            scheme, _, token = value.strip().partition(" ")
            return token.strip() if scheme.lower() == "bearer" else ""
    return ""
