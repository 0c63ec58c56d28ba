"""What an administrator may save, what counts as a key, and receipts."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentiald import receipts
from credentiald.errors import (
    AwsCredentialsIncomplete,
    InvalidArgument,
    InvalidKeyPolicy,
    InvalidName,
    KeyRequired,
    KeyTooLarge,
    UpstreamNotAllowed,
)
from credentiald.key_rules import checked_key, checked_material
from credentiald.model import ApiKeyMaterial, AwsKeyPairMaterial, BedrockOptions, KeyPolicy, Provider
from credentiald.provider_rules import check_new_name, check_provider, check_type, checked_central_key, normalised
from daemonkit.secret import Secret
from tests.support.records import an_id, an_origin

ON_OFF = KeyPolicy(central_key_enabled=True, user_keys_allowed=False, central_key_fallback=False)
OFF_ON = KeyPolicy(central_key_enabled=False, user_keys_allowed=True, central_key_fallback=False)
OFF_OFF = KeyPolicy(central_key_enabled=False, user_keys_allowed=False, central_key_fallback=True)


def draft(type_name="openai", policy=ON_OFF, **changes):
    return normalised(replace(Provider(id="p", name="p", type=type_name, policy=policy), **changes))


@pytest.mark.parametrize(
    ("provider", "has_key"),
    [
        (draft(), True),
        (draft(policy=OFF_ON), False),
        (draft("bedrock"), False),
        (draft("bedrock", bedrock=BedrockOptions(region="us-gov-west-1")), False),
        (draft("azure", base_url="https://my.openai.azure.com/"), True),
        (draft("openai-compat", base_url="http://127.0.0.1:8000/v1"), True),
    ],
)
def test_what_may_be_saved(provider, has_key):
    assert check_provider(provider, has_central_key=has_key) is None


@pytest.mark.parametrize(
    ("provider", "has_key", "refusal"),
    [
        (draft(policy=OFF_OFF), True, InvalidKeyPolicy),
        (draft("bedrock", policy=OFF_OFF), False, InvalidKeyPolicy),
        (draft(), False, KeyRequired),
        (draft("azure"), True, InvalidArgument),
        (draft("openai-compat"), True, InvalidArgument),
        (draft(base_url="ftp://x"), True, InvalidArgument),
        (draft(base_url="https://user:pw@x/"), True, InvalidArgument),
        (draft(base_url="https://x/#f"), True, InvalidArgument),
        (draft(base_url="http://169.254.169.254/latest"), True, UpstreamNotAllowed),
        (draft(base_url="https://[fe80::1]"), True, UpstreamNotAllowed),
        (draft(display_name="a\nb"), True, InvalidArgument),
        (draft(display_name="x" * 129), True, InvalidArgument),
        (draft("bedrock", bedrock=BedrockOptions(region="us-east-1.evil.example/#")), False, InvalidArgument),
    ],
)
def test_what_may_not_be_saved(provider, has_key, refusal):
    with pytest.raises(refusal):
        check_provider(provider, has_central_key=has_key)


def test_bedrock_options_are_for_bedrock():
    provider = replace(draft(), bedrock=BedrockOptions(region="us-east-1"))

    with pytest.raises(InvalidArgument):
        check_provider(provider, has_central_key=True)


@pytest.mark.parametrize(
    "name", ["", "A", "a_b", "-a", "a-", "a--b", "a/b", "api", "healthz", "v1", "v1beta", "metrics"]
)
def test_names_that_cannot_be_part_of_a_url_or_are_reserved_are_refused(name):
    with pytest.raises(InvalidName):
        check_new_name(name)


def test_an_unknown_type_is_refused_with_the_list():
    with pytest.raises(InvalidArgument, match="openai, anthropic"):
        check_type("opneai")


PAIR = AwsKeyPairMaterial(access_key_id=Secret("AKIA"), secret_access_key=Secret("s3"))


@pytest.mark.parametrize(
    ("provider", "material"),
    [
        (draft("copilot", policy=ON_OFF), ApiKeyMaterial(value=Secret("k"))),
        (draft(), PAIR),
        (draft(policy=OFF_ON), ApiKeyMaterial(value=Secret("k"))),
    ],
)
def test_a_key_that_the_type_or_the_policy_does_not_take_is_refused(provider, material):
    with pytest.raises(InvalidArgument):
        checked_central_key(provider, material)


def test_bedrock_takes_a_bearer_token_or_a_pair():
    bearer = ApiKeyMaterial(value=Secret(" abc \n"))

    assert checked_central_key(draft("bedrock"), bearer) == ApiKeyMaterial(value=Secret("abc"))
    assert checked_central_key(draft("bedrock"), PAIR) == PAIR


@pytest.mark.parametrize(
    ("key", "refusal"),
    [
        ("", KeyRequired),
        (" \t", KeyRequired),
        ("x" * 10241, KeyTooLarge),
        ("a b", InvalidArgument),
        ("é", InvalidArgument),
    ],
)
def test_what_is_no_key(key, refusal):
    with pytest.raises(refusal) as refused:
        checked_key(Secret(key), provider="p")
    assert key.strip() == "" or key not in str(refused.value)


@given(st.text())
def test_a_key_that_passes_is_fit_to_be_a_header_value(text):
    try:
        checked = checked_key(Secret(text), provider="p").reveal()
    except (KeyRequired, KeyTooLarge, InvalidArgument):
        return
    assert checked.isascii()
    assert checked.isprintable()
    assert " " not in checked


@pytest.mark.parametrize(("access", "secret"), [("", "s"), ("a", " "), ("", "")])
def test_an_incomplete_pair_is_refused(access, secret):
    pair = AwsKeyPairMaterial(access_key_id=Secret(access), secret_access_key=Secret(secret))

    with pytest.raises(AwsCredentialsIncomplete):
        checked_material(pair, provider="p")


RECEIPT = receipts.Receipt(an_id(1), an_id(2), an_origin(), 1)


def test_a_receipt_comes_back_as_it_was_written():
    assert receipts.read(b"k" * 32, receipts.write(b"k" * 32, RECEIPT)) == RECEIPT


@given(st.data())
def test_a_receipt_that_was_touched_is_not_ours(data):
    raw = bytearray(receipts.write(b"k" * 32, RECEIPT))
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= 1 << data.draw(st.integers(0, 7))

    assert receipts.read(b"k" * 32, bytes(raw)) is None
    assert receipts.read(b"j" * 32, receipts.write(b"k" * 32, RECEIPT)) is None


@given(st.binary())
def test_any_bytes_are_a_receipt_or_not(raw):
    assert receipts.read(b"k" * 32, raw) is None
