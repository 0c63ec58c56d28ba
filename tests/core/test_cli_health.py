"""`credentiald providers health` and the keys of `providers show`: what people and programs are told."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from drawbridge.v1 import credential_service_pb2, provider_health_pb2, provider_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from tests.fakes.admin_service import FakePlane, serving
from tests.support.credentiald_cli import administer, administer_json

SINCE = Timestamp(seconds=1_800_000_000)
UNTIL = Timestamp(seconds=1_800_000_060)


def a_health(name: str, **fields) -> provider_health_pb2.ProviderHealth:
    return provider_health_pb2.ProviderHealth(provider=name, type="openai", enabled=True, **fields)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[FakePlane]:
    with serving(tmp_path) as plane:
        for name in ("a", "b", "c"):
            plane.providers[name] = provider_pb2.Provider(name=name, type="openai")
            plane.health[name] = a_health(name)
        complaint = provider_health_pb2.KeyComplaint(
            bridge_instance_id="b-1",
            kind="CREDENTIAL_OUTCOME_KIND_RATE_LIMITED",
            since=SINCE,
            until=UNTIL,
            strikes=2,
            error="rate\x1b[2Jlimit",
            http_status=429,
        )
        keys = [
            provider_health_pb2.KeyHealth(
                credential_id="k-1", state="KEY_STATE_RESTING", rest_until=UNTIL, complaints=[complaint]
            ),
            provider_health_pb2.KeyHealth(credential_id="k-2", state="KEY_STATE_AVAILABLE"),
        ]
        breaker = credential_service_pb2.BreakerState(
            provider="b", operation="openai.models", model="m", state="BREAKER_PHASE_OPEN", failures=5
        )
        bridge = provider_health_pb2.BridgeHealth(
            service="bridge", bridge_instance_id="b-1", heard_time=SINCE, breakers=[breaker]
        )
        plane.health["b"] = a_health("b", keys=keys, bridges=[bridge])
        yield plane


def test_the_health_of_one_provider_for_people(plane):
    assert administer(plane, "providers", "health", "b").stdout.splitlines() == [
        "b (openai)",
        "  Keys, in the order of their use",
        "    k-1  resting until 2027-01-15T08:01:00Z",
        "      TOLD BY                KIND          SINCE                 UNTIL                 TIMES  STATUS  ERROR",
        "      a deleted service/b-1  RATE_LIMITED  2027-01-15T08:00:00Z  2027-01-15T08:01:00Z  2      429"
        "     rate\\x1b[2Jlimit",
        "    k-2  available",
        "  Breakers of bridge/b-1, heard of 2027-01-15T08:00:00Z",
        "    OPERATION      MODEL  STATE  SINCE  FAILURES  LAST ERROR",
        "    openai.models  m      OPEN   -      5         -",
    ]


def test_the_health_of_all_providers_comes_page_by_page(plane):
    lines = administer(plane, "providers", "health").stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["a (openai)", "b (openai)", "c (openai)"]
    assert [one["provider"] for one in administer_json(plane, "providers", "health")] == ["a", "b", "c"]


def test_the_health_of_one_provider_for_programs(plane):
    found = administer_json(plane, "providers", "health", "b")
    assert [key["state"] for key in found["keys"]] == ["RESTING", "AVAILABLE"]
    assert found["bridges"][0]["breakers"][0]["failures"] == 5


def test_a_provider_is_shown_with_its_keys_and_how_they_are(plane):
    assert "  k-1  resting until 2027-01-15T08:01:00Z" in administer(plane, "providers", "show", "b").stdout
    assert [key["credential_id"] for key in administer_json(plane, "providers", "show", "b")["key_health"]] == [
        "k-1",
        "k-2",
    ]
