"""Why credentiald must not start, and what trouble with a file becomes that."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from credentiald.store import migrations


class StartRefused(Exception):
    """credentiald must not start like this. The message says what is wrong, where, and what to do."""


class UnwrappedKeyWrong(StartRefused):
    """A key that was decrypted outside is not the one that sealed the database."""


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """What can go wrong with the file at `path`, as StartRefused."""
    try:
        yield
    except migrations.SchemaMismatch as error:
        raise StartRefused(f"the database {path} does not fit: {error}") from error
    except sqlite3.Error as error:
        raise StartRefused(f"the database {path} cannot be used: {error}") from error
    except OSError as error:
        raise StartRefused(f"{error.filename or path} cannot be used: {error.strerror}") from error
