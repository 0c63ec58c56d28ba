"""bridged without records and without metrics of requests, for scripts/bench: `python -m bench_plain_bridged serve …`.

Of a request that goes well nothing is logged by default.
"""

from bridged.__main__ import main
from bridged.metrics import Metrics
from bridged.reporting import Reporting
from daemonkit.tallies import Buckets

# What is counted and timed of every request.
_OF_REQUESTS = ("answered", "ended", "upstream_answered", "resolved")


def nothing(*_: object) -> None:
    """Nothing is gathered, so nothing is reported; nothing is counted."""


if __name__ == "__main__":
    Reporting.recording_of = nothing  # type: ignore[method-assign,assignment]
    for name in _OF_REQUESTS:
        setattr(Metrics, name, nothing)
    Buckets.observe = nothing  # type: ignore[method-assign,assignment]
    main()
