"""Certificates as an operator has them in files, and a folder of them that is replaced as a whole."""

import datetime
import ipaddress
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_NUMBERS = itertools.count()


class Authority:
    """An authority whose certificates may have URIs, which trustme does not write."""

    def __init__(self) -> None:
        made = trustme.CA()
        self.pem = made.cert_pem.bytes()
        self._cert = x509.load_pem_x509_certificate(self.pem)
        self._key = serialization.load_pem_private_key(made.private_key_pem.bytes(), None)

    def issue(self, *sans: str, days: int = 1, dns_names: Sequence[str] = ()) -> tuple[bytes, bytes]:
        """A certificate for these DNS names, URIs (with a colon) and addresses (with digits alone), and its key.

        `dns_names` are DNS names whatever they look like.
        """
        names = [*map(_name, sans), *map(x509.DNSName, dns_names)]
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        cert = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._cert.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),  # type: ignore[arg-type]
                critical=False,
            )
            .sign(self._key, hashes.SHA256())  # type: ignore[arg-type]
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cert.public_bytes(serialization.Encoding.PEM), private


def _name(san: str) -> x509.GeneralName:
    if ":" in san:
        return x509.UniformResourceIdentifier(san)
    if san.replace(".", "").isdigit():
        return x509.IPAddress(ipaddress.ip_address(san))
    return x509.DNSName(san)


class Mounted:
    """A folder of files behind a symlink that is swapped, as Kubernetes mounts a secret."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def path(self, name: str) -> str:
        """Where a daemon finds a file, now and later."""
        return str(self.folder / name)

    def replace(self, files: Mapping[str, bytes]) -> None:
        """Have these files in place of all that were there, at one stroke."""
        version = self.folder / f"..{next(_NUMBERS)}"
        version.mkdir()
        for name, content in files.items():
            (version / name).write_bytes(content)
            link = self.folder / name
            if not link.is_symlink():
                link.symlink_to(Path("..data") / name)
        fresh = self.folder / "..data_tmp"
        fresh.symlink_to(version.name)
        os.replace(fresh, self.folder / "..data")


def server_files(authority: Authority, *, client_ca: bytes = b"", days: int = 1) -> dict[str, bytes]:
    """What a server has: its certificate, key, and whom its clients must come from."""
    cert, key = authority.issue("localhost", "127.0.0.1", days=days)
    return {"tls.crt": cert, "tls.key": key, "ca.crt": client_ca or authority.pem}


def client_files(authority: Authority, *sans: str, ca: bytes = b"") -> dict[str, bytes]:
    """What a client has: its certificate, key, and whom its server must come from."""
    cert, key = authority.issue(*sans)
    return {"client.crt": cert, "client.key": key, "server-ca.crt": ca or authority.pem}
