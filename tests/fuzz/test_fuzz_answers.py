"""The short form of the fuzzer for answers: every seed, and as many changed ones as there is time for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.http1_answer_mutations import ANSWERS, CHANGED_ANSWERS, fuzzed_answer
from tests.support.http1_answer_readers import answer_disagreement
from tests.support.http1_mutations import CUTS, cut

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"
FOUND = {
    "a last chunk of many zeros": CHUNKED + b"\r\n\r\n5\r\nhello\r\n" + b"0" * 70 + b"\r\n\r\n",
    "a chunk's size after many zeros": CHUNKED + b"\r\n\r\n" + b"0" * 70 + b"5\r\nhello\r\n0\r\n\r\n",
    "a space after chunked": CHUNKED + b" \r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "Transfer-Encoding in the trailers": CHUNKED + b"\r\n\r\n0\r\nTransfer-Encoding: x\r\n\r\n",
    "a tab after chunked": CHUNKED + b"\t\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "a space and a tab after chunked": CHUNKED + b" \t\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("data", FOUND.values(), ids=FOUND)
def test_readers_agree_on_what_the_fuzzer_found(data: bytes) -> None:
    for place in range(len(data)):
        assert answer_disagreement(data, cut(data, [place]), head=False) is None


@pytest.mark.parametrize("head", [False, True])
def test_readers_agree_on_every_seed_wherever_it_is_cut(head: bool) -> None:
    for data in ANSWERS:
        for place in range(0, len(data), 11):
            assert answer_disagreement(data, cut(data, [place]), head=head) is None, (data, place)


@settings(max_examples=1500, deadline=None)
@given(data=CHANGED_ANSWERS, cuts=CUTS, head=st.booleans())
def test_readers_agree_on_changed_answers(data: bytes, cuts: list[int], head: bool) -> None:
    assert answer_disagreement(data, cut(data, cuts), head=head) is None


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300))
def test_readers_agree_on_noise_for_an_answer(data: bytes) -> None:
    stream, parts, head = fuzzed_answer(data)
    assert answer_disagreement(stream, parts, head=head) is None
