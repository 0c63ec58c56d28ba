"""Which region a request to Bedrock is for, and what its host tells. Decisions only.

    1  the provider's own setting
    2  the host of its base URL, where that is one of Bedrock's
    3  AWS_REGION, AWS_DEFAULT_REGION, the region of the AWS profile
    4  us-east-1: with a bearer token, and for a pair with a base URL

Ambient credentials, and a pair without a base URL, have no fourth step. The host comes before the machine's settings,
because it only takes signatures for its own region. A region that is set and malformed is refused; no later
step stands in for it.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from credentiald.errors import RegionRequired
from credentiald.validation import region_problem

FALLBACK_REGION = "us-east-1"
SETTINGS = "the provider's region, AWS_REGION, AWS_DEFAULT_REGION, the region of the AWS profile"

# DNS suffixes of every partition, also those of dual stack (botocore's partitions.json; a test compares).
DNS_SUFFIXES = (
    "amazonaws.com",
    "api.aws",
    "amazonaws.com.cn",
    "api.amazonwebservices.com.cn",
    "amazonaws.eu",
    "api.amazonwebservices.eu",
    "c2s.ic.gov",
    "api.aws.ic.gov",
    "sc2s.sgov.gov",
    "api.aws.scloud",
    "cloud.adc-e.uk",
    "api.cloud-aws.adc-e.uk",
    "csp.hci.ic.gov",
    "api.aws.hci.ic.gov",
)
_HOST = re.compile(
    r"(?P<vpce>vpce-[a-z0-9-]+\.)?(?P<service>bedrock-runtime|bedrock-mantle|bedrock)(?P<fips>-fips)?"
    r"\.(?P<region>[a-z0-9]+(-[a-z0-9]+)+)(?P<vpce_suffix>\.vpce)?\.(?P<suffix>.+)"
)


class Identity(StrEnum):
    """What a request to Bedrock proves itself with."""

    BEARER = "BEARER"
    PAIR = "PAIR"
    AMBIENT = "AMBIENT"


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSettings:
    """What the machine says: its region with where that was set, and which kind of endpoints it wants.

    `problem` says what is wrong with the AWS profile, empty where nothing is.
    """

    region: str = ""
    region_origin: str = ""
    use_fips: bool = False
    use_dual_stack: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A region and where it comes from."""

    name: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where requests go and for which region they are signed.

    `control_base_url` is where lists of models and inference profiles are asked for.
    """

    region: Region
    base_url: str
    base_url_origin: str
    control_base_url: str


def host_parts(base_url: str) -> re.Match[str] | None:
    """What the host of a URL tells, None where it is not one of Bedrock's."""
    found = _HOST.fullmatch((urlsplit(base_url).hostname or "").lower()) if base_url else None
    return found if found is not None and found["suffix"] in DNS_SUFFIXES else None


def choose_region(
    *, provider: str, configured: str, base_url: str, identity: Identity, machine: MachineSettings
) -> Region:
    """The region by the table above, or RegionRequired."""
    host = host_parts(base_url)
    candidates = (
        (configured, "the provider's setting"),
        (host["region"] if host else "", "the host of the base URL"),
        (machine.region, machine.region_origin),
        (FALLBACK_REGION if _falls_back(identity, base_url) else "", f"the default of a {_NAMES[identity]}"),
    )
    for name, origin in candidates:
        if not name:
            continue
        problem = region_problem(name)
        if problem is not None:
            raise RegionRequired(provider=provider, settings=f"{SETTINGS} ({origin} {problem})")
        return Region(name=name, origin=origin)
    note = f" ({machine.problem})" if machine.problem else ""
    raise RegionRequired(provider=provider, settings=SETTINGS + note)


def _falls_back(identity: Identity, base_url: str) -> bool:
    return identity is Identity.BEARER or (identity is Identity.PAIR and bool(base_url))


_NAMES = {
    Identity.BEARER: "bearer token",
    Identity.PAIR: "pair with a base URL",
    Identity.AMBIENT: "machine",
}


def control_base_url(base_url: str) -> str:
    """Where a configured base URL has its lists: the sibling of a public Bedrock host, else the same URL.

    A credential goes to the provider's host and to no other; the sibling is the same service of the same owner.
    """
    host = host_parts(base_url)
    if host is None or host["vpce"] or host["service"] == "bedrock":
        return base_url
    parts = urlsplit(base_url)
    return parts._replace(
        netloc=(parts.hostname or "").replace(host["service"], "bedrock", 1) + (f":{parts.port}" if parts.port else "")
    ).geturl()


def mantle_url(dual_stack_runtime_url: str) -> str:
    """bedrock-mantle's endpoint: botocore's data lack it; it is beside bedrock-runtime's dual-stack one."""
    return dual_stack_runtime_url.replace("bedrock-runtime", "bedrock-mantle", 1)
