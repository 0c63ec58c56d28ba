"""What administrators change, in the log."""

import logging

from credentiald.rpc.guard import current_caller

log = logging.getLogger("credentiald.admin")


def caller_name() -> str:
    """Who calls: a username, or the name of a service."""
    caller = current_caller()
    return caller.user.username if caller.user else (caller.service.name if caller.service else "")


def log_change(change: str, provider: str, **more: str) -> None:
    """One change that was made at a provider."""
    log.info(change, extra={"provider": provider, **more, "caller": caller_name()})
