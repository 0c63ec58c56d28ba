"""Credentials over time: rotation, a source that dies, hangs and comes back. Short lifetimes, real time and threads."""

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from prometheus_client import generate_latest

from credentiald.aws import access
from credentiald.metrics import Metrics
from tests.fakes.aws import CANARY, EXPIRED, FAIL, HANG, OK
from tests.support.aws import ROLE, Stream, ask, explained, make_bedrock, pb
from tests.support.credentiald import running

# What is measured here would be another thing beside other tests.
pytestmark = pytest.mark.alone

LIFETIME_SECONDS = 2.0


def assert_alive(aws, found, *, at=None):
    """The credential had not ended when it was given."""
    assert aws.given[found.key_id] > (at or time.time()), found.key_id


async def until(condition, *, seconds=10.0):
    """Poll, with a deadline."""
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, "it never came"


async def test_under_load_no_request_gets_a_key_that_has_ended_and_the_source_is_asked_about_once_a_period(
    tmp_path, aws, use
):
    use("container")
    aws.lifetime_seconds = LIFETIME_SECONDS
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one)
        keys, slowest, end = set(), 0.0, time.monotonic() + 5 * LIFETIME_SECONDS
        await ask(one, token)
        while time.monotonic() < end:
            started = time.monotonic()
            found = await ask(one, token)
            slowest = max(slowest, time.monotonic() - started)
            assert found.reason == ""
            assert_alive(aws, found)
            keys.add(found.key_id)
        assert 5 <= len(keys) <= 8
        assert aws.count("container") <= 9
        # Renewed ahead of time and beside the requests, which never wait for it.
        assert slowest < 0.5


async def test_batches_under_load_get_no_key_that_has_ended_and_ask_singly_once(tmp_path, aws, use):
    use("container")
    aws.lifetime_seconds = LIFETIME_SECONDS
    metrics = Metrics("test")
    async with running(tmp_path, metrics=metrics) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one)
        stream, keys, reasons = Stream(one), set(), []
        item = pb.ResolveProviderRequest(provider="aws", access_token=token, interception_id=str(uuid4()))
        end = time.monotonic() + 5 * LIFETIME_SECONDS
        while time.monotonic() < end:
            for found in await stream.ask(item, item, item):
                if found.reason:
                    reasons.append(found.reason)
                    continue
                assert_alive(aws, found)
                keys.add(found.key_id)
            if reasons and not keys:
                # The source may be slow to say the first one; from then on there is always one.
                while (await ask(one, token)).reason:
                    pass
        assert reasons == ["ASK_SINGLY"] * 3
        assert 5 <= len(keys) <= 8
        # Nearly all of them are answers that were kept, for as long as their credential is not due.
        counts = series(metrics, "credentiald_answer_cache_total")
        assert counts['outcome="hit"'] > 20 * counts['outcome="miss"']
        await stream.close()


@pytest.mark.parametrize("mode", [FAIL, HANG, EXPIRED])
async def test_while_the_source_is_down_its_last_credential_is_used_to_its_end_and_then_refused(
    tmp_path, aws, use, mode
):
    use("imds", AWS_METADATA_SERVICE_TIMEOUT="1")
    aws.lifetime_seconds = 2 * LIFETIME_SECONDS
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one)
        first = await ask(one, token)
        aws.modes["imds"] = mode
        last_good = 0.0
        while (found := await ask(one, token)).reason == "":
            assert found.key_id == first.key_id
            last_good = time.time()
            assert_alive(aws, found, at=last_good)
        assert found.reason == "AMBIENT_CREDENTIALS_UNAVAILABLE"
        assert "iam-role: " in found.message
        assert aws.given[first.key_id] - last_good < 0.2 * aws.lifetime_seconds
        state = (await explained(one, token)).aws.states[0]
        assert not state.served
        assert state.failed_attempts
        aws.modes["imds"] = OK
        aws.released.set()

        async def recovered():
            return (await ask(one, token)).reason == ""

        await until(recovered, seconds=20)
        assert not (await explained(one, token)).aws.states[0].failed_attempts


async def test_a_failing_source_is_asked_once_a_pause(tmp_path, aws, use):
    use("imds")
    aws.modes["imds"] = "missing"
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one)
        end = time.monotonic() + 3.5
        refused = 0
        while time.monotonic() < end:
            refused += (await ask(one, token)).reason == "AMBIENT_CREDENTIALS_UNAVAILABLE"
        # At 0, 1 and 3 seconds.
        assert len(aws.asked("imds-token")) <= 4
        assert refused > 100


async def test_a_source_that_hangs_holds_up_nobody_else(tmp_path, aws, use):
    use("container")
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one)
        await make_bedrock(one, "pair", pair=True, role_arn=ROLE)
        await one.make_provider("plain", key="sk-plain")
        assert (await ask(one, token, "pair")).reason == ""

        async def slowest_of_others():
            times = []
            for number in range(200):
                started = time.monotonic()
                assert (await ask(one, token, ("pair", "plain")[number % 2])).reason == ""
                times.append(time.monotonic() - started)
            return sorted(times)[-3]

        quiet = await slowest_of_others()
        aws.modes["container"] = HANG
        waiting = [asyncio.create_task(ask(one, token)) for _ in range(20)]
        busy = await slowest_of_others()
        assert busy < 3 * quiet + 0.02
        for found in await asyncio.gather(*waiting):
            assert found.reason == "AMBIENT_CREDENTIALS_UNAVAILABLE"
            assert "container-role: no answer yet" in found.message


