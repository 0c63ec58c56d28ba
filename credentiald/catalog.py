"""Provider types, one row each: where they are, what they can do, which keys they take.

A service that speaks a known dialect with a known kind of authentication is one more row here. How a type is
addressed and authenticated is the bridge's business (bridged/adapters).
"""

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from credentiald.model import BedrockOptions, BedrockProtocol, KeyKind, KeyPolicy, Provider

# Operation names are shared with the bridge's table of routes; docs/operations.md lists them and a test holds both.
_MODELS = frozenset({"anthropic.models", "openai.models", "google.models"})
_OPENAI = _MODELS | {
    "openai.chat_completions",
    "openai.responses",
    "openai.response_items",
    "openai.conversations",
    "openai.embeddings",
}
_AZURE = _OPENAI | {
    "azure.chat_completions",
    "azure.responses",
    "azure.response_items",
    "azure.embeddings",
    "azure.models",
}
_ANTHROPIC = _MODELS | {"anthropic.messages", "anthropic.count_tokens", "anthropic.event_logging"}
_COPILOT = _MODELS | {
    "openai.chat_completions",
    "openai.responses",
    "copilot.chat_completions",
    "copilot.responses",
    "copilot.models",
    "copilot.agents",
    "copilot.mcp",
    "copilot.well_known",
}
_GOOGLE = _MODELS | {
    "google.native_models",
    "google.generate_content",
    "google.stream_generate_content",
    "google.count_tokens",
    "google.embed_content",
    "google.openai_chat_completions",
    "google.openai_embeddings",
    "google.openai_models",
    "openai.chat_completions",
    "openai.embeddings",
}
_BEDROCK = frozenset(
    {
        "anthropic.messages",
        "anthropic.count_tokens",
        "bedrock.invoke_model",
        "bedrock.invoke_model_stream",
        "bedrock.converse",
        "bedrock.converse_stream",
        "bedrock.count_tokens",
        "bedrock.list_inference_profiles",
        "bedrock.list_foundation_models",
    }
)
# bedrock-mantle speaks the APIs that clients know, and none of Bedrock's own.
_MANTLE = frozenset({"anthropic.messages", "anthropic.count_tokens", "openai.chat_completions", "openai.responses"})

# Turns of a conversation: what bridges intercept, and what is recorded. A test holds them against bridged/routes.py.
TURNS = frozenset(
    {
        "anthropic.messages",
        "azure.chat_completions",
        "azure.responses",
        "bedrock.converse",
        "bedrock.converse_stream",
        "bedrock.invoke_model",
        "bedrock.invoke_model_stream",
        "copilot.chat_completions",
        "copilot.responses",
        "google.generate_content",
        "google.openai_chat_completions",
        "google.stream_generate_content",
        "openai.chat_completions",
        "openai.responses",
    }
)

_API_KEY = frozenset({KeyKind.API_KEY})
_NO_KEY: frozenset[KeyKind] = frozenset()
_BEDROCK_KEYS = frozenset({KeyKind.API_KEY, KeyKind.AWS_ACCESS_KEY_PAIR})

