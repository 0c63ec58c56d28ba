"""Durations, sizes, switches and addresses, as operators write them."""

import logging
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemonkit.durations import parse_duration, parse_timeout
from daemonkit.listen import (
    Address,
    clash_errors,
    is_local_target,
    is_loopback,
    parse_address,
    parse_addresses,
    plaintext_errors,
)
from daemonkit.parsers import parse_boolean, parse_choice, parse_log_level, parse_secret, parse_size_bytes

DURATIONS = [
    ("60d", timedelta(days=60)),
    ("2160h", timedelta(days=90)),
    ("90m", timedelta(minutes=90)),
    ("30s", timedelta(seconds=30)),
    ("500ms", timedelta(milliseconds=500)),
    ("1h30m", timedelta(minutes=90)),
    ("1d2h3m4s5ms", timedelta(days=1, hours=2, minutes=3, seconds=4, milliseconds=5)),
    (" 5s ", timedelta(seconds=5)),
    ("0", timedelta()),
    ("0s", timedelta()),
]


@pytest.mark.parametrize(("text", "duration"), DURATIONS)
def test_a_duration_is_read(text, duration):
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text", ["", "5", "-5s", "s", "1m1h", "1h1h", "1.5h", "5 s", "60D", "٣s", "1w", "9" * 30 + "d"]
)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.text(alphabet="0123456789dhms .-", max_size=12))
def test_any_text_is_a_duration_or_a_value_error(text):
    try:
        duration = parse_duration(text)
    except ValueError:
        duration = timedelta()
    assert duration >= timedelta()


def test_a_time_limit_is_more_than_nothing():
    assert parse_timeout("1ms") == timedelta(milliseconds=1)
    with pytest.raises(ValueError, match="longer than 0"):
        parse_timeout("0")


@pytest.mark.parametrize(
    ("text", "size"), [("1048576", 1048576), ("64KiB", 65536), ("32MiB", 33554432), ("1GiB", 1073741824), ("7 B", 7)]
)
def test_a_size_is_read_in_bytes(text, size):
    assert parse_size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "32MB", "32M", "1.5MiB", "MiB", "9" * 40])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="is not a size"):
        parse_size_bytes(text)


@pytest.mark.parametrize("text", ["true", "True", "1", "yes", "on", " ON "])
def test_switches_are_on(text):
    assert parse_boolean(text) is True


@pytest.mark.parametrize("text", ["false", "FALSE", "0", "no", "off"])
def test_switches_are_off(text):
    assert parse_boolean(text) is False


@pytest.mark.parametrize("text", ["", "2", "y", "enabled"])
def test_other_words_are_no_switch(text):
    with pytest.raises(ValueError, match="true or false"):
        parse_boolean(text)


def test_levels_choices_and_blank_secrets():
    assert parse_log_level("Warning") == logging.WARNING
    assert parse_choice("auto", "on")("AUTO") == "auto"
    assert parse_secret(" \n") is None
    with pytest.raises(ValueError, match="debug, info"):
        parse_log_level("loud")
    with pytest.raises(ValueError, match="auto, on"):
        parse_choice("auto", "on")("off")


ADDRESSES = [
    ("127.0.0.1:7410", Address(host="127.0.0.1", port=7410), True),
    ("localhost:0", Address(host="localhost", port=0), True),
    ("[::1]:7410", Address(host="::1", port=7410), True),
    ("[0:0:0:0:0:0:0:1]:7410", Address(host="::1", port=7410), True),
    ("0.0.0.0:80", Address(host="0.0.0.0", port=80), False),
    ("[::]:80", Address(host="::", port=80), False),
    ("credentiald.internal:7410", Address(host="credentiald.internal", port=7410), False),
    ("unix:/run/x.sock", Address(path="/run/x.sock"), True),
    ("unix:///run/x.sock", Address(path="/run/x.sock"), True),
    ("unix:x.sock", Address(path="x.sock"), True),
]


@pytest.mark.parametrize(("text", "address", "local"), ADDRESSES)
def test_an_address_is_read(text, address, local):
    assert parse_address(text) == address
    assert address.is_local is local


@pytest.mark.parametrize(("text", "address", "local"), ADDRESSES)
def test_an_address_is_written_so_that_it_can_be_read_again(text, address, local):
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7410",
        ":7410",
        "*:7410",
        "host",
        "host:",
        "host:70000",
        "host:-1",
        "host:٧",
        "::1:7410",
        "[::1]",
        "[x]:1",
        "unix:",
        "unix:" + "x" * 104,
        "a b:1",
        "http://x:1",
        "user@host:1",
        "[::1:7410",
        "127.0.0.1:7410,",
    ],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError):
        parse_addresses(text)


def test_several_addresses_have_commas_between_them_and_none_is_there_twice():
    both = parse_addresses("127.0.0.1:7410, unix:/run/x.sock")
    assert [str(one) for one in both] == ["127.0.0.1:7410", "unix:/run/x.sock"]
    assert len(parse_addresses("127.0.0.1:0,127.0.0.1:0")) == 2
    with pytest.raises(ValueError, match="twice"):
        parse_addresses("unix:/x,unix:///x")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.8.8.8", True),
        ("LocalHost.", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("127.0.0.1.example", False),
        ("localhost.example", False),
        ("128.0.0.1", False),
        ("", False),
    ],
)
def test_loopback_is_what_surely_stays_on_the_machine(host, loopback):
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("127.0.0.1:7410", True),
        ("localhost:7410", True),
        ("[::1]:7410", True),
        ("unix:/run/x", True),
        ("unix-abstract:x", True),
        ("dns:///localhost:7410", True),
        ("dns:localhost:7410", True),
        ("dns://127.0.0.1/host:7410", False),
        ("dns:///credentiald:7410", False),
        ("ipv4:127.0.0.1:1,127.0.0.2:1", True),
        ("ipv4:127.0.0.1:1,10.0.0.2:1", False),
        ("ipv6:[::1]:1", True),
        ("credentiald:7410", False),
        ("xds:///localhost", False),
        ("", False),
    ],
)
def test_a_grpc_target_is_local_only_if_it_must_be(target, local):
    assert is_local_target(target) is local


def test_plaintext_that_others_can_reach_is_refused_unless_wanted():
    addresses = parse_addresses("127.0.0.1:1,10.0.0.1:1,unix:/x")
    errors = plaintext_errors("listen", addresses, tls=False, insecure_plaintext=False)
    assert [error.split(" can be")[0] for error in errors] == ["listen: 10.0.0.1:1"]
    assert plaintext_errors("listen", addresses, tls=True, insecure_plaintext=False) == []
    assert plaintext_errors("listen", addresses, tls=False, insecure_plaintext=True) == []


def test_two_listeners_cannot_share_an_address():
    errors = clash_errors(
        {"listen": parse_addresses("127.0.0.1:1,127.0.0.1:0"), "admin": parse_addresses("127.0.0.1:1")}
    )
    assert errors == ["admin: 127.0.0.1:1 is already the address of listen"]
    assert clash_errors({"listen": parse_addresses("127.0.0.1:0"), "admin": parse_addresses("127.0.0.1:0")}) == []