async def test_who_waits_is_told_in_time_and_a_late_answer_still_counts(tmp_path, aws, use):
    use("container")
    aws.modes["container"] = HANG
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one)
        started = time.monotonic()
        found = await ask(one, token)
        assert found.reason == "AMBIENT_CREDENTIALS_UNAVAILABLE"
        assert time.monotonic() - started < 5
        aws.modes["container"] = OK
        aws.released.set()

        async def there():
            return (await ask(one, token)).reason == ""

        await until(there)
        assert aws.count("container") <= 3


async def test_a_role_is_renewed_from_a_chain_that_is_renewed(tmp_path, aws, use):
    use("container")
    aws.lifetime_seconds = LIFETIME_SECONDS
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one, role_arn=ROLE)
        keys, end = set(), time.monotonic() + 4 * LIFETIME_SECONDS
        while time.monotonic() < end:
            found = await ask(one, token)
            assert found.reason == ""
            assert_alive(aws, found)
            keys.add(found.key_id)
        assert len(keys) >= 4
        for call in aws.asked("sts"):
            assert call["signer"].startswith("ASIACONTAINER")


async def test_a_credential_in_use_is_renewed_without_a_request(tmp_path, aws, use):
    use("container")
    aws.lifetime_seconds = LIFETIME_SECONDS
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one)
        first = await ask(one, token)

        async def renewed():
            await asyncio.sleep(0)
            return aws.count("container") == 2

        await until(renewed, seconds=LIFETIME_SECONDS * 0.9)

        # The source has been asked; what it said is on its way.
        async def is_new():
            return (await ask(one, token)).key_id != first.key_id

        await until(is_new, seconds=LIFETIME_SECONDS * 0.2)
        assert aws.count("container") == 2


def series(metrics, name):
    return {
        line.split("}")[0].split("{")[1]: float(line.rsplit(" ", 1)[1])
        for line in generate_latest(metrics.registry).decode().splitlines()
        if line.startswith(name + "{")
    }


async def test_age_end_and_outage_are_metrics_and_changes_of_state_are_logged_once(tmp_path, aws, use, caplog):
    use("imds")
    caplog.set_level(logging.DEBUG)
    aws.lifetime_seconds = 2 * LIFETIME_SECONDS
    metrics = Metrics("test")
    async with running(tmp_path, metrics=metrics) as one:
        metrics.watch_aws(one.plane.aws)
        _, token = await one.make_user("ada")
        await make_bedrock(one)
        found = await ask(one, token)
        labels = 'kind="source",provider="aws"'
        (fetched,) = series(metrics, "credentiald_aws_credential_fetch_timestamp_seconds").values()
        (ends,) = series(metrics, "credentiald_aws_credential_expiry_timestamp_seconds").values()
        assert abs(fetched - time.time()) < 5
        assert ends == pytest.approx(aws.given[found.key_id], abs=0.001)
        assert set(series(metrics, "credentiald_aws_credential_outage").values()) == {0.0}
        aws.modes["imds"] = "missing"

        async def refused():
            return (await ask(one, token)).reason != ""

        await until(refused)
        assert set(series(metrics, "credentiald_aws_credential_outage").values()) == {1.0}
        assert series(metrics, "credentiald_aws_credential_expiry_timestamp_seconds") == {}
        attempts = series(metrics, "credentiald_aws_credential_fetches_total")
        assert sum(count for key, count in attempts.items() if 'outcome="failed"' in key) >= 1
        assert sum(count for key, count in attempts.items() if 'outcome="ok"' in key) == 1
        assert all(part in next(iter(attempts)) for part in labels.split(","))
        aws.modes["imds"] = OK

        async def recovered():
            return (await ask(one, token)).reason == ""

        await until(recovered)
    said = [record for record in caplog.records if record.name == "credentiald.aws"]
    assert [record.getMessage() for record in said] == [
        "AWS credentials are there",
        "AWS credentials cannot be renewed; those at hand are used until they end",
        "AWS credentials are there again",
    ]
    assert said[1].provider == "aws"
    assert "iam-role: the metadata service gives nothing" in said[1].steps
    assert not [record for record in caplog.records if record.name.startswith(("botocore", "urllib3"))]
    assert CANARY not in caplog.text
    assert not [record for record in caplog.records if CANARY in str(record.__dict__)]


async def test_what_nobody_uses_is_forgotten_with_its_outage(tmp_path, aws, use, monkeypatch):
    use("imds")
    monkeypatch.setattr(access, "SWEEP_SECONDS", 0.05)
    aws.modes["imds"] = "missing"
    moment = [datetime.now(UTC)]
    async with running(tmp_path, clock=lambda: moment[0]) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one)
        assert (await ask(one, token)).reason == "AMBIENT_CREDENTIALS_UNAVAILABLE"
        assert len(list(one.plane.aws.states())) == 1
        moment[0] += access.FORGET + timedelta(seconds=1)

        async def forgotten():
            await asyncio.sleep(0)
            return not list(one.plane.aws.states())

        await until(forgotten)


async def test_a_clock_that_is_set_back_a_little_takes_no_credential_from_those_who_use_it(
    tmp_path, aws, use, monkeypatch
):
    use("imds")
    monkeypatch.setattr(access, "SWEEP_SECONDS", 0.01)
    moment = [datetime.now(UTC)]
    async with running(tmp_path, clock=lambda: moment[0]) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one)
        first = await ask(one, token)
        aws.modes["imds"] = "missing"
        moment[0] -= timedelta(seconds=2)
        swept = asyncio.get_running_loop().time() + 0.1

        async def over():
            await asyncio.sleep(0)
            return asyncio.get_running_loop().time() > swept

        await until(over)
        assert (await ask(one, token)).key_id == first.key_id
