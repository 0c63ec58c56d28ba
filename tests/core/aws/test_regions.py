"""Which region and endpoint a Bedrock provider has."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentiald.aws.endpoints import place
from credentiald.aws.quiet import published_data
from credentiald.aws.regions import (
    DNS_SUFFIXES,
    Identity,
    MachineSettings,
    choose_region,
    control_base_url,
    host_parts,
)
from credentiald.errors import RegionRequired
from credentiald.model import BedrockOptions, BedrockProtocol, KeyPolicy, Provider

BEARER, PAIR, AMBIENT = Identity.BEARER, Identity.PAIR, Identity.AMBIENT
PROXY = "https://proxy.example/bedrock"
HOST = "https://bedrock-runtime.eu-west-1.amazonaws.com"
MACHINE = MachineSettings(region="ap-south-1", region_origin="AWS_REGION")
NOWHERE = MachineSettings()


def region(identity, *, configured="", base_url="", machine=NOWHERE):
    return choose_region(
        provider="aws", configured=configured, base_url=base_url, identity=identity, machine=machine
    ).name


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"configured": "us-west-2", "base_url": HOST, "machine": MACHINE}, ("us-west-2",) * 3),
        ({"base_url": HOST, "machine": MACHINE}, ("eu-west-1",) * 3),
        ({"base_url": HOST}, ("eu-west-1",) * 3),
        ({"base_url": PROXY, "machine": MACHINE}, ("ap-south-1",) * 3),
        ({"machine": MACHINE}, ("ap-south-1",) * 3),
        ({"base_url": PROXY}, ("us-east-1", "us-east-1", None)),
        ({}, ("us-east-1", None, None)),
    ],
)
def test_the_table_of_regions(given, expected):
    for identity, name in zip((BEARER, PAIR, AMBIENT), expected, strict=True):
        if name is None:
            with pytest.raises(RegionRequired, match="AWS_REGION"):
                region(identity, **given)
        else:
            assert region(identity, **given) == name


@pytest.mark.parametrize("bad", ["us-east-1.evil.com/#", "US-EAST-1", "eu west", "-", "x" * 64, "us-east-1\n"])
@pytest.mark.parametrize("identity", [BEARER, PAIR, AMBIENT])
def test_a_malformed_region_is_refused_and_no_later_step_stands_in(bad, identity):
    machine = MachineSettings(region=bad, region_origin="AWS_REGION")
    configured = {"configured": bad, "machine": MACHINE}
    for settings in ({"machine": machine}, configured, {"machine": machine, "base_url": PROXY}):
        with pytest.raises(RegionRequired, match="must be the name of an AWS region"):
            region(identity, **settings)


@given(st.text(max_size=40), st.sampled_from([BEARER, PAIR, AMBIENT]))
def test_no_text_becomes_part_of_a_host_unless_it_is_a_region(text, identity):
    try:
        name = region(identity, configured=text, machine=MachineSettings(region=text, region_origin="AWS_REGION"))
    except RegionRequired:
        return
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (HOST, "eu-west-1"),
        ("https://BEDROCK-RUNTIME.eu-west-1.amazonaws.com:443/x", "eu-west-1"),
        ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("https://bedrock-runtime.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("https://bedrock-runtime.us-east-1.api.aws", "us-east-1"),
        ("https://bedrock-mantle.us-east-2.api.aws", "us-east-2"),
        ("https://bedrock.us-east-2.amazonaws.com", "us-east-2"),
        ("https://vpce-0a1b-2c3d.bedrock-runtime.us-west-2.vpce.amazonaws.com", "us-west-2"),
        ("https://vpce-0a1b-2c3d-us-west-2a.bedrock-runtime.us-west-2.vpce.amazonaws.com", "us-west-2"),
        (PROXY, None),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com.evil.example", None),
        ("https://evil.bedrock-runtime.eu-west-1.amazonaws.com", None),
        ("https://bedrock-runtime.eu-west-1.amazonaws.evil", None),
        ("https://bedrock-runtime.amazonaws.com", None),
        ("https://sts.eu-west-1.amazonaws.com", None),
        ("", None),
    ],
)
def test_a_host_of_bedrock_tells_its_region(url, name):
    found = host_parts(url)
    assert (found["region"] if found else None) == name


@pytest.mark.parametrize(
    ("url", "control"),
    [
        (HOST, "https://bedrock.eu-west-1.amazonaws.com"),
        (
            "https://bedrock-runtime-fips.us-east-1.amazonaws.com:443",
            "https://bedrock-fips.us-east-1.amazonaws.com:443",
        ),
        ("https://bedrock-mantle.us-east-2.api.aws", "https://bedrock.us-east-2.api.aws"),
        ("https://bedrock.us-east-2.amazonaws.com", "https://bedrock.us-east-2.amazonaws.com"),
        ("https://vpce-1.bedrock-runtime.us-west-2.vpce.amazonaws.com",) * 2,
        (PROXY, PROXY),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ],
)
def test_lists_are_asked_for_at_the_sibling_of_a_public_host_and_nowhere_else(url, control):
    assert control_base_url(url) == control


def test_the_suffixes_are_those_of_botocores_partitions():
    data = published_data().load_data("partitions")
    outputs = [each["outputs"] for each in data["partitions"]]
    suffixes = itertools.chain.from_iterable((one["dnsSuffix"], one["dualStackDnsSuffix"]) for one in outputs)
    assert set(suffixes) <= set(DNS_SUFFIXES)


@pytest.fixture
def clean(monkeypatch, tmp_path):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return monkeypatch


def provider(base_url="", **options):
    return Provider(
        id="p",
        name="aws",
        type="bedrock",
        base_url=base_url,
        policy=KeyPolicy(central_key_enabled=True, user_keys_allowed=False, central_key_fallback=False),
        bedrock=BedrockOptions(**options),
    )


@pytest.mark.parametrize(
    ("name", "variables", "runtime", "control"),
    [
        ("us-east-1", {}, "bedrock-runtime.us-east-1.amazonaws.com", "bedrock.us-east-1.amazonaws.com"),
        ("cn-north-1", {}, "bedrock-runtime.cn-north-1.amazonaws.com.cn", "bedrock.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", {}, "bedrock-runtime.us-gov-west-1.amazonaws.com", "bedrock.us-gov-west-1.amazonaws.com"),
        (
            "us-east-1",
            {"AWS_USE_FIPS_ENDPOINT": "true"},
            "bedrock-runtime-fips.us-east-1.amazonaws.com",
            "bedrock-fips.us-east-1.amazonaws.com",
        ),
        (
            "us-east-1",
            {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
            "bedrock-runtime.us-east-1.api.aws",
            "bedrock.us-east-1.api.aws",
        ),
    ],
)
def test_endpoints_are_botocores(clean, name, variables, runtime, control):
    for variable, value in variables.items():
        clean.setenv(variable, value)
    placed = place(provider(region=name), AMBIENT)
    assert (placed.base_url, placed.control_base_url) == (f"https://{runtime}", f"https://{control}")
    assert placed.base_url_origin == "the region"


def test_mantle_has_an_endpoint_of_its_own(clean):
    placed = place(provider(region="us-east-2", protocol=BedrockProtocol.MANTLE), BEARER)
    assert placed.base_url == "https://bedrock-mantle.us-east-2.api.aws"


def test_a_base_url_overrides_the_endpoint_in_every_mode(clean):
    for identity in (BEARER, PAIR, AMBIENT):
        placed = place(provider(base_url=PROXY, region="us-east-2"), identity)
        assert (placed.base_url, placed.region.name) == (PROXY, "us-east-2")


def test_the_order_of_the_machines_settings(clean, tmp_path):
    config = tmp_path / "config"
    config.write_text("[default]\nregion = eu-north-1\n[profile other]\nregion = eu-south-1\n")

    def found():
        placed = place(provider(), AMBIENT).region
        return placed.name, placed.origin

    assert found() == ("eu-north-1", "the AWS profile")
    clean.setenv("AWS_PROFILE", "other")
    assert found() == ("eu-south-1", "the AWS profile")
    clean.setenv("AWS_DEFAULT_REGION", "ca-central-1")
    assert found() == ("ca-central-1", "AWS_DEFAULT_REGION")
    clean.setenv("AWS_REGION", "sa-east-1")
    assert found() == ("sa-east-1", "AWS_REGION")


def test_a_profile_that_does_not_exist_is_said_where_the_region_is_missing(clean):
    clean.setenv("AWS_PROFILE", "missing")
    with pytest.raises(RegionRequired, match="AWS_PROFILE names does not exist"):
        place(provider(), AMBIENT)
    assert place(provider(), BEARER).region.name == "us-east-1"


def test_a_machine_wide_endpoint_url_moves_no_provider(clean):
    clean.setenv("AWS_ENDPOINT_URL", "https://elsewhere.example")
    clean.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "https://elsewhere.example")
    assert place(provider(region="us-east-1"), AMBIENT).base_url == "https://bedrock-runtime.us-east-1.amazonaws.com"
