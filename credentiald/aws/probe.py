"""A credential fetched now, for an administrator who wants to know: every step, its time, and who AWS says it is.

Nothing of it is kept, and nothing that is kept answers for it.
"""

from dataclasses import dataclass
from datetime import datetime

from credentiald.aws.progress import AttemptFailed, Failed, Progress
from credentiald.aws.role_request import assume_role_arguments
from credentiald.aws.steps import KEY_PAIR, Outcome, Step
from credentiald.model import AwsKeyPairMaterial, BedrockOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What came of it. `failed` is None where there is a credential; account and ARN may be unknown all the same.

    `denied` is AWS's word that the credential is none of its own, empty where it did not say so.
    """

    failed: Failed | None = None
    failed_at_role: bool = False
    denied: str = ""
    expire_time: datetime | None = None
    account: str = ""
    arn: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What is probed: a pair, or (None) the ambient chain, with the provider's role if it has one."""

    provider: str
    options: BedrockOptions
    region: str
    username: str
    pair: AwsKeyPairMaterial | None = None


def run(probe: Probe, progress: Progress) -> Probed:
    """Blocks; for a worker thread."""
    from credentiald.aws.chain import load_ambient
    from credentiald.aws.sts import assume_role, caller_identity

    at_role = False
    expire_time: datetime | None = None
    try:
        if probe.pair is not None:
            progress.add(Step(name=KEY_PAIR, outcome=Outcome.ANSWERED))
            material = probe.pair
        else:
            loaded = load_ambient(probe.region, progress)
            material, expire_time = loaded.material, loaded.expire_time
        if probe.options.role_arn:
            at_role = True
            arguments = assume_role_arguments(probe.options, username=probe.username, provider=probe.provider)
            loaded = assume_role(material, region=probe.region, arguments=arguments, progress=progress)
            material, expire_time = loaded.material, loaded.expire_time
    except AttemptFailed as error:
        return Probed(failed=error.failed, failed_at_role=at_role)
    try:
        identity = caller_identity(material, region=probe.region, progress=progress)
    except AttemptFailed as error:
        return Probed(expire_time=expire_time, denied=error.failed.cause)
    if identity is None:
        return Probed(expire_time=expire_time)
    return Probed(expire_time=expire_time, account=identity.account, arn=identity.arn)
