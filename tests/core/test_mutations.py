"""The table of scripts/mutate fits the tree as it is, so it can be run at any time and cannot rot."""

import ast
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MUTATIONS = tomllib.loads((ROOT / "scripts" / "mutations.toml").read_text())["mutation"]
PROMISES = [*(f"G{number}" for number in range(1, 12)), "audit"]


@pytest.mark.parametrize("row", MUTATIONS, ids=lambda row: f"{row['promise']}: {row['takes_away']}")
def test_what_a_mutation_takes_away_stands_where_it_says_exactly_once(row):
    assert sorted(row) == ["file", "new", "old", "promise", "takes_away"]
    text = (ROOT / row["file"]).read_text()
    assert text.count(row["old"]) == 1
    mutated = text.replace(row["old"], row["new"])
    # Another program, and one that Python can read.
    assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(text))


def test_each_promise_has_its_file_and_three_mutations_at_least():
    names = sorted(file.name for file in (ROOT / "tests" / "guarantees").glob("test_g*.py"))
    assert [name[:8] for name in names] == [f"test_g{number:02}" for number in range(1, 12)]
    counts = Counter(row["promise"] for row in MUTATIONS)
    assert sorted(counts, key=PROMISES.index) == PROMISES
    assert min(counts.values()) >= 3
    said = [(row["promise"], row["takes_away"]) for row in MUTATIONS]
    assert len(set(said)) == len(said)


@pytest.mark.parametrize("number", range(1, 12))
def test_a_promise_stands_at_the_head_of_its_file(number):
    [file] = (ROOT / "tests" / "guarantees").glob(f"test_g{number:02}_*.py")
    said = ast.get_docstring(ast.parse(file.read_text()))
    assert said is not None
    assert said.startswith(f"G{number}: ")
    assert "\nProved " in said
