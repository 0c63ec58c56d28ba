"""Where sealing keys are kept on this machine: in a file of our own beside the database, or where an operator put them.

What an operator gives (a setting, or the file that a setting names) is read and never written.
"""

from pathlib import Path
from typing import Final

from credentiald import private_files
from credentiald.sealing import Keyring
from daemonkit.secret import Secret

SEALING_FILE: Final = "credentiald.sealing"
SEALING_SETTING: Final = "CREDENTIALD_SEALING_KEYS"


class KeysNotReadable(Exception):
    """Where the keys are kept is something else, or cannot be read or written. The text has no secret."""


class LocalKeys:
    """The sealing keys that are kept on this machine. All methods block on the disk."""

    def __init__(self, database: Path, given: Secret | None = None, given_path: str = "") -> None:
        """`given` is the setting; where it came from a file, `given_path` is read again each time."""
        self._file = database.with_name(SEALING_FILE)
        self._given = given
        self._given_path = Path(given_path) if given is not None and given_path else None

    @property
    def is_ours(self) -> bool:
        """Whether keys may be added and taken away here."""
        return self._given is None

    @property
    def file(self) -> Path | None:
        """The file that holds the keys; None where they were given as they are."""
        return self._file if self._given is None else self._given_path

    @property
    def origin(self) -> str:
        """Where the keys are kept, in words for an operator."""
        if self._given is None:
            return f"the file {self._file}"
        return SEALING_SETTING if self._given_path is None else f"the file {self._given_path} ({SEALING_SETTING}_FILE)"

    def read(self) -> Keyring | None:
        """The keys, or None where there is no file. KeysNotReadable."""
        try:
            content = self._given if self.file is None else private_files.find(self.file)
            return None if content is None else Keyring.parse(content.reveal())
        except OSError as error:
            raise KeysNotReadable(f"{self.origin} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise KeysNotReadable(f"{self.origin} is not a list of sealing keys: {error}") from None

    def write(self, keyring: Keyring | None) -> None:
        """Keep these keys from now on; None for none. Only where keys are ours. KeysNotReadable.

        Call it where no other process does: inside a write transaction of the database.
        """
        try:
            # Where a link leads, so that keys which somebody keeps elsewhere stay there.
            file = self._file.resolve()
            if keyring is None:
                file.unlink(missing_ok=True)
                private_files.sync_folder(file.parent)
            else:
                private_files.write(file, keyring.to_text())
        except OSError as error:
            raise KeysNotReadable(f"{self.origin} cannot be written: {error.strerror}") from error
        if not (self.read() is None if keyring is None else keyring.is_same(self.read())):
            raise KeysNotReadable(f"{self.origin} does not hold what was written to it")
