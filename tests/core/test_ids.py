from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentiald.ids import canonical_uuid, is_uuid, uuid7, uuid7_many, uuid_bytes

NOW = datetime(2026, 11, 21, 12, 0, 0, 123000, tzinfo=UTC)
moments = st.datetimes(
    min_value=datetime(1970, 1, 1), max_value=datetime(9999, 1, 1), timezones=st.just(UTC), allow_imaginary=False
)


def test_the_example_of_the_rfc_comes_out():
    # RFC 9562, appendix A.6: 22 February 2022, 2:22:22 PM GMT-05:00, with its rand_a and rand_b.
    moment = datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)
    random = (0xCC3 << 62 | 0x18C4DC0C0C07398F).to_bytes(10, "big")
    assert uuid7(moment, random) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@given(moments, st.binary(min_size=10, max_size=20))
def test_every_id_has_version_variant_and_time(moment, random):
    text = uuid7(moment, random)
    number = int(text.replace("-", ""), 16)
    assert is_uuid(text)
    assert text == text.lower()
    assert number >> 76 & 0xF == 7
    assert number >> 62 & 0b11 == 0b10
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=number >> 80) <= moment


def test_ids_rise_within_one_moment_and_with_a_clock_that_steps_back_a_little():
    made = [uuid7(NOW - timedelta(milliseconds=step % 7)) for step in range(2000)]
    assert made == sorted(set(made))


def test_a_clock_that_was_set_back_far_is_believed():
    uuid7(NOW + timedelta(days=400))
    assert uuid7(NOW)[:13] == uuid7(NOW, bytes(10))[:13]


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(TypeError):
        uuid7(NOW.replace(tzinfo=None))


def test_too_little_randomness_is_refused():
    with pytest.raises(ValueError, match="random"):
        uuid7(NOW, b"short")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("017F22E2-79B0-7CC3-98C4-DC0C0C07398F", "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"),
        ("00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000"),
        ("", None),
        ("alice", None),
        ("{017f22e2-79b0-7cc3-98c4-dc0c0c07398f}", None),
        ("urn:uuid:017f22e2-79b0-7cc3-98c4-dc0c0c07398f", None),
        ("017f22e279b07cc398c4dc0c0c07398f", None),
        ("017f22e2-79b0-7cc3-98c4-dc0c0c07398f\n", None),
        ("017f22e2-79b0-7cc3-98c4-dc0c0c07398g", None),
        ("٠17f22e2-79b0-7cc3-98c4-dc0c0c07398f", None),
    ],
)
def test_only_the_plain_form_is_a_uuid(text, canonical):
    assert canonical_uuid(text) == canonical
    assert is_uuid(text) == (canonical is not None)
    assert uuid_bytes(text) == (text.encode() if is_uuid(text) else None)


@given(st.text())
def test_any_text_is_safe_to_ask_about(text):
    canonical = canonical_uuid(text)
    assert canonical is None or canonical == text.lower()
    assert uuid_bytes(text) == (text.encode() if canonical else None)


@given(st.uuids(), st.integers(0, 35), st.characters())
def test_one_character_makes_a_uuid_or_none_by_both_rules(made, place, character):
    text = str(made)[:place] + character + str(made)[place + 1 :]
    assert (uuid_bytes(text) is not None) == is_uuid(text)


def many(now: datetime, count: int) -> list[str]:
    return [made.decode() for made in uuid7_many(now, count)]


def test_many_ids_at_once_rise_are_unique_and_go_on_from_each_other():
    now = datetime.now(UTC)
    made = [*many(now, 500), uuid7(now), *many(now, 0), *many(now, 500)]

    assert made == sorted(set(made))
    assert {(UUID(one).version, UUID(one).variant) for one in made} == {(7, RFC_4122)}


def test_ids_rise_over_every_carry():
    # Each id is about 2**32 after the one before, so 2**17 of them pass the lower 48 bits.
    now = datetime.now(UTC)
    made = [one for _ in range(600) for one in many(now, 256)]

    assert made == sorted(set(made))
    assert len({one[:23] for one in made}) > 1
    assert all(map(is_uuid, made))
