"""botocore, loaded so that it logs nothing, and read once.

At debug level botocore logs bodies of answers, headers and canonical requests, and its warnings carry exceptions that
may hold what a credential process printed. What it has to say, our own log and `providers check` say in our own words.

Sessions share the data that botocore brings with it (models of services, endpoints), and nothing else. To read them
takes 50 ms of the interpreter's time: with a role and some hundred users, requests to all providers stood still.
"""

import functools
import logging
from typing import Any

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


def new_session() -> Any:
    """A session of botocore, which is silenced before it is imported. Nothing is in it that another session had."""
    silence()
    import botocore.session

    silence()
    session = botocore.session.Session()
    session.register_component("data_loader", published_data())
    return session


@functools.cache
def published_data() -> Any:
    """botocore's loader of its own data, which are the same for everybody."""
    from botocore.loaders import create_loader

    return create_loader()
