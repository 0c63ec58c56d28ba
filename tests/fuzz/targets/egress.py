"""Where a bridge goes: an address that it calls public Python calls global, and a host that the system's resolver reads
as an address without asking anybody is read as the same one.

An input is an address of 4 or 16 bytes, or the text of a host.
"""

import contextlib
import ipaddress
import socket

from bridged.egress import Egress, judged, parse_networks, parse_plaintext_upstreams
from daemonkit.reachable import Place, literal_address, place_of

WORDS = [
    b"\xa9\xfe\xa9\xfe", b"\x7f\0\0\1", b"\x0a", b"\xc0\xa8", b"\x20\x02", b"\0\0\0\0\0\0\0\0\0\0\xff\xff", b"\xfe\x80",
    b"\x00\x64\xff\x9b", b"0x", b"0177", b".", b"1", b"::", b":", b"ffff:", b"%1", b"127.0.0.1", b"2130706433", b"[",
    b"]", b"169.254.169.254", b"255", b"/8", b",", b"private", b"fd00", b"0", b"\xfd\x00\x0e\xc2", b"\x20\x01\x00\x00",
]  # fmt: skip
SEEDS = [
    b"\x7f\0\0\1", b"\xa9\xfe\xa9\xfe", b"\x08\x08\x08\x08", bytes(15) + b"\1", b"\x20\x02\x7f\0\0\1" + bytes(10),
    b"\x26\x06" + bytes(14), b"127.1", b"0x7f.0.0.1", b"[::ffff:10.0.0.1]", b"fe80::1%lo", b"10.0.0.0/8,192.168.0.0/16",
]  # fmt: skip
STRICT = Egress(loopback=False)


def one_input(data: bytes) -> None:
    if len(data) in (4, 16):
        address = ipaddress.ip_address(data)
        place = place_of(address)
        is_strange = address.is_private or address.is_loopback or address.is_link_local or address.is_unspecified
        # Teredo is judged by what it carries, and Python calls all of it private.
        if not (address.version == 6 and address.teredo):
            assert place is not Place.PUBLIC or not (is_strange or address.is_multicast), (address, place)
        allowed, problem = judged(STRICT, [str(address)], is_plain=False)
        assert (bool(allowed), bool(problem)) == (place is Place.PUBLIC, place is not Place.PUBLIC), address
    text = data.decode("latin-1")
    for parse in (parse_networks, parse_plaintext_upstreams):
        with contextlib.suppress(ValueError):
            parse(text)
    found = literal_address(text)
    # What stands behind a percent sign is a zone, which glibc takes in any form.
    if not text.strip() or not text.isascii() or {"\0", "%"} & set(text) or text != text.strip():
        return
    with contextlib.suppress(OSError, UnicodeError):
        told = socket.getaddrinfo(text, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0][4][0]
        expected = ipaddress.ip_address(str(told).partition("%")[0])
        assert found is not None, text
        assert ipaddress.ip_address(str(found).partition("%")[0]) == expected, (text, found)
