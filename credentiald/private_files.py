"""Small files with a secret in them: only their owner may read them, and a crash leaves none half-written."""

import os
import stat
from pathlib import Path

from daemonkit.secret import Secret

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def find(path: Path) -> Secret | None:
    """What the file holds, or None if there is none. OSError, and ValueError if it is not text."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return Secret(content.decode("utf-8"))
    except UnicodeDecodeError:
        # The exception carries the content with it, so it is not chained.
        raise ValueError("it is not text") from None


def is_open_to_others(path: Path) -> bool:
    """Whether the group or everybody may read or change the file."""
    return bool(path.stat().st_mode & _OTHERS)


def write(path: Path, content: Secret) -> None:
    """Put the file there, whole and on the disk, or not at all. One process at a time may write one path."""
    unfinished = path.with_name(f".{path.name}.new")
    # A crash may have left one; O_EXCL then makes sure that the file is ours and private from its first byte.
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content.reveal().encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync_folder(path.parent)


def touch(path: Path) -> None:
    """Make sure that the file exists; a new one is empty and private."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in the folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
