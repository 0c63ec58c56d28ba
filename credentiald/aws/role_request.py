"""What AssumeRole is asked for. Decisions only.

Sources: AWS STS, "API Reference", AssumeRole; IAM, "Session tags".
"""

import re
from hashlib import sha256
from typing import Any

from credentiald.model import BedrockOptions

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_+=,.@-]")
_NOT_IN_TAGS = re.compile(r"[^\w .:/=+@-]", re.ASCII)
_MIN_NAME = 2
_MAX_NAME = 64
_MAX_TAG = 256
# Pads names that are too short for AWS.
_PAD = "-drawbridge"


def session_name(username: str) -> str:
    """The user's name in AWS's alphabet and length: `[\\w+=,.@-]{2,64}`. CloudTrail shows it.

    A name that is too long ends in a mark of its own, so that no two users look the same.
    """
    name = _NOT_IN_NAMES.sub("-", username)
    if len(name) > _MAX_NAME:
        mark = sha256(username.encode()).hexdigest()[:8]
        return f"{name[: _MAX_NAME - 1 - len(mark)]}-{mark}"
    return name if len(name) >= _MIN_NAME else (name or "user") + _PAD


def assume_role_arguments(options: BedrockOptions, *, username: str, provider: str) -> dict[str, Any]:
    """The keyword arguments of `assume_role`; what is not set is left to AWS."""
    arguments: dict[str, Any] = {"RoleArn": options.role_arn, "RoleSessionName": session_name(username)}
    if options.external_id:
        arguments["ExternalId"] = options.external_id
    if options.role_duration_seconds:
        arguments["DurationSeconds"] = options.role_duration_seconds
    if options.session_policy:
        arguments["Policy"] = options.session_policy
    if options.set_source_identity:
        arguments["SourceIdentity"] = session_name(username)
    if options.session_tags:
        arguments["Tags"] = [
            {"Key": key, "Value": _NOT_IN_TAGS.sub("-", value)[:_MAX_TAG]}
            for key, value in (("drawbridge:user", username), ("drawbridge:provider", provider))
        ]
    return arguments
