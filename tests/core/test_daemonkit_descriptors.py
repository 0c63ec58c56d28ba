"""How many descriptors a process takes, and what they suffice for."""

import subprocess
import sys

import pytest

from daemonkit.descriptors import most_pairs

CHILD = """
import resource
from daemonkit.descriptors import raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 150))
print(raise_descriptor_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_a_process_takes_all_the_descriptors_that_it_may_have() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == ["150", "150", "150"]


@pytest.mark.parametrize(("descriptors", "pairs"), [(1024, 480), (1 << 20, (1 << 19) - 32), (64, 1), (3, 1)])
def test_descriptors_are_for_pairs_of_connections_and_some_are_kept_back(descriptors: int, pairs: int) -> None:
    assert most_pairs(descriptors) == pairs
