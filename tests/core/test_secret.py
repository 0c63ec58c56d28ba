"""The type that cannot be printed."""

import copy
import dataclasses
import json
import logging
import pickle
import traceback

import pytest

from daemonkit.secret import MASK, Secret

CANARY = "sk-canary-0123456789"


@dataclasses.dataclass(frozen=True)
class Holder:
    name: str
    key: Secret


@pytest.mark.parametrize(
    "render",
    [
        repr,
        str,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>40}",
        lambda secret: f"{secret:>40}",
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031
        lambda secret: "{0}".format(secret),  # noqa: UP030, UP032
        lambda secret: repr(Holder("a", secret)),
        lambda secret: repr(dataclasses.asdict(Holder("a", secret))),
        lambda secret: repr([secret, {"key": secret}]),
        lambda secret: logging.LogRecord("n", 10, "p", 1, "msg %s", (secret,), None).getMessage(),
        lambda secret: repr(copy.deepcopy(secret)),
    ],
)
def test_no_textual_form_shows_the_material(render):
    text = render(Secret(CANARY))

    assert CANARY not in text
    assert MASK in text


def test_it_cannot_be_pickled_or_dumped():
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Secret(CANARY))
    with pytest.raises(TypeError) as refused:
        json.dumps(Secret(CANARY))
    assert CANARY not in "".join(traceback.format_exception(refused.value))


def test_it_has_no_dictionary_and_no_hash():
    assert not hasattr(Secret(CANARY), "__dict__")
    with pytest.raises(TypeError):
        hash(Secret(CANARY))


def test_equal_material_is_equal():
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"


@pytest.mark.parametrize(("value", "blank"), [("", True), (" \t\n", True), ("k", False), (" k ", False)])
def test_nothing_but_white_space_is_blank(value, blank):
    assert Secret(value).is_blank() is blank


def test_the_size_is_counted_in_bytes():
    assert Secret("é").size_bytes() == 2
    assert Secret(" é ").stripped().reveal() == "é"
