"""Signatures against AWS's own vectors, and against botocore over generated requests."""

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.aws import sigv4
from bridged.aws.sigv4 import SigningKeys, UnfitCredential, scope_of, sign
from bridged.model import Headers
from tests.support.sigv4 import (
    ACCESS_KEY_ID,
    SECRET_ACCESS_KEY,
    amz_date_of,
    aws_keys,
    botocore_signature,
    parsed_authorization,
)

VECTORS = json.loads((Path(__file__).parents[2] / "data/sigv4/vectors.json").read_text(encoding="utf-8"))
VECTOR_TIME = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
VECTOR_SCOPE = scope_of("20150830", "us-east-1", "service")
# What sign() signs; the other vectors have headers of their own.
SIGNED_BY_US = {"content-type", "host", "x-amz-date", "x-amz-security-token"}
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1"
ARN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3"


class Vector:
    """A case of AWS's suite, its request as it would come over the wire: text that stands for bytes."""

    def __init__(self, name: str) -> None:
        case = VECTORS[name]
        head, _, self.body = case["request"].partition("\n\n")
        # A value that goes on in the next line is one value with a space (RFC 9112, 5.2).
        line, *fields = re.sub(r"\n +", " ", head).split("\n")
        self.method, rest = line.split(" ", 1)
        self.target = rest.removesuffix(" HTTP/1.1").encode().decode("latin-1")
        self.canonical_request = case["canonical_request"]
        self.string_to_sign = case["string_to_sign"]
        self.authorization = case["authorization"]
        self.headers = [tuple(field.split(":", 1)) for field in fields if field]
        self.signed_names = parsed_authorization(self.authorization)["SignedHeaders"].split(";")
        token = re.search(r"x-amz-security-token:(.*)", self.canonical_request)
        self.session_token = token[1] if token else None

    def values(self, name: str) -> list[str]:
        if name == "x-amz-security-token":
            return [self.session_token or ""]
        return [value.strip() for key, value in self.headers if key.lower() == name]


@pytest.mark.parametrize("name", VECTORS)
def test_each_step_has_the_result_of_the_suite_of_aws(name: str) -> None:
    vector = Vector(name)
    signed = [(name, ",".join(vector.values(name))) for name in vector.signed_names]

    body_sha256 = sha256(vector.body.encode()).hexdigest()
    canonical = sigv4.canonical_request(vector.method, vector.target, signed, body_sha256)
    to_sign = sigv4.string_to_sign("20150830T123600Z", VECTOR_SCOPE, canonical)
    key = sigv4.derive_key(SECRET_ACCESS_KEY.encode(), VECTOR_SCOPE)
    signature = sigv4.digest(key, to_sign.encode(), "sha256").hex()

    assert canonical.decode() == vector.canonical_request
    assert to_sign == vector.string_to_sign
    assert sigv4.authorization(ACCESS_KEY_ID, VECTOR_SCOPE, vector.signed_names, signature) == vector.authorization


@pytest.mark.parametrize("name", [name for name in VECTORS if set(Vector(name).signed_names) <= SIGNED_BY_US])
def test_a_request_gets_the_authorization_of_the_suite_of_aws(name: str) -> None:
    vector = Vector(name)

    added = dict(
        sign(
            method=vector.method,
            host="example.amazonaws.com",
            target=vector.target,
            headers=tuple((key, value) for key, value in vector.headers if key.lower() == "content-type"),
            body=vector.body.encode(),
            keys=aws_keys(session_token=vector.session_token),
            region="us-east-1",
            service="service",
            now=VECTOR_TIME,
            signing_keys=SigningKeys(),
        )
    )

    assert added["Authorization"] == vector.authorization
    assert added["X-Amz-Date"] == "20150830T123600Z"
    assert added.get("X-Amz-Security-Token") == vector.session_token


def test_most_vectors_go_the_whole_way() -> None:
    whole = [name for name in VECTORS if set(Vector(name).signed_names) <= SIGNED_BY_US]

    assert len(VECTORS) == 34
    assert len(whole) == 28


