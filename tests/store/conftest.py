import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.store import empty_store


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a database of its own, with the schema and no rows."""
    with empty_store(tmp_path / "store.db") as connection:
        yield connection
