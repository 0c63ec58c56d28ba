"""What waits to be written into the audit, and what was given up."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from credentiald import audit_model
from credentiald.audit_model import Draft, Kind, Told
from credentiald.record_model import Noted


@dataclass(slots=True, eq=False)
class Entry:
    """What waits to be written, and who waits for it: the sequence that it got."""

    draft: Draft
    done: "asyncio.Future[int]"
    # Given up instead of being tried again.
    is_strict: bool


@dataclass(slots=True, eq=False)
class Releases:
    """The releases of one batch; in the mode `strict`, with who waits for them."""

    noted: Sequence[Noted]
    done: "asyncio.Future[int] | None" = None


@dataclass(slots=True)
class Lost:
    """What was given up and is not told of yet."""

    counts: Counter[str]
    from_micros: int
    until_micros: int

    def with_more(self, more: "Lost") -> "Lost":
        """Both together."""
        return Lost(
            self.counts + more.counts,
            min(self.from_micros, more.from_micros),
            max(self.until_micros, more.until_micros),
        )


def lost_draft(lost: Lost) -> Draft:
    """The entry that tells of it."""
    told = Told(lost=dict(lost.counts), until_micros=lost.until_micros)
    return Draft(Kind.LOST, audit_model.body_of(told), lost.from_micros)


def settle(done: "asyncio.Future[int] | None", sequence: int) -> None:
    """Who waits goes on, if anybody does still."""
    if done is not None and not done.done():
        done.set_result(sequence)
