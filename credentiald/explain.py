"""Why a request is answered with this credential source, or refused: every input, and why the others lost.

Asks the same policy function as resolve.py and opens no secret.
"""

from collections.abc import Callable
from dataclasses import dataclass

from credentiald.aws.account import AwsAccount
from credentiald.aws.regions import Identity
from credentiald.catalog import CATALOG, wire_of
from credentiald.errors import (
    GatewayDisabled,
    OperationNotAllowed,
    ProviderDisabled,
    Refusal,
    UserSuspended,
)
from credentiald.key_health import Choice, Complaints, choose
from credentiald.model import Gateway, KeyKind, Provider, Source, User
from credentiald.plane import Plane, policy_inputs, refusal_of
from credentiald.policy import ANY, TABLE, Inputs, Outcome, Row, choose_source, row_of
from credentiald.resolve import check_operation
from credentiald.store import key_health, revision, user_keys, users
from credentiald.store.connection import Connection

CHECKS = ("user", "gateway", "provider", "operation", "policy", "secret")


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One input of the decision. `origin` says where it was looked up: provider, deployment, store, request, user."""

    name: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of a resolve. `refused` is None where an earlier check refused already."""

    name: str
    refused: bool | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedRow:
    """A row of the policy table as it is published, and whether it applies."""

    cells: tuple[str, ...]
    result: str
    applies: bool
    mismatch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A source that could supply the credential, and why it does or does not."""

    source: Source
    chosen: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The whole account. Exactly one of `source` and `refusal` is set."""

    provider: Provider
    user: User
    source: Source | None
    refusal: Refusal | None
    inputs: tuple[Input, ...]
    checks: tuple[Check, ...]
    rows: tuple[ExplainedRow, ...]
    candidates: tuple[Candidate, ...]
    revision: int
    credential_id: str
    aws: AwsAccount | None = None

    @property
    def message(self) -> str:
        """One sentence for a person."""
        if self.refusal is not None:
            return str(self.refusal)
        return _ANSWERS[self.source] if self.source else ""


# A bridge that complains of nothing.
_NOBODY = ("", "")

