"""The token usage and the prompt of a usual interception, in rows that have the interception's number.

Nearly every interception has one of each, told of at once. In the tables of their kinds each would say again whose it
is and what it is called, in indexes, too. Numbers rise, so these rows are only ever appended. A usage and a prompt with
the same number are there together. What is told of otherwise, or was stored before there were these tables, is in the
table of its kind (record_rows.py). An interception may have records in both.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, compress

from credentiald.record_model import Fact, Prompt, TokenUsage
from credentiald.store import bulk
from credentiald.store.connection import Connection, Row
from credentiald.store.record_groups import fields
from credentiald.store.record_rows import TOKEN_SUMS, stored_facts
from credentiald.usual_report import PROMPT_PLACE, USAGE_PLACE, Usual, UsualColumns, full_id

USAGES, PROMPTS = TABLES = ("usual_token_usages", "usual_prompts")
# What they share with `interceptions` has the table's name before it, so that a query may join them.
JOIN_USAGES, JOIN_PROMPTS = (f"JOIN {table} ON {table}.number = interceptions.number" for table in TABLES)
_OF_USAGES = f"FROM interceptions {JOIN_USAGES} WHERE interceptions.id IN"
_USAGE_FORM = bulk.Form(
    f"INSERT INTO {USAGES}",
    (
        "number", "create_time", "response_id", "input_tokens", "output_tokens", "cost_micros",
        "cache_read_input_tokens", "cache_write_input_tokens", "metadata", "partial",
    ),
    (bulk.or_null("cost_micros"),),
    ("number", "create_time", "response_id", *TOKEN_SUMS, "metadata", "partial", "cost_micros"),
)  # fmt: skip
_usage_columns = fields(
    "usage_micros", "usage_response_id", "input_tokens", "output_tokens", "cost_micros", "cache_read_input_tokens",
    "cache_write_input_tokens", "metadata", "partial",
)  # fmt: skip
_PROMPT_FORM = bulk.Form(f"INSERT INTO {PROMPTS}", ("number", "create_time", "text", "text_bytes"))
# By table, without the number.
COLUMNS = {USAGES: _USAGE_FORM.order[1:], PROMPTS: _PROMPT_FORM.given[1:]}
_prompt_columns = fields("prompt_micros", "prompt", "prompt_bytes")
_id_columns = fields("usage_id", "prompt_id", "usage_response_id", "prompt_response_id")


def insert(conn: Connection, numbers: Sequence[int], told: UsualColumns) -> UsualColumns | None:
    """Store what fits of the facts of interceptions with these numbers; what was told of the others, if there are
    any."""
    fit = _fitting(told)
    if all(fit):
        _insert(conn, numbers, told)
        return None
    if any(fit):
        _insert(conn, list(compress(numbers, fit)), Usual._make(list(compress(column, fit)) for column in told))
    left = [not one for one in fit]
    return Usual._make(list(compress(column, left)) for column in told)


def _insert(conn: Connection, numbers: Sequence[int], told: UsualColumns) -> None:
    bulk.insert_formed(conn, _USAGE_FORM, [numbers, *_usage_columns(told)])
    bulk.insert_formed(conn, _PROMPT_FORM, [numbers, *_prompt_columns(told)])


def stored(conn: Connection, interception_ids: Collection[str]) -> Iterator[tuple[str, Fact]]:
    """The facts that are here of these interceptions, each with its interception's id."""
    head = (
        f"SELECT interceptions.id AS interception_id, {USAGES}.*,"  # noqa: S608 - names of ours
        f" {PROMPTS}.create_time AS prompt_time, text, text_bytes"
        f" FROM interceptions {JOIN_USAGES} {JOIN_PROMPTS} WHERE interceptions.id IN"
    )
    for row in bulk.select(conn, head, list(interception_ids)):
        interception_id = row["interception_id"]
        usage_id, prompt_id = _fact_ids(interception_id)
        yield interception_id, _usage(usage_id, row)
        yield (
            interception_id,
            Prompt(prompt_id, row["prompt_time"], row["response_id"], row["text"], row["text_bytes"]),
        )


def stored_ids(conn: Connection, interception_ids: Collection[str]) -> Iterator[tuple[str, type[Fact], str]]:
    """By interception, the kinds and ids of the facts that are here."""
    for row in bulk.select(conn, f"SELECT interceptions.id {_OF_USAGES}", list(interception_ids)):
        usage_id, prompt_id = _fact_ids(row["id"])
        yield row["id"], TokenUsage, usage_id
        yield row["id"], Prompt, prompt_id


def stored_usages(conn: Connection, interception_ids: Collection[str]) -> Mapping[str, Sequence[TokenUsage]]:
    """The token usages of each of these interceptions that has any, those in the table of their kind, too."""
    usages: defaultdict[str, list[TokenUsage]] = defaultdict(list)
    for interception_id, fact in chain(
        stored(conn, interception_ids), stored_facts(conn, TokenUsage, interception_ids)
    ):
        if isinstance(fact, TokenUsage):
            usages[interception_id].append(fact)
    return usages


def sums(conn: Connection, numbers: Sequence[int]) -> Iterator[Row]:
    """The tokens and costs that are here of interceptions with these numbers, as TOKEN_SUMS and COST_SUMS, with
    `number`."""
    head = (
        f"SELECT number, {', '.join(TOKEN_SUMS)}, COALESCE(cost_micros, 0) AS cost_micros,"  # noqa: S608 - names of ours
        f" cost_micros IS NULL AS unpriced_token_usages FROM {USAGES} WHERE number IN"
    )
    return bulk.select(conn, head, numbers)


def delete(conn: Connection, numbers: Sequence[int]) -> None:
    """Remove the facts of interceptions with these numbers."""
    for table in TABLES:
        bulk.change(conn, f"DELETE FROM {table} WHERE number IN", numbers)  # noqa: S608 - names of ours


def _fitting(told: UsualColumns) -> list[bool]:
    """Which have both facts, with the ids that bridges give them, of one answer: a row says nothing else."""
    count = len(told.usage_id)
    if (
        told.usage_id.count(USAGE_PLACE) == count == told.prompt_id.count(PROMPT_PLACE)
        and told.usage_response_id == told.prompt_response_id
    ):
        return [True] * count
    each = zip(*_id_columns(told), strict=True)
    return [one == [USAGE_PLACE, PROMPT_PLACE] and said == again for *one, said, again in each]


def _fact_ids(interception_id: str) -> tuple[str, str]:
    return full_id(USAGE_PLACE, interception_id), full_id(PROMPT_PLACE, interception_id)


def _usage(usage_id: str, row: Row) -> TokenUsage:
    return TokenUsage(
        usage_id,
        row["create_time"],
        row["response_id"],
        row["input_tokens"],
        row["output_tokens"],
        row["cache_read_input_tokens"],
        row["cache_write_input_tokens"],
        row["metadata"],
        row["partial"],
        row["cost_micros"],
    )
