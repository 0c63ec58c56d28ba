"""The steps by which a credential is looked for, and how they are told. Decisions only; no secret comes in here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

# What each step is: botocore's names, then ours.
MEANINGS = {
    "env": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "assume-role": "a profile with role_arn and a source",
    "assume-role-with-web-identity": "AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN (EKS)",
    "sso": "a profile of IAM Identity Center",
    "shared-credentials-file": "~/.aws/credentials",
    "login": "a profile of 'aws login'",
    "custom-process": "credential_process of the profile",
    "config-file": "~/.aws/config",
    "ec2-credentials-file": "AWS_CREDENTIAL_FILE",
    "boto-config": "/etc/boto.cfg, ~/.boto",
    "container-role": "the container endpoint (ECS, EKS Pod Identity)",
    "iam-role": "the metadata service of EC2",
    "profile": "the AWS profile",
    "key-pair": "the provider's own access key pair",
    "provider-role": "the provider's role",
    "identity": "sts:GetCallerIdentity",
}
PROVIDER_ROLE = "provider-role"
KEY_PAIR = "key-pair"
IDENTITY = "identity"
_GIVE_IT_SOME = "give the machine of credentiald a role or credentials, or store a key"


class Outcome(StrEnum):
    """How a step went."""

    ANSWERED = "ANSWERED"
    NOTHING = "NOTHING"
    FAILED = "FAILED"
    RUNNING = "RUNNING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step, in words that hold no secret. `seconds` is how long it took, or has taken so far."""

    name: str
    outcome: Outcome
    detail: str = ""
    seconds: float = 0.0


def told(steps: Sequence[Step]) -> str:
    """The steps in one line, what happened first: `container-role: no answer in time (9.0 s); nothing from env, …`."""
    happened = [
        f"{step.name}: {step.detail or step.outcome.value.lower()} ({step.seconds:.1f} s)"
        for step in steps
        if step.outcome is not Outcome.NOTHING or step.detail
    ]
    empty = [step.name for step in steps if step.outcome is Outcome.NOTHING and not step.detail]
    parts = [*happened, *([f"nothing from {', '.join(empty)}"] if empty else [])]
    if steps and all(step.outcome is Outcome.NOTHING for step in steps):
        parts.append(_GIVE_IT_SOME)
    return "; ".join(parts) or "none"


def as_failed(steps: Sequence[Step], detail: str) -> tuple[Step, ...]:
    """The steps of an attempt whose answer turned out to be no good."""
    return tuple(
        replace(step, outcome=Outcome.FAILED, detail=detail) if step.outcome is Outcome.ANSWERED else step
        for step in steps
    )


def answered_by(steps: Sequence[Step]) -> str:
    """The name of the step that gave the credential, empty where none did."""
    names = [step.name for step in steps if step.outcome is Outcome.ANSWERED]
    return names[-1] if names else ""
