"""Signatures: what we sign, AWS verifies as botocore reckons it, whatever stands in path, query, headers and body."""

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from bridged.aws.sigv4 import SigningKeys, UnfitCredential, sign
from tests.support.sigv4 import SECRET_ACCESS_KEY, aws_keys, botocore_signature, parsed_authorization

HOST = "bedrock-runtime.us-east-1.amazonaws.com"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = SigningKeys()
# What a target of a request may hold after bridged.http1 has read it.
_ALLOWED = bytes(range(0x21, 0x7F)).translate(None, b"#").decode()
WORDS = [b"%", b"%2F", b"%25", b"%3A", b"//", b"/./", b"?", b"&", b"=", b"a=b", b"+", b"~", b"%zz", b"\0", b";", b":"]
SEEDS = [
    b"/model/us.anthropic.claude-v1:0/converse-stream\0\0\0{}",
    b"/model/a%2Fb/invoke\0b=2&a=1&a=0\0text/plain\0x",
    b"//a//b/%25\0x=%20&y=+&=&&z\0application/json;  charset=utf-8\0",
    b"/\0\0\0",
]


def one_input(data: bytes) -> None:
    parts = [*data.split(b"\0", 3), b"", b"", b""]
    path = "".join(char for char in parts[0].decode("latin-1") if char in _ALLOWED)
    # botocore takes a query as it is, and AWS encodes it anew: they agree where it is encoded in the canonical way.
    pairs = [part.partition(b"=") for part in parts[1].split(b"&") if part]
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, _, value in pairs)
    target = "/" + path.replace("?", "").lstrip("/") + (f"?{query}" if query else "")
    content_type = "".join(char for char in parts[2].decode("latin-1") if 0x20 <= ord(char) < 0x7F).strip()
    headers = (("Content-Type", content_type),) if content_type else ()
    now = EPOCH + timedelta(seconds=len(data) * 997)
    try:
        added = dict(
            sign(
                method="POST",
                host=HOST,
                target=target,
                headers=headers,
                body=parts[3],
                keys=aws_keys(),
                region="us-east-1",
                service="bedrock",
                now=now,
                signing_keys=KEYS,
            )
        )
    except UnfitCredential as problem:
        raise AssertionError("the credential is fit") from problem
    told = parsed_authorization(added["Authorization"])
    values = {"host": HOST, "x-amz-date": added["X-Amz-Date"], "content-type": content_type}
    expected = botocore_signature(
        method="POST",
        url=f"https://{HOST}{target}",
        signed_headers=[(name, values[name]) for name in told["SignedHeaders"].split(";")],
        body=parts[3],
        secret=SECRET_ACCESS_KEY,
        region="us-east-1",
        service="bedrock",
        amz_date=added["X-Amz-Date"],
    )
    assert told["Signature"] == expected, target
