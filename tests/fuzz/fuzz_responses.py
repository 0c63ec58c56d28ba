"""Fuzzes the upstream side of bridged.http1 with atheris: no answer may be read differently by us, h11 and http.client.

    scripts/fuzz 3600 fuzz_responses

Needs `atheris`. Never more of a body goes on than its framing says, and nothing but BadResponse is raised. What it
finds is printed and kept in the folder that scripts/fuzz names; make it a row of tests/fuzz/test_fuzz_answers.py before
mending it.
"""

import sys

import atheris

with atheris.instrument_imports(include=["bridged.http1"]):
    from tests.support.http1_answer_mutations import fuzzed_answer
    from tests.support.http1_answer_readers import answer_disagreement


def one_input(data: bytes) -> None:
    """The first three bytes say what was asked, and where the network cuts the rest."""
    stream, parts, head = fuzzed_answer(data)
    problem = answer_disagreement(stream, parts, head=head)
    if problem is not None:
        raise AssertionError(f"{problem}: {stream!r} as {parts!r}, head={head}")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
