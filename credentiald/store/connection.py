"""What the store functions need of a database connection; SQLite's own fits as it is."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

Value = str | bytes | int | None


class Row(Protocol):
    """One row, by column name or place."""

    def __getitem__(self, column: str | int, /) -> Any: ...


class Cursor(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int:
        """How many rows an INSERT, UPDATE or DELETE touched."""
        ...

    def __iter__(self) -> Iterator[Any]: ...

    def close(self) -> None: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...


class Connection(Protocol):
    """Runs statements with `?` for parameters inside the transaction that the caller opened."""

    def execute(self, sql: str, parameters: Sequence[Value] = ..., /) -> Cursor: ...
