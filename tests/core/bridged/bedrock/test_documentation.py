"""The document of what the bridge changes for Bedrock is the tables that decide."""

import re
from pathlib import Path

from bridged.bedrock.families import ALWAYS_PASSING_BETAS, BY_NAME, DROPPED_FIELDS, EFFORT, SYSTEM_MESSAGES
from bridged.bedrock.messages_request import ANTHROPIC_VERSION
from bridged.bedrock.thinking import LEAST_BUDGET_TOKENS, PERCENT_BY_EFFORT

TEXT = (Path(__file__).parents[4] / "docs" / "bedrock-translation.md").read_text()


def test_every_family_is_documented_with_its_row() -> None:
    words = {True: "yes", False: "no"}
    documented = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in TEXT[TEXT.index("| family |") :].split("\n\n")[0].splitlines()[2:]
    ]

    def cells(values: tuple[str, ...] | list[str]) -> str:
        return ", ".join(f"`{value}`" for value in values)

    assert documented == [
        [
            f"`{name}`",
            cells(family.contains),
            family.thinking.value,
            cells(sorted(family.betas)),
            words[family.cache_ttl],
            words[family.system_messages],
        ]
        for name, family in BY_NAME.items()
    ]


def test_every_flag_and_field_is_named() -> None:
    flags = set(re.findall(r"`([a-z0-9-]+-20\d\d-\d\d-\d\d)`", TEXT))
    of_families = set().union(*(family.betas for family in BY_NAME.values()))
    assert flags - {ANTHROPIC_VERSION} == ALWAYS_PASSING_BETAS | of_families | {SYSTEM_MESSAGES, EFFORT}
    assert [field for field in DROPPED_FIELDS if f"`{field}`" not in TEXT] == []


def test_budgets_are_those_of_the_table() -> None:
    for effort, percent in PERCENT_BY_EFFORT.items():
        assert re.search(rf"`{effort}`[^,.]* {percent} %", TEXT), effort
    assert f"Less than {LEAST_BUDGET_TOKENS}" in TEXT
