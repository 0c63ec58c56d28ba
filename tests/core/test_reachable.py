"""What kind of place an address is, held against Python's reading of IANA's tables, and hosts that are addresses."""

import ipaddress
import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daemonkit.reachable import Place, is_metadata_name, literal_address, place_of

PLACES = {
    Place.PUBLIC: "8.8.8.8 1.1.1.1 172.15.255.255 172.32.0.1 100.128.0.1 168.63.129.17 2606:4700:4700::1111 2a00::1",
    Place.LOOPBACK: "127.0.0.1 127.255.255.254 ::1 ::ffff:127.0.0.1 ::ffff:7f12:3456",
    Place.PRIVATE: "10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 100.127.255.255 "
    "198.18.0.1 fc00::1 fd12:3456::1 ::ffff:10.0.0.1 2002:0a00:0001::1 64:ff9b::192.168.0.1 fd00:ec3::254",
    Place.LINK_LOCAL: "169.254.0.1 169.254.255.254 fe80::1 fe80::1%eth0 febf::1 fec0::1 ::ffff:169.254.1.1 "
    "2002:a9fe:0101:: 64:ff9b::169.254.1.1",
    Place.METADATA: "169.254.169.254 169.254.170.2 169.254.170.23 100.100.100.200 168.63.129.16 192.0.0.192 "
    "fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fd00:c1::a9fe:a9fe fd00:42::42 ::ffff:169.254.169.254 "
    "::ffff:a9fe:a9fe 2002:a9fe:a9fe::1 64:ff9b::a9fe:a9fe 64:ff9b::100.100.100.200",
    Place.UNSPECIFIED: "0.0.0.0 0.1.2.3 :: ::ffff:0.0.0.0 64:ff9b::",
    Place.MULTICAST: "224.0.0.1 239.255.255.255 ff02::1 ff0e::1%eth0 ::ffff:224.0.0.1",
    Place.BROADCAST: "255.255.255.255 ::ffff:255.255.255.255",
    # What is carried to somebody else's loopback, IPv4 in a form that is not used any more, and what is not given out.
    Place.RESERVED: "240.0.0.1 192.0.2.1 198.51.100.1 203.0.113.1 192.0.0.8 192.88.99.1 2001:db8::1 2001:2::1 3fff::1 "
    "64:ff9b::127.0.0.1 2002:7f00:0001:: ::127.0.0.1 ::a9fe:a9fe 64:ff9b:1::a00:1 100::1 4000::1 5f00::1 ::2",
}  # fmt: skip


@pytest.mark.parametrize(("place", "text"), [(place, text) for place, all_ in PLACES.items() for text in all_.split()])
def test_each_form_of_an_address_is_where_its_packets_go(place: Place, text: str) -> None:
    assert place_of(ipaddress.ip_address(text)) is place


def teredo(server: str, client: str) -> ipaddress.IPv6Address:
    inverted = int(ipaddress.IPv4Address(client)) ^ 0xFFFFFFFF
    return ipaddress.IPv6Address((0x20010000 << 96) | int(ipaddress.IPv4Address(server)) << 64 | inverted)


@pytest.mark.parametrize(
    ("server", "client", "place"),
    [
        ("8.8.8.8", "1.1.1.1", Place.PUBLIC),
        ("8.8.8.8", "10.0.0.1", Place.PRIVATE),
        ("10.0.0.1", "1.1.1.1", Place.PRIVATE),
        ("10.0.0.1", "169.254.169.254", Place.METADATA),
        ("127.0.0.1", "1.1.1.1", Place.RESERVED),
    ],
)
def test_a_teredo_address_is_the_worse_of_its_two(server: str, client: str, place: Place) -> None:
    assert place_of(teredo(server, client)) is place


@given(st.ip_addresses(v=4))
@example(ipaddress.IPv4Address("168.63.129.16"))
def test_no_address_of_ipv4_is_public_that_the_library_says_is_not(address: ipaddress.IPv4Address) -> None:
    if place_of(address) is Place.PUBLIC:
        assert address.is_global
        assert not address.is_multicast


@given(st.ip_addresses(v=6))
@example(ipaddress.IPv6Address("2001:4:112::1"))
def test_no_address_of_ipv6_is_public_that_the_library_says_is_not(address: ipaddress.IPv6Address) -> None:
    # What carries an address of IPv4 is judged by that; the library looks at the outside.
    if place_of(address) is Place.PUBLIC and not (address.ipv4_mapped or address.sixtofour or address.teredo):
        assert address.is_global


@given(st.ip_addresses(v=4))
def test_what_is_carried_counts_in_every_form(address: ipaddress.IPv4Address) -> None:
    place, number = place_of(address), int(address)
    mapped = ipaddress.IPv6Address((0xFFFF << 32) | number)
    others = [(0x64FF9B << 96) | number, (0x2002 << 112) | (number << 80) | 1, int(teredo("8.8.8.8", str(address)))]
    assert place_of(mapped) is place
    for other in others:
        found = place_of(ipaddress.IPv6Address(other))
        assert found is (Place.RESERVED if place is Place.LOOPBACK else place)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0X7F.0x1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("2852039166", "169.254.169.254"),
        ("0xa9fea9fe", "169.254.169.254"),
        ("0251.0376.0251.0376", "169.254.169.254"),
        ("169.254.43518", "169.254.169.254"),
        ("0", "0.0.0.0"),
        ("[::1]", "::1"),
        ("fe80::1%25eth0", "fe80::1%25eth0"),
        ("::ffff:169.254.169.254", "::ffff:169.254.169.254"),
        ("api.openai.com", None),
        ("1.2.3.4.example", None),
        ("1.2.3.4.5", None),
        ("256.0.0.1", None),
        ("0x", None),
        ("08", None),
        ("4294967296", None),
        ("a.b", None),
        ("", None),
        (".", None),
        ("１２７.0.0.1", None),
    ],
)
def test_a_host_that_some_resolver_reads_as_an_address_is_one(host: str, address: str | None) -> None:
    found = literal_address(host)
    assert found == (None if address is None else ipaddress.ip_address(address))


@given(
    st.lists(
        st.from_regex(r"(0x[0-9a-f]{0,9}|0[0-9]{0,11}|[1-9][0-9]{0,10}|[0-9a-fx]{1,4})", fullmatch=True), max_size=5
    )
)
def test_numbers_with_dots_are_read_as_the_system_reads_them(parts: list[str]) -> None:
    text = ".".join(parts)
    try:
        expected = ipaddress.IPv4Address(socket.inet_aton(text))
    except OSError:
        expected = None
    found = literal_address(text)
    if expected is not None:
        assert found == expected
    else:
        assert found is None or found.version == 6


def test_names_of_metadata_services_are_known_in_any_spelling() -> None:
    assert is_metadata_name("metadata.google.internal")
    assert is_metadata_name("Metadata.Google.Internal.")
    assert not is_metadata_name("metadata.google.internal.example.com")
