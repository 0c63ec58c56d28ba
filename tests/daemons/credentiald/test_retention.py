"""Old records go when their time has come, and not because a clock says so that somebody has yet to set."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from credentiald.metrics import Metrics
from credentiald.record_rounds import Rounds
from tests.support.credentiald import Running, running
from tests.support.reports import Bridge, whole

RETENTION = timedelta(days=60)
ROUND = timedelta(minutes=10)
AHEAD = timedelta(days=61)
PUT_OFF = "old records are not removed for an hour: the clock may be ahead"
SUCCESS = "credentiald_retention_last_success_timestamp_seconds"


class Times:
    """The clock of the wall, which somebody may set, and the one that only goes on."""

    def __init__(self) -> None:
        self.wall = datetime.now(UTC)
        self.seconds = 1000.0

    def clock(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds

    def pass_by(self, time: timedelta) -> None:
        self.wall += time
        self.seconds += time.total_seconds()


class Deployment:
    """A credentiald with a file of records, of which Rounds may be begun anew as by a restart."""

    def __init__(self, one: Running, token: str, times: Times) -> None:
        self._one = one
        self._token = token
        self._bridge = Bridge(one)
        self.times = times
        self.restart()

    def restart(self, retention: timedelta = RETENTION) -> None:
        self.metrics = Metrics("test")
        self._rounds = Rounds(
            self._one.stored,
            self._one.book,
            self.metrics,
            self.times.clock,
            retention=retention,
            monotonic=self.times.monotonic,
        )

    async def purge(self) -> int:
        return await self._rounds.purge()

    async def record(self, count: int = 1) -> None:
        for _ in range(count):
            _, receipt = await self._bridge.resolve(self._token)
            await self._bridge.report(whole(receipt))

    async def purged_in(self, time: timedelta) -> int:
        """How many are removed by the rounds of that time."""
        count = 0
        for _ in range(time // ROUND):
            self.times.pass_by(ROUND)
            count += await self.purge()
        return count


@pytest_asyncio.fixture
async def deployment(tmp_path) -> AsyncIterator[Deployment]:
    times = Times()
    async with running(tmp_path, clock=times.clock) as one:
        _, token = await one.make_user("ann")
        await one.make_provider("corp", key="sk-1234567890")
        yield Deployment(one, token, times)


def put_off(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.message == PUT_OFF for record in caplog.records)


@pytest.mark.parametrize("age_days", [3, 59])
async def test_a_start_with_a_clock_that_is_ahead_removes_nothing_before_it_is_set(deployment, caplog, age_days):
    await deployment.purge()
    await deployment.record(3)
    deployment.times.pass_by(timedelta(days=age_days))
    await deployment.purge()
    deployment.times.wall += AHEAD
    deployment.restart()
    start_seconds = deployment.times.wall.timestamp()
    # What comes with the wrong time does not make it right.
    await deployment.record()
    assert await deployment.purged_in(timedelta(minutes=50)) == 0
    assert put_off(caplog) == 1
    assert deployment.metrics.registry.get_sample_value(SUCCESS) == start_seconds
    deployment.times.wall -= AHEAD
    assert await deployment.purge() == 0
    assert deployment.metrics.registry.get_sample_value(SUCCESS) == deployment.times.wall.timestamp()
    deployment.times.wall += RETENTION - timedelta(days=age_days)
    assert await deployment.purge() == (3 if age_days == 59 else 0)


async def test_a_clock_that_nobody_sets_for_an_hour_is_right(deployment, caplog):
    await deployment.purge()
    await deployment.record(3)
    deployment.times.wall += AHEAD
    assert await deployment.purge() == 0
    assert await deployment.purged_in(timedelta(minutes=50)) == 0
    assert await deployment.purged_in(ROUND) == 3
    assert put_off(caplog) == 1
    # From then on it is as ever.
    await deployment.record()
    assert await deployment.purged_in(timedelta(hours=2)) == 0
    assert put_off(caplog) == 1


async def test_a_clock_that_is_set_ahead_within_that_hour_is_in_doubt_for_another(deployment, caplog):
    await deployment.purge()
    await deployment.record(2)
    # As after a week in which credentiald did not run, which is no matter yet.
    deployment.times.pass_by(timedelta(days=30))
    await deployment.record(2)
    deployment.times.pass_by(timedelta(days=31))
    deployment.restart()
    assert await deployment.purge() == 0
    deployment.times.pass_by(timedelta(minutes=50))
    deployment.times.wall += AHEAD
    assert await deployment.purge() == 0
    assert await deployment.purged_in(timedelta(minutes=50)) == 0
    assert put_off(caplog) == 2
    deployment.times.wall -= AHEAD
    assert await deployment.purged_in(timedelta(minutes=70)) == 2


async def test_after_months_of_rest_an_hour_without_a_restart_is_enough(deployment, caplog):
    await deployment.purge()
    await deployment.record(3)
    deployment.times.pass_by(timedelta(days=200))
    for _ in range(5):
        deployment.restart()
        assert await deployment.purge() == 0
        deployment.times.pass_by(timedelta(minutes=30))
        assert await deployment.purge() == 0
    deployment.restart()
    await deployment.purge()
    assert await deployment.purged_in(timedelta(hours=1)) == 3
    assert put_off(caplog) == 6


async def test_a_file_of_which_no_purge_is_known_begins_with_its_oldest(deployment, caplog):
    await deployment.record(2)
    deployment.times.wall += timedelta(days=30)
    await deployment.record(2)
    deployment.times.wall += timedelta(days=31)
    assert await deployment.purge() == 2
    deployment.times.wall += AHEAD
    assert await deployment.purge() == 0
    assert put_off(caplog) == 1


@pytest.mark.parametrize("retention", [timedelta(minutes=20), timedelta(hours=1), RETENTION])
async def test_rounds_as_ever_are_never_put_off(deployment, caplog, retention):
    deployment.restart(retention)
    purged = 0
    for _ in range(30):
        await deployment.record()
        deployment.times.pass_by(retention / 10 if retention == RETENTION else ROUND)
        purged += await deployment.purge()
    assert purged == 30 - (10 if retention == RETENTION else retention // ROUND)
    assert put_off(caplog) == 0


async def test_where_nothing_is_old_there_is_nothing_to_put_off(deployment, caplog):
    await deployment.purge()
    deployment.times.wall += AHEAD
    await deployment.record()
    assert await deployment.purge() == 0
    assert put_off(caplog) == 0
    assert deployment.metrics.registry.get_sample_value(SUCCESS) == deployment.times.wall.timestamp()
