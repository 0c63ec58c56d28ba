"""Field masks of UpdateProvider: which fields a request changes, one row a path.

A path that is none of ours is refused by name, so that a typo never turns into "nothing changed" (AIP-134).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from drawbridge.v1 import provider_pb2
from google.protobuf.message import Message as ProtoMessage

from credentiald.catalog import CATALOG
from credentiald.errors import InvalidArgument
from credentiald.model import BedrockOptions, KeyPolicy, Provider
from credentiald.rpc.codec import bedrock_options, timeouts
from credentiald.timeout_rules import TIMEOUT_FIELDS

Message = provider_pb2.Provider
Edit = Callable[[Provider, Message], Provider]


def present_fields(message: ProtoMessage) -> dict[str, Any]:
    """The fields that a message really has, by name."""
    return {descriptor.name: value for descriptor, value in message.ListFields()}


def _policy_flag(field: str) -> Edit:
    def edit(stored: Provider, message: Message) -> Provider:
        given = present_fields(message.key_policy).get(field)
        default = getattr(CATALOG[stored.type].default_policy, field)
        return replace(stored, policy=replace(stored.policy, **{field: default if given is None else given}))

    return edit


def _bedrock_field(field: str) -> Edit:
    def edit(stored: Provider, message: Message) -> Provider:
        options = stored.bedrock or BedrockOptions()
        return replace(stored, bedrock=replace(options, **{field: getattr(bedrock_options(message.bedrock), field)}))

    return edit


def _timeout(field: str) -> Edit:
    def edit(stored: Provider, message: Message) -> Provider:
        given = getattr(timeouts(message.timeouts), field)
        return replace(stored, timeouts=replace(stored.timeouts, **{field: given}))

    return edit


_FLAGS = tuple(field for field in KeyPolicy.__slots__)
_OPTIONS = tuple(field for field in BedrockOptions.__slots__)

_EDITS: dict[str, Edit] = {
    "display_name": lambda stored, message: replace(stored, display_name=message.display_name),
    "base_url": lambda stored, message: replace(stored, base_url=message.base_url),
    "enabled": lambda stored, message: replace(
        stored, enabled=message.enabled if message.HasField("enabled") else True
    ),
    "bedrock": lambda stored, message: replace(stored, bedrock=bedrock_options(message.bedrock)),
    "send_actor_headers": lambda stored, message: replace(
        stored, send_actor_headers=message.send_actor_headers if message.HasField("send_actor_headers") else None
    ),
    "fallback_provider": lambda stored, message: replace(stored, fallback_provider=message.fallback_provider),
    "timeouts": lambda stored, message: replace(stored, timeouts=timeouts(message.timeouts)),
    **{f"timeouts.{field}": _timeout(field) for field in TIMEOUT_FIELDS},
    **{f"key_policy.{field}": _policy_flag(field) for field in _FLAGS},
    **{f"bedrock.{field}": _bedrock_field(field) for field in _OPTIONS},
}


def edit_of(message: Message, paths: list[str]) -> Callable[[Provider], Provider]:
    """What an update does to the stored provider. `key_policy` stands for its three flags."""
    expanded: list[str] = []
    for path in paths:
        expanded += [f"key_policy.{field}" for field in _FLAGS] if path == "key_policy" else [path]
    for path in expanded:
        if path not in _EDITS:
            raise InvalidArgument(field="update_mask", problem=f"'{path}' cannot be updated")

    def edit(stored: Provider) -> Provider:
        for path in expanded:
            stored = _EDITS[path](stored, message)
        return stored

    return edit
