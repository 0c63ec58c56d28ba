"""A switch with exceptions for single providers."""

import pytest

from bridged.provider_switch import parse_provider_switch

ROWS = [
    ("on", {"corp": True, "lab": True}),
    ("off", {"corp": False, "lab": False}),
    ("on,lab=off", {"corp": True, "lab": False}),
    ("OFF, lab = On", {"corp": False, "lab": True}),
    ("lab=off", {"corp": True, "lab": False}),
]


@pytest.mark.parametrize(("text", "expected"), ROWS)
def test_a_provider_has_its_own_word_or_that_of_all(text: str, expected: dict[str, bool]) -> None:
    switch = parse_provider_switch(text)
    assert {name: switch.on_for(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "write on or off"),
        ("maybe", "write on or off"),
        ("lab=maybe", "write on or off"),
        ("lab=off,on", "PROVIDER=on"),
        ("on,off", "PROVIDER=off"),
        ("=off", "name each provider once"),
        ("on,LAB=off", "no name of a provider"),
        ("lab=off,lab=on", "name each provider once"),
    ],
)
def test_what_is_no_switch_is_refused_with_what_to_write(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_provider_switch(text)
