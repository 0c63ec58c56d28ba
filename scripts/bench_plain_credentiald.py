"""credentiald without records and without metrics of questions, for scripts/bench: `python -m bench_plain_credentiald
serve …`. Of a question that is answered nothing is logged by default.
"""

from credentiald.__main__ import main
from credentiald.metrics import Metrics
from credentiald.record_book import RecordBook


def nothing(*_: object, **__: object) -> None:
    """No interception is opened; nothing is counted."""


if __name__ == "__main__":
    RecordBook.note = nothing  # type: ignore[method-assign,assignment]
    for name in ("batch_answered", "resolved", "rpc_done"):
        setattr(Metrics, name, nothing)
    main()
