"""The upstream side of bridged.http1: no answer may be read differently by us, h11 and http.client.

Never more of a body goes on than its framing says, and nothing but BadResponse is raised. Make what is found a row of
tests/fuzz/test_fuzz_answers.py before mending it. The first three bytes of an input say what was asked, and where the
network cuts the rest.
"""

from tests.support.http1_answer_mutations import ANSWERS, MORSELS, fuzzed_answer
from tests.support.http1_answer_readers import answer_disagreement

WORDS = MORSELS
SEEDS = [flag + b"\0\0" + seed for flag in (b"\0", b"\1") for seed in ANSWERS]


def one_input(data: bytes) -> None:
    stream, parts, head = fuzzed_answer(data)
    problem = answer_disagreement(stream, parts, head=head)
    assert problem is None, f"{problem}: {stream!r} as {parts!r}, head={head}"
