"""Where records cannot be stored together for a bug that some of them bring out, the others are stored without these.

`store` stores a batch and tells of it. It raises StoreUnavailable, which all here pass on, or whatever a bug raises.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from credentiald.errors import Refusal
from credentiald.record_model import Noted, Rejection
from credentiald.store.record_writing import Batch, Stored
from credentiald.waiting_openings import opening_rows
from credentiald.waiting_reports import Call, Place, places_of, reject, told_in

T = TypeVar("T")
Store = Callable[[Batch], Awaitable[Stored]]

log = logging.getLogger(__name__)

# More than this that cannot be stored, of all openings or of a call's reports, are no trouble of theirs.
MOST_UNSTORABLE = 16


async def openings(store: Store, noted: Sequence[Noted]) -> tuple[Sequence[Noted], int]:
    """Store those that can be stored; those that need not be tried again, and how many of these are lost.

    Where many cannot be stored these wait, and perhaps others with them.
    """
    stored: list[Noted] = []
    failed, _ = await _unstorable(
        store, noted, lambda some: Batch(openings=opening_rows(some)), lambda some, _: stored.extend(some)
    )
    return (noted, len(failed)) if len(failed) <= MOST_UNSTORABLE else (stored, 0)


async def reports(store: Store, calls: Sequence[Call]) -> list[Exception | None]:
    """Store the reports of these calls that can be stored, and reject the others; for each call None.

    Or the bug, where many of its reports cannot be stored, or all of all calls: that may be no fault of theirs, so
    bridges keep them, and find out.
    """
    stored: list[Stored] = []

    async def store_and_see(batch: Batch) -> Stored:
        stored.append(await store(batch))
        return stored[-1]

    parts = [await _unstorable_of(store_and_see, one) for one in calls]
    bugs = [bug if not stored or not failed or len(failed) > MOST_UNSTORABLE else None for failed, bug in parts]
    for (failed, _), bug in zip(parts, bugs, strict=True):
        if bug is None:
            reject(failed, Rejection.RECORD_INVALID)
    return bugs


def reject_taken(places: Sequence[Place], stored: Stored) -> None:
    """Those of the reports at these places whose interception is another's were not stored."""
    reject([places[taken] for taken in stored.taken], Rejection.INTERCEPTION_TAKEN)


async def _unstorable_of(store: Store, call: Call) -> tuple[list[Place], Exception | None]:
    """Of a call whose reports cannot even be told apart, the bug and no place."""
    try:
        told, matched = told_in([call])
        reported = list(zip(places_of([call]), [*told, *matched.reports()], strict=True))
    except Exception as error:
        log.exception("reports cannot be told apart")
        return [], error
    failed, bug = await _unstorable(
        store,
        reported,
        lambda some: Batch(reports=[report for _, report in some]),
        lambda some, stored: reject_taken([place for place, _ in some], stored),
    )
    return [place for place, _ in failed], bug


async def _unstorable(
    store: Store,
    items: Sequence[T],
    batch_of: Callable[[Sequence[T]], Batch],
    stored_some: Callable[[Sequence[T], Stored], None],
) -> tuple[list[T], Exception | None]:
    """Store those that can be stored; the others, and what the last of these raised. Nothing more is tried where there
    are more than MOST_UNSTORABLE."""
    failed: list[T] = []
    bug: Exception | None = None
    parts = [items] if items else []
    while parts and len(failed) <= MOST_UNSTORABLE:
        part = parts.pop()
        try:
            stored = await store(batch_of(part))
        except Refusal:
            raise
        except Exception as error:
            if len(part) > 1:
                middle = len(part) // 2
                # The newest first: those that waited before and failed are the oldest.
                parts += [part[:middle], part[middle:]]
                continue
            log.exception("a record cannot be stored")
            failed += part
            bug = error
        else:
            stored_some(part, stored)
    return failed, bug
