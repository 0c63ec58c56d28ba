"""Where a bridge may go: settings, addresses, plain http, and what is behind a proxy."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.egress import Egress, judged, parse_networks, parse_plaintext_upstreams
from daemonkit.reachable import Place, place_of

NEVER = [
    "169.254.169.254", "169.254.1.1", "fe80::1%eth0", "0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "240.0.0.1",
    "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "::ffff:169.254.169.254", "2002:a9fe:a9fe::1",
]  # fmt: skip
EVERYTHING = Egress(networks=parse_networks("private"))


@pytest.mark.parametrize("text", NEVER)
@pytest.mark.parametrize("is_plain", [False, True])
def test_some_addresses_are_refused_whatever_is_set(text: str, is_plain: bool) -> None:
    problem = EVERYTHING.problem(ipaddress.ip_address(text), is_plain=is_plain)
    assert problem is not None
    assert "no provider may be there" in problem


@given(st.ip_addresses())
def test_only_public_private_and_own_addresses_are_ever_dialled(address: ipaddress.IPv4Address) -> None:
    allowed = EVERYTHING.problem(address, is_plain=False) is None
    assert allowed == (place_of(address) in (Place.PUBLIC, Place.LOOPBACK, Place.PRIVATE)) or (
        # Carried by a form that no network names.
        not allowed and place_of(address) is Place.PRIVATE and not any(address in net for net in EVERYTHING.networks)
    )
    if place_of(address) is Place.PRIVATE:
        assert "--allow-upstream-networks" in str(Egress().problem(address, is_plain=False))


@pytest.mark.parametrize(
    ("setting", "address", "goes"),
    [
        ("none", "10.1.2.3", False),
        ("none", "8.8.8.8", True),
        ("private", "10.1.2.3", True),
        ("private", "fd12::1", True),
        ("private", "100.64.0.1", True),
        ("private", "100.100.100.200", False),
        ("10.1.0.0/16", "10.1.2.3", True),
        ("10.1.0.0/16", "::ffff:10.1.2.3", True),
        # Through a 6to4 router or a NAT64 it is another way, which nobody named.
        ("10.1.0.0/16", "64:ff9b::10.1.2.3", False),
        ("10.1.0.0/16", "10.2.0.1", False),
        ("10.1.0.0/16, fd12::/16", "fd12:9::1", True),
        ("fd00:ec2::/32", "fd00:ec2::254", False),
    ],
)
def test_private_addresses_are_reached_in_the_networks_that_are_set(setting: str, address: str, goes: bool) -> None:
    egress = Egress(networks=parse_networks(setting))
    assert (egress.problem(ipaddress.ip_address(address), is_plain=False) is None) is goes


@pytest.mark.parametrize("text", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_reached_unless_it_is_switched_off_and_over_plain_http_too(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert Egress().problem(address, is_plain=True) is None
    assert "--allow-upstream-loopback" in str(Egress(loopback=False).problem(address, is_plain=False))


@pytest.mark.parametrize("text", ["8.8.8.8", "2606:4700::1", "10.0.0.1"])
def test_plain_http_leaves_this_machine_for_providers_that_are_named_only(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert "--plaintext-upstreams" in str(EVERYTHING.problem(address, is_plain=True))
    assert EVERYTHING.problem(address, is_plain=False) is None


@pytest.mark.parametrize(
    ("host", "is_plain", "words"),
    [
        ("api.openai.com", False, None),
        ("api.openai.com", True, "--plaintext-upstreams"),
        ("10.0.0.1", False, "--allow-upstream-networks"),
        ("8.8.8.8", False, None),
        ("metadata.google.internal", False, "metadata"),
        ("METADATA.goog.", False, "metadata"),
        ("169.254.169.254", False, "metadata"),
        ("0xa9fea9fe", False, "metadata"),
        ("2852039166", False, "metadata"),
        ("0x7f.1", False, "the proxy's own"),
        ("::ffff:127.0.0.1", False, "the proxy's own"),
        ("fe80::1", False, "link-local"),
    ],
)
def test_behind_a_proxy_a_host_is_judged_as_far_as_it_says_where_it_is(
    host: str, is_plain: bool, words: str | None
) -> None:
    problem = Egress().problem_behind_proxy(host, is_plain=is_plain)
    assert problem is None if words is None else words in str(problem)


def test_of_several_addresses_the_good_ones_are_dialled_in_their_order() -> None:
    addresses = ["169.254.169.254", "2606:4700:0::1", "10.0.0.1", "nonsense", "8.8.8.8"]
    assert judged(Egress(), addresses, is_plain=False)[0] == ["2606:4700::1", "8.8.8.8"]
    assert judged(Egress(), ["nonsense"], is_plain=False) == ([], "its name stands for something that is no address")
    allowed, problem = judged(Egress(), ["10.0.0.1"], is_plain=False)
    assert (allowed, "private" in problem) == ([], True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("169.254.0.0/16", "never allowed"),
        ("8.8.8.0/24", "never allowed"),
        ("0.0.0.0/0", "not within a private network"),
        ("10.0.0.0/7", "not within|is not a network"),
        ("10.0.0.1/8", "is not a network"),
        ("10.0.0.0/8,private", "stands alone"),
        ("none,10.0.0.0/8", "is not a network"),
        ("intranet", "is not a network"),
        ("127.0.0.0/8", "never allowed"),
    ],
)
def test_networks_that_could_not_mean_anything_are_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_networks(text)


def test_one_address_is_a_network_and_nothing_is_none() -> None:
    assert parse_networks("10.1.2.3") == (ipaddress.ip_network("10.1.2.3/32"),)
    assert parse_networks("") == parse_networks(" None ") == ()


def test_plaintext_upstreams_are_names_of_providers() -> None:
    assert parse_plaintext_upstreams("none") == frozenset()
    assert parse_plaintext_upstreams("vllm, lab-2") == {"vllm", "lab-2"}
    for wrong in ("", "all,none", "Vllm", "a b", "*", "none,vllm"):
        with pytest.raises(ValueError, match="provider"):
            parse_plaintext_upstreams(wrong)
