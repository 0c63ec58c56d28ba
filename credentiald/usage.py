"""What may be asked about records, and by whom: users see their own rows, administrators all of them."""

from collections.abc import Iterable, Sequence

from credentiald.errors import CallerNotAllowed, InvalidArgument, UserNotFound
from credentiald.ids import canonical_uuid
from credentiald.model import Caller, Role
from credentiald.plane import Plane
from credentiald.store import users
from credentiald.store.connection import Connection


def own_id(caller: Caller, requested: str) -> str:
    """Whose rows are asked for by who wants none but its own. InvalidArgument."""
    if requested:
        raise InvalidArgument(field="filter.user", problem="excludes mine")
    if caller.user is None:
        raise InvalidArgument(field="filter.mine", problem="is not for services")
    return caller.user.id


async def user_id_of(plane: Plane, caller: Caller, requested: str, rpc: str) -> str:
    """Whose rows are asked for, by id; empty for everybody's. CallerNotAllowed, UserNotFound.

    An administrator may name a user who was deleted by id: their records are kept.
    """
    if caller.role is Role.ADMIN:
        return await plane.db.read(_named, requested) if requested else ""
    if caller.user is None:
        raise CallerNotAllowed(role=caller.role.value, rpc=rpc)
    if requested and requested.casefold() not in (caller.user.id, caller.user.username.casefold()):
        raise CallerNotAllowed(role=caller.role.value, rpc=f"{rpc} for another user")
    return caller.user.id


async def usernames(plane: Plane, user_ids: Iterable[str]) -> dict[str, str]:
    """Names by id, of those users who are there."""
    wanted = sorted(set(user_ids) - {""})
    return await plane.db.read(_names, wanted) if wanted else {}


def _named(conn: Connection, requested: str) -> str:
    found = users.find(conn, requested)
    user_id = found.id if found else canonical_uuid(requested)
    if user_id is None:
        raise UserNotFound(user=requested)
    return user_id


def _names(conn: Connection, user_ids: Sequence[str]) -> dict[str, str]:
    found = (users.find(conn, one) for one in user_ids)
    return {user.id: user.username for user in found if user is not None}
