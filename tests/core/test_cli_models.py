"""`credentiald models`: prices on their way to the service, and what is printed."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from drawbridge.v1 import model_pb2

from tests.fakes.admin_service import FakePlane, serving
from tests.support.credentiald_cli import ADMIN_TOKEN, administer, administer_json

FIELDS = {
    "--input": "input_price_micros",
    "--output": "output_price_micros",
    "--cache-read": "cache_read_price_micros",
    "--cache-write": "cache_write_price_micros",
}


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[FakePlane]:
    with serving(tmp_path) as one:
        one.models["corp", "gpt-5"] = model_pb2.Model(
            id="id-1", provider="corp", name="gpt-5", input_price_micros=1_250_000, output_price_micros=0, etag="3"
        )
        yield one


def test_prices_go_to_the_service_in_micro_dollars_and_what_is_not_given_is_absent(plane):
    result = administer(plane, "models", "create", "corp", "o-9", "--input", "3", "--cache-read", "0.075",
                        "--cache-write", "none")  # fmt: skip
    assert (result.stdout, result.stderr) == ("", "created model 'o-9' of provider 'corp'\n")
    assert plane.last.model == model_pb2.Model(
        provider="corp", name="o-9", input_price_micros=3_000_000, cache_read_price_micros=75_000
    )
    assert plane.last_authorization == f"Bearer {ADMIN_TOKEN}"


@pytest.mark.parametrize(("flag", "field"), FIELDS.items())
def test_an_update_names_the_price_that_was_given_and_no_other(plane, flag, field):
    result = administer(plane, "models", "update", "corp", "gpt-5", flag, "0.5", "--etag", "3")
    assert list(plane.last.update_mask.paths) == [field]
    assert plane.last.model == model_pb2.Model(provider="corp", name="gpt-5", etag="3", **{field: 500_000})
    assert result.stderr == "updated model 'gpt-5' of provider 'corp'\n"


@pytest.mark.parametrize(("flag", "field"), FIELDS.items())
def test_a_price_that_is_none_is_named_and_absent(plane, flag, field):
    administer(plane, "models", "update", "corp", "gpt-5", flag, "none")
    assert list(plane.last.update_mask.paths) == [field]
    assert not plane.last.model.HasField(field)


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "corp", "m", "--input", "-1"),
        ("create", "corp", "m", "--output", "1e3"),
        ("create", "corp", "m", "--cache-read", "0.0000001"),
        ("update", "corp", "m", "--cache-write", "9999999"),
        ("update", "corp", "m"),
        ("update", "corp", "m", "--etag", "1"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage_and_asks_nobody(plane, arguments):
    administer(plane, "models", *arguments, code=2)
    assert plane.calls == []


def test_models_are_listed_in_dollars_for_people_and_in_micro_dollars_for_programs(plane):
    for number in range(3):
        plane.models["lab", f"m-{number}"] = model_pb2.Model(provider="lab", name=f"m-{number}")
    heads, first, *rest = administer(plane, "models", "list").stdout.splitlines()
    assert re.split("  +", heads) == ["PROVIDER", "MODEL", "INPUT", "OUTPUT", "CACHE READ", "CACHE WRITE"]
    assert first.split() == ["corp", "gpt-5", "1.25", "0", "-", "-"]
    assert len(rest) == 3
    rows = administer_json(plane, "models", "list", "--provider", "corp")
    assert (rows[0]["input_price_micros"], rows[0]["cache_read_price_micros"]) == (1_250_000, None)
    assert "INPUT" not in rows[0]
    assert plane.last.provider == "corp"


def test_a_model_is_shown_with_its_etag_and_deleted_by_it(plane):
    lines = administer(plane, "models", "show", "corp", "gpt-5").stdout.splitlines()
    assert lines[:6] == ["id: id-1", "provider: corp", "name: gpt-5", "input: 1.25 USD per million tokens",
                         "output: 0 USD per million tokens", "cache read: -"]  # fmt: skip
    assert "etag: 3" in lines
    assert administer_json(plane, "models", "show", "corp", "gpt-5")["output_price_micros"] == 0
    assert administer_json(plane, "models", "delete", "corp", "gpt-5", "--etag", "3") == {}
    assert (plane.last.provider, plane.last.name, plane.last.etag) == ("corp", "gpt-5", "3")
    assert plane.models == {}


def test_a_model_that_is_not_there_is_a_refusal_in_words(plane):
    result = administer(plane, "models", "show", "corp", "gpt-6", code=1)
    assert "MODEL_NOT_FOUND" in result.stderr
    assert "'gpt-6' at provider 'corp'" in result.stderr