# Generated requests. A query is in the form in which botocore writes it, because botocore takes that for granted.
UNRESERVED = "ABCxyz019-._~"
model_ids = st.sampled_from([f"{MODEL}:0", f"{MODEL}%3A0", ARN, ARN.replace(":", "%3A").replace("/", "%2F")])
segments = model_ids | st.text(UNRESERVED + "!$&'()*+,;=:@%[]é", max_size=12)
paths = st.lists(segments, max_size=5).map(lambda found: "/" + "/".join(found))
words = st.text(UNRESERVED, min_size=1, max_size=5) | st.sampled_from(["a", "a-b", "a0", "%2B", "%20x", "%C3%A9"])
queries = st.lists(st.tuples(words, words | st.just("")), max_size=5).map(
    lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)
)
visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)
header_values = st.text(st.sampled_from("ab/;=- \t"), max_size=20).map(str.strip)
content_types = st.lists(st.sampled_from(["application/json", "text/plain;  charset=x"]) | header_values, max_size=2)


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "HEAD"]),
    host=st.sampled_from(["bedrock-runtime.us-east-1.amazonaws.com", "127.0.0.1:8080", "[::1]:1"]),
    path=paths,
    query=queries,
    content_types=content_types,
    body=st.binary(max_size=200),
    secret=visible,
    session_token=st.none() | visible,
    region=st.sampled_from(["us-east-1", "cn-north-1"]),
    service=st.sampled_from(["bedrock", "bedrock-mantle"]),
    now=st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),
)
def test_botocore_reckons_the_same_signature(
    method: str,
    host: str,
    path: str,
    query: str,
    content_types: list[str],
    body: bytes,
    secret: str,
    session_token: str | None,
    region: str,
    service: str,
    now: datetime,
) -> None:
    target = path + ("?" + query if query else "")
    headers: Headers = tuple(("Content-Type", value) for value in content_types)

    added = sign(
        method=method,
        host=host,
        target=target.encode().decode("latin-1"),
        headers=(("Accept", "*/*"), *headers, ("X-Stainless-Lang", "python")),
        body=body,
        keys=aws_keys("AKIDX", secret, session_token),
        region=region,
        service=service,
        now=now,
        signing_keys=SigningKeys(),
    )

    parts = parsed_authorization(dict(added)["Authorization"])
    names = parts["SignedHeaders"].split(";")
    sent = [("Host", host), *headers, *added]
    expected = botocore_signature(
        method=method,
        url=f"https://{host}{target}",
        signed_headers=[(name, value) for name, value in sent if name.lower() in names],
        body=body,
        secret=secret,
        region=region,
        service=service,
        amz_date=amz_date_of(now),
    )
    assert parts["Credential"] == f"AKIDX/{now:%Y%m%d}/{region}/{service}/aws4_request"
    assert names == sorted(names)
    assert parts["Signature"] == expected


@pytest.mark.parametrize(
    ("sent", "signed"),
    [
        (f"/model/{MODEL}:0/invoke", f"/model/{MODEL}%3A0/invoke"),
        (f"/model/{MODEL}%3A0/invoke", f"/model/{MODEL}%253A0/invoke"),
        ("/model/arn%3Aaws%3Abedrock%2Fx/invoke", "/model/arn%253Aaws%253Abedrock%252Fx/invoke"),
        ("/model/arn:aws:bedrock/x/invoke", "/model/arn%3Aaws%3Abedrock/x/invoke"),
        ("/a//b/./c/../d/", "/a/b/d/"),
        ("/../..", "/"),
        ("", "/"),
        ("/\xe9", "/%E9"),
    ],
)
def test_a_path_is_encoded_once_more(sent: str, signed: str) -> None:
    assert sigv4.canonical_path(sent) == signed


@pytest.mark.parametrize(
    ("sent", "signed"),
    [
        ("", ""),
        ("type=SYSTEM_DEFINED&maxResults=5", "maxResults=5&type=SYSTEM_DEFINED"),
        ("a-=1&a=2&a0=3", "a=2&a-=1&a0=3"),
        ("a=2&a=1", "a=1&a=2"),
        ("a&b=", "a=&b="),
        ("a=b=c", "a=b%3Dc"),
        ("t=%7e%2b+/:", "t=~%2B%2B%2F%3A"),
        ("&a=1&&", "a=1"),
        ("a=\xe9", "a=%E9"),
    ],
)
def test_a_query_has_one_form(sent: str, signed: str) -> None:
    assert sigv4.canonical_query(sent) == signed


def signed_by(known: SigningKeys, /, *, now: datetime = NOON, **changed: object) -> str:
    """The signature of a plain request, with what is changed."""
    request: dict[str, object] = {
        "method": "POST",
        "host": "bedrock-runtime.us-east-1.amazonaws.com",
        "target": f"/model/{MODEL}:0/invoke",
        "headers": (),
        "body": b"{}",
        "keys": aws_keys(),
        "region": "us-east-1",
        "service": "bedrock",
        "now": now,
        "signing_keys": known,
    }
    return dict(sign(**{**request, **changed}))["Authorization"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "PUT"},
        {"host": "bedrock-runtime.us-east-1.amazonaws.com:444"},
        {"target": "/model/x/invoke"},
        {"target": f"/model/{MODEL}:0/invoke?a=1"},
        {"headers": (("content-type", "application/json"),)},
        {"body": b"{ }"},
        {"keys": aws_keys("AKIDOTHER")},
        {"keys": aws_keys(secret="other")},
        {"keys": aws_keys(session_token="session")},
        {"region": "us-west-2"},
        {"service": "bedrock-mantle"},
        {"now": NOON + timedelta(seconds=1)},
    ],
    ids=repr,
)
def test_whatever_aws_judges_by_is_signed(changed: dict[str, object]) -> None:
    known = SigningKeys()

    assert signed_by(known) != signed_by(known, **changed)
    assert signed_by(known, **changed) == signed_by(SigningKeys(), **changed)


