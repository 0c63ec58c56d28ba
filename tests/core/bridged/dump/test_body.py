"""Bodies in a dump."""

import json
import zlib

import pytest

from bridged.dump.body import DumpedBody
from bridged.dump.needles import Needles

JSON = (("Content-Type", "application/json; charset=utf-8"),)
NONE = Needles()


def written(data: bytes, headers=JSON, needles=NONE, *, is_stream=False, piece_bytes=1000) -> bytes:
    body, found = DumpedBody("body", headers, needles, is_stream=is_stream), b""
    for start in range(0, len(data), piece_bytes):
        found += b"".join(body.feed(data[start : start + piece_bytes]))
    found += b"".join(body.end())
    assert body.size_bytes == len(data)
    return found


@pytest.mark.parametrize("piece_bytes", [1, 7, 1000])
def test_json_gets_white_space_and_keeps_all_else(piece_bytes):
    data = b'{"b":1e5,"a":"\\u00e9\\/\xc3\xa9","b":[1.0,{}]}'
    title, _, text = written(data, piece_bytes=piece_bytes).lstrip(b"\n").partition(b"\n")
    assert title == b"# body, its JSON made readable here"
    assert text == b'{\n  "b": 1e5,\n  "a": "\\u00e9\\/\xc3\xa9",\n  "b": [\n    1.0,\n    {}\n  ]\n}\n'


@pytest.mark.parametrize(
    ("data", "headers", "is_stream"),
    [
        (b'{"cut":', JSON, False),
        (b"not json", JSON, False),
        (b'{"a":1}{"a":2}', JSON, False),
        (b'{"a":1}', JSON, True),
        (b'{"a":1}', (("Content-Type", "text/plain"),), False),
        (b'{"a":"' + b"x" * 300_000 + b'"}', JSON, False),
        (b"[" * 40 + b"]" * 40, JSON, False),
        (b"[" + b"{}," * 20_000 + b"1]", JSON, False),
        (b"[" * 100_000, JSON, False),
    ],
)
def test_anything_else_is_as_it_came(data, headers, is_stream):
    assert written(data, headers, is_stream=is_stream) == b"\n# body\n" + data + b"\n"


def test_no_body_is_nothing():
    assert written(b"") == b""


def test_a_secret_in_json_is_masked_and_the_json_stays_json():
    text = written(json.dumps({"key": 'a/secret"key'}).encode(), needles=Needles(['a/secret"key']))
    assert json.loads(text.split(b"\n", 2)[2]) == {"key": "***"}


@pytest.mark.parametrize("coding", ["gzip", "deflate", "gzip, identity"])
def test_a_coding_is_taken_off(coding):
    headers = (("Content-Type", "text/plain"), ("Content-Encoding", coding))
    squeezing = zlib.compressobj(wbits=31 if "gzip" in coding else 15)
    squeezed = squeezing.compress(b"the secret-key-1 and more" * 1000) + squeezing.flush()
    text = written(squeezed, headers, Needles(["secret-key-1"]), piece_bytes=50)
    name = coding.partition(",")[0]
    assert text == b"\n# body, decoded from %b\n" % name.encode() + b"the *** and more" * 1000 + b"\n"


@pytest.mark.parametrize("coding", ["unheard-of", "gzip", "gzip, unheard-of"])
def test_what_cannot_be_decoded_is_not_written_because_nobody_can_mask_it(coding):
    text = written(b"a secret in some coding", (("Content-Encoding", coding),))
    assert b"secret" not in text
    assert b"cannot be read" in text
