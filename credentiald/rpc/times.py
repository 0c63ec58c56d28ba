"""Times of the contract's messages."""

from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(moment: datetime | None) -> Timestamp | None:
    """The message for an aware datetime; None stays None, which leaves a field unset."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def duration(length: timedelta | None) -> Duration | None:
    """The message for a length of time; None stays None, which leaves a field unset."""
    if length is None:
        return None
    message = Duration()
    message.FromTimedelta(length)
    return message
