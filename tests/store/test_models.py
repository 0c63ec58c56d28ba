"""Prices of models in the database: one row for each model of a provider, whatever the provider's origin."""

from dataclasses import replace

import pytest

from credentiald.errors import AlreadyExists, EtagMismatch, ModelNotFound
from credentiald.model import ModelPrices
from credentiald.prices import MOST_PRICE_MICROS
from credentiald.store import models, providers, revision
from tests.support.store import LATER, MISSING_ID, NOW, a_model, a_provider, last_change


def get(conn, name="gpt-5", provider_id="p-1"):
    return models.get(conn, provider_id=provider_id, provider_name="corp", name=name)


@pytest.mark.parametrize(
    "prices", [ModelPrices(), ModelPrices(1, 2, 3, 4), ModelPrices(0, None, MOST_PRICE_MICROS, None)]
)
def test_a_model_is_found_with_its_prices_as_they_were_saved(conn, prices):
    made = models.create(conn, a_model(prices=prices), now=NOW)
    assert made == a_model(prices=prices, id=made.id) == get(conn)
    assert models.prices(conn) == {("p-1", "gpt-5"): prices}
    assert last_change(conn) == ("model.created", made.id, "corp/gpt-5")


def test_a_name_is_taken_for_one_provider_and_an_id_for_all(conn):
    made = models.create(conn, a_model(), now=NOW)
    models.create(conn, a_model(provider_id="p-2"), now=NOW)
    models.create(conn, a_model(name="GPT-5"), now=NOW)
    for again in (a_model(), a_model(name="other", id=made.id)):
        with pytest.raises(AlreadyExists):
            models.create(conn, again, now=NOW)
    assert revision.current(conn) == 3


def test_an_update_replaces_the_prices_and_counts_up(conn):
    made = models.create(conn, a_model(), now=NOW)
    dearer = ModelPrices(input_price_micros=9)
    changed = models.update(conn, replace(made, prices=dearer), expected_version=1, now=LATER)
    assert changed == replace(made, prices=dearer, version=2, update_time=LATER) == get(conn)
    assert last_change(conn) == ("model.updated", made.id, "corp/gpt-5")
    with pytest.raises(EtagMismatch):
        models.update(conn, made, expected_version=1, now=LATER)
    assert get(conn) == changed


def test_a_deleted_model_is_gone_and_no_other(conn):
    made = models.create(conn, a_model(), now=NOW)
    kept = models.create(conn, a_model(name="gpt-5-mini"), now=NOW)
    with pytest.raises(EtagMismatch):
        models.delete(conn, made, expected_version=2, now=LATER)
    models.delete(conn, made, expected_version=1, now=LATER)
    assert last_change(conn) == ("model.deleted", made.id, "corp/gpt-5")
    assert set(models.prices(conn)) == {("p-1", "gpt-5-mini")}
    assert get(conn, kept.name) == kept
    for missing in (made, replace(made, provider_id=MISSING_ID)):
        with pytest.raises(ModelNotFound):
            models.delete(conn, missing, expected_version=None, now=LATER)


def test_models_go_with_their_provider_and_no_others(conn):
    gone, kept = (providers.create(conn, a_provider(name), (), now=NOW) for name in ("gone", "kept"))
    for provider in (gone, kept):
        models.create(conn, a_model(provider_id=provider.id), now=NOW)
    providers.delete(conn, "gone", expected_version=None, now=LATER)
    assert set(models.prices(conn)) == {(kept.id, "gpt-5")}


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_follow_each_other_by_provider_and_name_without_gap_or_overlap(conn, limit):
    # A hyphen sorts before a slash: names of providers come first, whatever they are followed by.
    names = {"p-1": "a", "p-2": "a-b", "p-3": "b"}
    saved = [(provider, model) for provider in names for model in ("z", "a/b", "ümläut", "Z", "m'); --")]
    for provider_id, model in reversed(saved):
        models.create(conn, a_model(provider_id=provider_id, name=model), now=NOW)
    models.create(conn, a_model(provider_id="of nobody"), now=NOW)
    seen, after = [], None
    while page := models.list_page(conn, names, after=after, limit=limit):
        assert len(page) <= limit
        seen += [(one.provider_name, one.name) for one in page]
        after = seen[-1]
    assert seen == sorted((names[provider_id], model) for provider_id, model in saved)
    assert [one.name for one in models.list_page(conn, {"p-3": "b"}, after=None, limit=2)] == ["Z", "a/b"]
