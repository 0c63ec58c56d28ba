"""When traces are on, and what is said where they cannot be."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from bridged import settings as bridged_settings
from credentiald import settings as credentiald_settings
from daemonkit.checks import Looks
from daemonkit.settings import ConfigErrors
from daemonkit.trace_settings import parse_traces, trace_errors, traces_wanted

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("mode", "environ", "wanted"),
    [
        ("auto", {}, False),
        ("auto", ENDPOINT, True),
        ("auto", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector/traces"}, True),
        ("auto", {"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ("auto", {"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"}, False),
        ("auto", {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4318"}, False),
        ("on", {}, True),
        ("off", ENDPOINT, False),
        ("auto", {**ENDPOINT, "OTEL_SDK_DISABLED": "True"}, False),
        ("auto", {**ENDPOINT, "OTEL_SDK_DISABLED": "false"}, True),
        ("on", {"OTEL_SDK_DISABLED": "true"}, False),
        ("on", {"OTEL_TRACES_EXPORTER": "none"}, False),
        ("auto", {**ENDPOINT, "OTEL_TRACES_EXPORTER": "otlp"}, True),
    ],
)
def test_traces_are_on_where_users_of_opentelemetry_expect_them(
    mode: str, environ: Mapping[str, str], wanted: bool
) -> None:
    assert traces_wanted(parse_traces(mode), environ) is wanted


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "api-key=sk-1,sk-2"}, "OTEL_EXPORTER_OTLP_HEADERS"),
        ({"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "=sk-1"}, "OTEL_EXPORTER_OTLP_TRACES_HEADERS"),
    ],
)
def test_what_would_not_work_is_an_error_that_names_the_variable_and_not_its_secret(
    environ: Mapping[str, str], named: str
) -> None:
    [error] = trace_errors("auto", {**ENDPOINT, **environ}, lambda: None)

    assert error.startswith(f"{named}: ")
    assert "sk-" not in error
    assert list(trace_errors("off", {**ENDPOINT, **environ}, lambda: None)) == []


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=sk%20x==, b=2,"},
    ],
)
def test_what_works_is_no_error(environ: Mapping[str, str]) -> None:
    assert list(trace_errors("auto", {**ENDPOINT, **environ}, lambda: None)) == []


@pytest.mark.parametrize("daemon", [bridged_settings, credentiald_settings])
def test_a_missing_extra_is_an_error_of_the_configuration_only_where_traces_are_asked_for(daemon) -> None:
    def load(environ: Mapping[str, str]) -> object:
        return daemon.load({}, environ, read_file=_no_file, looks=Looks(traces=lambda: "the package is missing"))

    with pytest.raises(ConfigErrors) as wrong:
        load(ENDPOINT)
    assert wrong.value.errors == ["traces: the package is missing"]
    assert load({}).settings.traces == "auto"  # type: ignore[attr-defined]


def _no_file(path: str) -> str:
    raise FileNotFoundError(2, "No such file or directory", path)


def test_the_extra_is_missed_where_it_is_not_installed() -> None:
    # Without site-packages nothing is installed.
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    code += "from daemonkit.otel_extra import otel_extra_problem\nprint(otel_extra_problem())"
    said = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout

    assert "opentelemetry-sdk is not installed: install drawbridge[otel]" in said