_ANSWERS = {
    Source.USER_KEY: "the user's own stored key is used",
    Source.CENTRAL_KEY: "the central key is used",
    Source.AMBIENT: "the ambient AWS credentials of the machine that runs credentiald are used",
    Source.PRESENTED_KEY: "the key that the request itself carries is used",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What bridges have told of several central keys: which one a bridge is given that has told nothing itself."""

    chosen_id: str
    resting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What one read of the store brought. `user_key_id` is the credential id of the user's stored key, if any.

    `pool` says how the provider's central keys are, where there are several.
    """

    user: User
    provider: Provider
    user_key_id: str
    revision: int
    pool: Pool | None = None


async def explain(
    plane: Plane, *, provider: str, user: str, presented_key: bool = False, operation: str = ""
) -> Explanation:
    """The account of the decision for one user (id or username) and one provider, both of which must exist."""
    facts = await plane.db.read(_look_up, plane, provider, user)
    aws = await _aws_account(plane, facts, presented_key=presented_key)
    return account(plane.gateway, facts, presented_key=presented_key, operation=operation, aws=aws)


async def _aws_account(plane: Plane, facts: Facts, *, presented_key: bool) -> AwsAccount | None:
    """What AWS has to do with it, for the source that the policy chooses; None for providers that do not reach AWS."""
    provider = facts.provider
    if wire_of(provider) != "bedrock":
        return None
    inputs = policy_inputs(plane.gateway, provider, user_has_key=bool(facts.user_key_id), presented_key=presented_key)
    outcome = choose_source(inputs)
    chosen_id = _credential_id(Source.CENTRAL_KEY, facts) if outcome is Source.CENTRAL_KEY else ""
    key = next((each for each in provider.central_keys if each.credential_id == chosen_id), None)
    identity = Identity.AMBIENT if outcome is Source.AMBIENT else Identity.BEARER
    if key is not None and key.kind is KeyKind.AWS_ACCESS_KEY_PAIR:
        identity = Identity.PAIR
    return await plane.aws.account(
        provider,
        identity,
        user_id=facts.user.id,
        username=facts.user.username,
        pair_id=key.credential_id if key is not None else "",
    )


def _look_up(conn: Connection, plane: Plane, provider_name: str, user_name: str) -> Facts:
    user = users.get(conn, user_name)
    provider = plane.find_provider(conn, provider_name)
    key = user_keys.find(conn, user_id=user.id, provider_id=provider.id)
    return Facts(
        user=user,
        provider=provider,
        user_key_id=key[0].credential_id if key else "",
        revision=revision.current(conn),
        pool=_pool(conn, plane, provider),
    )


def _pool(conn: Connection, plane: Plane, provider: Provider) -> Pool | None:
    ids = [key.credential_id for key in provider.central_keys]
    if len(ids) < 2:
        return None
    now = plane.clock()
    cooldowns = key_health.of_provider(conn, provider.id, now=now)
    choice = choose(ids, Complaints(cooldowns), plane.probes.ends, asker=_NOBODY, failed=(), now=now)
    resting = {one.credential_id for one in cooldowns if one.until_time > now}
    return Pool(
        chosen_id=ids[choice.place] if isinstance(choice, Choice) else "", resting=len(resting.intersection(ids))
    )


def account(
    gateway: Gateway, facts: Facts, *, presented_key: bool, operation: str, aws: AwsAccount | None = None
) -> Explanation:
    """The account from what was looked up. No I/O."""
    provider, user = facts.provider, facts.user
    inputs = policy_inputs(gateway, provider, user_has_key=bool(facts.user_key_id), presented_key=presented_key)
    outcome = choose_source(inputs)
    refusal, checks = _checks(gateway, provider, user, operation, outcome, aws)
    source = outcome if refusal is None and isinstance(outcome, Source) else None
    return Explanation(
        provider=provider,
        user=user,
        source=source,
        refusal=refusal,
        inputs=(*_inputs(gateway, provider, user, inputs, operation), *_pool_inputs(facts)),
        checks=checks,
        rows=_rows(inputs),
        candidates=_candidates(inputs, source, outcome, provider),
        revision=facts.revision,
        credential_id=_credential_id(source, facts),
        aws=aws,
    )


def _credential_id(source: Source | None, facts: Facts) -> str:
    if source is Source.USER_KEY:
        return facts.user_key_id
    if source is Source.CENTRAL_KEY:
        return facts.pool.chosen_id if facts.pool else facts.provider.central_keys[0].credential_id
    return ""


def _checks(
    gateway: Gateway, provider: Provider, user: User, operation: str, outcome: Outcome, aws: AwsAccount | None
) -> tuple[Refusal | None, tuple[Check, ...]]:
    """The checks of a resolve in their order: the first refusal, and what became of each."""
    judges: dict[str, Callable[[], Refusal | None]] = {
        "user": lambda: UserSuspended() if user.suspended else None,
        "gateway": lambda: None if gateway.enabled else GatewayDisabled(),
        "provider": lambda: None if provider.enabled else ProviderDisabled(provider=provider.name),
        "operation": lambda: _operation_refusal(provider, operation),
        "policy": lambda: None if isinstance(outcome, Source) else refusal_of(outcome, provider),
        "secret": lambda: aws.refusal if aws else None,
    }
    refusal: Refusal | None = None
    checks = []
    for name in CHECKS:
        if refusal is not None:
            checks.append(Check(name=name, refused=None, detail="not reached"))
            continue
        refusal = judges[name]()
        checks.append(Check(name=name, refused=refusal is not None, detail=str(refusal) if refusal else "passed"))
    return refusal, tuple(checks)


def _operation_refusal(provider: Provider, operation: str) -> Refusal | None:
    try:
        check_operation(provider, operation)
    except OperationNotAllowed as refusal:
        return refusal
    return None


def _on(value: bool) -> str:
    return "on" if value else "off"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _inputs(gateway: Gateway, provider: Provider, user: User, inputs: Inputs, operation: str) -> tuple[Input, ...]:
    policy = inputs.policy
    listed = (
        ("username", user.username, "user"),
        ("user_suspended", _yes(user.suspended), "user"),
        ("gateway_enabled", _on(gateway.enabled), "deployment"),
        ("presented_keys_allowed", _on(gateway.allow_byok), "deployment"),
        ("provider_type", provider.type, "provider"),
        ("wire_type", wire_of(provider), "provider"),
        ("provider_enabled", _yes(provider.enabled), "provider"),
        ("operation", operation or "not named", "request"),
        ("central_key_enabled", _on(policy.central_key_enabled), "provider"),
        ("user_keys_allowed", _on(policy.user_keys_allowed), "provider"),
        ("central_key_fallback", _on(policy.central_key_fallback), "provider"),
        ("user_has_key", _yes(inputs.user_has_key), "store"),
        ("central_key_stored", _yes(inputs.central_key_stored), "provider"),
        ("ambient_allowed", _yes(inputs.ambient_allowed), "provider type"),
        ("presented_key", _yes(inputs.presented_key), "request"),
    )
    return tuple(Input(name=name, value=value, origin=origin) for name, value, origin in listed)


def _pool_inputs(facts: Facts) -> tuple[Input, ...]:
    """Where else a request may get to, when its key or its upstream fails."""
    found = []
    if facts.pool is not None:
        found.append(Input(name="central_keys", value=str(len(facts.provider.central_keys)), origin="provider"))
        found.append(Input(name="central_keys_resting", value=str(facts.pool.resting), origin="store"))
    if facts.provider.fallback_provider:
        found.append(Input(name="fallback_provider", value=facts.provider.fallback_provider, origin="provider"))
    return tuple(found)


_COLUMNS = ("central key", "user keys", "fallback", "user has key", "central key stored")


def _words(column: int, admitted: tuple[bool, ...]) -> str:
    if admitted == ANY:
        return "any"
    return (_on if column < 3 else _yes)(admitted[0])


def _rows(inputs: Inputs) -> tuple[ExplainedRow, ...]:
    """The table as published. A presented key is decided before the table, so then no row applies."""
    applying = None if inputs.presented_key else row_of(inputs)
    policy = inputs.policy
    actual = (
        policy.central_key_enabled,
        policy.user_keys_allowed,
        policy.central_key_fallback,
        inputs.user_has_key,
        inputs.central_key_stored,
    )
    return tuple(_row(row, actual, applies=row is applying, inputs=inputs) for row in TABLE)


def _row(row: Row, actual: tuple[bool, ...], *, applies: bool, inputs: Inputs) -> ExplainedRow:
    cells = tuple(_words(column, admitted) for column, admitted in enumerate(row.conditions))
    wrong = [
        f"{_COLUMNS[column]} is {_words(column, (actual[column],))}, not {cells[column]}"
        for column, admitted in enumerate(row.conditions)
        if actual[column] not in admitted
    ]
    if inputs.presented_key and not wrong:
        wrong = ["a presented key is decided before the table"]
    return ExplainedRow(
        cells=cells,
        result=outcome_name(row.result(ambient_allowed=inputs.ambient_allowed)),
        applies=applies,
        mismatch="; ".join(wrong),
    )


def outcome_name(outcome: Outcome) -> str:
    """`CENTRAL_KEY` for a source, `USER_KEY_REQUIRED` for a refusal."""
    return outcome.value if isinstance(outcome, Source) else outcome.reason()


def _candidates(inputs: Inputs, source: Source | None, outcome: Outcome, provider: Provider) -> tuple[Candidate, ...]:
    ordered = (Source.PRESENTED_KEY, Source.USER_KEY, Source.CENTRAL_KEY, Source.AMBIENT)
    return tuple(
        Candidate(source=each, chosen=each is source, why=_why(each, inputs, source, outcome, provider))
        for each in ordered
    )


def _why(each: Source, inputs: Inputs, source: Source | None, outcome: Outcome, provider: Provider) -> str:
    if each is source:
        return _ANSWERS[each]
    if each is outcome:
        return "the policy chooses it, but another check refuses the request"
    obstacle = _OBSTACLES[each](inputs, provider)
    return obstacle or f"{outcome_name(outcome)} decides first"


def _presented_obstacle(inputs: Inputs, provider: Provider) -> str:
    if not inputs.presented_key:
        return "the request carries no key of the user"
    if not inputs.byok_allowed:
        return "the deployment forbids presented keys (CODER_AIBRIDGE_ALLOW_BYOK=false)"
    return "" if inputs.policy.user_keys_allowed else "user keys are off"


def _user_obstacle(inputs: Inputs, provider: Provider) -> str:
    if not inputs.policy.user_keys_allowed:
        return "user keys are off, so a stored one is ignored" if inputs.user_has_key else "user keys are off"
    return "" if inputs.user_has_key else "the user has stored no key"


def _central_obstacle(inputs: Inputs, provider: Provider) -> str:
    if not inputs.policy.central_key_enabled:
        return "the central key is off"
    if not inputs.central_key_stored:
        return "no central key is stored"
    return _fallback_obstacle(inputs)


def _ambient_obstacle(inputs: Inputs, provider: Provider) -> str:
    if not inputs.ambient_allowed:
        return f"providers of type {CATALOG[wire_of(provider)].name} have no ambient credentials"
    if not inputs.policy.central_key_enabled:
        return "the central key is off, and ambient credentials stand in its place"
    if inputs.central_key_stored:
        return "a central key is stored, and ambient never stands in for what was configured"
    return _fallback_obstacle(inputs)


def _fallback_obstacle(inputs: Inputs) -> str:
    if not inputs.policy.user_keys_allowed or inputs.user_has_key:
        return ""
    return "" if inputs.policy.central_key_fallback else "user keys are allowed and the fallback is off"


_OBSTACLES: dict[Source, Callable[[Inputs, Provider], str]] = {
    Source.PRESENTED_KEY: _presented_obstacle,
    Source.USER_KEY: _user_obstacle,
    Source.CENTRAL_KEY: _central_obstacle,
    Source.AMBIENT: _ambient_obstacle,
}
