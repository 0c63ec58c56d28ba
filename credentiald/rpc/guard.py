"""What stands before every rpc: who calls, may they, how long may it take, and how a refusal leaves.

Servicers contain no `try`; they ask `current_caller()` for whom the guard let in.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from credentiald import certificate_names
from credentiald.authenticate import caller_of, certified_caller
from credentiald.check_provider import CHECK_SECONDS
from credentiald.errors import InvalidArgument, Refusal, SealingKeyUnknown, StoreUnavailable
from credentiald.metrics import Metrics
from credentiald.model import Caller
from credentiald.plane import Plane
from credentiald.rpc import access, status
from credentiald.rpc.audit_acts import Acts
from credentiald.rpc.names import UNACKNOWLEDGED
from credentiald.sealing_wrapping import ASK_SECONDS

log = logging.getLogger("credentiald.rpc")

# A caller without a deadline gets this one, and nobody a longer one, but for what asks AWS or Vault on purpose.
DEADLINE_SECONDS = 5.0
_LONGER_SECONDS = {
    "/drawbridge.v1.AdminService/CheckProvider": CHECK_SECONDS + 2.0,
    # A new key is encrypted, and decrypted to show that it can be.
    "/drawbridge.v1.AdminService/RotateSealingKey": 2 * ASK_SECONDS + 5.0,
}

# Bridges ask for it all the time, and it says nothing.
_UNTRACED = frozenset({"Ping"})

# What is kept of a rpc's time for the way back, when it waits for somebody else.
_RESERVE_SECONDS = 0.25

# Stands for a request that is no message of its rpc.
_UNREADABLE = object()

_caller: ContextVar[Caller] = ContextVar("caller")
_end: ContextVar[float] = ContextVar("end")
_admit: ContextVar[Callable[[], Awaitable[Caller]]] = ContextVar("admit")

if TYPE_CHECKING:
    from credentiald.tracing import Tracing

    # Generic to the type checker only.
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]


def current_caller() -> Caller:
    """Who calls the rpc that is being answered."""
    return _caller.get()


def seconds_to_wait() -> float:
    """How long the rpc that is being answered may wait for others and still answer in time."""
    return _end.get() - asyncio.get_running_loop().time() - _RESERVE_SECONDS


async def admit_again() -> Caller:
    """Who calls the stream that is being answered, authenticated now; a refusal if they may not any more."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        return await _admit.get()()


