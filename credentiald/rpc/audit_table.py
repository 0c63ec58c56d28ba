"""What the audit tells of which rpc: the one table, with a row for each, that a test holds against the contract.

- ACT changes something, and is told with what it changed.
- LOOK changes nothing and shows what is somebody else's, or tries a credential out; told where it is about another.
- RELEASE gives credentials out; told by who answers (resolve_stream.py).
- UNTOLD is everything else: lists, and bridges that report.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from credentiald.ids import canonical_uuid
from credentiald.model import Caller, Role
from credentiald.plane import Plane
from credentiald.rpc import codec
from credentiald.rpc.audit_codec import fields
from credentiald.store import access_tokens, models, providers, sealing_rows, services, user_keys, users
from credentiald.store.connection import Connection

# What there is to see of the resource that a request is about, by field.
Look = Callable[[Connection, Plane, Any, Caller], Mapping[str, str]]
# Whether a request, with its answer where there is one, is about somebody else's.
IsOfAnother = Callable[[Caller, Any, Any], bool]

_PACKAGE = "/drawbridge.v1."


class Told(Enum):
    """See the module."""

    ACT = auto()
    LOOK = auto()
    RELEASE = auto()
    UNTOLD = auto()


@dataclass(frozen=True, slots=True)
class Rule:
    """`look` is asked before and after an act; `is_told` of a LOOK that was answered or refused."""

    told: Told
    look: Look | None = None
    is_told: IsOfAnother = lambda caller, request, answer: True


def _provider(name_of: Callable[[Any], str]) -> Look:
    def look(conn: Connection, plane: Plane, request: Any, caller: Caller) -> Mapping[str, str]:
        found = providers.find(conn, name_of(request))
        return {} if found is None else fields(codec.provider(found))

    return look


def _user(name_of: Callable[[Any], str]) -> Look:
    def look(conn: Connection, plane: Plane, request: Any, caller: Caller) -> Mapping[str, str]:
        found = users.find(conn, name_of(request))
        return {} if found is None else fields(codec.user(found))

    return look


def _service(name_of: Callable[[Any], str]) -> Look:
    def look(conn: Connection, plane: Plane, request: Any, caller: Caller) -> Mapping[str, str]:
        name = name_of(request)
        return fields(codec.service(services.get(conn, name))) if services.exists(conn, name) else {}

    return look


def _token(conn: Connection, plane: Plane, request: Any, caller: Caller) -> Mapping[str, str]:
    return fields(codec.token(access_tokens.get(conn, canonical_uuid(request.id) or request.id)))


def _model(key_of: Callable[[Any], tuple[str, str]]) -> Look:
    def look(conn: Connection, plane: Plane, request: Any, caller: Caller) -> Mapping[str, str]:
        provider_name, name = key_of(request)
        provider = plane.find_provider(conn, provider_name)
        found = models.get(conn, provider_id=provider.id, provider_name=provider.name, name=name)
        prices = {field: str(price) for field, price in found.prices._asdict().items() if price is not None}
        return {"id": found.id, "provider": provider.name, "name": found.name, **prices}

    return look


def _user_key(conn: Connection, plane: Plane, request: Any, caller: Caller) -> Mapping[str, str]:
    user = users.find(conn, request.user or (caller.user.id if caller.user else ""))
    provider = plane.find_provider(conn, request.provider)
    found = user and user_keys.find(conn, user_id=user.id, provider_id=provider.id)
    return {"credential_id": found[0].credential_id} if found else {}


def _sealing_keys(conn: Connection, plane: Plane, request: Any, caller: Caller) -> Mapping[str, str]:
    active = sealing_rows.active_key_id(conn)
    return {
        f"sealing_key[{key.id}]": "active" if key.id == active else "old" if key.retire_time is None else "retired"
        for key in sealing_rows.known_keys(conn)
    }


def _is_own(caller: Caller, name: str) -> bool:
    return caller.user is not None and name.casefold() in (caller.user.id, caller.user.username.casefold())


def _names_another(caller: Caller, request: Any, answer: Any) -> bool:
    return caller.role is Role.ADMIN and bool(request.user) and not _is_own(caller, request.user)


def _shows_another(caller: Caller, request: Any, answer: Any) -> bool:
    if caller.role is not Role.ADMIN:
        return False
    return answer is None or caller.user is None or answer.interception.user_id != caller.user.id


def _lists_others(caller: Caller, request: Any, answer: Any) -> bool:
    is_own = request.filter.mine or _is_own(caller, request.filter.user)
    return caller.role is Role.ADMIN and not is_own


def _rows(service: str, rule: Rule, methods: str) -> dict[str, Rule]:
    return {f"{_PACKAGE}{service}/{method}": rule for method in methods.split()}


_UNTOLD, _RELEASE, _ADMIN = Rule(Told.UNTOLD), Rule(Told.RELEASE), "AdminService"
_BY_NAME, _BY_USER = Rule(Told.ACT, _service(lambda one: str(one.name))), Rule(Told.ACT, _user(lambda one: one.user))
_BY_PROVIDER = Rule(Told.ACT, _provider(lambda one: str(one.provider)))
_OF_PROVIDER = Rule(Told.ACT, _provider(lambda one: str(one.provider.name)))
_OF_MODEL = Rule(Told.ACT, _model(lambda one: (one.model.provider, one.model.name)))

TABLE: dict[str, Rule] = {
    **_rows("CredentialService", _RELEASE, "ResolveProvider ResolveProviderStream"),
    **_rows("CredentialService", _UNTOLD, "Ping ReportOutcome WatchProviders"),
    **_rows("RecordService", _UNTOLD, "AppendRecords"),
    # Sums and facts of requests; what people wrote is in the other two.
    **_rows("UsageService", _UNTOLD, "ListInterceptions QueryUsage"),
    **_rows("UsageService", Rule(Told.LOOK, is_told=_shows_another), "GetInterception"),
    **_rows("UsageService", Rule(Told.LOOK, is_told=_lists_others), "ListSessions"),
    **_rows("UserKeyService", Rule(Told.ACT, _user_key), "SetUserKey DeleteUserKey"),
    **_rows("UserKeyService", _UNTOLD, "ListUserKeys"),
    **_rows("ExplainService", Rule(Told.LOOK, is_told=_names_another), "ExplainProvider"),
    **_rows(_ADMIN, _OF_PROVIDER, "CreateProvider UpdateProvider"),
    **_rows(_ADMIN, Rule(Told.ACT, _provider(lambda one: str(one.name))), "DeleteProvider"),
    **_rows(_ADMIN, _BY_PROVIDER, "SetCentralKey DeleteCentralKey AddCentralKey RemoveCentralKey OrderCentralKeys"),
    **_rows(_ADMIN, Rule(Told.LOOK), "CheckProvider GetAuditHash"),
    **_rows(_ADMIN, _OF_MODEL, "CreateModel UpdateModel"),
    **_rows(_ADMIN, Rule(Told.ACT, _model(lambda one: (one.provider, one.name))), "DeleteModel"),
    **_rows(_ADMIN, Rule(Told.ACT, _user(lambda one: one.user.username)), "CreateUser"),
    **_rows(_ADMIN, _BY_USER, "SuspendUser ResumeUser DeleteUser"),
    **_rows(_ADMIN, Rule(Told.ACT), "CreateToken"),
    **_rows(_ADMIN, Rule(Told.ACT, _sealing_keys), "RotateSealingKey RetireSealingKey"),
    **_rows(_ADMIN, Rule(Told.ACT, _token), "RevokeToken"),
    **_rows(_ADMIN, Rule(Told.ACT, _service(lambda one: one.service.name)), "CreateService"),
    **_rows(_ADMIN, _BY_NAME, "RotateServiceToken RevokeOldServiceToken SetServiceCertificates DeleteService"),
    **_rows(
        _ADMIN,
        _UNTOLD,
        "GetProvider ListProviders GetProviderHealth ListProviderHealth GetModel ListModels GetUser ListUsers "
        "ListTokens ListServices GetSealingStatus GetAuditHead ListAuditEntries",
    ),
}
# A rpc that nobody has thought about is told of.
UNKNOWN = Rule(Told.ACT)


def rule_of(method: str) -> Rule:
    """The row of a rpc of the contract."""
    return TABLE.get(method, UNKNOWN)
