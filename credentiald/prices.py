"""What the tokens of upstream calls cost: whole numbers all the way, rounded once for each call.

A price is in micro-dollars (USD / 1,000,000) per million tokens: USD 3 per million is 3,000,000. A cost is in
micro-dollars. A price or cost of None is not known ("unpriced"), which is never the same as 0.
"""

import re
from collections.abc import Iterable, Mapping

from credentiald.model import ModelPrices
from credentiald.record_model import TokenUsage

MICROS = 1_000_000
# One dollar for a token.
MOST_PRICE_MICROS = 1_000_000 * MICROS
# A million dollars for one call: a count or a price that makes more of it is wrong. Sums of nine million such costs
# fit into 64 bits.
MOST_COST_MICROS = 1_000_000 * MICROS

# Prices by provider id and model.
PriceTable = Mapping[tuple[str, str], ModelPrices]
NO_PRICES: PriceTable = {}

# Nobody writes an integer of a thousand digits, and Python would take its time with it.
_WRITTEN = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,20}))?")


def parse_price_micros(text: str) -> int:
    """USD per million tokens as people write it (`3`, `0.075`), exactly; ValueError says what is wrong."""
    found = _WRITTEN.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no price: write USD per million tokens, such as 3 or 0.075")
    fraction = (found[2] or "").rstrip("0")
    if len(fraction) > 6:
        raise ValueError(f"{text!r} has more than six decimals")
    price_micros = int(found[1]) * MICROS + int(fraction.ljust(6, "0"))
    if price_micros > MOST_PRICE_MICROS:
        raise ValueError(f"{text!r} is more than {written_usd(MOST_PRICE_MICROS)} USD per million tokens")
    return price_micros


def price_problem(price_micros: int) -> str | None:
    """What is wrong with a price, or None."""
    if 0 <= price_micros <= MOST_PRICE_MICROS:
        return None
    return f"must be from 0 to {MOST_PRICE_MICROS} micro-dollars per million tokens"


def written_usd(micros: int) -> str:
    """Micro-dollars as an exact decimal number of USD, without a unit: `3`, `0.075`."""
    whole, fraction = divmod(micros, MICROS)
    return f"{whole}.{fraction:06}".rstrip("0").rstrip(".")


def cost_micros(prices: ModelPrices, usage: TokenUsage) -> int | None:
    """What one upstream call cost, in micro-dollars, rounded once to the nearest (a half goes up); None as below."""
    return cost_of(prices, _counts(usage))


def cost_of(prices: ModelPrices, counts: Iterable[int]) -> int | None:
    """The same for its counts of tokens: input, output, read from a cache, written into one.

    None where no price is known at all, where a kind of tokens was used whose price is not known, and where the cost
    is beyond belief.
    """
    if prices == _UNKNOWN:
        return None
    # Micro-dollars times a million: nothing is lost before the one division.
    total = 0
    for count, price_micros in zip(counts, prices, strict=True):
        if count:
            if price_micros is None:
                return None
            total += count * price_micros
    cost = (total + MICROS // 2) // MICROS
    return cost if cost <= MOST_COST_MICROS else None


def priced(usage: TokenUsage, table: PriceTable, *, provider_id: str, upstream_model: str, model: str) -> TokenUsage:
    """The usage with its cost."""
    prices = prices_of(table, provider_id=provider_id, upstream_model=upstream_model, model=model)
    return usage if prices is None else usage._replace(cost_micros=cost_micros(prices, usage))


def prices_of(table: PriceTable, *, provider_id: str, upstream_model: str, model: str) -> ModelPrices | None:
    """The model that the upstream was asked for comes before the one that the client named."""
    return table.get((provider_id, upstream_model)) or table.get((provider_id, model))


_UNKNOWN = ModelPrices()


def _counts(usage: TokenUsage) -> tuple[int, int, int, int]:
    """In the order of the prices."""
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_input_tokens,
        usage.cache_write_input_tokens,
    )
