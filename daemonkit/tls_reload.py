"""TLS files that are replaced while a daemon runs: each new connection is made with the last ones that fit together.

Invariants:
- What is in use was whole: certificate and key fit, and nothing changed while they were read.
- Broken files change nothing but a gauge and one line of the log.
- A new context shares nothing with the one before, so a session of a client whose authority is gone is not resumed.
- A connection keeps what it began with.
"""

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from daemonkit.rereading import Rereading
from daemonkit.tls import Listener, TlsBytes, TlsFiles, read_pem, server_context
from daemonkit.tls_metrics import TlsMetrics

log = logging.getLogger(__name__)

Pem = TypeVar("Pem")


# A first reading that meets a change is tried again.
_TRIES = 3


class UnusableTls(Exception):
    """Files that a setting names cannot be used; the text is for the operator."""


class ServerContext(ssl.SSLContext):
    """What a server is given once: it makes each connection with the context that is current by then.

    asyncio and uvloop ask a server's context for `wrap_bio` alone.
    """

    current: ssl.SSLContext

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """One connection."""
        return self.current.wrap_bio(*args, **kwargs)

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """One connection over a blocking socket."""
        return self.current.wrap_socket(*args, **kwargs)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found(Generic[Pem]):
    """Files that were read whole, or why they cannot be used. Without a context they are those in use."""

    pem: Pem | None = None
    context: ssl.SSLContext | None = None
    not_after: datetime | None = None
    problem: str = ""


class KeptTls(Generic[Pem]):
    """Files of one side of TLS, as they are in use. ValueError where they cannot be used to begin with.

    `read_pem` gives their bytes, `judge` has OpenSSL read them, `chain` is the certificate among the bytes, if there is
    one; `take` is called with what is in use from then on. The first two say by ValueError what is wrong.
    """

    def __init__(
        self,
        name: str,
        metrics: TlsMetrics,
        *,
        read_pem: Callable[[], Pem],
        judge: Callable[[], ssl.SSLContext],
        chain: Callable[[Pem], bytes | None],
        take: Callable[[Pem, ssl.SSLContext], None],
    ) -> None:
        self._name = name
        self._metrics = metrics
        self._read_pem = read_pem
        self._judge = judge
        self._chain = chain
        self._take = take
        self._pem: Pem | None = None
        self._refused: Pem | str | None = None
        found = next((one for one in (self._whole() for _ in range(_TRIES)) if one is not None), None)
        if found is None or found.problem:
            raise ValueError(found.problem if found else "the files do not stop changing")
        self._use_whole(found)

    def read(self) -> _Found[Pem] | None:
        """What the files hold; None where that is nothing new. Blocks on the disk, on any thread."""
        try:
            pem = self._read_pem()
        except ValueError as error:
            return None if self._refused == str(error) else _Found(problem=str(error))
        if pem == self._pem:
            return _Found(pem=pem) if self._refused is not None else None
        # Those that were refused before are judged again: what was wrong may not have been in them, such as a moment
        # without descriptors, or a file that was written once more while OpenSSL read it.
        return self._whole()

    def use(self, found: _Found[Pem] | None) -> None:
        """Take what was read, or say why not."""
        if found is None:
            return
        if found.problem:
            refused = found.problem if found.pem is None else found.pem
            if refused == self._refused:
                return
            self._refused = refused
            self._metrics.is_current(self._name, current=False)
            facts = {"listener": self._name, "problem": found.problem}
            log.warning("TLS files cannot be used: those before stay in use", extra=facts)
            return
        self._refused = None
        if found.context is None:
            self._metrics.is_current(self._name, current=True)
            log.info("TLS files are again those in use", extra={"listener": self._name})
            return
        self._use_whole(found)
        not_after = "" if found.not_after is None else found.not_after.isoformat()
        log.info("TLS files were read anew", extra={"listener": self._name, "not_after": not_after})

    def _use_whole(self, found: _Found[Pem]) -> None:
        if found.pem is not None and found.context is not None:
            self._pem = found.pem
            self._take(found.pem, found.context)
            self._metrics.loaded(self._name, found.not_after)

    def _whole(self) -> _Found[Pem] | None:
        """The files, which OpenSSL reads for itself; None where they changed meanwhile, so that nothing is known."""
        pem: Pem | None = None
        try:
            pem = self._read_pem()
            context = self._judge()
            again = self._read_pem()
        except ValueError as error:
            return _Found(pem=pem, problem=str(error))
        if again != pem:
            return None
        chain = self._chain(pem)
        return _Found(pem=pem, context=context, not_after=None if chain is None else _ends(chain))


class ServedTls:
    """The TLS of one listener, for servers of asyncio (`context`) and of gRPC (`pem`)."""

    def __init__(self, files: TlsFiles, name: str, metrics: TlsMetrics) -> None:
        """ValueError where the files cannot be used."""
        self.context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Any thread may ask for it.
        self.pem: TlsBytes
        self.kept = KeptTls(
            name,
            metrics,
            read_pem=lambda: read_pem(files),
            judge=lambda: server_context(files),
            chain=lambda pem: pem.cert,
            take=self._take,
        )

    def _take(self, pem: TlsBytes, context: ssl.SSLContext) -> None:
        self.pem, self.context.current = pem, context


def _ends(chain: bytes) -> datetime | None:
    """When the first certificate of a chain ends; None where that cannot be read."""
    # Imported late: a daemon without TLS does not need it.
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return min(one.not_valid_after_utc for one in load_pem_x509_certificates(chain))
    except ValueError:
        return None


class TlsListeners:
    """The TLS of a process's listeners, each read anew for as long as the process serves."""

    def __init__(self, files: Rereading, metrics: TlsMetrics) -> None:
        self._files = files
        self._metrics = metrics

    def of(self, listener: Listener, name: str) -> ServedTls | None:
        """The TLS of a listener, None for plaintext. `name` is that of its `listening` line. UnusableTls."""
        if listener.tls is None or all(address.is_unix for address in listener.addresses):
            return None
        try:
            served = ServedTls(listener.tls, name, self._metrics)
        except ValueError as error:
            raise UnusableTls(f"{listener.tls_name}: {error}") from None
        self._files.add(served.kept.read, served.kept.use)
        return served

    def context(self, listener: Listener, name: str) -> ssl.SSLContext | None:
        """As `of`, for servers of asyncio."""
        served = self.of(listener, name)
        return None if served is None else served.context
