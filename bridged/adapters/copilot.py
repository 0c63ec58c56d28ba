"""GitHub Copilot: paths without a version, and the client's own Authorization."""

from bridged.adapters.destination import Base
from bridged.routes import RouteMatch


def path(match: RouteMatch, base: Base) -> str:
    """`/X`, and `/v1/X` just so, is base + `/X`."""
    return f"{base.path}/{match.path.removeprefix('/v1/').removeprefix('/')}"
