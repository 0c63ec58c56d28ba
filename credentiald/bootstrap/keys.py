"""The sealing keys at hand, and whether they are those of the database."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from credentiald import private_files
from credentiald.bootstrap.files import Found, secret_in
from credentiald.bootstrap.refusals import StartRefused, UnwrappedKeyWrong
from credentiald.errors import Sealed
from credentiald.sealing import Keyring, Sealer
from credentiald.sealing_places import SEALING_FILE, SEALING_SETTING
from daemonkit.secret import Secret


def sealer_that_fits(path: Path, found: Found, sealing_keys: Secret | None, unwrapped: Mapping[str, bytes]) -> Sealer:
    """A sealer that opens what the database holds, or StartRefused."""
    origin = _origin(path, sealing_keys)
    sealer = Sealer(complete_keyring(path, found.key_ids, sealing_keys, unwrapped))
    # A key id alone proves nothing: what is known of it is compared, and one secret of each key is opened, so that a
    # wrong key shows now. The deployment's is the first.
    for key in found.known:
        if key.id in found.key_ids and not sealer.has(key.id, key.fingerprint):
            raise _wrong_key(path, key.id, origin, unwrapped)
    opened: set[str] = set()
    for place, (sealed, context) in enumerate(found.samples):
        try:
            sealer.open(sealed, context)
            opened.add(sealed.key_id)
        except Sealed:
            if place and sealed.key_id in opened:
                # The key is right: it is this one secret that is damaged, and refused by itself when it is wanted.
                continue
            raise _wrong_key(path, sealed.key_id, origin, unwrapped) from None
    return sealer


def complete_keyring(
    path: Path, key_ids: set[str], sealing_keys: Secret | None, unwrapped: Mapping[str, bytes]
) -> Keyring:
    """All keys at hand, with these among them; StartRefused."""
    origin = _origin(path, sealing_keys)
    keyring = keyring_at_hand(path, sealing_keys)
    if unwrapped:
        # A key of this machine wins: its id was there first.
        local = keyring.key_ids if keyring else ()
        outside = Keyring(left) if (left := {i: key for i, key in unwrapped.items() if i not in local}) else None
        keyring = keyring.behind(outside) if keyring and outside else keyring or outside
    if keyring is None:
        raise StartRefused(
            f"the sealing keys of the database {path} are missing (it needs {_listed(key_ids)}): "
            f"bring {origin} back from your backup, or set {SEALING_SETTING} or {SEALING_SETTING}_FILE"
        )
    missing = key_ids.difference(keyring.key_ids)
    if missing:
        raise StartRefused(
            f"the database {path} needs the sealing key {_listed(missing)}, which {origin} does not have: "
            "add it behind the newest one"
        )
    return keyring


def keyring_at_hand(path: Path, sealing_keys: Secret | None) -> Keyring | None:
    """The keys of the setting, else of the file, else None."""
    if sealing_keys is not None:
        return _parsed(sealing_keys, SEALING_SETTING)
    file = path.with_name(SEALING_FILE)
    content = secret_in(file)
    return None if content is None else _parsed(content, f"the file {file}")


def _parsed(content: Secret, origin: str) -> Keyring:
    try:
        return Keyring.parse(content.reveal())
    except ValueError as error:
        raise StartRefused(f"{origin} is not a list of sealing keys: {error}") from None


def new_keyring(path: Path, now: datetime) -> Keyring:
    """One new key, in the file beside the database."""
    keyring = Keyring.generate(f"k{now:%Y%m%d}")
    private_files.write(path.with_name(SEALING_FILE), keyring.to_text())
    return keyring


def _origin(path: Path, sealing_keys: Secret | None) -> str:
    return SEALING_SETTING if sealing_keys is not None else f"the file {path.with_name(SEALING_FILE)}"


def _wrong_key(path: Path, key_id: str, origin: str, unwrapped: Mapping[str, bytes]) -> StartRefused:
    if key_id in unwrapped:
        return UnwrappedKeyWrong(
            f"the sealing key {_listed({key_id})} that was decrypted is not the one that sealed the database {path}: "
            "the database was changed, or mixed up with another one"
        )
    return StartRefused(
        f"the sealing key {_listed({key_id})} of {origin} is not the one that sealed the database {path}: "
        "bring the right one back from your backup"
    )


def _listed(key_ids: set[str]) -> str:
    return ", ".join(repr(key_id) for key_id in sorted(key_ids))
