"""The one version string: of the distribution, for --version, logs, metrics and Ping."""

from functools import cache


@cache
def version() -> str:
    """The version of the installed distribution, `0+unknown` when run from a tree that was never installed."""
    # Imported late: reading metadata costs more than everything else that --help needs.
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    try:
        return version_of("drawbridge")
    except PackageNotFoundError:
        return "0+unknown"
