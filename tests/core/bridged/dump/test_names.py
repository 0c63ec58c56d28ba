"""Where the files of a dump are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.dump.names import OTHERS, Places, fit_name
from bridged.dump.needles import Needles

NONE = Needles()


@given(st.text())
def test_any_text_becomes_one_name_that_leads_nowhere(text: str) -> None:
    name = fit_name(text)
    assert name
    assert "/" not in name
    assert "\0" not in name
    assert not name.startswith((".", "-"))
    assert name.isascii()
    assert name.isprintable()
    assert len(name) <= 96


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("claude/fable", "claude-fable"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("", "unknown"),
        ("../..", "unknown"),
        ("dbu_" + "a1B2" * 12 + "c", "unknown"),
    ],
)
def test_a_model_has_a_folder(model: str, folder: str) -> None:
    place = Places().of_turn("corp", model, "7-id", NONE)
    assert (place.provider, place.folder, place.stem) == ("corp", folder, "7-id")


def test_clients_cannot_have_any_number_of_folders_made() -> None:
    places = Places()
    folders = {places.of_turn("corp", f"model-{number}", "7-id", NONE).folder for number in range(1000)}
    assert len(folders) == 257
    assert OTHERS in folders
    assert places.of_turn("corp", "model-3", "7-id", NONE).folder == "model-3"
    assert places.of_turn("lab", "model-999", "7-id", NONE).folder == "model-999"


def test_a_path_is_in_the_name_of_what_is_passed_through() -> None:
    place = Places().of_pass_through("corp", "/v1/models/a%2Fb/" + "x" * 99, 7, "id", NONE)
    assert place.folder == "passthrough"
    assert place.stem == "7-v1-models-a-2Fb-" + "x" * 48 + "-id"
