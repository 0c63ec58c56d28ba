"""Signature Version 4 as botocore reckons it: the second opinion on every signature of ours."""

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, HTTPHeaders
from botocore.credentials import Credentials

from bridged.model import AwsKeys
from daemonkit.secret import Secret

ACCESS_KEY_ID = "AKIDEXAMPLE"
SECRET_ACCESS_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def aws_keys(
    access_key_id: str = ACCESS_KEY_ID, secret: str = SECRET_ACCESS_KEY, session_token: str | None = None
) -> AwsKeys:
    return AwsKeys(
        access_key_id=Secret(access_key_id),
        secret_access_key=Secret(secret),
        session_token=None if session_token is None else Secret(session_token),
    )


class _AsToldAuth(SigV4Auth):  # type: ignore[misc, unused-ignore]
    """Signs exactly the headers it is given."""

    def headers_to_sign(self, request: Any) -> HTTPHeaders:
        headers = HTTPHeaders()
        for name, value in request.headers.items():
            headers.add_header(name.lower(), value)
        return headers


def botocore_signature(
    *,
    method: str,
    url: str,
    signed_headers: Sequence[tuple[str, str]],
    body: bytes,
    secret: str,
    region: str,
    service: str,
    amz_date: str,
) -> str:
    """The signature that AWS would expect, in hexadecimal. `url` is absolute, with path and query as on the wire."""
    auth = _AsToldAuth(Credentials("unused", secret), service, region)
    request = AWSRequest(method=method, url=url, data=body)
    for name, value in signed_headers:
        request.headers.add_header(name, value)
    if (claimed := request.headers.get("x-amz-content-sha256")) and claimed != sha256(body).hexdigest():
        return "the body is not the one that was signed"
    request.context["timestamp"] = amz_date
    canonical = auth.canonical_request(request)
    return str(auth.signature(auth.string_to_sign(request, canonical), request))


def parsed_authorization(value: str) -> dict[str, str]:
    """Credential, SignedHeaders and Signature of an Authorization header."""
    algorithm, _, rest = value.partition(" ")
    assert algorithm == "AWS4-HMAC-SHA256", algorithm
    return dict(part.strip().split("=", 1) for part in rest.split(","))


def amz_date_of(time: datetime) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ")
