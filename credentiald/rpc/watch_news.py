"""What bridges that watch are told, from the store."""

from credentiald.plane import Plane
from credentiald.rpc.watch_codec import News
from credentiald.store import providers, revision
from credentiald.store.connection import Connection

# Who was away longer than this many changes is told all providers, and that it has missed some.
_MOST_CHANGES = 10_000


def since(conn: Connection, after: int) -> News:
    """What happened after that revision, with the providers that it was about as they are now."""
    changes = revision.changes_after(conn, after, limit=_MOST_CHANGES)
    names = dict.fromkeys(change.name for change in changes if change.resource == "provider")
    found = [one for name in names if (one := providers.find(conn, name)) is not None]
    return News(revision=changes[-1].revision if changes else after, changes=changes, providers=found)


def everything(conn: Connection, plane: Plane, after: int | None) -> News:
    """All providers, and what happened after that revision, where it is known."""
    current = revision.current(conn)
    is_known = after is not None and 0 < after <= current
    changes = revision.changes_after(conn, after, limit=_MOST_CHANGES + 1) if is_known and after is not None else []
    is_too_much = len(changes) > _MOST_CHANGES
    return News(
        revision=current,
        changes=() if is_too_much else changes,
        providers=plane.all_providers(conn),
        snapshot=True,
        changes_missing=is_too_much or not is_known,
    )
