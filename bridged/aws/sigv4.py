"""Signature Version 4 of AWS: the headers that make a request somebody's.

Signed are the host, the time, the session token, the content type and the body: what AWS needs to judge the request,
and nothing that a proxy on the way may change. The three steps (canonical request, string to sign, signature) are
functions of their own, because AWS's test suite has the result of each.

The scope is what a signature is good for: a day, a region and a service, `20150830/us-east-1/bedrock/aws4_request`.

Text stands for bytes (latin-1), as everywhere in the bridge. The path is the one that goes over the wire: all services
but S3 encode it once more for the signature, so that `%3A` is signed as `%253A`, and `:` as `%3A`.

Source: AWS, "Create a signed AWS API request" (IAM User Guide); its test suite is in tests/data/sigv4.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from hmac import digest
from urllib.parse import quote_from_bytes, unquote_to_bytes

from bridged.model import AwsKeys, Headers, header_values

ALGORITHM = "AWS4-HMAC-SHA256"
_TERMINATOR = "aws4_request"
_CAPACITY = 1024
_LIFETIME = timedelta(seconds=60)

_ENCODED = tuple(f"%{byte:02X}" for byte in range(256))
_NOT_IN_PATH = re.compile(r"[^A-Za-z0-9\-._~/]")
# A query that is in its canonical form but for the order of its parts.
_PLAIN_QUERY = re.compile(r"[A-Za-z0-9\-._~]+=[A-Za-z0-9\-._~]*(?:&[A-Za-z0-9\-._~]+=[A-Za-z0-9\-._~]*)*")
_SPACES = re.compile(r"[ \t]+")
_VISIBLE = re.compile(r"[!-~]+")


class UnfitCredential(Exception):
    """An access key id, secret or session token has characters that none of AWS's has, or is empty."""


@dataclass(slots=True, kw_only=True)
class _Derived:
    key: bytes = field(repr=False)
    secret_sha256: bytes = field(repr=False)
    derived_time: datetime


class SigningKeys:
    """Remembers derived keys for a minute, because deriving one costs more than the rest of a signature.

    A derived key signs for its day, region and service like the secret it comes from, so this is sensitive: bounded,
    short-lived, never printed. The secret is not in it. Whoever asks has to bring the same secret each time, so that
    an entry is of no use to a request that was not resolved; another secret for an access key id replaces the entry.
    """

    def __init__(self, *, capacity: int = _CAPACITY, lifetime: timedelta = _LIFETIME) -> None:
        self._capacity = capacity
        self._lifetime = lifetime
        # In the order of derivation: the oldest is first.
        self._derived: dict[tuple[str, str], _Derived] = {}

    def __len__(self) -> int:
        return len(self._derived)

    def key(self, access_key_id: str, secret: bytes, scope: str, *, now: datetime) -> bytes:
        """The key that signs in this scope."""
        name = (access_key_id, scope)
        secret_sha256 = sha256(secret).digest()
        known = self._derived.get(name)
        if known is not None and known.secret_sha256 == secret_sha256 and self._is_young(known, now):
            return known.key
        self.forget_old(now=now)
        self._derived.pop(name, None)
        if len(self._derived) >= self._capacity:
            del self._derived[next(iter(self._derived))]
        key = derive_key(secret, scope)
        self._derived[name] = _Derived(key=key, secret_sha256=secret_sha256, derived_time=now)
        return key

    def forget_old(self, *, now: datetime) -> None:
        """Drop what is past its lifetime. Call it now and then, so that a key goes also where no request comes."""
        old = [name for name, derived in self._derived.items() if not self._is_young(derived, now)]
        for name in old:
            del self._derived[name]

    def _is_young(self, derived: _Derived, now: datetime) -> bool:
        # A clock that was set back makes an age below zero: that entry would stay for too long.
        return timedelta() <= now - derived.derived_time < self._lifetime


