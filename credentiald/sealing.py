"""Secrets at rest: sealed with AES-256-GCM, opened only for what they were sealed for.

Invariants:
- Every sealed secret names the key that sealed it, so keys can be added and old ones retired.
- What a secret is for (purpose, provider, user, credential) is authenticated with it: a row that is copied to
  another user or provider does not open.
- Sealing uses the newest key; a random 96-bit nonce each time (NIST SP 800-38D, 8.2.2: fine up to 2^32 per key).
- Nothing here prints a key or a plaintext, whatever goes wrong.
"""

import base64
import binascii
import json
import logging
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from hmac import digest
from typing import Any, Never, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from credentiald.errors import Sealed, SealingKeyUnknown
from credentiald.model import ApiKeyMaterial, AwsKeyPairMaterial, KeyKind, Material, SealedSecret
from daemonkit.secret import Secret

CENTRAL_KEY = "central_key"
USER_KEY = "user_key"
DEPLOYMENT = "deployment"

_FORMAT = b"drawbridge sealed secret 1"
_MATERIAL_VERSION = 1
_KEY_BYTES = 32
_FINGERPRINT = b"drawbridge fingerprint of a sealing key"
_FINGERPRINT_BYTES = 16
_NONCE_BYTES = 12
_NO_FINGERPRINTS: Mapping[str, bytes] = {}
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
_KEY_ID_RULE = "letters, digits, '_' and '-', at most 32 of them"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealContext:
    """What a sealed secret is for. It must be the same when it is opened."""

    purpose: str
    provider_id: str = ""
    user_id: str = ""
    credential_id: str = ""


def central_key_context(*, provider_id: str, credential_id: str) -> SealContext:
    """What a stored central key is sealed for."""
    return SealContext(purpose=CENTRAL_KEY, provider_id=provider_id, credential_id=credential_id)


def user_key_context(*, user_id: str, provider_id: str, credential_id: str) -> SealContext:
    """What a user's own key is sealed for."""
    return SealContext(purpose=USER_KEY, provider_id=provider_id, user_id=user_id, credential_id=credential_id)


def deployment_context(database_id: str) -> SealContext:
    """What the deployment secret of one database is sealed for."""
    return SealContext(purpose=DEPLOYMENT, credential_id=database_id)


@final
class Keyring:
    """Sealing keys by id, newest first. Seals with the first, opens with whichever is named."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise ValueError("there is no sealing key")
        if not all(_KEY_ID.fullmatch(key_id) for key_id in keys):
            raise ValueError(f"the id of a sealing key is not allowed: {_KEY_ID_RULE}")
        if not all(len(key) == _KEY_BYTES for key in keys.values()):
            raise ValueError(f"a sealing key is not {_KEY_BYTES} bytes long")
        self._keys = dict(keys)

    @classmethod
    def parse(cls, text: str) -> "Keyring":
        """The keyring written as `keyid:base64 of 32 bytes`, one a line or separated by commas, newest first.

        ValueError says which entry is wrong by its place, never by its text.
        """
        entries = [entry.strip() for line in text.splitlines() for entry in line.split(",")]
        keys: dict[str, bytes] = {}
        for place, entry in enumerate((entry for entry in entries if entry), start=1):
            key_id, key = _parse_entry(entry, place)
            if key_id in keys:
                raise ValueError(f"sealing key {place} has the id of an earlier one")
            keys[key_id] = key
        return cls(keys)

    @classmethod
    def generate(cls, key_id: str) -> "Keyring":
        """A keyring with one new key."""
        return cls({key_id: os.urandom(_KEY_BYTES)})

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids, newest first. They are no secret."""
        return tuple(self._keys)

    def behind(self, newest: "Keyring") -> "Keyring":
        """A keyring with these keys behind the newest; ValueError where they share an id."""
        if not self._keys.keys().isdisjoint(newest._keys):
            raise ValueError("two sealing keys would have one id")
        return Keyring({**newest._keys, **self._keys})

    def fingerprints(self) -> dict[str, bytes]:
        """By id, what tells a key from any other and nothing else of it; newest first."""
        return {key_id: digest(key, _FINGERPRINT, "sha256")[:_FINGERPRINT_BYTES] for key_id, key in self._keys.items()}

    def raw(self, key_id: str) -> bytes:
        """The key itself, for who encrypts it."""
        return self._keys[key_id]

    def without(self, key_id: str) -> "Keyring | None":
        """The other keys; None where there are none."""
        left = {other: key for other, key in self._keys.items() if other != key_id}
        return Keyring(left) if left else None

    def is_same(self, other: "Keyring | None") -> bool:
        """Whether both have the same keys in the same order."""
        return other is not None and list(self._keys.items()) == list(other._keys.items())

    def to_text(self) -> Secret:
        """The lines of the sealing file, as `parse` reads them."""
        lines = (f"{key_id}:{base64.b64encode(key).decode('ascii')}\n" for key_id, key in self._keys.items())
        return Secret("".join(lines))

    def ciphers(self) -> dict[str, AESGCM]:
        """One cipher a key, newest first."""
        return {key_id: AESGCM(key) for key_id, key in self._keys.items()}

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._keys)})"

    def __reduce__(self) -> Never:
        raise TypeError("a Keyring cannot be pickled or copied into another process")


