"""credentiald without records, for scripts/bench to compare with: `python -m bench_plain_credentiald serve …`."""

from credentiald.__main__ import main
from credentiald.record_book import RecordBook


def note_nothing(*_: object) -> None:
    """No interception is opened."""


if __name__ == "__main__":
    RecordBook.note = note_nothing  # type: ignore[method-assign,assignment]
    main()
