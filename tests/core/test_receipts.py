"""Receipts come back as they were given, and no other bytes do."""

import json

from hypothesis import given
from hypothesis import strategies as st

from credentiald import receipts

KEY = bytes(range(32))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
RECEIPTS = st.builds(receipts.Receipt, *[TEXTS] * 7, st.integers(min_value=0, max_value=2**60))


@given(RECEIPTS)
def test_a_receipt_is_read_as_it_was_written(receipt):
    raw = receipts.write(KEY, receipt)

    assert receipts.read(KEY, raw) == receipt
    assert json.loads(raw[:-32])[0] == 1
    assert receipts.read(b"\0" * 32, raw) is None
    assert receipts.read(KEY, raw[:-1] + bytes((raw[-1] ^ 1,))) is None


@given(RECEIPTS, st.uuids())
def test_the_receipt_of_one_more_request_differs_in_its_marks_alone(receipt, interception_id):
    unchanged = receipts.unchanged_part(
        service_id=receipt.service_id,
        user_id=receipt.user_id,
        provider_id=receipt.provider_id,
        source=receipt.source,
        credential_id=receipt.credential_id,
    )
    again = receipts.read(KEY, receipts.writer(KEY, 5)(unchanged, str(interception_id).encode(), b"r-2"))

    assert again == receipts.Receipt(
        str(interception_id), "r-2", receipt.service_id, receipt.user_id, receipt.provider_id, receipt.source,
        receipt.credential_id, 5,
    )  # fmt: skip
