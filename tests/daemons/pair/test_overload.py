"""The short form of scripts/overload, as anyone would run it: whether every verdict is good."""

import pytest

from tests.support.campaigns import campaign

# What is measured here would be another thing beside other tests.
pytestmark = pytest.mark.alone


async def test_the_pair_carries_on_under_ten_times_what_it_can_carry():
    lines = await campaign("overload", "--short")

    assert lines[-1] == "all good"
    assert sum(line.startswith("ok ") for line in lines) == len(lines) - 1 == 13
