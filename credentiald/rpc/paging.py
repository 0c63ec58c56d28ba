"""Pages of a list: how many, where the next begins, and a token that nobody but us can read or make.

A page token is the sealed pair of sort key and filter (AES-256-GCM), so it cannot be forged, tells nothing, and is
refused for a list with another filter.
"""

import json
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from typing import TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from credentiald.errors import InvalidArgument

DEFAULT_SIZE = 100
MAX_SIZE = 1000
_NONCE_BYTES = 12

T = TypeVar("T")


class Pages:
    """Makes and reads page tokens with one key (32 bytes)."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def after(self, token: str, list_filter: str) -> str:
        """The sort key that the page begins behind, empty for the first page."""
        if not token:
            return ""
        try:
            raw = urlsafe_b64decode(token.encode("ascii"))
            after, made_for = json.loads(self._aead.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], None))
        except (InvalidTag, ValueError, Base64Error) as error:
            raise InvalidArgument(field="page_token", problem="was not made by this list") from error
        if made_for != list_filter:
            raise InvalidArgument(field="page_token", problem="was made for another list or filter")
        return str(after)

    def cut(
        self, found: Sequence[T], size: int, list_filter: str, sort_key: Callable[[T], str]
    ) -> tuple[Sequence[T], str]:
        """The page, of `size` items, and the token of the next one; `found` holds one item more if there is one."""
        if len(found) <= size:
            return found, ""
        page = found[:size]
        return page, self.token(sort_key(page[-1]), list_filter)

    def token(self, after: str, list_filter: str) -> str:
        """The token of the page that begins behind the sort key `after`."""
        nonce = os.urandom(_NONCE_BYTES)
        body = json.dumps([after, list_filter]).encode()
        return urlsafe_b64encode(nonce + self._aead.encrypt(nonce, body, None)).decode("ascii")


def size_of(requested: int, most: int = MAX_SIZE) -> int:
    """How many items a page has: 0 asks for the default, and there is a limit (AIP-158)."""
    if requested < 0:
        raise InvalidArgument(field="page_size", problem="must not be negative")
    return min(requested or DEFAULT_SIZE, most)
