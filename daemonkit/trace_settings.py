"""Whether traces are exported: what OpenTelemetry's own variables and our setting say together. Pure.

Which variables there are is OpenTelemetry's business (opentelemetry.io, "Environment Variable Specification"); its SDK
reads them. Those that decide whether there is anything to read them are looked at here, and so are those whose
mistakes the SDK would tell in a log line with the value in it, or not at all.
"""

from collections.abc import Callable, Iterator, Mapping

from daemonkit.parsers import parse_choice

AUTO, ON, OFF = "auto", "on", "off"
parse_traces = parse_choice(AUTO, ON, OFF)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
# The more particular one wins.
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
_PROTOCOL = "http/protobuf"

HELP = (
    "Traces with OpenTelemetry (docs/tracing.md): on, off, or auto: on where "
    "OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set."
)


def traces_wanted(mode: str, environ: Mapping[str, str]) -> bool:
    """Whether to export traces. The variables that turn OpenTelemetry off count more than `on`."""
    if mode == OFF or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return False
    return mode == ON or any(environ.get(name, "").strip() for name in _ENDPOINTS)


def trace_errors(mode: str, environ: Mapping[str, str], check_extra: Callable[[], str | None]) -> Iterator[str]:
    """What stands in the way of traces that are wanted. `check_extra` says what is missing, or None, which is I/O."""
    if not traces_wanted(mode, environ):
        return
    missing = check_extra()
    if missing is not None:
        yield f"traces: {missing}"
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter not in ("", "otlp"):
        yield f"OTEL_TRACES_EXPORTER: {exporter!r} is not supported: use otlp or none"
    for name in _PROTOCOLS:
        protocol = environ.get(name, "").strip()
        if protocol:
            if protocol != _PROTOCOL:
                yield f"{name}: {protocol!r} is not supported: use {_PROTOCOL}, which collectors take on port 4318"
            break
    for name in _HEADERS:
        if not all(map(_is_header, environ.get(name, "").split(","))):
            # Never the value: it is where a collector's key stands.
            yield f"{name}: write NAME=VALUE, several with commas between them, values percent-encoded"


def _is_header(entry: str) -> bool:
    name, equals, _ = entry.partition("=")
    return not entry.strip() or bool(equals and name.strip())
