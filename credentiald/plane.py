"""What the use cases work with, and how they find a provider.

Providers from the environment and from the database share one namespace. A `Plane` is made once at start and
handed to every use case as an argument; there are no globals.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from hmac import digest
from uuid import UUID

from credentiald.aws.access import AwsAccess
from credentiald.catalog import CATALOG, wire_of
from credentiald.errors import ProviderNotFound, Refusal, UserKeysNotAllowed
from credentiald.model import (
    ApiKeyMaterial,
    CentralKey,
    EnvironmentProvider,
    Gateway,
    Material,
    Provider,
    SealedSecret,
    kind_of,
)
from credentiald.policy import Inputs
from credentiald.probe_claims import ProbeClaims
from credentiald.sealing import SealContext, Sealer
from credentiald.sealing_keys import SealingKeys
from credentiald.sealing_places import LocalKeys
from credentiald.sealing_wrapping import Wrapping
from credentiald.store import providers as stored_providers
from credentiald.store import sealing_rows
from credentiald.store.connection import Connection
from credentiald.store.database import Database

# More than anybody has.
_ALL = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """The store, the sealer, the deployment's switches and the clock."""

    db: Database
    sealer: Sealer
    sealing_keys: SealingKeys
    gateway: Gateway
    clock: Callable[[], datetime]
    environment: Mapping[str, EnvironmentProvider] = field(default_factory=dict)
    aws: AwsAccess
    # Authenticates receipts; derived from the secret of the database, as the next one is.
    receipt_key: bytes = field(repr=False)
    # Makes the ids of credentials that no row of the store has.
    credential_id_key: bytes = field(repr=False)
    # What this process has given out to be tried.
    probes: ProbeClaims = field(default_factory=ProbeClaims)

    @property
    def environment_ids(self) -> frozenset[str]:
        """The ids of the providers from the environment."""
        return frozenset(one.provider.id for one in self.environment.values())

    def seal(self, conn: Connection, material: Material, context: SealContext) -> SealedSecret:
        """The material under the key that the database names; call it in the transaction that stores it."""
        key_id = sealing_rows.checked_active_key_id(conn, self.sealer, context)
        return self.sealer.seal_material(material, context, key_id=key_id)

    def ambient_credential_id(self, provider: Provider) -> str:
        """The id of what the machine's chain gives this provider: the same one however often it is renewed."""
        return _uuid_of(self.credential_id_key, f"{provider.id}\0AMBIENT")

    def find_provider(self, conn: Connection, name: str) -> Provider:
        """The provider of this name, from the environment or the store, or ProviderNotFound."""
        configured = self.environment.get(name)
        if configured is not None:
            return configured.provider
        found = stored_providers.find(conn, name)
        if found is None:
            raise ProviderNotFound(provider=name)
        return found

    def all_providers(self, conn: Connection) -> list[Provider]:
        """All providers by name, from the environment and from the store."""
        return self.page_of_providers(conn, after="", limit=_ALL)

    def page_of_providers(self, conn: Connection, *, after: str, limit: int) -> list[Provider]:
        """At most `limit` providers by name, those after `after`, from the environment and from the store."""
        stored = stored_providers.list_page(conn, after=after or None, limit=limit)
        configured = [one.provider for name, one in self.environment.items() if name > after]
        return sorted([*stored, *configured], key=lambda one: one.name)[:limit]


def _now() -> datetime:
    return datetime.now(UTC)


def make_plane(
    db: Database,
    sealer: Sealer,
    gateway: Gateway,
    clock: Callable[[], datetime] = _now,
    local_keys: LocalKeys | None = None,
    wrapping: Wrapping | None = None,
) -> Plane:
    """The plane on an open database, with the gateway's providers known by their names.

    `local_keys` is where sealing keys are kept; None for the file beside the database. `wrapping` is who encrypts
    them outside; None for nobody.
    """
    key = db.deployment_key("credential-id")
    return Plane(
        db=db,
        sealer=sealer,
        sealing_keys=SealingKeys(db, sealer, local_keys or LocalKeys(db.path), clock, wrapping),
        gateway=gateway,
        clock=clock,
        environment={one.provider.name: identified(one, key) for one in gateway.environment_providers},
        aws=AwsAccess(clock),
        credential_id_key=key,
        receipt_key=db.deployment_key("receipt"),
    )


def refusal_of(outcome: type[Refusal], provider: Provider) -> Refusal:
    """The refusal that the policy chose, with its facts."""
    if outcome is not UserKeysNotAllowed:
        return outcome(provider=provider.name)
    if provider.policy.user_keys_allowed:
        cause = "the deployment takes none in requests (CODER_AIBRIDGE_ALLOW_BYOK=false); store it instead"
    else:
        cause = "user keys are off, leave it out"
    return UserKeysNotAllowed(provider=provider.name, cause=cause)


def policy_inputs(gateway: Gateway, provider: Provider, *, user_has_key: bool, presented_key: bool = False) -> Inputs:
    """What the key policy looks at for this provider; the one place where its inputs are put together."""
    return Inputs(
        policy=provider.policy,
        ambient_allowed=CATALOG[wire_of(provider)].allows_ambient,
        user_has_key=user_has_key,
        central_key_stored=provider.central_key_set,
        presented_key=presented_key,
        byok_allowed=gateway.allow_byok,
    )


def identified(configured: EnvironmentProvider, key: bytes) -> EnvironmentProvider:
    """The provider with the credential ids of its central keys filled in.

    The id of a key from the environment is an HMAC of provider and material: stable over restarts, another one for
    another key, and of no use to somebody who guesses keys. It has the form of a UUID (version 8, RFC 9562).
    """
    keys = tuple(
        CentralKey(
            credential_id=_credential_id(key, configured.provider.id, material),
            kind=kind_of(material),
            create_time=None,
        )
        for material in configured.materials
    )
    return replace(configured, provider=replace(configured.provider, central_keys=keys))


def _credential_id(key: bytes, provider_id: str, material: Material) -> str:
    secret = material.value if isinstance(material, ApiKeyMaterial) else material.secret_access_key
    return _uuid_of(key, f"{provider_id}\0{kind_of(material)}\0{secret.reveal()}")


def _uuid_of(key: bytes, text: str) -> str:
    raw = bytearray(digest(key, text.encode(), sha256)[:16])
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    return str(UUID(bytes=bytes(raw)))
