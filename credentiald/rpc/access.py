"""Who may call what: rpc × role, the one table that the guard reads and the tests read whole."""

from dataclasses import dataclass

from credentiald.errors import CallerNotAllowed
from credentiald.model import Caller, Role

_PACKAGE = "/drawbridge.v1."
_BRIDGES = frozenset({Role.BRIDGE, Role.INTERNAL})
_USERS = frozenset({Role.USER, Role.ADMIN})
_ADMIN = frozenset({Role.ADMIN})


@dataclass(frozen=True, slots=True)
class Rule:
    """`wants_service` says what a missing token is called: a service token, or a user's access token."""

    roles: frozenset[Role]
    wants_service: bool


def _rules(service: str, methods: str, roles: frozenset[Role], *, wants_service: bool) -> dict[str, Rule]:
    return {f"{_PACKAGE}{service}/{method}": Rule(roles, wants_service) for method in methods.split()}


ACCESS: dict[str, Rule] = {
    **_rules("CredentialService", "ResolveProvider ResolveProviderStream Ping", _BRIDGES, wants_service=True),
    **_rules("CredentialService", "ReportOutcome", frozenset({Role.BRIDGE}), wants_service=True),
    **_rules("CredentialService", "WatchProviders", frozenset({Role.BRIDGE}), wants_service=True),
    **_rules("RecordService", "AppendRecords", frozenset({Role.BRIDGE}), wants_service=True),
    **_rules("UsageService", "ListSessions ListInterceptions GetInterception QueryUsage", _USERS, wants_service=False),
    **_rules("UserKeyService", "ListUserKeys SetUserKey DeleteUserKey", _USERS, wants_service=False),
    **_rules("ExplainService", "ExplainProvider", _USERS, wants_service=False),
    **_rules(
        "AdminService",
        "CreateProvider GetProvider ListProviders UpdateProvider DeleteProvider CheckProvider "
        "SetCentralKey DeleteCentralKey AddCentralKey RemoveCentralKey OrderCentralKeys "
        "GetProviderHealth ListProviderHealth "
        "CreateModel GetModel ListModels UpdateModel DeleteModel "
        "CreateUser GetUser ListUsers SuspendUser ResumeUser DeleteUser "
        "CreateToken ListTokens RevokeToken "
        "CreateService ListServices RotateServiceToken RevokeOldServiceToken SetServiceCertificates DeleteService "
        "GetSealingStatus RotateSealingKey RetireSealingKey "
        "GetAuditHead ListAuditEntries GetAuditHash",
        _ADMIN,
        wants_service=False,
    ),
}

# Their names, as logs and metrics have them.
RPCS = frozenset(method.rpartition("/")[2] for method in ACCESS)

# What rpcs of these begin with takes nothing away from anybody. All others of the services that change something wait
# until every bridge that watches has obeyed: a new rpc is among them unless somebody thinks about it.
_TAKES_NOTHING = ("Create", "Resume", "Get", "List", "Check", "RotateSealing", "RetireSealing")
_CHANGING = (f"{_PACKAGE}AdminService/", f"{_PACKAGE}UserKeyService/")


def takes_away(method: str) -> bool:
    """Whether the rpc may end what somebody was allowed until now."""
    return method.startswith(_CHANGING) and not method.rpartition("/")[2].startswith(_TAKES_NOTHING)


def is_ours(method: str) -> bool:
    """Whether the rpc is one of drawbridge.v1; health and reflection are open to anyone."""
    return method.startswith(_PACKAGE)


def check(caller: Caller, method: str) -> None:
    """Refuse a caller whose role is not in the rpc's row. A rpc without a row is open to nobody."""
    rule = ACCESS.get(method)
    if rule is None or caller.role not in rule.roles:
        raise CallerNotAllowed(role=caller.role.value, rpc=method.rpartition("/")[2])
