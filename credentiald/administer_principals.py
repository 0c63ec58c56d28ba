"""What an administrator does with users, access tokens and services.

Tokens are made here, given out once, and stored as a hash only.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from credentiald import certificate_names, tokens
from credentiald.errors import InvalidArgument, InvalidName
from credentiald.ids import canonical_uuid, uuid7
from credentiald.model import Role, Service, Token, User
from credentiald.plane import Plane
from credentiald.store import access_tokens, administrators, services, users
from credentiald.store.connection import Connection
from credentiald.validation import name_problem, username_problem
from daemonkit.secret import Secret

SERVICE_ROLES = (Role.BRIDGE, Role.INTERNAL, Role.ADMIN)
# The longest life a token may be given; anything beyond is a slip of the keyboard.
_MAX_LIFE = timedelta(days=3660)
# The longest time for which a token stays valid beside the one that replaces it.
_MAX_KEEP_OLD = timedelta(days=30)


def _chosen_id(given: str, now: datetime, field: str) -> str:
    """The id that the client chose, or a new one."""
    if not given:
        return uuid7(now)
    chosen = canonical_uuid(given)
    if chosen is None:
        raise InvalidArgument(field=field, problem="must be a UUID")
    return chosen


async def create_user(plane: Plane, *, username: str, admin: bool, user_id: str = "") -> User:
    """A new, active user."""
    problem = username_problem(username)
    if problem is not None:
        raise InvalidName(name=username, rule=problem)
    now = plane.clock()
    user = User(
        id=_chosen_id(user_id, now, "user.id"), username=username, admin=admin, create_time=now, update_time=now
    )
    return await plane.db.write(users.create, user)


async def get_user(plane: Plane, id_or_username: str) -> User:
    """The user, or UserNotFound."""
    return await plane.db.read(users.get, id_or_username)


async def list_users(plane: Plane, *, after: str, limit: int) -> list[User]:
    """At most `limit` users by username, those after `after`."""
    return await plane.db.read(users.list_page, after=after or None, limit=limit)


async def suspend_user(plane: Plane, id_or_username: str) -> User:
    """Refuse the user's tokens from now on; nothing changes if it is so already."""
    return await plane.db.write(_suspend_user, id_or_username, now=plane.clock())


def _suspend_user(conn: Connection, id_or_username: str, *, now: datetime) -> User:
    user = users.set_suspended(conn, id_or_username, True, now=now)
    administrators.refuse_if_none(conn, field="user")
    return user


async def resume_user(plane: Plane, id_or_username: str) -> User:
    """Accept the user's tokens again; nothing changes if it is so already."""
    return await plane.db.write(users.set_suspended, id_or_username, False, now=plane.clock())


async def delete_user(plane: Plane, id_or_username: str) -> None:
    """Remove the user with its tokens and keys."""
    await plane.db.write(_delete_user, id_or_username, now=plane.clock())


def _delete_user(conn: Connection, id_or_username: str, *, now: datetime) -> None:
    users.delete(conn, id_or_username, now=now)
    administrators.refuse_if_none(conn, field="user")


async def create_token(
    plane: Plane, *, user: str, expire_time: datetime | None, token_id: str = ""
) -> tuple[Token, Secret]:
    """A new access token for a user (id or username), and what stands for it in the store."""
    now = plane.clock()
    if expire_time is not None and not now < expire_time <= now + _MAX_LIFE:
        raise InvalidArgument(field="expire_time", problem="must lie ahead, by ten years at most")
    secret = tokens.mint(tokens.USER_PREFIX)
    chosen_id = _chosen_id(token_id, now, "id")
    token = await plane.db.write(_create_token, user, chosen_id, expire_time, tokens.hash_of(secret.reveal()), now=now)
    return token, secret


def _create_token(
    conn: Connection, user_name: str, token_id: str, expire_time: datetime | None, token_hash: bytes, *, now: datetime
) -> Token:
    user = users.get(conn, user_name)
    token = Token(id=token_id, user_id=user.id, username=user.username, create_time=now, expire_time=expire_time)
    return access_tokens.create(conn, token, token_hash)


async def list_tokens(plane: Plane, *, user: str, after: str, limit: int) -> list[Token]:
    """At most `limit` tokens in order of their making, of one user or of all."""
    return await plane.db.read(_list_tokens, user, after, limit)


def _list_tokens(conn: Connection, user_name: str, after: str, limit: int) -> list[Token]:
    user_id = users.get(conn, user_name).id if user_name else None
    return access_tokens.list_page(conn, user_id=user_id, after=after or None, limit=limit)


async def revoke_token(plane: Plane, token_id: str) -> Token:
    """From now on the token is refused. Revoking twice changes nothing."""
    return await plane.db.write(access_tokens.revoke, token_id, now=plane.clock())


