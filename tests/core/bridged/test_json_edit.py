"""Editing JSON in place, held against Python's own reader and against the bytes that were not to be touched."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.json_edit import JsonArray, JsonObject, MalformedJson

ROOT = Path(__file__).parents[3]
SPACES = st.text(" \t\n\r", max_size=3)
NUMBERS = st.sampled_from(["0", "-0", "1.0", "1e400", "-1E-5", "1" * 400, "0.10000000000000000000000001"])
STRINGS = st.one_of(
    st.text(max_size=8).map(json.dumps),
    st.text(max_size=8).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from(['"\\ud83d"', '"}{]["', '"\\"}"', '"\\\\"', '"\\u006dodel"', '"a\\/b"']),
)
NAMES = st.one_of(st.sampled_from(['"model"', '"stream"', '"a"', '"mod\\u0065l"', '""']), STRINGS)


def spaced(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(SPACES, texts, SPACES).map("".join)


def containers(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.lists(spaced(values), max_size=3).map(lambda items: "[" + ",".join(items) + "]"),
        objects(values),
    )


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.tuples(spaced(NAMES), spaced(values)).map(":".join)
    empty = SPACES.map(lambda space: "{" + space + "}")
    return st.one_of(empty, st.lists(members, max_size=4).map(lambda items: "{" + ",".join(items) + "}"))


VALUES: st.SearchStrategy[str] = st.recursive(
    st.one_of(NUMBERS, STRINGS, st.sampled_from(["true", "false", "null"])), containers, max_leaves=8
)


def to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


OBJECTS = spaced(objects(VALUES)).map(to_bytes)
ARRAYS = spaced(st.lists(spaced(VALUES), max_size=4).map(lambda items: "[" + ",".join(items) + "]")).map(to_bytes)


def members(text: bytes) -> list[tuple[str, Any]]:
    """Members with numbers as they are spelled."""
    found = json.loads(
        text.decode("utf-8", "surrogatepass"),
        object_pairs_hook=list,
        parse_int=lambda digits: ("number", digits),
        parse_float=lambda digits: ("number", digits),
    )
    assert isinstance(found, list)
    return found


@given(OBJECTS)
def test_an_object_that_nobody_edits_keeps_every_byte(text: bytes) -> None:
    assert JsonObject(text).encode() == text


@given(ARRAYS)
def test_an_array_that_nobody_edits_keeps_every_byte(text: bytes) -> None:
    array = JsonArray(text)
    assert array.encode() == text
    assert [json.loads(piece) for _, piece in array if piece.strip()] == json.loads(text)


@given(OBJECTS, st.sampled_from(["model", "stream", "a", "", "nobody"]))
def test_removing_leaves_all_other_members_as_they_were_spelled(text: bytes, key: str) -> None:
    edited = JsonObject(text)
    edited.remove(key)

    assert members(edited.encode()) == [pair for pair in members(text) if pair[0] != key]
    assert key not in edited


@given(OBJECTS, st.sampled_from(["model", "stream", "a", "", "nobody"]))
def test_putting_writes_one_member_where_the_last_of_its_name_stood(text: bytes, key: str) -> None:
    before = members(text)
    edited = JsonObject(text)
    edited.put(key, b'"new"')

    places = [place for place, pair in enumerate(before) if pair[0] == key]
    if places:
        expected = [
            (name, "new") if place == places[-1] else (name, value)
            for place, (name, value) in enumerate(before)
            if name != key or place == places[-1]
        ]
    else:
        expected = [*before, (key, "new")]
    assert members(edited.encode()) == expected
    assert edited.get(key) == b'"new"'


@given(OBJECTS)
def test_values_are_the_bytes_between_colon_and_comma(text: bytes) -> None:
    whole = json.loads(text.decode("utf-8", "surrogatepass"), parse_float=str, parse_int=str)
    edited = JsonObject(text)
    for key, value in whole.items():
        found = edited.get(key)
        assert found is not None
        assert json.loads(found.decode("utf-8", "surrogatepass"), parse_float=str, parse_int=str) == value


@pytest.mark.parametrize(
    ("before", "key", "after"),
    [
        (b'{"a":1,"model":2,"b":3}', "model", b'{"a":1,"b":3}'),
        (b'{ "model" : 2 , "b":3 }', "model", b'{ "b":3 }'),
        (b'{"a":1, "model":2}', "model", b'{"a":1}'),
        (b'{"model":2}', "model", b"{}"),
        (b'{"model":1,"a":[{"model":3}],"model":2}', "model", b'{"a":[{"model":3}]}'),
        (b'{"mod\\u0065l":1,"a":1}', "model", b'{"a":1}'),
        (b'{"a":"\\"model\\":1"}', "model", b'{"a":"\\"model\\":1"}'),
    ],
)
def test_a_removed_member_takes_its_comma_along(before: bytes, key: str, after: bytes) -> None:
    edited = JsonObject(before)
    edited.remove(key)
    assert edited.encode() == after


def test_of_members_that_come_twice_one_is_left_where_the_last_stood() -> None:
    edited = JsonObject(b'{"a":1, "b":2,"a": 3 }')
    edited.put("a", b"4")
    assert edited.encode() == b'{ "b":2,"a": 4 }'


def test_an_element_is_replaced_in_its_place() -> None:
    array = JsonArray(b'[ {"a":1} , 2,[3]]')
    array.put(1, b'"two"')
    assert array.encode() == b'[ {"a":1} ,"two",[3]]'


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"  ",
        b"1",
        b"[1]",
        b"{",
        b'{"a"',
        b'{"a":',
        b'{"a":1',
        b'{"a":1,',
        b'{"a":1,}',
        b'{"a" 1}',
        b"{a:1}",
        b'{"a":[1}',
        b'{"a":"x}',
        b'{"a":1}{',
        b'{"a":1 "b":2}',
        b'{"a":"\\',
        b'{"\\x":1}',
        b'{"\xff":1}',
    ],
)
def test_what_is_no_object_is_malformed(text: bytes) -> None:
    with pytest.raises(MalformedJson):
        JsonObject(text)


@given(st.binary(max_size=30))
def test_other_bytes_are_malformed_at_worst(text: bytes) -> None:
    with contextlib.suppress(MalformedJson):
        assert JsonObject(text).encode() == text


def test_depth_costs_no_stack() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    edited = JsonObject(b'{"model":1,"a":' + deep + b"}")
    edited.remove("model")
    assert edited.encode() == b'{"a":' + deep + b"}"


def test_escapes_cost_no_memory() -> None:
    # Python's tracing of memory does not see what its regular expressions take: a process of its own tells.
    script = """
import resource
from bridged.json_edit import JsonObject
text = b'{"a":[{"text":"' + b"\\\\n" * 4_000_000 + b'"}],"b":"' + b"\\\\n" * 4_000_000 + b'"}'
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
JsonObject(text)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 // len(text))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(ran.stdout) < 10
