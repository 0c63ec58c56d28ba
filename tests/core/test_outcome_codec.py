"""What bridges tell of keys and breakers, as it is read: nothing of it can be too much."""

from datetime import timedelta

import pytest
from drawbridge.v1 import credential_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from credentiald.breaker_book import MOST_BREAKERS, from_text, to_text
from credentiald.key_health import OutcomeKind, rest_of
from credentiald.rpc import health_codec, outcome_codec

LONGEST = 315_576_000_000


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [
        (None, 60),
        (Duration(), 1),
        (Duration(seconds=-5, nanos=-1), 1),
        (Duration(seconds=-LONGEST), 1),
        (Duration(seconds=2, nanos=500_000_000), 2.5),
        (Duration(seconds=LONGEST, nanos=999_999_999), 3600),
    ],
)
def test_the_wish_of_an_upstream_makes_a_rest_of_sensible_length(wait, seconds):
    message = pb.CredentialOutcome(kind=pb.CREDENTIAL_OUTCOME_KIND_RATE_LIMITED, retry_after=wait)
    [told] = outcome_codec.told(pb.ReportOutcomeRequest(outcomes=[message]))
    assert rest_of(told.kind, 1, told.retry_after) == timedelta(seconds=seconds)


@pytest.mark.parametrize(("status", "wanted"), [(-1, 0), (429, 429), (2**31 - 1, 999)])
def test_statuses_are_those_of_http_and_kinds_that_we_do_not_know_say_nothing(status, wanted):
    [told] = outcome_codec.told(pb.ReportOutcomeRequest(outcomes=[pb.CredentialOutcome(http_status=status, kind=77)]))
    assert (told.http_status, told.kind) == (wanted, OutcomeKind.UNKNOWN)


@pytest.mark.parametrize("seconds", [-(2**62), -1, 2**62])
def test_a_breaker_whose_time_no_calendar_has_is_shown_without_one(seconds):
    message = pb.BreakerState(provider="corp", state="BREAKER_PHASE_OPEN", since=Timestamp(seconds=seconds))
    assert health_codec.breaker(message).since_micros == 0


def test_breakers_are_kept_as_they_are_and_as_many_as_there_is_room_for():
    short = [health_codec.breaker(pb.BreakerState(provider="corp", model=f"m{n}", failures=n)) for n in range(100)]
    assert to_text([]) == ""
    assert list(from_text("")) == []
    assert list(from_text(to_text(short))) == short[:MOST_BREAKERS]
    texts = dict.fromkeys(("provider", "operation", "model", "last_error"), "😀" * 1000)
    long = [health_codec.breaker(pb.BreakerState(**texts))] * 100
    assert 0 < len(from_text(to_text(long))) < 10
    assert len(to_text(long)) < 17_000
