"""The chain of the audit: whatever is done to its rows is found, and named."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentiald.audit_chain import EMPTY, DamageKind, Head, Row, hash_of, parse_head, verify

DATABASE = "01890000-0000-7000-8000-000000000001"


def chained(bodies: list[bytes], *, database_id: str = DATABASE) -> list[Row]:
    """A chain as it is written: a genesis, and an act for each body."""
    genesis = msgspec.json.encode({"database_id": database_id})
    rows: list[Row] = []
    for place, body in enumerate([genesis, *bodies], start=1):
        kind, time = ("genesis" if place == 1 else "act"), 1_000_000 * place
        previous = rows[-1].hash if rows else EMPTY.hash
        hashed = hash_of(previous, place, time, time - 7, kind, body)
        rows.append(Row(place, time, time - 7, kind, body, hashed))
    return rows


def hashed_anew(rows: list[Row], start: int) -> list[Row]:
    """What somebody who can write to the file can do: all rows from `start` on, hashed and numbered again."""
    made = rows[:start]
    for row in rows[start:]:
        previous = made[-1].hash if made else EMPTY.hash
        place = len(made) + 1
        made.append(row._replace(sequence=place, hash=hash_of(previous, place, *row[1:5])))
    return made


CHAIN = chained([b'{"what":"%d"}' % number for number in range(12)])
HEAD = Head(len(CHAIN), CHAIN[-1].hash)
bodies = st.lists(st.binary(min_size=0, max_size=40), min_size=3, max_size=12, unique=True)


def found(rows: list[Any], **more: Any) -> tuple[int, DamageKind] | None:
    damage = verify(rows, **more).damage
    return None if damage is None else (damage.sequence, damage.kind)


@given(bodies)
def test_a_chain_as_it_was_written_is_whole_up_to_its_head(texts):
    rows = chained(texts)
    verdict = verify(rows, expected=Head(len(rows), rows[-1].hash), database_id=DATABASE)
    assert verdict.damage is None
    assert (verdict.head.sequence, verdict.database_id) == (len(rows), DATABASE)
    assert verdict.kinds == {"genesis": 1, "act": len(texts)}


CHANGED = {
    "time": lambda row: row._replace(time=row.time + 1),
    "from_time": lambda row: row._replace(from_time=row.from_time - 1),
    "kind": lambda row: row._replace(kind="release"),
    "body": lambda row: row._replace(body=row.body + b" "),
    "hash": lambda row: row._replace(hash=bytes([row.hash[0] ^ 1]) + row.hash[1:]),
    "a time that is no integer": lambda row: row._replace(time=float(row.time)),
    "a body that is text": lambda row: row._replace(body=row.body.decode()),
    "a hash that is text": lambda row: row._replace(hash=row.hash.hex()),
    "nothing in a column": lambda row: row._replace(kind=None),
}


@pytest.mark.parametrize("how", CHANGED)
@pytest.mark.parametrize("place", range(len(CHAIN)))
def test_a_change_of_any_column_of_any_row_is_an_edit_of_that_row(how, place):
    rows = list(CHAIN)
    rows[place] = CHANGED[how](rows[place])
    assert found(rows) == (place + 1, DamageKind.EDIT)


@given(st.integers(1, len(CHAIN) - 1), st.data())
def test_a_flipped_bit_of_a_body_is_an_edit(place, data):
    rows = list(CHAIN)
    body = bytearray(rows[place].body)
    bit = data.draw(st.integers(0, 8 * len(body) - 1))
    body[bit // 8] ^= 1 << bit % 8
    rows[place] = rows[place]._replace(body=bytes(body))
    assert found(rows) == (place + 1, DamageKind.EDIT)


@pytest.mark.parametrize("place", range(1, len(CHAIN) - 1))
def test_a_row_that_was_changed_with_its_hash_is_found_at_the_next_one(place):
    rows = list(CHAIN)
    rows[place] = hashed_anew([*rows[:place], rows[place]._replace(body=b"{}")], place)[place]
    assert found(rows) == (place + 2, DamageKind.EDIT)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("place", range(len(CHAIN) - 3))
def test_rows_that_are_missing_are_a_gap(place, count):
    rows = [*CHAIN[:place], *CHAIN[place + count :]]
    assert found(rows) == (place + 1, DamageKind.GAP)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("place", range(1, len(CHAIN) - 3))
def test_rows_that_are_missing_are_a_gap_also_where_the_rest_was_numbered_anew(place, count):
    rows = [row._replace(sequence=at) for at, row in enumerate([*CHAIN[:place], *CHAIN[place + count :]], start=1)]
    assert found(rows) == (place + 1, DamageKind.GAP)


@pytest.mark.parametrize("one", range(1, len(CHAIN) - 1))
@pytest.mark.parametrize("distance", [1, 2, 5])
def test_rows_in_each_others_places_are_a_reorder(one, distance):
    other = one + distance
    if other >= len(CHAIN):
        other = one
        one = 1 if other != 1 else 2
    rows = list(CHAIN)
    first, second = sorted((one, other))
    rows[first], rows[second] = (
        rows[second]._replace(sequence=first + 1),
        rows[first]._replace(sequence=second + 1),
    )
    assert found(rows) == (first + 1, DamageKind.REORDER)


@pytest.mark.parametrize("kept", range(1, len(CHAIN)))
def test_a_cut_end_shows_against_a_head_and_only_there(kept):
    assert found(CHAIN[:kept]) is None
    assert found(CHAIN[:kept], expected=HEAD) == (kept + 1, DamageKind.TRUNCATION)


@given(st.integers(1, len(CHAIN) - 1))
def test_a_chain_that_was_made_anew_from_some_row_on_shows_against_a_head(place):
    rows = hashed_anew([*CHAIN[:place], CHAIN[place]._replace(body=b"{}"), *CHAIN[place + 1 :]], place)
    assert found(rows) is None
    assert found(rows, expected=HEAD) == (len(CHAIN), DamageKind.REWRITTEN)


def test_an_empty_file_is_cut_before_its_genesis():
    assert found([]) == (1, DamageKind.TRUNCATION)


def test_a_chain_of_another_database_or_of_none_is_foreign():
    assert found(CHAIN, database_id="another") == (1, DamageKind.FOREIGN)
    assert found(chained([], database_id="")) == (1, DamageKind.FOREIGN)
    without = hashed_anew([CHAIN[1], *CHAIN[2:]], 0)
    assert found(without) == (1, DamageKind.FOREIGN)


@given(bodies, st.data())
def test_no_change_of_the_order_or_the_number_of_rows_goes_unnoticed(texts, data):
    rows = chained(texts)
    changed = data.draw(st.lists(st.sampled_from(rows), min_size=0, max_size=len(rows) + 2))
    head = Head(len(rows), rows[-1].hash)
    assert (found(changed, expected=head) is None) == (changed == rows)


@given(st.integers(1, 2**63 - 1), st.binary(min_size=32, max_size=32))
def test_a_head_is_read_as_it_is_written(sequence, hashed):
    assert parse_head(str(Head(sequence, hashed))) == Head(sequence, hashed)


@pytest.mark.parametrize("text", ["", "7", "7:", "7:abcd", f"x:{'0' * 64}", f"7:{'g' * 64}", f"-1:{'0' * 64}"])
def test_what_is_no_head_is_refused(text):
    with pytest.raises(ValueError):
        parse_head(text)
