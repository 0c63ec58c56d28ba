"""JSON edited in place: what Python reads we read, and an edit changes what it should and no other byte's meaning."""

import json

from bridged.json_edit import JsonObject, MalformedJson

WORDS = [
    b'"model"',
    b'"stream"',
    b'"a":1,',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"true",
    b"-0",
    b"1e400",
    b'"\\u0061"',
    b'"\\ud800"',
    b"\\",
    b'"',
    b" ",
    b"\n",
    b"\xc3\xa9",
    b"\xff",
    b'{"a":{"b":[1,2]}}',
]
SEEDS = [
    b'{"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]}',
    b"{ }",
    b'{"a":1,"a":2}',
    b'{"mod\\u0065l" : "x" , "n":-1.5e3}',
    b"[1]",
    b'{"a":{"b":{"c":[[[]]]}},"d":""}',
]


def one_input(data: bytes) -> None:
    try:
        edited = JsonObject(data)
    except MalformedJson:
        edited = None
    try:
        read = json.loads(data.decode("utf-8"), parse_constant=_not_json)
    except (ValueError, RecursionError):
        return
    if not isinstance(read, dict):
        assert edited is None, data
        return
    assert edited is not None, data
    assert edited.encode() == data
    edited.put("drawbridge-added", b"[1]")
    edited.remove("model")
    wanted = {name: value for name, value in read.items() if name != "model"} | {"drawbridge-added": [1]}
    assert json.loads(edited.encode()) == wanted, data


def _not_json(text: str) -> None:
    raise ValueError(text)
