"""Who signed a request, as AWS would judge it: bearer tokens, and signatures as botocore reckons them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tests.support.sigv4 import botocore_signature

# AWS takes a signature for five minutes.
_SKEW = timedelta(minutes=5)
_SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=(?P<id>[^/, ]+)/(?P<day>\d{8})/(?P<region>[^/, ]+)/(?P<service>[^/, ]+)"
    r"/aws4_request, *SignedHeaders=(?P<names>[^, ]+), *Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A pair that the fake knows. From `expire_time` on it is refused as expired."""

    secret: str
    session_token: str | None = None
    expire_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Who a request was found to be from: a bearer token, or an access key id with what was signed."""

    bearer: str | None = None
    access_key_id: str | None = None
    region: str = ""
    service: str = ""
    signed_headers: tuple[str, ...] = ()


class NotAuthenticated(Exception):
    """AWS's refusal: the name of the exception and its message."""

    def __init__(self, kind: str, message: str, *, status: int = 403) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind, self.message, self.status = kind, message, status


@dataclass(frozen=True, kw_only=True)
class Presented:
    """A request as it came."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]


def judge(
    request: Presented,
    *,
    known: Callable[[str], Accepted | None],
    bearers: set[str],
    regions: set[str],
    service: str,
    now: datetime,
) -> Signer:
    """The signer of a request. NotAuthenticated with AWS's words for whatever is wrong.

    `known` gives the pair of an access key id.
    """
    credentials = request.all("authorization")
    if not credentials:
        raise NotAuthenticated("MissingAuthenticationTokenException", "Missing Authentication Token")
    if len(credentials) > 1:
        raise NotAuthenticated("IncompleteSignatureException", "Authorization came more than once", status=400)
    if credentials[0].startswith("Bearer "):
        return _judge_bearer(request, credentials[0].removeprefix("Bearer "), bearers)
    signed = _SIGNED.fullmatch(credentials[0])
    if signed is None:
        raise NotAuthenticated("IncompleteSignatureException", "Authorization header is not well-formed", status=400)
    signer = Signer(
        access_key_id=signed["id"],
        region=signed["region"],
        service=signed["service"],
        signed_headers=tuple(signed["names"].split(";")),
    )
    _judge_signature(request, signer, signed, known(signed["id"]), now)
    if signer.region not in regions or signer.service != service:
        expected = f"a valid region and to service '{service}'"
        raise NotAuthenticated("InvalidSignatureException", f"Credential should be scoped to {expected}.")
    return signer


def _judge_bearer(request: Presented, token: str, bearers: set[str]) -> Signer:
    if any(key.lower().startswith("x-amz-") for key, _ in request.headers):
        raise NotAuthenticated("IncompleteSignatureException", "a bearer token and X-Amz-* headers", status=400)
    if token not in bearers:
        raise NotAuthenticated(
            "AccessDeniedException", "Authentication failed: please make sure your API Key is valid."
        )
    return Signer(bearer=token)


def _judge_signature(
    request: Presented, signer: Signer, signed: re.Match[str], known: Accepted | None, now: datetime
) -> None:
    if known is None or request.all("x-amz-security-token") != ([known.session_token] if known.session_token else []):
        raise NotAuthenticated("UnrecognizedClientException", "The security token included in the request is invalid.")
    if known.expire_time is not None and now >= known.expire_time:
        raise NotAuthenticated("ExpiredTokenException", "The security token included in the request is expired")
    dates = request.all("x-amz-date")
    if len(dates) != 1 or not dates[0].startswith(signed["day"]):
        raise NotAuthenticated("InvalidSignatureException", "Date in Credential scope does not match X-Amz-Date.")
    if abs(datetime.strptime(dates[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) - now) > _SKEW:
        raise NotAuthenticated("InvalidSignatureException", f"Signature expired: {dates[0]} is too far from {now}")
    names = signer.signed_headers
    needed = {"host"} | {key.lower() for key, _ in request.headers if key.lower().startswith("x-amz-")}
    if list(names) != sorted(names) or not needed <= set(names):
        raise NotAuthenticated("InvalidSignatureException", f"these headers must be signed: {sorted(needed)}")
    expected = botocore_signature(
        method=request.method,
        url=f"https://{request.all('host')[0]}{request.target}",
        signed_headers=[(key, value) for key, value in request.headers if key.lower() in names],
        body=request.body,
        secret=known.secret,
        region=signer.region,
        service=signer.service,
        amz_date=dates[0],
    )
    if expected != signed["signature"]:
        raise NotAuthenticated(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details.",
        )
