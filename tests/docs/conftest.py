"""One clone of the repository for all tests of the documents, with scripts/run's environment installed in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clone import ANY_PORTS, Run, bare_environ, make_clone, running


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone in a folder of its own."""
    return make_clone(tmp_path_factory.mktemp("first-minutes"))


@pytest.fixture(scope="module")
def demo(clone: Path) -> Iterator[Run]:
    """scripts/run without any provider key, ready."""
    with running(clone, bare_environ(clone, **ANY_PORTS)) as run:
        run.wait_ready()
        yield run
