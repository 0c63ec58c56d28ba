"""The short form of scripts/stress, as anyone would run it: whether every verdict is good."""

import pytest

from tests.support.campaigns import campaign

# What is measured here would be another thing beside other tests.
pytestmark = pytest.mark.alone


async def test_the_pair_holds_under_all_abuses_together():
    lines = await campaign("stress", "--short")

    assert lines[-1] == "all good"
    assert sum(line.startswith("ok ") for line in lines) == len(lines) - 1 == 11
