"""What of the content of records is kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentiald.record_rules import WHOLE, KeepRule, KeepRules, StrayNames, parse_keep_rule


@pytest.mark.parametrize(
    ("text", "provider", "kept"),
    [
        ("on", "any", "prompt"),
        ("off", "any", ""),
        ("3", "any", "pro"),
        ("1KiB", "any", "prompt"),
        ("on,lab=off", "lab", ""),
        ("on,lab=off", "corp", "prompt"),
        ("off, lab = on", "lab", "prompt"),
        ("lab=2", "lab", "pr"),
        ("lab=2", "corp", "prompt"),
    ],
)
def test_the_rule_of_the_provider_comes_before_the_one_of_the_deployment(text, provider, kept):
    assert parse_keep_rule(text).kept("prompt", provider) == kept


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("maybe", "on, off, or a size"),
        ("", "on, off, or a size"),
        ("lab=", "on, off, or a size"),
        ("=off", "each provider once"),
        ("lab=on,lab=off", "each provider once"),
        ("lab=on,off", "comes after the first"),
        ("on,LAB=off", "'LAB' is no name of a provider: it must be lower-case"),
        ("on,my_lab=4KiB", "'my_lab' is no name"),
    ],
)
def test_a_rule_that_is_none_is_refused_with_what_it_may_be(text, problem):
    with pytest.raises(ValueError, match=problem):
        parse_keep_rule(text)


@given(st.text(max_size=50), st.integers(min_value=0, max_value=60))
def test_a_cut_text_is_a_beginning_of_it_that_fits_and_could_not_be_longer(text, most_bytes):
    kept = KeepRule(most_bytes=most_bytes).kept(text, "any")
    assert text.startswith(kept)
    assert len(kept.encode()) <= most_bytes
    if kept != text:
        assert len(text[: len(kept) + 1].encode()) > most_bytes


def test_a_whole_text_is_kept_whole():
    assert KeepRule(most_bytes=WHOLE).kept("x" * 100_000, "any") == "x" * 100_000


def test_names_in_rules_that_no_provider_has_are_told_once_each_time_that_they_become_such():
    rules = KeepRules(prompts=parse_keep_rule("on,lba=off,lab=off"), thoughts=parse_keep_rule("off,lba=on"))
    strays = StrayNames(rules)
    told = [dict(strays.untold(providers)) for providers in (["lab"], ["lab"], ["corp"], [], ["lab", "lba"], ["lba"])]
    lba = {"record_prompts": ["lba"], "record_thoughts": ["lba"]}
    assert told == [lba, {}, {"record_prompts": ["lab"]}, {}, {}, {"record_prompts": ["lab"]}]
    assert dict(StrayNames(KeepRules()).untold(["lab"])) == {}
