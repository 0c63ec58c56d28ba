"""OpenTelemetry's SDK for the length of a daemon's life. Imported only where traces are wanted (trace_settings.py).

The SDK reads its own variables: endpoint, headers, sampler, limits, resource. Spans go to a queue of bounded length and
from there in batches, on a thread of the SDK; what does not fit is dropped, so nothing of ours ever waits for a
collector.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, Tracer, TraceState, set_span_in_context

from daemonkit.settings import ConfigErrors
from daemonkit.trace_context import TraceParent, trace_parent_text
from daemonkit.version import version

# How long the last spans may take to leave when the daemon stops.
_FLUSH_SECONDS = 3.0
# A context without a span. Never None: that would be whatever the thread happens to be in.
NO_PARENT = Context()
# These tell what they cannot read with its value: a header that may hold the collector's key (trace_settings.py says it
# without), and a client's `tracestate`, which may hold anything.
_TELL_VALUES = ("opentelemetry.util.re", "opentelemetry.trace.span")


@contextmanager
def running_tracer(service_name: str, exporter: SpanExporter | None = None) -> Iterator[Tracer]:
    """A tracer whose spans are exported; at the end what is queued is sent, within a limit.

    `service_name` where OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES name none. `exporter` None is OTLP over HTTP.
    ConfigErrors where the SDK refuses its variables.
    """
    for name in _TELL_VALUES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # At debug level a line for each export.
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    try:
        provider = TracerProvider(resource=_resource(service_name), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
    except Exception as error:
        # Its text may have the value of a variable in it.
        raise ConfigErrors([f"traces: OpenTelemetry refuses its settings ({type(error).__name__})"]) from None
    try:
        yield provider.get_tracer("drawbridge", version())
    finally:
        # The SDK would wait for 30 s where the collector does not answer.
        ending = threading.Thread(target=provider.shutdown, name="otel-shutdown", daemon=True)
        ending.start()
        ending.join(_FLUSH_SECONDS)


def _resource(service_name: str) -> Resource:
    told = OTELResourceDetector().detect().attributes
    return Resource.create({"service.name": service_name, "service.version": version(), **told})


def context_of(parent: TraceParent | None, trace_state: str = "") -> Context:
    """What a span begins in, as a child of somebody else's; without a parent it begins a trace."""
    if parent is None:
        return NO_PARENT
    state = TraceState.from_header([trace_state]) if trace_state else None
    flags = TraceFlags(TraceFlags.SAMPLED if parent.is_sampled else TraceFlags.DEFAULT)
    remote = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags, trace_state=state)
    return set_span_in_context(NonRecordingSpan(remote), NO_PARENT)


def trace_parent_of(context: SpanContext) -> str:
    """The value of `traceparent` for a span of ours."""
    return trace_parent_text(context.trace_id, context.span_id, is_sampled=context.trace_flags.sampled)
