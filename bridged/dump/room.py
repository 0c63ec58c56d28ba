"""How much of the disk dumps may take. Where there is no more room, the oldest go.

A dump is on because something is waited for that happens now and then, and is looked at when it has: what came last is
what is wanted. So the folder is a ring, like that of `tcpdump -W`. The folder itself is the list of what there is,
because workers share it, and files of earlier starts count as well.
"""

import errno
import heapq
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# How we name files (names.py, attempt_files.py). Nothing else is counted or removed.
_OURS = re.compile(r"(\d{1,16})-.*\.(?:req|resp|req_error)\.txt")
# What a file takes at least, and in what steps it grows.
_BLOCK_BYTES = 4096
# All writers together may fill this part of the room between two looks at the folder.
_PART_BETWEEN_LOOKS = 8
# How many files are remembered as the oldest, so that a look at a million takes no memory.
_MOST_REMEMBERED = 10_000
# The loop may have the interpreter after so many.
_FILES_A_TURN = 128

Removed = Callable[[int], None]


class _Found(NamedTuple):
    """One file, sorted by its age."""

    begin_milliseconds: int
    name: str
    folder: str
    provider: str
    size_bytes: int


class Room:
    """The part that one of several writers keeps of `most_bytes` on disk; they all write below the same folder.

    `removed` counts files, on the writing thread.
    """

    def __init__(self, most_bytes: int, *, writers: int = 1, removed: Removed = lambda count: None) -> None:
        self._between_looks_bytes = max(most_bytes // (_PART_BETWEEN_LOOKS * writers), 1)
        self._most_kept_bytes = max(most_bytes - writers * self._between_looks_bytes, 0)
        self._removed = removed
        # The first thing that is written asks what is there from before.
        self._left_bytes = 0

    def take_file(self, base: int) -> None:
        """A file is about to be made below the folder of this descriptor. OSError where there is no room."""
        self.take(base, _BLOCK_BYTES)

    def take(self, base: int, size_bytes: int) -> None:
        """So many bytes are about to be written there. OSError where there is no room."""
        if size_bytes > self._left_bytes:
            more_bytes = max(size_bytes - self._between_looks_bytes, 0)
            if more_bytes > self._most_kept_bytes:
                raise OSError(errno.EDQUOT, "it is larger than the room")
            self._make(base, self._most_kept_bytes - more_bytes)
            self._left_bytes = self._between_looks_bytes + more_bytes
        self._left_bytes -= size_bytes

    def _make(self, base: int, most_kept_bytes: int) -> None:
        too_much_bytes, oldest = self._looked(base, most_kept_bytes)
        while too_much_bytes > 0:
            gone_bytes = self._remove(base, oldest, too_much_bytes)
            if not gone_bytes:
                raise OSError(errno.EDQUOT, "the oldest files cannot be removed")
            too_much_bytes -= gone_bytes
            if too_much_bytes > 0:
                too_much_bytes, oldest = self._looked(base, most_kept_bytes)

    def _looked(self, base: int, most_kept_bytes: int) -> tuple[int, list[_Found]]:
        """How many bytes are too much, and the oldest files."""
        total_bytes = 0

        def counted() -> Iterator[_Found]:
            nonlocal total_bytes
            for number, file in enumerate(_files(base)):
                total_bytes += file.size_bytes
                if number % _FILES_A_TURN == 0:
                    time.sleep(0)
                yield file

        oldest = heapq.nsmallest(_MOST_REMEMBERED, counted())
        return total_bytes - most_kept_bytes, oldest

    def _remove(self, base: int, oldest: list[_Found], enough_bytes: int) -> int:
        """Remove until it is enough, or all of these; how many bytes are gone."""
        chosen_bytes, by_folder = 0, defaultdict[tuple[str, str], list[_Found]](list)
        for file in oldest:
            if chosen_bytes >= enough_bytes:
                break
            chosen_bytes += file.size_bytes
            by_folder[file.provider, file.folder].append(file)
        gone_bytes = 0
        for (provider, folder), files in by_folder.items():
            with suppress(OSError), _folder(base, provider) as above, _folder(above, folder) as inside:
                gone_bytes += self._remove_from(inside, files)
        return gone_bytes

    def _remove_from(self, folder: int, files: list[_Found]) -> int:
        gone_bytes = 0
        for file in files:
            time.sleep(0)
            try:
                os.unlink(file.name, dir_fd=folder)
            except FileNotFoundError:
                # Another writer was quicker, or somebody who needs no room.
                gone_bytes += file.size_bytes
            except OSError:
                continue
            else:
                gone_bytes += file.size_bytes
                self._removed(1)
        return gone_bytes


def _files(base: int) -> Iterator[_Found]:
    """All files of dumps below a folder. What cannot be looked at is not there."""
    for provider in _names_of_folders(base):
        with suppress(OSError), _folder(base, provider) as inside:
            for name in _names_of_folders(inside):
                with suppress(OSError), _folder(inside, name) as folder:
                    yield from _files_in(folder, provider, name)


def _files_in(folder: int, provider: str, name: str) -> Iterator[_Found]:
    with os.scandir(folder) as entries:
        for entry in entries:
            ours = _OURS.fullmatch(entry.name)
            if ours is None or not entry.is_file(follow_symlinks=False):
                continue
            with suppress(OSError):
                size_bytes = -(-entry.stat(follow_symlinks=False).st_size // _BLOCK_BYTES) * _BLOCK_BYTES
                yield _Found(int(ours[1]), entry.name, name, provider, max(size_bytes, _BLOCK_BYTES))


def _names_of_folders(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


@contextmanager
def _folder(above: int, name: str) -> Iterator[int]:
    """A folder of ours, without following a link. OSError."""
    descriptor = os.open(name, FOLDER_FLAGS, dir_fd=above)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "a folder of somebody else's is there")
        yield descriptor
    finally:
        os.close(descriptor)
