"""A collector of traces for tests: OTLP over HTTP on a real socket, on a thread of its own.

    with running_collector() as collector:
        ...                                     # a daemon with OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, stopped
        assert collector.span("chat m").parent_id == collector.span("POST /v1/messages").span_id

`raw` is every byte that arrived, heads included, to search for what must not be there.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass(frozen=True, kw_only=True)
class CollectedSpan:
    """One span as it arrived. Ids are hexadecimal, `parent_id` empty for the first of a trace."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, object]
    events: list[str]
    linked_traces: list[str]
    is_error: bool
    trace_state: str
    nanos: int


@dataclass
class Collector:
    """What was collected so far."""

    url: str
    raw: bytes = b""
    spans: list[CollectedSpan] = field(default_factory=list)
    resources: list[dict[str, object]] = field(default_factory=list)

    def named(self, name: str, service: str = "") -> list[CollectedSpan]:
        """The spans of this name, perhaps of one service only."""
        return [one for one in self.spans if one.name == name and service in ("", one.service)]

    def span(self, name: str) -> CollectedSpan:
        """The one span of this name."""
        found = self.named(name)
        assert len(found) == 1, f"{len(found)} spans are named {name!r}: {[one.name for one in self.spans]}"
        return found[0]

    def take(self, head: bytes, body: bytes) -> None:
        """An export has arrived."""
        self.raw += head + body
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _plain(group.resource.attributes)
            self.resources.append(resource)
            self.spans += [
                _collected(str(resource["service.name"]), span) for scope in group.scope_spans for span in scope.spans
            ]


def _plain(attributes: object) -> dict[str, object]:
    return {
        one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value")
        for one in attributes  # type: ignore[attr-defined]
    }


def _collected(service: str, span: trace_pb2.Span) -> CollectedSpan:
    return CollectedSpan(
        service=service,
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=_plain(span.attributes),
        events=[event.name for event in span.events],
        linked_traces=[link.trace_id.hex() for link in span.links],
        is_error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        trace_state=span.trace_state,
        nanos=span.end_time_unix_nano - span.start_time_unix_nano,
    )


@contextmanager
def running_collector() -> Iterator[Collector]:
    """A collector for the length of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.take(bytes(self.headers), body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(url=f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield collector
        server.shutdown()
        thread.join()
