"""Which names in a client certificate can stand for a service: URIs and DNS names (RFC 5280, 4.2.1.6).

A URI and a DNS name are never the same text, so one column holds both and neither is taken for the other. Addresses,
mail addresses, wildcards and the common name stand for nobody.
"""

import ipaddress
import re
from collections.abc import Iterable

# A SPIFFE id is a URI (spiffe.io, "SPIFFE-ID", 2); names without // are those of URNs.
_URI = re.compile(r"([a-z][a-z0-9+.-]*://|urn:)[\x21-\x7e]+")
_DNS_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_MAX_URI = 2048
_MAX_DNS_NAME = 253
# More than any authority writes into one certificate for one program.
MOST_OF_ONE_SERVICE = 32


def canonical(san: str) -> str:
    """The one spelling of a name: DNS names have no case (RFC 4343), URIs are compared as they are."""
    # Not `lower` of everything: it makes an ASCII letter of U+212A.
    return san if ":" in san or not san.isascii() else san.lower()


def problem(san: str) -> str | None:
    """What is wrong with a name that shall stand for a service, in its canonical spelling."""
    if _is_uri(san) or _is_dns_name(san):
        return None
    return "must be a URI such as spiffe://example.org/bridge, or a DNS name without a wildcard"


def of_certificate(uris: Iterable[str], dns_names: Iterable[str]) -> tuple[str, ...]:
    """The names of a certificate that can stand for a service; what else is in it is passed over."""
    found = [uri for uri in uris if _is_uri(uri)]
    found += [name for name in map(canonical, dns_names) if _is_dns_name(name)]
    return tuple(dict.fromkeys(found))


def _is_uri(text: str) -> bool:
    return len(text) <= _MAX_URI and _URI.fullmatch(text) is not None


def _is_dns_name(text: str) -> bool:
    if len(text) > _MAX_DNS_NAME or _DNS_NAME.fullmatch(text) is None:
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return True
    return False
