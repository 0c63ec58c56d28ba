"""What models cost: prices as people write them, and costs to the micro-dollar."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentiald.model import ModelPrices
from credentiald.prices import (
    MOST_COST_MICROS,
    MOST_PRICE_MICROS,
    cost_micros,
    parse_price_micros,
    price_problem,
    priced,
    written_usd,
)
from tests.support.records import a_usage

SONNET = ModelPrices(
    input_price_micros=3_000_000,
    output_price_micros=15_000_000,
    cache_read_price_micros=300_000,
    cache_write_price_micros=3_750_000,
)
counts = st.integers(0, 10**9)
prices = st.integers(0, MOST_PRICE_MICROS)


def usage_of(*tokens: int):
    names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")
    return a_usage(**dict(zip(names, tokens, strict=True)))


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("3", 3_000_000),
        ("0.075", 75_000),
        ("0", 0),
        ("0.0", 0),
        ("000.50", 500_000),
        ("0.000001", 1),
        ("0.10000000", 100_000),
        (" 3.75 ", 3_750_000),
        ("1000000", MOST_PRICE_MICROS),
    ],
)
def test_a_price_is_read_exactly(text, micros):
    assert parse_price_micros(text) == micros


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", "1e3", "1,5", "$3", ".5", "3.", "NaN", "inf", "0x3", "1_0", "٣", "0.0000001", "1000000.000001",
     "9" * 20, "9" * 5000, "0." + "0" * 30],
)  # fmt: skip
def test_what_is_no_price_is_refused_with_what_is_wrong(text):
    with pytest.raises(ValueError, match=r"is no price|more than six decimals|more than 1000000 USD"):
        parse_price_micros(text)


@given(prices)
def test_a_price_that_is_written_and_read_again_is_the_same(micros):
    assert parse_price_micros(written_usd(micros)) == micros
    assert Decimal(written_usd(micros)) * 1_000_000 == micros


@pytest.mark.parametrize(
    ("micros", "text"), [(0, "0"), (1, "0.000001"), (75_000, "0.075"), (10_000_000, "10"), (100_500_000, "100.5")]
)
def test_dollars_are_written_as_short_as_they_are_exact(micros, text):
    assert written_usd(micros) == text


@pytest.mark.parametrize(("micros", "is_wrong"), [(-1, True), (0, False), (10**12, False), (10**12 + 1, True)])
def test_prices_have_bounds(micros, is_wrong):
    assert (price_problem(micros) is not None) is is_wrong


@given(st.tuples(counts, counts, counts, counts), st.tuples(prices, prices, prices, prices))
def test_a_cost_is_the_exact_sum_rounded_once_to_the_nearest(tokens, each):
    exact = sum(Fraction(count * price, 1_000_000) for count, price in zip(tokens, each, strict=True))
    cost = cost_micros(ModelPrices(*each), usage_of(*tokens))
    if cost is None:
        assert exact >= MOST_COST_MICROS
    else:
        assert -Fraction(1, 2) < cost - exact <= Fraction(1, 2)


@pytest.mark.parametrize(("tokens", "cost"), [(1, 0), (4, 0), (5, 1), (14, 1), (15, 2), (10, 1)])
def test_half_a_micro_dollar_goes_up(tokens, cost):
    assert cost_micros(ModelPrices(input_price_micros=100_000), usage_of(tokens, 0, 0, 0)) == cost


def test_kinds_are_added_up_before_they_are_rounded():
    each = ModelPrices(100_000, 100_000, 100_000, 100_000)
    assert cost_micros(each, usage_of(4, 4, 4, 4)) == 2


def test_each_kind_has_its_own_price():
    assert cost_micros(SONNET, usage_of(1000, 100, 10_000, 1)) == 3000 + 1500 + 3000 + 4


@pytest.mark.parametrize("missing", ModelPrices._fields)
def test_a_kind_that_was_used_and_has_no_price_makes_it_unpriced_and_one_that_was_not_does_not(missing):
    each = SONNET._replace(**{missing: None})
    place = ModelPrices._fields.index(missing)
    tokens = [1000] * 4
    assert cost_micros(each, usage_of(*tokens)) is None
    tokens[place] = 0
    assert cost_micros(each, usage_of(*tokens)) is not None


@pytest.mark.parametrize("tokens", [(0, 0, 0, 0), (1, 1, 1, 1)])
def test_a_model_without_any_price_is_unpriced_and_one_that_is_free_costs_nothing(tokens):
    assert cost_micros(ModelPrices(), usage_of(*tokens)) is None
    assert cost_micros(ModelPrices(0, 0, 0, 0), usage_of(*tokens)) == 0


@given(st.integers(0, 1 << 62), prices)
def test_no_cost_is_too_large_for_the_store_whatever_was_counted(tokens, price):
    cost = cost_micros(ModelPrices(price, price, price, price), usage_of(tokens, tokens, tokens, tokens))
    assert cost is None or 0 <= cost <= MOST_COST_MICROS


@pytest.mark.parametrize(
    ("provider", "upstream_model", "model", "cost"),
    [
        ("p-1", "mapped", "asked", 1),
        ("p-1", "unknown", "asked", 2),
        ("p-1", "", "asked", 2),
        ("p-1", "", "mapped", 1),
        ("p-1", "mapped", "unknown", 1),
        ("p-1", "", "Asked", None),
        ("p-1", "", "", None),
        ("p-2", "mapped", "asked", None),
    ],
)
def test_the_model_of_the_upstream_comes_before_the_one_that_was_asked_for(provider, upstream_model, model, cost):
    table = {
        ("p-1", "mapped"): ModelPrices(input_price_micros=1_000_000),
        ("p-1", "asked"): ModelPrices(input_price_micros=2_000_000),
    }
    found = priced(usage_of(1, 0, 0, 0), table, provider_id=provider, upstream_model=upstream_model, model=model)
    assert found.cost_micros == cost


def test_a_mapped_model_whose_price_is_not_known_does_not_take_another_ones():
    table = {("p", "mapped"): ModelPrices(), ("p", "asked"): SONNET}
    assert (
        priced(usage_of(1, 1, 1, 1), table, provider_id="p", upstream_model="mapped", model="asked").cost_micros is None
    )
