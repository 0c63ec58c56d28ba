"""The two questions to AWS STS. They run in a worker thread and block, within the limits of `client_settings`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from credentiald.aws.chain import client_settings
from credentiald.aws.failures import denies_credential, may_pass, words_of
from credentiald.aws.progress import AttemptFailed, Failed, Loaded, Progress
from credentiald.aws.quiet import new_session
from credentiald.aws.steps import IDENTITY, PROVIDER_ROLE
from credentiald.model import AwsKeyPairMaterial
from daemonkit.secret import Secret


def assume_role(source: AwsKeyPairMaterial, *, region: str, arguments: Mapping[str, Any], progress: Progress) -> Loaded:
    """The credential of the role. AttemptFailed says whether AWS refused for good or it may pass."""
    failed = None
    try:
        with progress.step(PROVIDER_ROLE) as report:
            given = _client(source, region).assume_role(**arguments)["Credentials"]
            loaded = Loaded(
                material=AwsKeyPairMaterial(
                    access_key_id=Secret(given["AccessKeyId"]),
                    secret_access_key=Secret(given["SecretAccessKey"]),
                    session_token=Secret(given["SessionToken"]),
                ),
                expire_time=given["Expiration"].astimezone(UTC),
            )
            report.answered()
    except Exception as error:
        failed = Failed(cause=words_of(error, PROVIDER_ROLE), may_pass=may_pass(error))
    if failed is not None:
        raise AttemptFailed(failed)
    return loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerIdentity:
    """Who AWS says that a credential is."""

    account: str
    arn: str


def caller_identity(credential: AwsKeyPairMaterial, *, region: str, progress: Progress) -> CallerIdentity | None:
    """Who the credential is; None where AWS does not say, which the steps tell. Needs no right of its own.

    AttemptFailed where AWS says that it is no credential.
    """
    denied = None
    try:
        with progress.step(IDENTITY) as report:
            answer = _client(credential, region).get_caller_identity()
            found = CallerIdentity(account=str(answer["Account"]), arn=str(answer["Arn"]))
            report.answered()
            return found
    except Exception as error:
        if denies_credential(error):
            denied = Failed(cause=words_of(error, IDENTITY), may_pass=False)
    if denied is not None:
        raise AttemptFailed(denied)
    return None


def _client(credential: AwsKeyPairMaterial, region: str) -> Any:
    """A client of its own for each question: nothing of one provider is there for another."""
    session = new_session()
    token = credential.session_token
    return session.create_client(
        "sts",
        region_name=region,
        config=client_settings(),
        aws_access_key_id=credential.access_key_id.reveal(),
        aws_secret_access_key=credential.secret_access_key.reveal(),
        aws_session_token=token.reveal() if token else None,
    )
