"""What bridges tell of keys, to values."""

from datetime import timedelta

from drawbridge.v1 import credential_service_pb2 as pb

from credentiald.errors import InvalidArgument
from credentiald.key_health import OutcomeKind
from credentiald.outcome_book import Told

MOST_OUTCOMES = 100
_MOST_STATUS = 999
# Longer waits are cut by the rules of rests; a Duration may be as long as timedelta cannot be.
_MOST_SECONDS = 366 * 24 * 3600

_PREFIX = "CREDENTIAL_OUTCOME_KIND_"
_KINDS = {pb.CredentialOutcomeKind.Value(f"{_PREFIX}{one.value}"): one for one in OutcomeKind}


def told(message: pb.ReportOutcomeRequest) -> list[Told]:
    """The words of one call. INVALID_ARGUMENT for too many; a kind that we do not know says nothing (UNKNOWN)."""
    if len(message.outcomes) > MOST_OUTCOMES:
        raise InvalidArgument(field="outcomes", problem=f"at most {MOST_OUTCOMES} in one call")
    return [_told(one) for one in message.outcomes]


def _told(message: pb.CredentialOutcome) -> Told:
    wait = message.retry_after
    seconds = min(max(wait.seconds, 0), _MOST_SECONDS)
    return Told(
        receipt=message.receipt,
        kind=_KINDS.get(message.kind, OutcomeKind.UNKNOWN),
        retry_after=timedelta(seconds=seconds, microseconds=wait.nanos // 1000)
        if message.HasField("retry_after")
        else None,
        http_status=min(max(message.http_status, 0), _MOST_STATUS),
        error=message.error,
    )
