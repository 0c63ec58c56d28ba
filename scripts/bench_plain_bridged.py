"""bridged without records, for scripts/bench to compare with: `python -m bench_plain_bridged serve …`."""

from bridged.__main__ import main
from bridged.reporting import Reporting


def no_recording(*_: object) -> None:
    """Nothing is gathered, so nothing is reported."""


if __name__ == "__main__":
    Reporting.recording_of = no_recording  # type: ignore[method-assign,assignment]
    main()
