import hashlib
import re
import string
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentiald import tokens

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
prefixes = st.sampled_from([tokens.USER_PREFIX, tokens.SERVICE_PREFIX])


@given(prefixes)
def test_a_minted_token_has_its_form_and_is_recognised(prefix):
    token = tokens.mint(prefix).reveal()
    assert re.fullmatch(r"db[us]_[0-9A-Za-z]{49}", token)
    assert tokens.prefix_of(token) == prefix


def test_the_checksum_is_crc_32_in_base_62_with_zeros_on_the_left():
    token = tokens.mint(tokens.USER_PREFIX).reveal()
    number = 0
    for character in token[-6:]:
        number = number * 62 + BASE62.index(character)
    assert number == zlib.crc32(token[:-6].encode())


def test_no_two_tokens_are_alike():
    minted = {tokens.mint(tokens.USER_PREFIX).reveal() for _ in range(500)}
    assert len(minted) == 500


def test_every_character_of_the_alphabet_is_used_and_no_other():
    seen = set("".join(tokens.mint(tokens.USER_PREFIX).reveal()[4:47] for _ in range(200)))
    assert seen == set(BASE62)


def test_a_token_does_not_print():
    token = tokens.mint(tokens.USER_PREFIX)
    assert token.reveal() not in f"{token} {token!r}"


def test_another_prefix_is_refused():
    with pytest.raises(ValueError, match="prefix"):
        tokens.mint("dbx_")


@given(prefixes, st.integers(min_value=0, max_value=52), st.sampled_from(BASE62 + "_-. é"))
def test_one_wrong_character_anywhere_is_noticed(prefix, place, character):
    token = tokens.mint(prefix).reveal()
    changed = token[:place] + character + token[place + 1 :]
    assert tokens.prefix_of(changed) == (prefix if changed == token else None)


@given(prefixes, st.data())
def test_two_neighbours_swapped_are_noticed(prefix, data):
    token = tokens.mint(prefix).reveal()
    place = data.draw(st.integers(min_value=4, max_value=45))
    swapped = token[:place] + token[place + 1] + token[place] + token[place + 2 :]
    assert tokens.prefix_of(swapped) == (prefix if swapped == token else None)


def test_a_user_token_does_not_become_a_service_token_by_its_prefix():
    token = tokens.mint(tokens.USER_PREFIX).reveal()
    assert tokens.prefix_of(tokens.SERVICE_PREFIX + token[4:]) is None


@pytest.mark.parametrize(
    "change", [str.upper, lambda t: t + "0", lambda t: t[:-1], lambda t: t + "\n", lambda t: " " + t]
)
def test_other_lengths_and_spaces_are_no_tokens(change):
    assert tokens.prefix_of(change(tokens.mint(tokens.USER_PREFIX).reveal())) is None


@given(st.text(alphabet=st.characters(), max_size=80))
def test_any_text_can_be_asked_about(text):
    assert tokens.prefix_of(text) is None
    assert len(tokens.hash_of(text)) == 32


def test_lone_surrogates_can_be_asked_about():
    assert tokens.prefix_of("dbu_" + "\ud800" * 49) is None
    assert tokens.hash_of("\ud800") != tokens.hash_of("\ud801")


def test_the_stored_form_is_sha_256():
    assert tokens.hash_of("dbu_x") == hashlib.sha256(b"dbu_x").digest()
