"""Sealing keys that somebody outside encrypts for us: AWS KMS, or a transit engine.

We make the keys; the database keeps them encrypted, bound to its own id and theirs. They are decrypted when a process
starts or first meets them, and live as long as it does. What is asked runs in threads of its own and has an end.

Only those are asked whom a setting names: who can write to the database could name somebody who hands out a key of
theirs, or keeps the token that the question comes with.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from credentiald.aws.lane import Lane
from credentiald.sealing_source import KmsSource, LocalSource, SealingSource, VaultSource, parse_source
from credentiald.vault import VaultAccess

ASK_SECONDS = 10.0
_KEY_BYTES = 32


class WrapFailed(Exception):
    """A key was not encrypted or decrypted. `is_refused`: for good, as far as can be told; the text has no secret."""

    def __init__(self, cause: str, *, is_refused: bool) -> None:
        super().__init__(cause)
        self.is_refused = is_refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapping:
    """Who encrypts new keys, who may be asked for older ones `before`, and how."""

    source: SealingSource = field(default_factory=LocalSource)
    before: tuple[SealingSource, ...] = ()
    vault: VaultAccess = field(default_factory=lambda: VaultAccess(token=lambda: None))
    lane: Lane = field(default_factory=lambda: Lane("sealing", 4))

    @property
    def is_outside(self) -> bool:
        """Whether new keys are encrypted outside."""
        return not isinstance(self.source, LocalSource)

    async def wrap(self, key: bytes, *, key_id: str, database_id: str) -> bytes:
        """The key, encrypted by the source of new ones, which has shown that it decrypts it again. WrapFailed."""
        wrapped = await self._asked(self.source, lambda: _wrapped(self.source, self.vault, key, key_id, database_id))
        if await self.unwrap(self.source.text, wrapped, key_id=key_id, database_id=database_id) != key:
            raise WrapFailed(f"{self.source.text}: it decrypts something else than it encrypted", is_refused=True)
        return wrapped

    async def unwrap(self, source_text: str, wrapped: bytes, *, key_id: str, database_id: str) -> bytes:
        """The key that this source encrypted. WrapFailed."""
        try:
            source = parse_source(source_text)
        except ValueError:
            raise WrapFailed("its source is not known to this release", is_refused=True) from None
        if source not in (self.source, *self.before):
            raise WrapFailed(
                f"{source.text}: the database names it and no setting does: if it is yours, add it to "
                "CREDENTIALD_SEALING_KEY_SOURCES_BEFORE",
                is_refused=True,
            )
        key = await self._asked(source, lambda: _unwrapped(source, self.vault, wrapped, key_id, database_id))
        if len(key) != _KEY_BYTES:
            raise WrapFailed(f"{source_text}: what it decrypted is no sealing key", is_refused=True)
        return key

    async def _asked(self, source: SealingSource, work: Callable[[], bytes]) -> bytes:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                outcome = await self.lane.submit(work)
        except TimeoutError:
            raise WrapFailed(f"{source.text}: no answer in time", is_refused=False) from None
        if isinstance(outcome, Exception):
            # Not chained: what comes from libraries may carry answers with it.
            is_refused = bool(getattr(outcome, "is_refused", False))
            known = hasattr(outcome, "is_refused")
            cause = str(outcome) if known else f"it failed ({type(outcome).__name__})"
            raise WrapFailed(f"{source.text}: {cause}", is_refused=is_refused)
        return outcome


def _context(key_id: str, database_id: str) -> dict[str, str]:
    return {"drawbridge:database": database_id, "drawbridge:sealing-key": key_id}


def _context_bytes(key_id: str, database_id: str) -> bytes:
    return json.dumps(_context(key_id, database_id), sort_keys=True, separators=(",", ":")).encode("ascii")


def _wrapped(source: SealingSource, access: VaultAccess, key: bytes, key_id: str, database_id: str) -> bytes:
    match source:
        case KmsSource():
            from credentiald.aws import kms

            return kms.encrypt(source.arn, source.region, key, _context(key_id, database_id))
        case VaultSource():
            from credentiald import vault

            return vault.encrypt(source, access, key, _context_bytes(key_id, database_id))
        case LocalSource():
            raise WrapFailed("nobody outside is named", is_refused=True)


def _unwrapped(source: SealingSource, access: VaultAccess, wrapped: bytes, key_id: str, database_id: str) -> bytes:
    match source:
        case KmsSource():
            from credentiald.aws import kms

            return kms.decrypt(source.arn, source.region, wrapped, _context(key_id, database_id))
        case VaultSource():
            from credentiald import vault

            return vault.decrypt(source, access, wrapped, _context_bytes(key_id, database_id))
        case LocalSource():
            raise WrapFailed("nobody outside is named", is_refused=True)
