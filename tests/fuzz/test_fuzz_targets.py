"""The short form of every fuzzer: its seeds, and as many changed ones as a test run has time for. scripts/fuzz goes on.

Those for HTTP are in test_fuzz_short.py and test_fuzz_answers.py, where hypothesis changes the seeds.
"""

import random
from itertools import islice

import pytest

from tests.fuzz.driver import inputs, target
from tests.fuzz.targets import NAMES

INPUTS = {"environment": 150, "settings": 150, "peers_of_credentiald": 250, "requests": 200, "responses": 200}
USUAL_INPUTS = 1000


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
def test_no_input_is_a_finding(name: str) -> None:
    module = target(name)
    tried = 0
    for data in islice(inputs(module.SEEDS, module.WORDS, random.Random(name)), INPUTS.get(name, USUAL_INPUTS)):
        module.one_input(data)
        tried += 1
    assert tried == INPUTS.get(name, USUAL_INPUTS)


def test_seeds_are_changed_in_another_way_each_time_and_the_same_way_for_a_seed() -> None:
    made = [list(islice(inputs([b"abc", b"defg"], [b"X"], random.Random(seed)), 50)) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
    assert made[0][:2] == [b"abc", b"defg"]
    assert len(set(made[0])) > 25