_CENTRAL_ONLY = KeyPolicy(central_key_enabled=True, user_keys_allowed=False, central_key_fallback=False)
_USERS_ONLY = KeyPolicy(central_key_enabled=False, user_keys_allowed=True, central_key_fallback=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderType:
    """One row of the catalogue.

    `default_base_url` is empty where a base URL is required, or comes from the region (`from_region`).
    `central_key_kinds`: the shapes of key an administrator may store. `default_policy`: what a provider without
    flags gets. `allows_ambient`: a central source exists even without a stored key.
    """

    name: str
    title: str
    operations: frozenset[str]
    default_base_url: str = ""
    from_region: bool = False
    central_key_kinds: frozenset[KeyKind] = _API_KEY
    default_policy: KeyPolicy = _CENTRAL_ONLY
    allows_ambient: bool = False

    @property
    def base_url_required(self) -> bool:
        """Whether a provider of this type cannot be saved without a base URL."""
        return not self.default_base_url and not self.from_region


CATALOG: dict[str, ProviderType] = {
    row.name: row
    for row in (
        ProviderType(name="openai", title="OpenAI", operations=_OPENAI, default_base_url="https://api.openai.com/v1/"),
        ProviderType(
            name="anthropic",
            title="Anthropic",
            operations=_ANTHROPIC,
            default_base_url="https://api.anthropic.com/",
        ),
        ProviderType(
            name="copilot",
            title="GitHub Copilot",
            operations=_COPILOT,
            default_base_url="https://api.individual.githubcopilot.com",
            central_key_kinds=_NO_KEY,
            default_policy=_USERS_ONLY,
        ),
        ProviderType(
            name="bedrock",
            title="AWS Bedrock",
            operations=_BEDROCK,
            from_region=True,
            central_key_kinds=_BEDROCK_KEYS,
            allows_ambient=True,
        ),
        ProviderType(name="azure", title="Azure OpenAI", operations=_AZURE),
        ProviderType(
            name="google",
            title="Google",
            operations=_GOOGLE,
            default_base_url="https://generativelanguage.googleapis.com/",
        ),
        ProviderType(name="openai-compat", title="OpenAI Compatible", operations=_OPENAI),
        ProviderType(
            name="openrouter",
            title="OpenRouter",
            operations=_OPENAI,
            default_base_url="https://openrouter.ai/api/v1/",
        ),
        ProviderType(
            name="vercel",
            title="Vercel AI Gateway",
            operations=_OPENAI,
            default_base_url="https://ai-gateway.vercel.sh/v1/",
        ),
    )
}

# Hosts that serve OpenAI's API with Azure's addressing and its api-key header.
_AZURE_HOSTS = (".openai.azure.com", ".services.ai.azure.com")


def wire_type(type_name: str, base_url: str, bedrock: BedrockOptions | None) -> str:
    """The type whose rules of addressing and authentication apply to a provider.

    The type itself, but `azure` for an openai provider whose host is one of Azure's, and `bedrock` for an
    anthropic provider that was given Bedrock options.
    """
    if type_name == "openai" and _host_of(base_url).endswith(_AZURE_HOSTS):
        return "azure"
    if type_name == "anthropic" and bedrock is not None:
        return "bedrock"
    return type_name


def _host_of(base_url: str) -> str:
    """The host of a base URL; empty for what is none, since this is asked before anybody has judged it."""
    try:
        return urlsplit(base_url).hostname or ""
    except ValueError:
        return ""


def wire_of(provider: Provider) -> str:
    """The wire type of a provider."""
    return wire_type(provider.type, provider.base_url, provider.bedrock)


def effective_base_url(type_name: str, base_url: str) -> str:
    """The configured base URL, or the type's default; empty where the region decides."""
    return base_url or CATALOG[type_name].default_base_url


def has_operation(wire: str, operation: str, bedrock: BedrockOptions | None = None) -> bool:
    """Whether providers of this wire type have the operation; with Bedrock's, its protocol decides."""
    if bedrock is not None and bedrock.protocol is BedrockProtocol.MANTLE:
        return operation in _MANTLE
    return operation in CATALOG[wire].operations


def shares_turns(one: Provider, other: Provider) -> bool:
    """Whether there is a turn of a conversation that both providers have."""
    return any(
        has_operation(wire_of(one), turn, one.bedrock) and has_operation(wire_of(other), turn, other.bedrock)
        for turn in TURNS
    )


def policy_with_defaults(
    type_name: str,
    *,
    central_key_enabled: bool | None = None,
    user_keys_allowed: bool | None = None,
    central_key_fallback: bool | None = None,
) -> KeyPolicy:
    """The given flags, the type's defaults for those that were not given."""
    policy = CATALOG[type_name].default_policy
    given = {
        "central_key_enabled": central_key_enabled,
        "user_keys_allowed": user_keys_allowed,
        "central_key_fallback": central_key_fallback,
    }
    return replace(policy, **{name: value for name, value in given.items() if value is not None})
