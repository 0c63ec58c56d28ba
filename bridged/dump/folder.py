"""Files that only their owner may read, in folders that only their owner may enter, below one folder and nowhere else.

Each step down is by a descriptor of the folder above, and no step follows a link. A file is made, never opened as it is
there; it may be closed and opened again, because there may be more answers under way than files may be open. One that
was removed gets nothing more, so that no disk is filled by what nobody sees.
"""

import errno
import os
from collections import OrderedDict
from contextlib import suppress

from bridged.dump.names import Place
from bridged.dump.room import FOLDER_FLAGS, Room

_FOLDER_MODE, _FILE_MODE = 0o700, 0o600
_FILE_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
# The rest of the descriptors is for connections.
_MOST_OPEN = 64


class DumpFile:
    """One file of ours. `size_bytes` is what was written."""

    __slots__ = ("_folder", "_identity", "_name", "_place", "size_bytes")

    def __init__(self, folder: "DumpFolder", place: Place, name: str, identity: tuple[int, int]) -> None:
        self._folder = folder
        self._place = place
        self._name = name
        self._identity = identity
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        """Append all of it. OSError."""
        descriptor = self._folder.descriptor_for(self, len(data))
        view = memoryview(data)
        while view:
            written = os.write(descriptor, view)
            self.size_bytes += written
            view = view[written:]

    def close(self) -> None:
        """Nothing more comes."""
        self._folder.forget(self)

    def reopened(self) -> int:
        """A descriptor of the file that was made here. OSError where there is another in its place."""
        descriptor = self._folder.opened(self._place, self._name, _FILE_FLAGS)
        if _identity(descriptor) != self._identity:
            os.close(descriptor)
            raise OSError(errno.ESTALE, "another file is in its place")
        return descriptor


class DumpFolder:
    """The folder of all dumps. Made if it is not there. OSError where it cannot be used."""

    def __init__(self, path: str, room: Room) -> None:
        self.path = path
        self._room = room
        os.makedirs(path, mode=_FOLDER_MODE, exist_ok=True)
        self._base = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: OrderedDict[DumpFile, int] = OrderedDict()
        if not os.access(path, os.W_OK | os.X_OK):
            os.close(self._base)
            raise PermissionError(errno.EACCES, "it cannot be written to")
        self.is_open_to_others = bool(os.fstat(self._base).st_mode & 0o077)

    def new_file(self, place: Place, ending: str) -> DumpFile:
        """A file that was not there. OSError."""
        name = f"{place.stem}{ending}"
        self._room.take_file(self._base)
        descriptor = self.opened(place, name, _FILE_FLAGS | os.O_CREAT | os.O_EXCL)
        file = DumpFile(self, place, name, _identity(descriptor))
        self._keep(file, descriptor)
        return file

    def opened(self, place: Place, name: str, flags: int) -> int:
        """A descriptor of one file in these folders, which are made if they are not there."""
        provider = _entered(self._base, place.provider)
        try:
            folder = _entered(provider, place.folder)
        finally:
            os.close(provider)
        try:
            return os.open(name, flags, _FILE_MODE, dir_fd=folder)
        finally:
            os.close(folder)

    def descriptor_for(self, file: DumpFile, size_bytes: int) -> int:
        """The open file, opened again if it had to make room for others, and with room on disk for so many bytes."""
        self._room.take(self._base, size_bytes)
        descriptor = self._open.get(file)
        if descriptor is None:
            descriptor = file.reopened()
            self._keep(file, descriptor)
        elif not os.fstat(descriptor).st_nlink:
            self.forget(file)
            raise FileNotFoundError(errno.ENOENT, "it was removed")
        self._open.move_to_end(file)
        return descriptor

    def forget(self, file: DumpFile) -> None:
        """Close it."""
        descriptor = self._open.pop(file, None)
        if descriptor is not None:
            # What a disk could not take is told here by some file systems; there is nothing left to do about it.
            with suppress(OSError):
                os.close(descriptor)

    def close(self) -> None:
        """Close all."""
        for file in tuple(self._open):
            self.forget(file)
        os.close(self._base)

    def _keep(self, file: DumpFile, descriptor: int) -> None:
        while len(self._open) >= _MOST_OPEN:
            self.forget(next(iter(self._open)))
        self._open[file] = descriptor


def _entered(above: int, name: str) -> int:
    with suppress(FileExistsError):
        os.mkdir(name, _FOLDER_MODE, dir_fd=above)
    descriptor = os.open(name, FOLDER_FLAGS, dir_fd=above)
    if os.fstat(descriptor).st_uid != os.geteuid():
        os.close(descriptor)
        raise PermissionError(errno.EPERM, "a folder of somebody else's is there")
    return descriptor


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino
