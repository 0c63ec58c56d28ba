"""What is counted of TLS files, alike in every daemon."""

import time
from datetime import datetime

from prometheus_client import CollectorRegistry, Gauge


class TlsMetrics:
    """Gauges by listener; those of a listener without TLS are not there."""

    def __init__(self, prefix: str, registry: CollectorRegistry) -> None:
        self._success = Gauge(
            f"{prefix}_tls_reload_success",
            "1 while the TLS files of a listener are in use as they are, 0 while they are broken and those before are; "
            "'credentiald' are those that the bridge shows to credentiald.",
            ["listener"],
            registry=registry,
        )
        self._reload_time = Gauge(
            f"{prefix}_tls_reload_timestamp_seconds",
            "When the TLS files in use were read.",
            ["listener"],
            registry=registry,
        )
        self._not_after = Gauge(
            f"{prefix}_tls_certificate_not_after_timestamp_seconds",
            "When the certificate in use ends, or the first of its chain.",
            ["listener"],
            registry=registry,
        )

    def loaded(self, listener: str, not_after: datetime | None) -> None:
        """These files are in use from now on. `not_after` None where there is no certificate."""
        self._success.labels(listener).set(1)
        self._reload_time.labels(listener).set(time.time())
        if not_after is not None:
            self._not_after.labels(listener).set(not_after.timestamp())

    def is_current(self, listener: str, *, current: bool) -> None:
        """Whether what is in use is what the files hold."""
        self._success.labels(listener).set(int(current))