def _parse_entry(entry: str, place: int) -> tuple[str, bytes]:
    """One `keyid:base64`. The errors keep the entry to themselves: it may be a key without an id."""
    key_id, colon, encoded = entry.partition(":")
    if not colon:
        raise ValueError(f"sealing key {place} has no id: write keyid:base64")
    if not _KEY_ID.fullmatch(key_id):
        raise ValueError(f"the id of sealing key {place} is not allowed: {_KEY_ID_RULE}")
    try:
        key = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"sealing key {place} is not base64") from None
    if len(key) != _KEY_BYTES:
        raise ValueError(f"sealing key {place} is not {_KEY_BYTES} bytes long")
    return key_id, key


@final
class Sealer:
    """Seals and opens with the keys that are at hand. Safe to share between threads.

    Which key seals what is stored is for the store to say (store/sealing_rows.py): all processes agree on it there.
    """

    __slots__ = ("_ciphers", "_fingerprints", "_newest")

    def __init__(self, keyring: Keyring) -> None:
        self._ciphers = keyring.ciphers()
        self._fingerprints = keyring.fingerprints()
        self._newest = keyring.key_ids[0]

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of the keys at hand, newest first."""
        return tuple(self._ciphers)

    def learn(self, keyring: Keyring, expected: Mapping[str, bytes] = _NO_FINGERPRINTS) -> None:
        """Have these keys at hand too.

        None is forgotten, since a row that was read before it was sealed anew has still to open. A key that is at hand
        stays what it is, unless the given one of its id has the expected fingerprint.
        """
        ciphers, fingerprints = keyring.ciphers(), keyring.fingerprints()
        wanted = {
            key_id
            for key_id, fingerprint in fingerprints.items()
            if key_id not in self._ciphers or expected.get(key_id) == fingerprint
        }
        self._fingerprints = {**self._fingerprints, **{key_id: fingerprints[key_id] for key_id in wanted}}
        self._ciphers = {**self._ciphers, **{key_id: ciphers[key_id] for key_id in wanted}}

    def has(self, key_id: str, fingerprint: bytes) -> bool:
        """Whether this key is at hand, and no other of its id."""
        return self._fingerprints.get(key_id) == fingerprint

    def fingerprint(self, key_id: str) -> bytes:
        """What tells this key, which is at hand, from any other."""
        return self._fingerprints[key_id]

    def seal(self, plaintext: bytes, context: SealContext, *, key_id: str = "") -> SealedSecret:
        """The plaintext under this key, else the newest one, bound to its context. SealingKeyUnknown."""
        key_id = key_id or self._newest
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise unknown_key(key_id, context)
        nonce = os.urandom(_NONCE_BYTES)
        ciphertext = cipher.encrypt(nonce, plaintext, _associated_data(key_id, context))
        return SealedSecret(key_id=key_id, nonce=nonce, ciphertext=ciphertext)

    def open(self, sealed: SealedSecret, context: SealContext) -> bytes:
        """The plaintext, or Sealed: anything about row or context is not as sealed; SealingKeyUnknown."""
        if isinstance(sealed.key_id, str) and sealed.key_id not in self._ciphers:
            raise unknown_key(sealed.key_id, context)
        try:
            cipher = self._ciphers.get(sealed.key_id)
            if cipher is None:
                raise ValueError("the id of the sealing key is no text")
            if len(sealed.nonce) != _NONCE_BYTES:
                raise ValueError(f"the nonce is not {_NONCE_BYTES} bytes long")
            return cipher.decrypt(sealed.nonce, sealed.ciphertext, _associated_data(sealed.key_id, context))
        except (InvalidTag, ValueError, TypeError, AttributeError) as error:
            # The last two: SQLite keeps whatever type somebody wrote into a column.
            raise _cannot_open(context, error) from error

    def seal_material(self, material: Material, context: SealContext, *, key_id: str = "") -> SealedSecret:
        """Key material, as a versioned JSON object, sealed as `seal` does."""
        return self.seal(json.dumps(_material_fields(material)).encode("ascii"), context, key_id=key_id)

    def open_material(self, sealed: SealedSecret, context: SealContext) -> Material:
        """Key material again, or Sealed, also for a form of material that a newer release wrote."""
        plaintext = self.open(sealed, context)
        try:
            return _material(json.loads(plaintext))
        except (ValueError, KeyError, TypeError):
            # These exceptions carry the plaintext with them, so none is chained.
            error = ValueError("what was sealed is not key material of a known form")
        raise _cannot_open(context, error) from error


@final
class DeploymentSecret:
    """32 random bytes made with a database, from which keys for its own use are derived."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    @classmethod
    def generate(cls) -> "DeploymentSecret":
        """A new one."""
        return cls(os.urandom(_KEY_BYTES))

    @classmethod
    def open(cls, sealed: SealedSecret, sealer: Sealer, database_id: str) -> "DeploymentSecret":
        """The one that a database keeps, or Sealed."""
        return cls(sealer.open(sealed, deployment_context(database_id)))

    def derive(self, label: str) -> bytes:
        """The 32-byte key for one use (HKDF-SHA256, RFC 5869), the same for the life of the database."""
        return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=label.encode("utf-8")).derive(self._value)

    def sealed(self, sealer: Sealer, database_id: str) -> SealedSecret:
        """As the database keeps it."""
        return sealer.seal(self._value, deployment_context(database_id))

    def __repr__(self) -> str:
        return "DeploymentSecret(…)"

    def __reduce__(self) -> Never:
        raise TypeError("a DeploymentSecret cannot be pickled or copied into another process")


