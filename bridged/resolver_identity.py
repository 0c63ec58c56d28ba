"""Who this bridge is to credentiald, and whom it trusts there: as it was read last, told to whoever follows it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

from bridged.resolver_unary import Metadata
from daemonkit.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """PEM bytes for the channel: whom to trust (None: the system's trust store), and who we are, for mutual TLS."""

    ca: bytes | None = None
    cert: bytes | None = None
    key: bytes | None = None

    def __repr__(self) -> str:
        return "ClientTls(…)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What credentiald is shown. `tls` None is plaintext; without a token the certificate speaks."""

    token: Secret | None = None
    tls: ClientTls | None = None

    @property
    def metadata(self) -> Metadata:
        """What goes with every call."""
        return () if self.token is None else (("authorization", f"Bearer {self.token.reveal()}"),)


@final
class Identities:
    """The identity of now. `doubted` is called when credentiald does not accept it: there may be a newer one."""

    def __init__(self, first: Identity) -> None:
        self.current = first
        self.doubted: Callable[[], None] = lambda: None
        # Whether it can change at all: a token from a variable stays what it is.
        self.changes = False
        self._followers: list[Callable[[], None]] = []

    def follow(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have `changed` called with each change; what this returns ends that."""
        self._followers.append(changed)
        return lambda: self._followers.remove(changed)

    def take_token(self, token: Secret) -> None:
        """Be known by this token from now on."""
        self._become(replace(self.current, token=token))

    def take_tls(self, tls: ClientTls) -> None:
        """Connect with these from now on."""
        self._become(replace(self.current, tls=tls))

    def _become(self, identity: Identity) -> None:
        if identity != self.current:
            self.current = identity
            for changed in tuple(self._followers):
                changed()
