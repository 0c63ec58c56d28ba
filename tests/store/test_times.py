from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentiald.store.times import from_micros, to_micros

zones = st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=-30)), timezone(timedelta(hours=14))])


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(9998, 1, 1), timezones=zones))
def test_a_time_comes_back_to_the_microsecond_and_in_utc(time):
    assert from_micros(to_micros(time)) == time
    assert from_micros(to_micros(time)).tzinfo is UTC


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(TypeError):
        to_micros(datetime(2026, 1, 1))
