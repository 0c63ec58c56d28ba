"""Tokens that we issue: `dbu_` or `dbs_`, 43 random base-62 characters, 6 of checksum.

The prefix lets secret scanners recognise them; the checksum lets them, and us, drop what is none without a look
into the store. 43 characters of 62 are 256 bits, so a plain hash is enough to store them: there is nothing to guess.
"""

import hashlib
import re
import secrets
import string
import zlib

from daemonkit.secret import Secret

USER_PREFIX = "dbu_"
SERVICE_PREFIX = "dbs_"

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_BODY_CHARACTERS = 43
_CHECKSUM_CHARACTERS = 6
_TOKEN = re.compile(rf"(?P<rest>(?P<prefix>db[us]_)[0-9A-Za-z]{{{_BODY_CHARACTERS}}})(?P<checksum>[0-9A-Za-z]{{6}})")


def mint(prefix: str) -> Secret:
    """A new token. It exists only in what this returns: store `hash_of` it and show it once."""
    if prefix not in (USER_PREFIX, SERVICE_PREFIX):
        raise ValueError("the prefix of a token is that of users or of services")
    rest = prefix + "".join(secrets.choice(_ALPHABET) for _ in range(_BODY_CHARACTERS))
    return Secret(rest + _checksum(rest))


def hash_of(token: str) -> bytes:
    """SHA-256 of the token: what the store keeps and looks up. Any text has one."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def prefix_of(token: str) -> str | None:
    """The prefix of a well-formed token with a right checksum, None for any other text."""
    match = _TOKEN.fullmatch(token)
    if match is None or match["checksum"] != _checksum(match["rest"]):
        return None
    return match["prefix"]


def _checksum(rest: str) -> str:
    """CRC-32 of the rest of the token in base 62, zeros on the left. It finds typing errors; it proves nothing."""
    number = zlib.crc32(rest.encode("ascii"))
    characters = []
    for _ in range(_CHECKSUM_CHARACTERS):
        number, digit = divmod(number, len(_ALPHABET))
        characters.append(_ALPHABET[digit])
    return "".join(reversed(characters))
