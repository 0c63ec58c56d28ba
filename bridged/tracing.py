"""The spans of a request: the client's (SERVER), the question to credentiald and the call to the upstream (CLIENT).

Imported only where traces are on; an interception without a trace has None in its place. Nothing here waits: a span
that ends goes to the queue of the SDK. No step raises, because the SDK promises that, and none knows a body: names,
ids, numbers and reasons are all that leaves (gen_ai.py, docs/tracing.md).
"""

from typing import TYPE_CHECKING

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from bridged import gen_ai
from bridged.gen_ai import Attributes
from bridged.http1.framing import Request
from bridged.http1.request_head import OutgoingRequest, port_of
from bridged.model import Headers, Refused, Resolution, header_values
from bridged.records import AnswerRecords
from bridged.trace_headers import TRACE_PARENT, own_trace_headers, trace_state_of
from daemonkit.secret import Secret
from daemonkit.trace_context import parse_trace_parent
from daemonkit.tracing import NO_PARENT, context_of, trace_parent_of

if TYPE_CHECKING:
    from bridged.interception import Interception

# The conventions for HTTP: any other is `_OTHER`, and `HTTP` in the name of the span.
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
# No fault of anybody's: told, but the span has not failed.
_CLIENT_GONE = "CLIENT_GONE"
_FIRST_BYTE = "first_byte"


class Tracing:
    """Begins the trace of each request."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def begin(self, request: Request, interception_id: str) -> "RequestTrace":
        """A request has arrived: its span is part of the client's trace, or begins one."""
        headers = request.headers
        parent = parse_trace_parent(header_values(headers, TRACE_PARENT))
        context = NO_PARENT if parent is None else context_of(parent, trace_state_of(headers))
        known = request.method in _METHODS
        server = self._tracer.start_span(
            request.method if known else "HTTP",
            context,
            SpanKind.SERVER,
            {
                "http.request.method": request.method if known else "_OTHER",
                "drawbridge.interception_id": interception_id,
            },
        )
        return RequestTrace(self._tracer, server, interception_id, request.method)


class RequestTrace:
    """The spans of one request. Of a request that is not sampled only the context is kept, to be passed on."""

    __slots__ = (
        "_asked", "_called", "_interception_id", "_method", "_sampled", "_server", "_tracer", "_upstream_status",
    )  # fmt: skip

    def __init__(self, tracer: Tracer, server: Span, interception_id: str, method: str) -> None:
        self._tracer = tracer
        self._server = server
        self._sampled = server.is_recording()
        self._interception_id = interception_id
        # Only told where there is a route, so it is one of the table of routes.
        self._method = method
        self._asked: Span | None = None
        self._called: Span | None = None
        self._upstream_status = 0

    @property
    def trace_id(self) -> str:
        """As logs write it: 32 hexadecimal digits."""
        return f"{self._server.get_span_context().trace_id:032x}"

    def asks(self) -> str:
        """credentiald is asked; the `traceparent` that goes with the question, empty where nobody would record it."""
        if not self._sampled:
            return ""
        attributes: Attributes = {"drawbridge.interception_id": self._interception_id}
        asked = self._asked = self._child("resolve", attributes)
        return trace_parent_of(asked.get_span_context())

    def resolved(self, answer: Resolution | Refused) -> None:
        """credentiald has answered."""
        asked, self._asked = self._asked, None
        if asked is None:
            return
        if isinstance(answer, Refused):
            _fail(asked, answer.reason)
        else:
            asked.set_attributes(_decision(answer))
        asked.end()

    def calls(self, interception: "Interception", resolution: Resolution, request: OutgoingRequest) -> None:
        """The upstream is called."""
        match = interception.match
        if not self._sampled or match is None:
            return
        if self._called is not None:
            # What the upstream would not take so is sent otherwise (answer_to_asking.py).
            self._called.end()
        self._called = self._child(
            gen_ai.span_name(match.operation, interception.facts.model) or f"{request.method} {match.route.template}",
            {
                "drawbridge.interception_id": self._interception_id,
                "drawbridge.operation": match.operation,
                **_decision(resolution),
                **gen_ai.request_attributes(match.operation, resolution.provider_type, interception.facts),
                "http.request.method": request.method,
                "server.address": request.host,
                "server.port": port_of(request.scheme, request.port),
            },
        )

    def headers(self, client_headers: Headers, token: Secret) -> Headers:
        """What an upstream that may know of the trace is told."""
        span = (self._called or self._server).get_span_context()
        state = span.trace_state.to_header()
        return own_trace_headers(client_headers, token, trace_parent=trace_parent_of(span), trace_state=state)

    def answer_begins(self, status: int) -> None:
        """The head of the upstream's answer is there."""
        if self._called is not None:
            self._upstream_status = status
            self._called.add_event(_FIRST_BYTE)

    def answer_held_back(self, status: int, reason: str) -> None:
        """The upstream answered, but not to be heard by the client, or not at all (status 0): the call is over."""
        called, self._called = self._called, None
        if called is not None:
            if status:
                called.set_attribute("http.response.status_code", status)
            _fail(called, str(status or reason))
            called.end()

    def ends(self, interception: "Interception", answer: AnswerRecords | None) -> None:
        """The interception is over: whatever is open ends with it. `answer` is what the tap saw, if there was one."""
        if not self._sampled:
            return
        if self._asked is not None:
            _fail(self._asked, interception.error)
            self._asked.end()
            self._asked = None
        if self._called is not None:
            self._end_call(self._called, interception.error, answer)
            self._called = None
        self._end_request(interception)

    def _end_call(self, called: Span, error: str, answer: AnswerRecords | None) -> None:
        status = self._upstream_status
        if status:
            called.set_attribute("http.response.status_code", status)
        if answer is not None:
            called.set_attributes(gen_ai.response_attributes(answer))
            if answer.error_type:
                error = error or gen_ai.error_kind(answer.error_type)
        _fail(called, error or (str(status) if status >= 400 else ""))
        called.end()

    def _end_request(self, interception: "Interception") -> None:
        server, match, status = self._server, interception.match, interception.status
        attributes: Attributes = {}
        if match is not None:
            attributes = {"http.route": match.route.template, "drawbridge.operation": match.operation}
            server.update_name(f"{self._method} {match.route.template}")
        if interception.resolution is not None:
            attributes.update(_decision(interception.resolution))
        if status is not None:
            attributes["http.response.status_code"] = status
        server.set_attributes(attributes)
        # What a client did wrong is no failure of a server (conventions for HTTP, status of spans). An answer that
        # broke off is one, whatever its status was.
        if status is None or status >= 500 or interception.sent_bytes:
            _fail(server, interception.error or (str(status) if status is not None and status >= 500 else ""))
        elif interception.error:
            server.set_attribute("error.type", interception.error)
        server.end()

    def _child(self, name: str, attributes: Attributes) -> Span:
        context = set_span_in_context(self._server, NO_PARENT)
        return self._tracer.start_span(name, context, SpanKind.CLIENT, attributes)


def _decision(resolution: Resolution) -> Attributes:
    return {
        "drawbridge.provider": resolution.provider_name,
        "drawbridge.resolution_id": resolution.resolution_id,
        "drawbridge.source": resolution.source.value,
    }


def _fail(span: Span, error: str) -> None:
    """Mark the span with what went wrong; no error, no mark."""
    if not error:
        return
    span.set_attribute("error.type", error)
    if error != _CLIENT_GONE:
        span.set_status(Status(StatusCode.ERROR))