def sign(
    *,
    method: str,
    host: str,
    target: str,
    headers: Headers,
    body: bytes,
    keys: AwsKeys,
    region: str,
    service: str,
    now: datetime,
    signing_keys: SigningKeys,
) -> Headers:
    """The headers that sign a request: X-Amz-Date, X-Amz-Security-Token where there is one, Authorization.

    `host` is the Host header as it will be sent, `target` the raw path with its query, `headers` all others that will
    be sent: none of the names above may be among them. UnfitCredential for keys that would break out of a header.
    """
    access_key_id = _fit(keys.access_key_id.reveal())
    secret = _fit(keys.secret_access_key.reveal())
    timestamp = amz_date(now)
    scope = scope_of(timestamp[:8], region, service)
    signed = [("host", host), ("x-amz-date", timestamp)]
    added = [("X-Amz-Date", timestamp)]
    if keys.session_token is not None:
        token = _fit(keys.session_token.reveal())
        signed.append(("x-amz-security-token", token))
        added.append(("X-Amz-Security-Token", token))
    if content_types := header_values(headers, "content-type"):
        signed.insert(0, ("content-type", ",".join(content_types)))
    canonical = canonical_request(method, target, signed, sha256(body).hexdigest())
    key = signing_keys.key(access_key_id, secret.encode("ascii"), scope, now=now)
    signature = digest(key, string_to_sign(timestamp, scope, canonical).encode("ascii"), "sha256").hex()
    added.append(("Authorization", authorization(access_key_id, scope, [name for name, _ in signed], signature)))
    return tuple(added)


def amz_date(time: datetime) -> str:
    """The time in the form of X-Amz-Date, `20150830T123600Z`. ValueError for a time that is not UTC."""
    if time.tzinfo is not UTC:
        raise ValueError("the time of a signature is an aware datetime in UTC")
    parts = (time.year, time.month, time.day, time.hour, time.minute, time.second)
    return "%04d%02d%02dT%02d%02d%02dZ" % parts  # noqa: UP031  # half the time of an f-string


def scope_of(day: str, region: str, service: str) -> str:
    """The scope of a signature; `day` is as in `20150830`."""
    return f"{day}/{region}/{service}/{_TERMINATOR}"


def canonical_request(method: str, target: str, signed: list[tuple[str, str]], body_sha256: str) -> bytes:
    """A request as both sides write it down. `signed` are lower-case names with values, in order of their names."""
    path, _, query = target.partition("?")
    lines = [method, canonical_path(path), canonical_query(query)]
    lines += [f"{name}:{_trimmed(value)}" for name, value in signed]
    lines += ["", ";".join([name for name, _ in signed]), body_sha256]
    return "\n".join(lines).encode("latin-1")


def string_to_sign(timestamp: str, scope: str, canonical: bytes) -> str:
    """What the signature is made of."""
    return f"{ALGORITHM}\n{timestamp}\n{scope}\n{sha256(canonical).hexdigest()}"


def authorization(access_key_id: str, scope: str, signed_names: list[str], signature: str) -> str:
    """The value of the Authorization header."""
    names = ";".join(signed_names)
    return f"{ALGORITHM} Credential={access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"


def derive_key(secret: bytes, scope: str) -> bytes:
    """The key of a scope, from the secret access key."""
    key = b"AWS4" + secret
    for part in scope.split("/"):
        key = digest(key, part.encode("ascii"), "sha256")
    return key


def canonical_path(path: str) -> str:
    """The path without dot segments and empty segments, encoded once more."""
    if "/." in path or "//" in path:
        path = _without_empty_segments(path)
    return _NOT_IN_PATH.sub(_encoded, path) or "/"


def canonical_query(query: str) -> str:
    """The parameters, each encoded in the one canonical way, in order of name and value.

    A plus sign is one: AWS's clients write a space as %20. Nothing between two `&` is no parameter.
    """
    if not query:
        return ""
    if _PLAIN_QUERY.fullmatch(query) is None:
        query = "&".join([_canonical_parameter(part) for part in query.split("&") if part])
    # Name and value are ordered one after the other: as one text, `=` would come after `-` and the digits.
    return "&".join(["=".join(pair) for pair in sorted([part.split("=") for part in query.split("&")])])


def _canonical_parameter(parameter: str) -> str:
    name, _, value = parameter.partition("=")
    return f"{_encoded_anew(name)}={_encoded_anew(value)}"


def _encoded_anew(text: str) -> str:
    return quote_from_bytes(unquote_to_bytes(text.encode("latin-1")), safe="")


def _encoded(found: re.Match[str]) -> str:
    return _ENCODED[ord(found[0])]


def _without_empty_segments(path: str) -> str:
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    return "/" + "/".join(kept) + ("/" if path.endswith("/") and kept else "")


def _trimmed(value: str) -> str:
    return _SPACES.sub(" ", value).strip(" ") if " " in value or "\t" in value else value


def _fit(text: str) -> str:
    """The text, if it can go into a header as it is. The error does not show it."""
    if _VISIBLE.fullmatch(text) is None:
        raise UnfitCredential
    return text
