"""Who is calling: a token, or the names of a client certificate, to a caller, or the refusal that says why not.

A certificate counts only where no token comes with the call: a token that is wrong is refused, whoever shows it.
"""

import logging
from collections.abc import Sequence
from datetime import datetime

from credentiald import tokens
from credentiald.errors import (
    AccessTokenExpired,
    AccessTokenInvalid,
    AccessTokenMissing,
    Refusal,
    ServiceTokenInvalid,
    ServiceTokenMissing,
    UserSuspended,
)
from credentiald.model import Caller, Role, Token, User
from credentiald.plane import Plane
from credentiald.store import access_tokens, services
from credentiald.store.connection import Connection

log = logging.getLogger(__name__)

# What a rpc that wants a service calls a missing or unreadable token, and what one that wants a user does.
MISSING: dict[bool, type[Refusal]] = {True: ServiceTokenMissing, False: AccessTokenMissing}
INVALID: dict[bool, type[Refusal]] = {True: ServiceTokenInvalid, False: AccessTokenInvalid}


async def caller_of(plane: Plane, token: str, *, wants_service: bool) -> Caller:
    """The caller that this token names.

    `wants_service` says what a missing or unreadable token is called in the refusal. A readable token of the other
    kind is a caller like any other: whether its role may call is the business of rpc/access.py.
    """
    if not token:
        raise MISSING[wants_service]()
    prefix = tokens.prefix_of(token)
    if prefix is None:
        raise INVALID[wants_service]()
    if prefix == tokens.USER_PREFIX:
        try:
            user = await plane.db.read(user_of, token, now=plane.clock())
        except (AccessTokenInvalid, AccessTokenExpired, UserSuspended):
            # Where a service must call, this is the service's trouble: its clients must not take it for their own.
            if wants_service:
                raise ServiceTokenInvalid from None
            raise
        return Caller(role=Role.ADMIN if user.admin else Role.USER, user=user)
    found = await plane.db.read(_service_of, tokens.hash_of(token), now=plane.clock())
    if found is None:
        raise ServiceTokenInvalid
    return found


async def certified_caller(plane: Plane, names: Sequence[str]) -> Caller | None:
    """The service that a certificate with these names is; None where it is none, or could be several."""
    found = await plane.db.read(services.by_sans, names)
    if len(found) > 1:
        log.warning(
            "a client certificate has names of several services", extra={"services": [one.name for one in found]}
        )
    return Caller(role=found[0].role, service=found[0]) if len(found) == 1 else None


def _service_of(conn: Connection, token_hash: bytes, *, now: datetime) -> Caller | None:
    service = services.by_hash(conn, token_hash)
    if service is not None:
        return Caller(role=service.role, service=service)
    service = services.by_old_hash(conn, token_hash, now=now)
    if service is None:
        return None
    return Caller(role=service.role, service=service, end_time=service.old_token_expire_time)


def user_of(conn: Connection, token: str, *, now: datetime) -> User:
    """The user whose access token this is, or a refusal."""
    return token_and_user_of(conn, token, now=now)[1]


def token_and_user_of(conn: Connection, token: str, *, now: datetime) -> tuple[Token, User]:
    """What is known of this access token, and its user; or a refusal: invalid, expired, suspended, in this order."""
    if not token:
        raise AccessTokenMissing
    if tokens.prefix_of(token) != tokens.USER_PREFIX:
        raise AccessTokenInvalid
    found = access_tokens.by_hash(conn, tokens.hash_of(token))
    if found is None or found[0].revoke_time is not None:
        raise AccessTokenInvalid
    access_token, user = found
    if access_token.expire_time is not None and access_token.expire_time <= now:
        raise AccessTokenExpired(expire_time=access_token.expire_time.isoformat())
    if user.suspended:
        raise UserSuspended
    return access_token, user
