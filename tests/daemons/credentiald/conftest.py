"""Everything is logged in these tests, so that a log call that fails is seen."""

import logging

import pytest


@pytest.fixture(autouse=True)
def log_everything(caplog):
    with caplog.at_level(logging.DEBUG):
        yield
