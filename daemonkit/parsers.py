"""From the text of a setting to its value. Each parser raises ValueError with a sentence for the operator."""

import logging
import re
from collections.abc import Callable

from daemonkit.secret import Secret

_BOOLEANS = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}
_SIZE = re.compile(r"(?P<count>[0-9]{1,15})\s*(?P<unit>B|KiB|MiB|GiB)?")
_UNIT_BYTES = {None: 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_MOST_WORKERS = 256
_COUNT_DIGITS = 6
_MOST_COUNT = 1_000_000
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def parse_text(text: str) -> str:
    """The text without white space around it."""
    return text.strip()


def parse_secret(text: str) -> Secret | None:
    """The secret as it stands; None for nothing but white space."""
    secret = Secret(text)
    return None if secret.is_blank() else secret


def parse_boolean(text: str) -> bool:
    """`true`, `1`, `yes`, `on` and their opposites, in any case."""
    try:
        return _BOOLEANS[text.strip().lower()]
    except KeyError:
        raise ValueError(f"{text!r} is not a switch: write true or false") from None


def parse_size_bytes(text: str) -> int:
    """Bytes, from `1048576`, `64KiB`, `32MiB` or `1GiB`; at least one."""
    found = _SIZE.fullmatch(text.strip())
    size_bytes = int(found["count"]) * _UNIT_BYTES[found["unit"]] if found else 0
    if not size_bytes:
        raise ValueError(f"{text!r} is not a size: write for example 1048576, 64KiB or 32MiB")
    return size_bytes


def parse_positive_count(text: str) -> int:
    """A number from 1 to 999,999."""
    trimmed = text.strip()
    count = int(trimmed) if trimmed.isascii() and trimmed.isdigit() and len(trimmed) <= _COUNT_DIGITS else 0
    if not count:
        raise ValueError(f"{text!r} is not possible: write a number from 1 to {10**_COUNT_DIGITS - 1}")
    return count


def parse_workers(text: str) -> int:
    """How many workers: from 1 to 256."""
    trimmed = text.strip()
    count = int(trimmed) if trimmed.isascii() and trimmed.isdigit() and len(trimmed) <= 3 else 0
    if not 1 <= count <= _MOST_WORKERS:
        raise ValueError(f"{text!r} is not a number of workers: write 1 to {_MOST_WORKERS}")
    return count


def parse_count(text: str) -> int:
    """How many: from 0 to 1,000,000."""
    trimmed = text.strip()
    count = int(trimmed) if trimmed.isascii() and trimmed.isdigit() and len(trimmed) <= 7 else -1
    if not 0 <= count <= _MOST_COUNT:
        raise ValueError(f"{text!r} is not possible: write a whole number from 0 to {_MOST_COUNT}")
    return count


def parse_log_level(text: str) -> int:
    """The number that `logging` has for `debug`, `info`, `warning` or `error`."""
    try:
        return _LEVELS[text.strip().lower()]
    except KeyError:
        raise ValueError(f"{text!r} is not a log level: write one of {', '.join(_LEVELS)}") from None


def parse_choice(*choices: str) -> Callable[[str], str]:
    """A parser for one of a few words, in any case."""

    def parse(text: str) -> str:
        word = text.strip().lower()
        if word not in choices:
            raise ValueError(f"{text!r} is not possible: write one of {', '.join(choices)}")
        return word

    return parse
