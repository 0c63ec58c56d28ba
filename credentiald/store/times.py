"""Times in the store: whole microseconds, of points in time since 1970, UTC."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_micros(time: datetime) -> int:
    """The stored form. A time without a zone is a TypeError, not a guess."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """The time that was stored."""
    return _EPOCH + timedelta(microseconds=micros)


def to_micros_or_null(time: datetime | None) -> int | None:
    """As `to_micros`, for columns that may be empty."""
    return None if time is None else to_micros(time)


def from_micros_or_null(micros: int | None) -> datetime | None:
    """As `from_micros`, for columns that may be empty."""
    return None if micros is None else from_micros(micros)


def to_duration_micros(duration: timedelta | None) -> int | None:
    """The stored form of a length of time, for columns that may be empty."""
    return None if duration is None else duration // timedelta(microseconds=1)


def from_duration_micros(micros: int | None) -> timedelta | None:
    """The length of time that was stored."""
    return None if micros is None else timedelta(microseconds=micros)