def test_what_a_hop_may_change_is_not_signed() -> None:
    hop = (("Accept-Encoding", "identity"), ("Content-Length", "2"), ("User-Agent", "x"), ("X-Stainless-Lang", "js"))

    assert signed_by(SigningKeys(), headers=hop) == signed_by(SigningKeys())


@pytest.mark.parametrize("value", ["text/plain;\tx=1", "  text/plain;  x=1\t", "text/plain; \t x=1"])
def test_white_space_in_a_header_is_one_space(value: str) -> None:
    content_type = (("Content-Type", value),)

    assert signed_by(SigningKeys(), headers=content_type) == signed_by(
        SigningKeys(), headers=(("Content-Type", "text/plain; x=1"),)
    )


@pytest.mark.parametrize("text", ["", "a b", "a\r\nx: y", "a\n", "é", "\ud800", "a\x00", "a\x7f"])
def test_keys_that_are_not_fit_for_a_header_are_refused_without_a_word_of_them(text: str) -> None:
    for keys in (aws_keys(text), aws_keys(secret=text), aws_keys(session_token=text)):
        with pytest.raises(UnfitCredential) as refused:
            signed_by(SigningKeys(), keys=keys)
        assert str(refused.value) == ""


@pytest.mark.parametrize("time", [datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))])
def test_a_time_that_is_not_utc_is_an_error(time: datetime) -> None:
    with pytest.raises(ValueError, match="UTC"):
        signed_by(SigningKeys(), now=time)


def test_signing_keys_are_bounded_and_forget_the_oldest() -> None:
    known = SigningKeys(capacity=2)
    for name in ("AKID1", "AKID2", "AKID3"):
        signed_by(known, keys=aws_keys(name))

    assert [name for name, *_ in known._derived] == ["AKID2", "AKID3"]


def test_signing_keys_are_short_lived() -> None:
    known = SigningKeys(lifetime=timedelta(seconds=60))
    signed_by(known, now=NOON)
    signed_by(known, now=NOON + timedelta(seconds=59), keys=aws_keys("AKID2"))
    assert len(known) == 2

    known.forget_old(now=NOON + timedelta(seconds=60))
    assert [name for name, *_ in known._derived] == ["AKID2"]

    known.forget_old(now=NOON)  # the clock was set back
    assert len(known) == 0


def test_a_use_does_not_lengthen_the_life_of_a_signing_key() -> None:
    known = SigningKeys(lifetime=timedelta(seconds=60))
    signed_by(known, now=NOON)
    signed_by(known, now=NOON + timedelta(seconds=59))

    known.forget_old(now=NOON + timedelta(seconds=60))
    assert len(known) == 0


def test_deriving_a_key_forgets_those_that_are_old() -> None:
    known = SigningKeys(lifetime=timedelta(seconds=60))
    signed_by(known, now=NOON)
    signed_by(known, now=NOON + timedelta(seconds=60), keys=aws_keys("AKID2"))

    assert [name for name, *_ in known._derived] == ["AKID2"]


def test_a_key_that_was_replaced_is_the_youngest() -> None:
    known = SigningKeys(capacity=3)
    for keys in (aws_keys("AKID1"), aws_keys("AKID2"), aws_keys("AKID1", "new"), aws_keys("AKID3"), aws_keys("AKID4")):
        signed_by(known, keys=keys)

    assert [name for name, *_ in known._derived] == ["AKID1", "AKID3", "AKID4"]


def test_another_secret_for_the_same_access_key_id_is_obeyed_at_once() -> None:
    known = SigningKeys()
    signed_by(known)

    assert signed_by(known, keys=aws_keys(secret="new")) == signed_by(SigningKeys(), keys=aws_keys(secret="new"))
    assert len(known) == 1


def test_a_signing_key_is_derived_once() -> None:
    known = SigningKeys()
    first = signed_by(known)
    (derived,) = known._derived.values()

    assert signed_by(known) == first
    assert next(iter(known._derived.values())) is derived


def test_nothing_of_a_key_is_printed() -> None:
    known = SigningKeys()
    signed_by(known)
    key = sigv4.derive_key(SECRET_ACCESS_KEY.encode(), scope_of("20261121", "us-east-1", "bedrock"))

    printed = repr((known, known._derived))
    assert repr(key) not in printed
    assert SECRET_ACCESS_KEY not in printed
    assert repr(sha256(SECRET_ACCESS_KEY.encode()).digest()) not in printed
    assert key == next(iter(known._derived.values())).key
