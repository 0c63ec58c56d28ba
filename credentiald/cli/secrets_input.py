"""Keys on their way in: typed at a prompt without echo, or piped in. Never from an argument or a variable."""

import sys

import click

from credentiald.cli.errors import Refused
from credentiald.model import MAX_KEY_BYTES
from daemonkit.secret import Secret

_LINE_END_BYTES = len(b"\r\n")
_PAIR_PARTS = ("AWS access key id", "AWS secret access key", "AWS session token")


def read_key(what: str = "key") -> Secret:
    """One key: all of stdin without its one trailing newline, or what is typed at a prompt.

    Refused where there is nothing but white space, where it is larger than 10240 bytes, and where it is not UTF-8.
    """
    text = _typed(what) if _at_a_terminal() else _piped(what, limit_bytes=MAX_KEY_BYTES)
    return _checked(text, what)


def read_access_key() -> tuple[Secret, Secret, Secret | None]:
    """An AWS access key: id, secret and perhaps a session token, a line each on stdin or three prompts."""
    if _at_a_terminal():
        lines = [_typed(part) for part in _PAIR_PARTS]  # the last may stay empty
    else:
        limit_bytes = len(_PAIR_PARTS) * (MAX_KEY_BYTES + _LINE_END_BYTES)
        lines = _piped("AWS access key", limit_bytes=limit_bytes).split("\n")
    if len(lines) not in (2, 3):
        raise Refused(
            f"an AWS access key is two or three lines on stdin (id, secret, session token), not {len(lines)}",
            reason="INVALID_ARGUMENT",
        )
    access_key_id, secret, *rest = [line.removesuffix("\r") for line in lines]
    return (
        _checked(access_key_id, _PAIR_PARTS[0]),
        _checked(secret, _PAIR_PARTS[1]),
        _checked(rest[0], _PAIR_PARTS[2]) if rest and rest[0] else None,
    )


def _at_a_terminal() -> bool:
    return sys.stdin.isatty()


def _typed(what: str) -> str:
    return str(click.prompt(what, hide_input=True, default="", show_default=False, err=True))


def _piped(what: str, *, limit_bytes: int) -> str:
    """Stdin without one trailing newline. Never reads more than shows that it is too much."""
    raw = sys.stdin.buffer.read(limit_bytes + _LINE_END_BYTES + 1)
    raw = raw.removesuffix(b"\r\n") if raw.endswith(b"\r\n") else raw.removesuffix(b"\n")
    if len(raw) > limit_bytes:
        raise _too_large(what)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        # Without a cause: the exception carries the bytes.
        raise Refused(f"the {what} is not UTF-8 text", reason="INVALID_ARGUMENT") from None


def _checked(text: str, what: str) -> Secret:
    secret = Secret(text)
    if secret.is_blank():
        raise Refused(f"the {what} is empty: type it at the prompt, or pipe it in", reason="KEY_REQUIRED")
    if secret.size_bytes() > MAX_KEY_BYTES:
        raise _too_large(what)
    return secret


def _too_large(what: str) -> Refused:
    return Refused(f"the {what} is too large: at most {MAX_KEY_BYTES} bytes", reason="KEY_TOO_LARGE")
