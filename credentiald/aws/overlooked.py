"""What botocore passes over without a word, though it is configured: the next step of its chain is somebody else.

Half a pair without its id, a source without its role, a role without its token file, a file that is named and not
there, and one that must not be read. Each ends the search here. Runs in a worker thread; reads files.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from credentiald.aws.failures import HalfAPair, HalfARole

# botocore's name of the file, and the variable that names another one.
_FILES = {"config_file": "AWS_CONFIG_FILE", "credentials_file": "AWS_SHARED_CREDENTIALS_FILE"}
_TOKEN_FILE = "AWS_WEB_IDENTITY_TOKEN_FILE"  # noqa: S105 - the name of a variable


def refuse_unreadable_files(session: Any) -> None:
    """FileNotFoundError for a file that a variable names, PermissionError or another OSError for any; else nothing."""
    for name, variable in _FILES.items():
        path = Path(session.get_config_variable(name)).expanduser()
        if path.is_file() or (os.environ.get(variable) and not path.exists()):
            path.open("rb").close()


def refuse_overlooked(step: str, session: Any) -> None:
    """HalfAPair or HalfARole where this step has a part of what it needs, which botocore takes for nothing."""
    if step == "env":
        _refuse_half_a_pair(os.environ, str.upper)
    elif step in _PROFILE_CHECKS:
        _PROFILE_CHECKS[step](session.get_scoped_config())


def _refuse_half_a_pair(given: Mapping[str, str], name: Callable[[str], str]) -> None:
    parts = (given.get(name("aws_secret_access_key")), given.get(name("aws_session_token")))
    if any(parts) and not given.get(name("aws_access_key_id")):
        raise HalfAPair


def _refuse_a_source_without_role(profile: Mapping[str, Any]) -> None:
    if (profile.get("source_profile") or profile.get("credential_source")) and not profile.get("role_arn"):
        raise HalfARole


def _refuse_a_role_without_token(profile: Mapping[str, Any]) -> None:
    # A profile's role with another source has been assumed, or has failed, by now.
    token_file = os.environ.get(_TOKEN_FILE, profile.get("web_identity_token_file"))
    if (os.environ.get("AWS_ROLE_ARN") or profile.get("role_arn")) and not token_file:
        raise HalfARole


_PROFILE_CHECKS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "assume-role": _refuse_a_source_without_role,
    "assume-role-with-web-identity": _refuse_a_role_without_token,
    "shared-credentials-file": lambda profile: _refuse_half_a_pair(profile, str.lower),
}
