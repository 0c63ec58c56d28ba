"""The spans of credentiald: an rpc, a question of a batch, a commit of records.

Imported only where traces are on. A span is made when what it tells of is over, with the time at which that began, so
nothing of it is on the way of an answer; it goes to the queue of the SDK and waits for nothing. Names, ids and reasons
are all that leaves (docs/tracing.md).
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer

from credentiald.errors import StoreUnavailable
from credentiald.ids import is_uuid
from daemonkit.trace_context import parse_trace_parent
from daemonkit.tracing import NO_PARENT, context_of

# How many interceptions are remembered for the commits of their records.
_MOST_REMEMBERED = 20_000
# Refusals are decisions; these are failures of ours.
_FAILURES = frozenset({"INTERNAL", StoreUnavailable.reason()})


class Tracing:
    """What the guard, the streams and the book of records tell."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        # The spans that resolved interceptions, oldest first.
        self._resolved: dict[str, SpanContext] = {}

    def answered(
        self,
        method: str,
        *,
        trace_parent: str,
        seconds: float,
        outcome: str,
        interception_id: str = "",
        facts: Mapping[str, str | int] | None = None,
    ) -> None:
        """An rpc, or a question of a batch, was answered just now and took so long.

        `method` is `package.Service/Method`, `trace_parent` a `traceparent` or empty, `outcome` OK or a reason;
        `facts` are attributes, of which empty ones are left out.
        """
        ended_nanos = time.time_ns()
        span = self._tracer.start_span(
            method,
            context_of(parse_trace_parent([trace_parent]) if trace_parent else None),
            SpanKind.SERVER,
            {"rpc.system.name": "grpc", "rpc.method": method},
            start_time=ended_nanos - int(seconds * 1e9),
        )
        if span.is_recording():
            span.set_attributes({name: value for name, value in (facts or {}).items() if value})
            # It came from a caller, and only an id may be told.
            if is_uuid(interception_id):
                span.set_attribute("drawbridge.interception_id", interception_id)
                if outcome == "OK":
                    self._remember(interception_id, span.get_span_context())
            if outcome != "OK":
                _fail(span, outcome, is_failure=outcome in _FAILURES)
        span.end(ended_nanos)

    @contextmanager
    def commit(self, interception_ids: Iterable[str]) -> Iterator[None]:
        """Records of these interceptions are stored in the block: a span with links to those that are traced."""
        resolved = self._resolved
        links = [Link(resolved[one]) for one in dict.fromkeys(interception_ids) if one in resolved]
        if not links:
            yield
            return
        span = self._tracer.start_span(
            "commit records",
            NO_PARENT,
            SpanKind.INTERNAL,
            {"drawbridge.traced_interceptions": len(links)},
            links,
        )
        try:
            yield
        except BaseException as error:
            _fail(span, type(error).__name__, is_failure=True)
            raise
        finally:
            span.end()

    def _remember(self, interception_id: str, context: SpanContext) -> None:
        resolved = self._resolved
        if len(resolved) >= _MOST_REMEMBERED:
            del resolved[next(iter(resolved))]
        resolved[interception_id] = context


def _fail(span: Span, reason: str, *, is_failure: bool) -> None:
    span.set_attribute("error.type", reason)
    if is_failure:
        span.set_status(Status(StatusCode.ERROR))
