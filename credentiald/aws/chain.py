"""The ambient chain: botocore's, walked step by step. Runs in a worker thread; blocks.

botocore's own objects are asked once and thrown away: they would hand out nothing in the last ten minutes of a
credential whose source is down, and ask a source of short-lived ones at every use. What keeps credentials is supply.py.
Four of its ways are changed (`_adjust`): a credential_process may be killed, nobody is asked for a one-time code, the
metadata service's expiry is believed (botocore moves it ahead by up to 25 minutes), and nothing is logged. What is
configured by half or cannot be read is refused (overlooked.py), where botocore would go on to the next step.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from credentiald.aws.failures import HalfAPair, MfaNeeded, words_of
from credentiald.aws.killable import KillableProcess
from credentiald.aws.overlooked import refuse_overlooked, refuse_unreadable_files
from credentiald.aws.progress import AttemptFailed, Failed, Loaded, Progress
from credentiald.aws.quiet import new_session
from credentiald.aws.steps import Outcome, Step
from credentiald.model import AwsKeyPairMaterial
from daemonkit.secret import Secret

# Of every call that a step makes by HTTP through botocore's clients.
CONNECT_SECONDS = 2
READ_SECONDS = 3
TOTAL_ATTEMPTS = 2

_FIRST_OF_FILES = "assume-role"
_NO_METADATA = "the metadata service gives nothing: it does not answer, or this machine has no role"


def client_settings() -> Any:
    """botocore's Config with our time limits."""
    from botocore.config import Config

    return Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": TOTAL_ATTEMPTS, "mode": "standard"},
    )


def load_ambient(region: str, progress: Progress) -> Loaded:
    """What the first step that has something gives; AttemptFailed where a step fails or none has anything."""
    failed = None
    try:
        loaded = _walk(region, progress)
    except Exception as error:
        loaded, failed = None, Failed(cause=words_of(error), may_pass=True)
    if loaded is None:
        raise AttemptFailed(failed or Failed(cause="no step has anything", may_pass=True))
    return loaded


def _walk(region: str, progress: Progress) -> Loaded | None:
    session, providers = _providers(region, progress)
    for provider in providers:
        if provider.METHOD == _FIRST_OF_FILES:
            with _profile_trouble(progress):
                refuse_unreadable_files(session)
        with progress.step(provider.METHOD) as report:
            refuse_overlooked(provider.METHOD, session)
            found = provider.load()
            if found is None and provider.METHOD == "ec2-credentials-file" and os.environ.get("AWS_CREDENTIAL_FILE"):
                raise HalfAPair
            if found is not None:
                loaded = _taken(found)
                report.answered()
                return loaded
            if provider.METHOD == "iam-role" and not _metadata_is_off():
                report.detail = _NO_METADATA
    return None


@contextmanager
def _profile_trouble(progress: Progress) -> Iterator[None]:
    """An exception in the block is told as one of the profile, and goes on."""
    try:
        yield
    except Exception as error:
        progress.add(Step(name="profile", outcome=Outcome.FAILED, detail=words_of(error, "profile")))
        raise


def _providers(region: str, progress: Progress) -> tuple[Any, list[Any]]:
    """A session, and botocore's steps in botocore's order, adjusted."""
    from botocore.credentials import create_credential_resolver

    with _profile_trouble(progress):
        session = new_session()
        session.set_config_variable("region", region)
        session.set_default_client_config(client_settings())
        resolver = create_credential_resolver(session, region_name=region)
        _adjust(session, resolver, progress)
    return session, resolver.providers


def _adjust(session: Any, resolver: Any, progress: Progress) -> None:
    """Change what must not be as botocore does it; see above. The names are private to botocore: tests hold them."""
    from botocore.credentials import ProcessProvider, ProfileProviderBuilder

    start_process = partial(KillableProcess, progress)

    class Builder(ProfileProviderBuilder):
        """For source profiles, whose process is to be killable as well."""

        def _create_process_provider(self, profile_name: str) -> Any:
            return ProcessProvider(
                profile_name=profile_name, load_config=lambda: session.full_config, popen=start_process
            )

    def refuse_prompt(*_arguments: Any, **_more: Any) -> str:
        raise MfaNeeded

    resolver.get_provider("custom-process")._popen = start_process
    roles = resolver.get_provider("assume-role")
    roles._prompter = refuse_prompt
    roles._profile_provider_builder = Builder(session)
    resolver.get_provider("iam-role")._role_fetcher._evaluate_expiration = lambda credentials: None


def _taken(found: Any) -> Loaded:
    """The credential of a step with its true end, fetched now where the step put that off.

    botocore's public way (`get_frozen_credentials`) asks the source once more for whatever has less than 15 minutes.
    """
    frozen = getattr(found, "_frozen_credentials", None) or found.get_frozen_credentials()
    expire_time = getattr(found, "_expiry_time", None)
    if not (frozen.access_key or "").strip() or not (frozen.secret_key or "").strip():
        raise HalfAPair
    return Loaded(
        material=AwsKeyPairMaterial(
            access_key_id=Secret(frozen.access_key),
            secret_access_key=Secret(frozen.secret_key),
            session_token=Secret(frozen.token) if frozen.token else None,
        ),
        expire_time=_aware(expire_time),
    )


def _aware(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _metadata_is_off() -> bool:
    return os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
