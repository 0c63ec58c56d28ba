"""The one version string: logs, gRPC metadata, `--version`."""

from functools import cache


@cache
def version() -> str:
    """The version of the installed distribution; `0+unknown` in a source tree that was never installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed_version

    try:
        return installed_version("drawbridge")
    except PackageNotFoundError:
        return "0+unknown"