class Guard(grpc.aio.ServerInterceptor):
    """Authenticates, checks rpc × role, bounds the time, turns refusals into statuses, counts and logs."""

    def __init__(
        self,
        plane: Plane,
        metrics: Metrics,
        obeyed: Callable[[float], Awaitable[int | None]],
        tracing: "Tracing | None" = None,
        acts: Acts | None = None,
        *,
        tells_who_is_not_admitted: bool = False,
    ) -> None:
        self._plane = plane
        # Tells the audit, where there is one.
        self._acts = acts
        self._tells_who_is_not_admitted = tells_who_is_not_admitted
        # Waits, for so many seconds at most, until every bridge obeys what was changed; how many do not, None where
        # that is not known (watch_streams.py).
        self._obeyed = obeyed
        self._metrics = metrics
        self._tracing = tracing

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
        admit = partial(self._admit, method, _bearer(handler_call_details.invocation_metadata))
        if handler.request_streaming:
            # What a stream writes is serialised already.
            return grpc.stream_stream_rpc_method_handler(
                self._guarded_stream(handler.stream_stream, method, admit),
                request_deserializer=handler.request_deserializer,
                response_serializer=None,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._guarded(handler.unary_unary, method, admit),
            request_deserializer=partial(_read, handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _guarded(self, behaviour: Any, method: str, admit: Callable[["Context"], Awaitable[Caller]]) -> Any:
        async def call(request: Any, context: "Context") -> Any:
            seconds = _seconds_left(context, _LONGER_SECONDS.get(method, DEADLINE_SECONDS))
            _end.set(asyncio.get_running_loop().time() + seconds)
            async with self._accounted(method, context, request), asyncio.timeout(seconds):
                _caller.set(await self._admitted(method, context, admit))
                if request is _UNREADABLE:
                    raise _unreadable()
                behave = partial(self._answer, behaviour, request, context)
                if self._acts is None:
                    answer = await behave()
                else:
                    answer = await self._acts.run(method, _caller.get(), request, context, behave, seconds_to_wait)
                if access.takes_away(method) and (behind := await self._obeyed(seconds_to_wait())) != 0:
                    told = (UNACKNOWLEDGED, "unknown" if behind is None else str(behind))
                    context.set_trailing_metadata((*(context.trailing_metadata() or ()), told))
                return answer

        return call

    async def _answer(self, behaviour: Any, request: Any, context: "Context") -> Any:
        try:
            return await behaviour(request, context)
        except SealingKeyUnknown:
            # Another process may have made it. What was begun was not committed.
            await self._plane.sealing_keys.refresh()
            return await behaviour(request, context)

    async def _admitted(
        self, method: str, context: "Context", admit: Callable[["Context"], Awaitable[Caller]]
    ) -> Caller:
        if self._acts is None or not self._tells_who_is_not_admitted:
            return await admit(context)
        try:
            return await admit(context)
        except Refusal as refusal:
            if not isinstance(refusal, StoreUnavailable):
                self._acts.not_admitted(method, str(context.peer()), refusal, _caller.get(None))
            raise

    def _guarded_stream(self, behaviour: Any, method: str, admit: Callable[["Context"], Awaitable[Caller]]) -> Any:
        """As `_guarded`, without a bound for the time: a stream lives as long as its caller."""

        async def call(requests: Any, context: "Context") -> None:
            async with self._accounted(method, context, None):
                _admit.set(partial(admit, context))
                _caller.set(await admit_again())
                await behaviour(requests, context)

        return call

    async def _admit(self, method: str, token: str, context: "Context") -> Caller:
        rule = access.ACCESS.get(method)
        if not token and (names := _certificate_names(context)):
            certified = await certified_caller(self._plane, names)
            # Where a user's token is missing, a certificate that does not help is nothing to speak of.
            if certified is not None and rule is not None and (rule.wants_service or certified.role in rule.roles):
                _caller.set(certified)
                access.check(certified, method)
                return certified
        caller = await caller_of(self._plane, token, wants_service=rule is not None and rule.wants_service)
        # Who it is that may not call.
        _caller.set(caller)
        access.check(caller, method)
        return caller

    @asynccontextmanager
    async def _accounted(self, method: str, context: "Context", request: Any | None) -> AsyncIterator[None]:
        """Turns what is raised in the block into a status; counts, logs and traces how the rpc ended.

        `request` is None for a stream, which takes as long as its caller likes: its questions are traced by themselves.
        """
        name = method.rpartition("/")[2]
        started = time.perf_counter()
        outcome = "INTERNAL"
        try:
            yield
            outcome = "OK"
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
        except DecodeError:
            # Of a stream, whose messages are read while it goes on.
            unreadable = _unreadable()
            outcome = unreadable.reason()
            log.info("refused", extra={"rpc": name, "reason": outcome, "facts": unreadable.facts})
            await status.abort(context, unreadable)
        except Exception:
            log.exception("unhandled error", extra={"rpc": name})
            await context.abort(grpc.StatusCode.INTERNAL, "internal error")
        finally:
            seconds = time.perf_counter() - started
            self._metrics.rpc_done(name, outcome, None if request is None else seconds)
            if self._tracing is not None and request is not None and name not in _UNTRACED:
                self._tracing.answered(
                    method.removeprefix("/"),
                    trace_parent=getattr(request, "trace_parent", "") or _metadatum(context, "traceparent"),
                    seconds=seconds,
                    outcome=outcome,
                    interception_id=getattr(request, "interception_id", ""),
                )


def _read(deserialize: Any, data: bytes) -> Any:
    """The message; _UNREADABLE for bytes that are none.

    What a deserializer raises, gRPC answers with UNKNOWN before anybody was asked who calls, and logs with a traceback,
    so that any peer could fill the log.
    """
    try:
        return deserialize(data)
    except DecodeError:
        return _UNREADABLE


def _unreadable() -> Refusal:
    return InvalidArgument(field="the request", problem="is no message of this rpc")


def _seconds_left(context: Any, most: float) -> float:
    """What is left of the caller's deadline, at most the server's own."""
    left = context.time_remaining()
    return most if left is None else min(float(left), most)


def _metadatum(context: Any, name: str) -> str:
    return next((str(value) for key, value in context.invocation_metadata() or () if key == name), "")


def _certificate_names(context: Any) -> tuple[str, ...]:
    """The names in the caller's certificate; none where there is no TLS, or the listener asks for no certificate.

    gRPC asks only where the listener has authorities to judge it by, and lets nobody in whom they do not vouch for.
    """
    peer = context.auth_context()
    if list(peer.get("transport_security_type", ())) != [b"ssl"]:
        return ()
    return certificate_names.of_certificate(
        *([each.decode("utf-8", "replace") for each in peer.get(kind, ())] for kind in ("peer_uri", "peer_dns"))
    )


def _bearer(metadata: Any) -> str:
    """The token of `authorization: Bearer <token>`, empty without one (RFC 6750, section 2.1).

    What is shown in another way is no token of ours; it is not nothing either, so no certificate stands in for it.
    """
    for key, value in metadata or ():
        if key == "authorization" and isinstance(value, str):
            scheme, _, token = value.strip().partition(" ")
            return token.strip() if scheme.lower() == "bearer" else value.strip()
    return ""
