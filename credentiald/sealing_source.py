"""Where new sealing keys come from, as an operator writes it: `local`, `aws-kms:KEY_ARN` or `vault:ADDRESS/MOUNT/KEY`.

Decisions only; sealing_wrapping.py asks who is named here.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from daemonkit.listen import is_loopback

LOCAL: Final = "local"
# AWS KMS Developer Guide, "Key ARN" and "Alias ARN".
_KMS_ARN = re.compile(r"arn:aws[a-z-]*:kms:(?P<region>[a-z0-9-]+):[0-9]{12}:(key/[A-Za-z0-9-]+|alias/[A-Za-z0-9/_-]+)")
_VAULT_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSource:
    """New keys are kept on this machine."""

    @property
    def text(self) -> str:
        """As an operator writes it."""
        return LOCAL


@dataclass(frozen=True, slots=True, kw_only=True)
class KmsSource:
    """New keys are encrypted by this key of AWS KMS."""

    arn: str
    region: str

    @property
    def text(self) -> str:
        """As an operator writes it."""
        return f"aws-kms:{self.arn}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultSource:
    """New keys are encrypted by this key of a transit secrets engine. `port` is never 0."""

    is_tls: bool
    host: str
    port: int
    mount: str
    key: str

    @property
    def text(self) -> str:
        """As an operator writes it, with the port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"vault:{'https' if self.is_tls else 'http'}://{host}:{self.port}/{self.mount}/{self.key}"


SealingSource = LocalSource | KmsSource | VaultSource


def parse_source(text: str) -> SealingSource:
    """The source; ValueError with a sentence for the operator."""
    text = text.strip()
    kind, _, rest = text.partition(":")
    if text == LOCAL:
        return LocalSource()
    if kind == "aws-kms":
        found = _KMS_ARN.fullmatch(rest)
        if found is None:
            raise ValueError("after aws-kms: comes the ARN of a key or an alias, arn:aws:kms:REGION:ACCOUNT:key/ID")
        return KmsSource(arn=rest, region=found["region"])
    if kind == "vault":
        return _vault(rest)
    raise ValueError("write local, aws-kms:KEY_ARN or vault:ADDRESS/MOUNT/KEY")


def _vault(text: str) -> VaultSource:
    url = urlsplit(text)
    mount, _, key = url.path.strip("/").rpartition("/")
    if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc or url.query or url.fragment:
        raise ValueError("after vault: comes https://HOST:PORT/MOUNT/KEY, without user, query or fragment")
    if not mount or not all(_VAULT_NAME.fullmatch(part) for part in (*mount.split("/"), key)):
        raise ValueError("vault: the path is MOUNT/KEY, such as transit/drawbridge")
    try:
        port = url.port or (443 if url.scheme == "https" else 80)
    except ValueError:
        raise ValueError("vault: the port is not one") from None
    if url.scheme == "http" and not is_loopback(url.hostname):
        raise ValueError("vault: http only on this machine itself: write https")
    return VaultSource(is_tls=url.scheme == "https", host=url.hostname, port=port, mount=mount, key=key)