async def create_service(
    plane: Plane,
    *,
    name: str,
    role: Role,
    may_act_for_users: bool,
    act_for_providers: Sequence[str],
    certificate_sans: Sequence[str] = (),
    with_token: bool = False,
    service_id: str = "",
) -> tuple[Service, Secret | None]:
    """A new service and its token; one that has certificates gets a token only where it is asked for."""
    problem = name_problem(name)
    if problem is not None:
        raise InvalidName(name=name, rule=problem)
    if role not in SERVICE_ROLES:
        raise InvalidArgument(field="service.role", problem="must be bridge, internal or admin")
    if may_act_for_users and role is Role.ADMIN:
        raise InvalidArgument(field="service.may_act_for_users", problem="is for the roles bridge and internal")
    if act_for_providers and not may_act_for_users:
        raise InvalidArgument(field="service.act_for_providers", problem="needs may_act_for_users")
    for provider in act_for_providers:
        if name_problem(provider) is not None:
            raise InvalidArgument(field="service.act_for_providers", problem=f"'{provider}' is no provider name")
    sans = _checked_sans(certificate_sans, field="service.certificate_sans")
    now = plane.clock()
    secret = tokens.mint(tokens.SERVICE_PREFIX) if with_token or not sans else None
    service = Service(
        id=_chosen_id(service_id, now, "service.id"),
        name=name,
        role=role,
        may_act_for_users=may_act_for_users,
        act_for_providers=tuple(sorted(set(act_for_providers))),
        create_time=now,
        rotate_time=None if secret is None else now,
        certificate_sans=sans,
    )
    stored = await plane.db.write(services.create, service, None if secret is None else tokens.hash_of(secret.reveal()))
    return stored, secret


def _checked_sans(given: Sequence[str], *, field: str) -> tuple[str, ...]:
    sans = tuple(sorted(set(map(certificate_names.canonical, given))))
    if len(sans) > certificate_names.MOST_OF_ONE_SERVICE:
        raise InvalidArgument(field=field, problem=f"at most {certificate_names.MOST_OF_ONE_SERVICE}")
    for san in sans:
        problem = certificate_names.problem(san)
        if problem is not None:
            raise InvalidArgument(field=field, problem=f"'{san}' {problem}")
    return sans


async def list_services(plane: Plane, *, after: str, limit: int) -> list[Service]:
    """At most `limit` services by name, those after `after`."""
    found = await plane.db.read(services.list_page, after=after or None, limit=limit)
    now = plane.clock()
    return [_without_what_is_over(one, now) for one in found]


def _without_what_is_over(service: Service, now: datetime) -> Service:
    end_time = service.old_token_expire_time
    return service if end_time is None or end_time > now else replace(service, old_token_expire_time=None)


async def rotate_service_token(
    plane: Plane, name: str, *, keep_old: timedelta = timedelta(0)
) -> tuple[Service, Secret]:
    """A new token for the service; the old one is refused once `keep_old` is over."""
    if not timedelta(0) <= keep_old <= _MAX_KEEP_OLD:
        raise InvalidArgument(field="keep_old", problem=f"must be 0 to {_MAX_KEEP_OLD.days} days")
    now = plane.clock()
    secret = tokens.mint(tokens.SERVICE_PREFIX)
    service = await plane.db.write(
        services.rotate,
        name,
        tokens.hash_of(secret.reveal()),
        now=now,
        old_until=now + keep_old if keep_old else None,
    )
    return service, secret


async def revoke_old_service_token(plane: Plane, name: str) -> Service:
    """From now on the token that a rotation kept is refused. Doing it twice changes nothing."""
    return await plane.db.write(services.revoke_old_token, name, now=plane.clock())


async def set_service_certificates(plane: Plane, name: str, sans: Sequence[str]) -> Service:
    """From now on certificates with these names are the service, and no others."""
    checked = _checked_sans(sans, field="certificate_sans")
    now = plane.clock()
    return _without_what_is_over(await plane.db.write(_set_sans, name, checked, now=now), now)


def _set_sans(conn: Connection, name: str, sans: Sequence[str], *, now: datetime) -> Service:
    service = services.set_sans(conn, name, sans, now=now)
    administrators.refuse_if_none(conn, field="certificate_sans")
    return service


async def delete_service(plane: Plane, name: str) -> None:
    """Remove the service; its tokens and certificates are refused from now on."""
    await plane.db.write(_delete_service, name, now=plane.clock())


def _delete_service(conn: Connection, name: str, *, now: datetime) -> None:
    services.delete(conn, name, now=now)
    administrators.refuse_if_none(conn, field="service")
