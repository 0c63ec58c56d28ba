"""The short form of scripts/records_scale, as anyone would run it: whether every verdict is good."""

import pytest

from tests.support.campaigns import campaign

# What is measured here would be another thing beside other tests.
pytestmark = pytest.mark.alone


async def test_every_question_is_answered_while_records_come_and_a_tenth_is_purged():
    lines = await campaign("records_scale", "--short", deadline_seconds=180)

    assert lines[-1] == "all good"
    assert sum(line.startswith("ok ") for line in lines) == 21
