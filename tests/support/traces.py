"""A tracer of OpenTelemetry's SDK whose spans stay in memory."""

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Traces:
    """`tracer` is what daemons are given; `spans` have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("test")

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def all_named(self, name: str) -> list[ReadableSpan]:
        """The spans of this name, in the order in which they ended."""
        return [span for span in self.spans if span.name == name]

    def named(self, name: str) -> ReadableSpan:
        """The one span of this name."""
        found = self.all_named(name)
        assert len(found) == 1, f"{len(found)} spans are named {name!r}: {[span.name for span in self.spans]}"
        return found[0]
