"""Receipts come back as they were given, and no other bytes do."""

from hypothesis import given
from hypothesis import strategies as st

from credentiald import receipts
from credentiald.record_model import Decided, Noted, Origin

KEY = bytes(range(32))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
IDS = st.uuids().map(str)
ORIGINS = st.builds(Origin, *[TEXTS] * 7)
RECEIPTS = st.builds(
    receipts.Receipt, IDS | st.just(""), IDS, ORIGINS, st.integers(min_value=0, max_value=9_999_999_999_999_999)
)


@given(RECEIPTS)
def test_a_receipt_is_read_as_it_was_written(receipt):
    raw = receipts.write(KEY, receipt)

    assert receipts.read(KEY, raw) == receipt
    assert receipts.read(b"\0" * 32, raw) is None
    assert receipts.read(KEY, raw[:-1] + bytes((raw[-1] ^ 1,))) is None


@given(st.lists(RECEIPTS, max_size=8))
def test_one_reader_reads_receipts_of_many_decisions(written):
    read_one = receipts.reader(KEY)

    assert [read_one(receipts.write(KEY, one)) for one in [*written, *written]] == [*written, *written]


@given(ORIGINS, st.uuids(), st.uuids())
def test_the_receipt_of_one_more_request_differs_in_its_marks_alone(origin, interception_id, resolution_id):
    write_one = receipts.writer(KEY, 5)
    ids = (str(interception_id), str(resolution_id))
    again = receipts.read(KEY, write_one(receipts.unchanged_part(origin), *map(str.encode, ids)))

    assert again == receipts.Receipt(*ids, origin, 5)


def test_all_receipts_of_one_decision_have_one_length():
    part = receipts.unchanged_part(Origin("s", "u", "p", "corp", "openai", "CENTRAL_KEY", "c"))
    lengths = {
        len(receipts.writer(KEY, micros)(part, one, b"r" * 36)) for micros in (1, 10**15) for one in (b"", b"i" * 36)
    }

    assert len(lengths) == 1


@given(RECEIPTS, st.binary(min_size=32, max_size=32))
def test_of_what_is_noted_the_mac_is_enough_and_nothing_less_is(receipt, other):
    raw = receipts.write(KEY, receipt)
    noted = noted_of(receipt, raw)
    # With another key, so that nothing but the note can tell.
    read = receipts.reader(bytes(32), {noted[0]: noted})
    assert read(raw) == (receipt if receipt.interception_id else None)
    assert read(raw[:-1]) is None
    assert read(raw[:-32] + other) is None
    # What was noted twice stands behind no receipt by itself.
    merged = receipts.reader(bytes(32), {noted[0]: (*noted[:6], b"", noted[-1])})
    assert merged(raw) is None
    assert merged(raw[:37]) is None


@given(
    st.lists(RECEIPTS.filter(lambda one: one.interception_id), max_size=4, unique_by=lambda one: one.interception_id)
)
def test_of_many_that_are_noted_all_are_or_none(given):
    raws = [receipts.write(KEY, one) for one in given]
    noted = {one[0]: one for one in map(noted_of, given, raws)}
    assert receipts.all_noted(raws, noted) == [*noted.values()]
    for place, one in enumerate(noted):
        others = {key: value for key, value in noted.items() if key != one}
        assert receipts.all_noted(raws, others) is None
        merged = noted | {one: (*noted[one][:6], b"", noted[one][-1])}
        assert receipts.all_noted(raws, merged) is None
        for wrong in (raws[place][:-1], raws[place][:37], raws[place][:-32] + receipts.mac_of(raws[place - 1])[::-1]):
            assert receipts.all_noted([*raws[:place], wrong, *raws[place + 1 :]], noted) is None
    if len(raws) > 1:
        # The same MACs, but each for another interception.
        swapped = [raw[:-32] + receipts.mac_of(other) for raw, other in zip(raws, raws[1:] + raws[:1], strict=True)]
        assert receipts.all_noted(swapped, noted) is None


def noted_of(receipt: receipts.Receipt, raw: bytes) -> Noted:
    """What is noted when the receipt is given out."""
    return (
        receipt.interception_id.encode(),
        receipt.resolution_id.encode(),
        Decided(receipt.origin, "openai.responses", None, True),
        "gpt-5",
        "Codex",
        "bridge-1",
        receipts.mac_of(raw),
        receipt.resolve_time_micros,
    )
