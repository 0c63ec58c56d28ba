"""What an administrator may save as a provider. Decisions only.

Drafts are whole providers: a create fills in defaults first, an update applies its mask to what is stored first. So
one function judges both.
"""

from collections.abc import Collection
from dataclasses import replace

from credentiald.bedrock_rules import option_problems
from credentiald.catalog import CATALOG, wire_of
from credentiald.errors import InvalidArgument, InvalidKeyPolicy, InvalidName, KeyRequired, UpstreamNotAllowed
from credentiald.key_rules import checked_material
from credentiald.model import BedrockOptions, KeyKind, Material, Provider, kind_of
from credentiald.policy import is_valid
from credentiald.timeout_rules import timeout_problems
from credentiald.validation import base_url_problem, destination_problem, name_problem

_MAX_DISPLAY_NAME = 128


def check_new_name(name: str) -> None:
    """Refuse a name that cannot be part of a client's URL, or is reserved."""
    problem = name_problem(name)
    if problem is not None:
        raise InvalidName(name=name, rule=problem)


def check_type(type_name: str) -> None:
    """Refuse a type that the catalogue does not have."""
    if type_name not in CATALOG:
        raise InvalidArgument(field="provider.type", problem=f"must be one of {', '.join(CATALOG)}")


def check_provider(provider: Provider, *, has_central_key: bool) -> None:
    """Refuse what must not be saved: policy, key, base URL and options, looked at in this order.

    `has_central_key` says whether a central key will be stored once the change is made.
    """
    if not is_valid(provider.policy):
        raise InvalidKeyPolicy(provider=provider.name)
    ambient = CATALOG[wire_of(provider)].allows_ambient
    if provider.policy.central_key_enabled and not has_central_key and not ambient:
        raise KeyRequired(provider=provider.name)
    _check_base_url(provider)
    _check_text("provider.display_name", provider.display_name, _MAX_DISPLAY_NAME)
    _check_bedrock(provider)
    problem = fallback_problem(provider)
    if problem is not None:
        raise InvalidArgument(field="provider.fallback_provider", problem=problem)
    for field, problem in timeout_problems(provider.timeouts):
        raise InvalidArgument(field=f"provider.timeouts.{field}", problem=problem)


def fallback_problem(provider: Provider) -> str | None:
    """What is wrong with the name of the fallback provider."""
    name = provider.fallback_provider
    if not name:
        return None
    return "is the provider itself" if name == provider.name else name_problem(name)


def _check_base_url(provider: Provider) -> None:
    if not provider.base_url:
        if CATALOG[provider.type].base_url_required:
            raise InvalidArgument(
                field="provider.base_url", problem=f"is required for a provider of type {provider.type}"
            )
        return
    problem = base_url_problem(provider.base_url)
    if problem is not None:
        raise InvalidArgument(field="provider.base_url", problem=problem)
    problem = destination_problem(provider.base_url)
    if problem is not None:
        raise UpstreamNotAllowed(base_url=provider.base_url, problem=problem)


def _check_bedrock(provider: Provider) -> None:
    options = provider.bedrock
    if provider.type != "bedrock":
        if options is not None:
            raise InvalidArgument(
                field="provider.bedrock", problem=f"is for type bedrock only, not for {provider.type}"
            )
        return
    if options is None:
        return
    for field, problem in option_problems(options):
        raise InvalidArgument(field=f"provider.bedrock.{field}", problem=problem)


def _check_text(field: str, text: str, limit: int) -> None:
    if len(text) > limit:
        raise InvalidArgument(field=field, problem=f"is longer than {limit} characters")
    if not text.isprintable():
        raise InvalidArgument(field=field, problem="has characters that cannot be printed")


def check_role(provider: Provider, kinds: Collection[KeyKind]) -> None:
    """Refuse a role that would not be assumed. `kinds` are those of the central keys once the change is made."""
    options = provider.bedrock or BedrockOptions()
    if options.role_arn and KeyKind.API_KEY in kinds:
        raise InvalidArgument(
            field="provider.bedrock.role_arn", problem="does not go with a bearer token, which is an identity already"
        )


def checked_central_key(provider: Provider, material: Material) -> Material:
    """The key as it is stored, or a refusal: not every type takes one, or this kind of one."""
    kinds = CATALOG[provider.type].central_key_kinds
    if kind_of(material) not in kinds:
        wanted = " or ".join(sorted(_KIND_WORDS[kind] for kind in kinds)) or "no central key"
        raise InvalidArgument(field="central_key", problem=f"a provider of type {provider.type} takes {wanted}")
    if not provider.policy.central_key_enabled:
        raise InvalidArgument(field="central_key", problem="the provider's central key is off: turn it on as well")
    return checked_material(material, provider=provider.name)


_KIND_WORDS = {KeyKind.API_KEY: "an API key", KeyKind.AWS_ACCESS_KEY_PAIR: "an AWS access key pair"}


def normalised(provider: Provider) -> Provider:
    """The draft as it is stored: a bedrock provider always has options; for others an empty set of them is none."""
    options = provider.bedrock or BedrockOptions()
    kept = options if provider.type == "bedrock" or options != BedrockOptions() else None
    return replace(provider, bedrock=kept, display_name=provider.display_name.strip())