def _associated_data(key_id: str, context: SealContext) -> bytes:
    """Each part with its length before it, so that no two contexts have one encoding."""
    texts = (key_id, context.purpose, context.provider_id, context.user_id, context.credential_id)
    parts = (_FORMAT, *(text.encode("utf-8") for text in texts))
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def unknown_key(key_id: str, context: SealContext) -> SealingKeyUnknown:
    """The refusal of what a key seals that is not at hand."""
    log.warning(
        "a sealing key is not at hand: looking where keys are kept",
        extra={"sealing_key": key_id, "purpose": context.purpose, "credential_id": context.credential_id},
    )
    return SealingKeyUnknown()


def _cannot_open(context: SealContext, cause: Exception) -> Sealed:
    """The refusal; what the operator needs goes to the log, since the caller is told to look there."""
    log.error(
        "a stored secret cannot be opened",
        extra={
            "purpose": context.purpose,
            "provider_id": context.provider_id,
            "user_id": context.user_id,
            "credential_id": context.credential_id,
            "cause": str(cause) or "it does not match its key or its context",
        },
    )
    return Sealed()


def _material_fields(material: Material) -> dict[str, Any]:
    """The JSON object inside a sealed key. Plaintext: it goes nowhere but into `seal`."""
    match material:
        case ApiKeyMaterial():
            return {"v": _MATERIAL_VERSION, "kind": KeyKind.API_KEY, "value": material.value.reveal()}
        case AwsKeyPairMaterial():
            token = material.session_token
            return {
                "v": _MATERIAL_VERSION,
                "kind": KeyKind.AWS_ACCESS_KEY_PAIR,
                "access_key_id": material.access_key_id.reveal(),
                "secret_access_key": material.secret_access_key.reveal(),
                "session_token": None if token is None else token.reveal(),
            }


def _material(fields: Any) -> Material:
    """The material of such an object; ValueError, KeyError or TypeError for any other."""
    if fields["v"] != _MATERIAL_VERSION:
        raise ValueError("unknown version of key material")
    if KeyKind(fields["kind"]) is KeyKind.API_KEY:
        return ApiKeyMaterial(value=Secret(fields["value"]))
    token = fields["session_token"]
    return AwsKeyPairMaterial(
        access_key_id=Secret(fields["access_key_id"]),
        secret_access_key=Secret(fields["secret_access_key"]),
        session_token=None if token is None else Secret(token),
    )
