"""The nouns of the credential plane, as frozen values.

Nothing here does I/O or knows SQL, gRPC or the clock. Times are aware UTC datetimes. Words as in docs/glossary.md.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from daemonkit.secret import Secret

MAX_KEY_BYTES = 10240
# Of one provider.
MAX_CENTRAL_KEYS = 5


class Source(StrEnum):
    """What supplies the credential of a request."""

    USER_KEY = "USER_KEY"
    CENTRAL_KEY = "CENTRAL_KEY"
    AMBIENT = "AMBIENT"
    PRESENTED_KEY = "PRESENTED_KEY"


class Origin(StrEnum):
    """Where a provider is configured; environment ones are read-only in the API."""

    DATABASE = "DATABASE"
    ENVIRONMENT = "ENVIRONMENT"


class KeyKind(StrEnum):
    """The shape of stored key material."""

    API_KEY = "API_KEY"
    AWS_ACCESS_KEY_PAIR = "AWS_ACCESS_KEY_PAIR"


class Role(StrEnum):
    """What a caller of the gRPC services may do; `rpc/access.py` has the table."""

    NONE = "NONE"
    USER = "USER"
    BRIDGE = "BRIDGE"
    INTERNAL = "INTERNAL"
    ADMIN = "ADMIN"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyMaterial:
    """One string, as the administrator or user typed it, without white space around it."""

    value: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsKeyPairMaterial:
    """An AWS access key. `session_token` is None for long-lived ones."""

    access_key_id: Secret
    secret_access_key: Secret
    session_token: Secret | None = None


Material = ApiKeyMaterial | AwsKeyPairMaterial


def kind_of(material: Material) -> KeyKind:
    """The kind that listings show for this material."""
    return KeyKind.API_KEY if isinstance(material, ApiKeyMaterial) else KeyKind.AWS_ACCESS_KEY_PAIR


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPolicy:
    """The three flags of a provider. `policy.choose_source` says what they mean together."""

    central_key_enabled: bool
    user_keys_allowed: bool
    central_key_fallback: bool


class BedrockProtocol(StrEnum):
    """Which of Bedrock's endpoints a provider speaks to."""

    INVOKE_MODEL = "INVOKE_MODEL"
    MANTLE = "MANTLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class BedrockModelRule:
    """What a model is whose id or ARN contains a text: a family of the bridge's table, and betas besides its own."""

    contains: str
    family: str
    betas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BedrockOptions:
    """What only Bedrock needs; empty strings are "not set".

    `models` are pairs of the name that clients write and the one at Bedrock; they come before `model` and
    `small_fast_model`. `role_duration_seconds` is 0 for AWS's default. `session_policy` is a JSON document.
    """

    region: str = ""
    role_arn: str = ""
    external_id: str = ""
    model: str = ""
    small_fast_model: str = ""
    models: tuple[tuple[str, str], ...] = ()
    model_rules: tuple[BedrockModelRule, ...] = ()
    role_duration_seconds: int = 0
    session_policy: str = ""
    protocol: BedrockProtocol = BedrockProtocol.INVOKE_MODEL
    set_source_identity: bool = False
    session_tags: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CentralKey:
    """What is known of a stored central key; never the key."""

    credential_id: str
    kind: KeyKind
    create_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long an upstream may take: to be connected to, to begin its answer, to pause in it.

    None is as the bridge is set.
    """

    connect: timedelta | None = None
    first_byte: timedelta | None = None
    idle: timedelta | None = None


NO_TIMEOUTS = Timeouts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A configured upstream account with a name of its own.

    `base_url` is as configured, empty for the type's default. `bedrock` is set for every provider that reaches
    AWS and for no other. `version` counts the changes of the row (the etag). The times are None for providers
    from the environment. `fallback_provider` is a name, empty for none.
    """

    id: str
    name: str
    type: str
    display_name: str = ""
    base_url: str = ""
    enabled: bool = True
    policy: KeyPolicy
    central_keys: tuple[CentralKey, ...] = ()
    origin: Origin = Origin.DATABASE
    bedrock: BedrockOptions | None = None
    send_actor_headers: bool | None = None
    timeouts: Timeouts = NO_TIMEOUTS
    fallback_provider: str = ""
    version: int = 1
    create_time: datetime | None = None
    update_time: datetime | None = None

    @property
    def central_key_set(self) -> bool:
        """Whether any central key is stored."""
        return bool(self.central_keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentProvider:
    """A provider from CODER_AIBRIDGE_* with its key material, in the order of use (same order as central_keys)."""

    provider: Provider
    materials: tuple[Material, ...] = ()


class ModelPrices(NamedTuple):
    """In micro-dollars (USD / 1,000,000) per million tokens; None is not known. What they make: prices.py."""

    input_price_micros: int | None = None
    output_price_micros: int | None = None
    cache_read_price_micros: int | None = None
    cache_write_price_micros: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What a model costs at one provider. `name` is as clients ask for it, or as the provider maps it upstream."""

    id: str
    provider_id: str
    provider_name: str
    name: str
    prices: ModelPrices
    version: int = 1
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person."""

    id: str
    username: str
    admin: bool = False
    suspended: bool = False
    version: int = 1
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An access token of a user, without the token: only its hash is stored."""

    id: str
    user_id: str
    username: str
    create_time: datetime
    expire_time: datetime | None = None
    revoke_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A program that calls gRPC. `act_for_providers` empty means all, and only counts with `may_act_for_users`.

    `rotate_time` is when its token was made, None without one. Until `old_token_expire_time` the token before that is
    valid, too. `certificate_sans` are names in client certificates that stand for it.
    """

    id: str
    name: str
    role: Role
    may_act_for_users: bool = False
    act_for_providers: tuple[str, ...] = ()
    create_time: datetime
    rotate_time: datetime | None
    old_token_expire_time: datetime | None = None
    certificate_sans: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UserKey:
    """A user's own key for one provider; never the key."""

    user_id: str
    provider_id: str
    credential_id: str
    update_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSecret:
    """Ciphertext with what is needed to open it but the key (AES-256-GCM; see sealing.py)."""

    key_id: str
    nonce: bytes
    ciphertext: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls an rpc. Exactly one of `user` and `service` is set, none for Role.NONE.

    From `end_time` on the caller is to be authenticated anew, though nothing has changed; None for never.
    """

    role: Role
    user: User | None = None
    service: Service | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """Deployment-wide switches (CODER_AIBRIDGE_ENABLED, _ALLOW_BYOK, _SEND_ACTOR_HEADERS)."""

    enabled: bool = True
    allow_byok: bool = True
    send_actor_headers: bool = False
    environment_providers: tuple[EnvironmentProvider, ...] = field(default=())
