"""What is checked of every daemon's settings before anything is opened: listeners, logs and traces."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from daemonkit.listen import shared_errors
from daemonkit.logs import log_errors, log_target_problem
from daemonkit.otel_extra import otel_extra_problem
from daemonkit.tls import Listener, TlsFiles, listener_errors, tls_problem
from daemonkit.trace_settings import trace_errors


class ServingSettings(Protocol):
    """What the settings of every daemon have."""

    @property
    def insecure_plaintext(self) -> bool: ...

    @property
    def workers(self) -> int: ...

    @property
    def log_human(self) -> str: ...

    @property
    def log_json(self) -> str: ...

    @property
    def traces(self) -> str: ...

    def listener(self, name: str) -> Listener: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What is looked at on the machine, which is I/O: each says what is wrong, or None. None in its place: nothing."""

    tls: Callable[[TlsFiles], str | None] | None = None
    log: Callable[[str], str | None] | None = None
    traces: Callable[[], str | None] | None = None


NO_LOOKS = Looks()
LOOKS = Looks(tls=tls_problem, log=log_target_problem, traces=otel_extra_problem)


def serving_errors(
    settings: ServingSettings, listeners: Sequence[str], environ: Mapping[str, str], looks: Looks
) -> list[str]:
    """All that is wrong; `listeners` are the names of their settings."""
    found = [settings.listener(name) for name in listeners]
    errors = listener_errors(found, insecure_plaintext=settings.insecure_plaintext, check_files=looks.tls)
    errors += shared_errors({one.name: one.addresses for one in found}, workers=settings.workers)
    if looks.log is not None:
        errors += log_errors(settings.log_human, settings.log_json, looks.log)
    if looks.traces is not None:
        errors += trace_errors(settings.traces, environ, looks.traces)
    return errors
