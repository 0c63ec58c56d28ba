"""A query string as it was sent: looked into, and cut, without re-encoding a byte.

A query here is the raw text from the `?` on, the `?` included; empty where the target had none. So path and query
joined are the target again.
"""

from urllib.parse import unquote


def values_of(query: str, name: str) -> list[str]:
    """The decoded values of every parameter of this name, however the name is percent-encoded."""
    return [unquote(value) for key, _, value in (part.partition("=") for part in _parts(query)) if unquote(key) == name]


def without(query: str, name: str) -> str:
    """The query without the parameters of this name; the bytes of all others stay as they are."""
    parts = _parts(query)
    kept = [part for part in parts if unquote(part.partition("=")[0]) != name]
    if len(kept) == len(parts):
        return query
    return "?" + "&".join(kept) if kept else ""


def _parts(query: str) -> list[str]:
    return query[1:].split("&")
