"""One clone of the repository for all tests of the documents; what scripts/run installs in it is installed once."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clone import ANY_PORTS, Run, bare_environ, make_clone, running


@pytest.fixture(scope="session")
def installed_clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone in a folder of its own."""
    return make_clone(tmp_path_factory.mktemp("first-minutes"))


@pytest.fixture(scope="module")
def clone(installed_clone: Path) -> Path:
    """The clone, without data of earlier modules."""
    shutil.rmtree(installed_clone / ".run", ignore_errors=True)
    return installed_clone


@pytest.fixture(scope="module")
def demo(clone: Path) -> Iterator[Run]:
    """scripts/run without any provider key, ready."""
    with running(clone, bare_environ(clone, **ANY_PORTS)) as run:
        run.wait_ready()
        yield run
