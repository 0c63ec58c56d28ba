"""The files by which credentiald knows this bridge, and the bridge credentiald, followed for as long as it serves."""

import ssl

from bridged.resolver_identity import ClientTls, Identities, Identity
from bridged.settings_table import Settings
from bridged.token_file import TokenFile
from daemonkit.rereading import Rereading
from daemonkit.tls import client_context, read_bytes
from daemonkit.tls_metrics import TlsMetrics
from daemonkit.tls_reload import KeptTls, UnusableTls

# What metrics and logs call these files, beside the names of listeners.
_NAME = "credentiald"


def followed_identity(settings: Settings, token_file: str, files: Rereading, metrics: TlsMetrics) -> Identities:
    """The identity that the settings name, which changes with its files. UnusableTls."""
    identities = Identities(Identity(token=settings.credentiald_token))
    if settings.credentiald_ca:
        try:
            kept = _kept_tls(settings, identities, metrics)
        except ValueError as error:
            raise UnusableTls(f"credentiald: {error}") from None
        files.add(kept.read, kept.use)
    if token_file:
        token = TokenFile(token_file, settings.credentiald_token, identities.take_token)
        files.add(token.read, token.use)
        identities.changes = True
        identities.doubted = files.at_once
    return identities


def _kept_tls(settings: Settings, identities: Identities, metrics: TlsMetrics) -> KeptTls[ClientTls]:
    ca, cert, key = settings.credentiald_ca, settings.credentiald_cert, settings.credentiald_key

    def take(tls: ClientTls, _: ssl.SSLContext) -> None:
        identities.take_tls(tls)

    return KeptTls(
        _NAME,
        metrics,
        read_pem=lambda: ClientTls(
            ca=read_bytes(ca), cert=read_bytes(cert) if cert else None, key=read_bytes(key) if cert else None
        ),
        judge=lambda: client_context(ca=ca, cert=cert, key=key),
        chain=lambda tls: tls.cert,
        take=take,
    )
