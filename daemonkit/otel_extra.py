"""Whether the extra `otel` is installed, found out without loading any of it."""

from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http")


def otel_extra_problem() -> str | None:
    """What is missing for traces, and what to do; None where nothing is."""
    for package in _PACKAGES:
        try:
            version(package)
        except PackageNotFoundError:
            return f"the package {package} is not installed: install drawbridge[otel], or set traces to off"
    return None
