"""botocore, loaded so that it logs nothing.

At debug level botocore logs bodies of answers, headers and canonical requests, and its warnings carry exceptions that
may hold what a credential process printed. What it has to say, our own log and `providers check` say in our own words.
"""

import logging
from types import ModuleType

# urllib3 logs URLs; nothing else in credentiald uses it.
_LOGGERS = ("botocore", "boto3", "s3transfer", "urllib3")
_NOTHING = logging.CRITICAL + 1


def silence() -> None:
    """Make the libraries' loggers say nothing at any level. Harmless to repeat."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(_NOTHING)
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
        for child in list(logging.root.manager.loggerDict):
            if child.startswith(f"{name}."):
                logging.getLogger(child).setLevel(logging.NOTSET)


def botocore_session_module() -> ModuleType:
    """`botocore.session`, silenced before it is imported."""
    silence()
    import botocore.session

    silence()
    session: ModuleType = botocore.session
    return session
