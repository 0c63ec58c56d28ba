"""What counts as a key: the same rules for central keys, user keys and keys from the environment."""

import re

from credentiald.errors import AwsCredentialsIncomplete, InvalidArgument, KeyRequired, KeyTooLarge
from credentiald.model import MAX_KEY_BYTES, ApiKeyMaterial, AwsKeyPairMaterial, Material
from daemonkit.secret import Secret

# A key becomes the value of a header (RFC 9110, section 5.5), so line breaks and the like must not be in it.
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")


def has_key_form(key: Secret) -> bool:
    """Whether the key, without white space around it, is visible ASCII in one piece."""
    return _VISIBLE_ASCII.fullmatch(key.stripped().reveal()) is not None


def checked_key(key: Secret, *, provider: str) -> Secret:
    """The key without white space around it, or a refusal: keys of spaces count as none."""
    if key.size_bytes() > MAX_KEY_BYTES:
        raise KeyTooLarge(limit_bytes=str(MAX_KEY_BYTES))
    if key.is_blank():
        raise KeyRequired(provider=provider)
    if not has_key_form(key):
        raise InvalidArgument(field="key", problem="must be visible ASCII characters without spaces or line breaks")
    return key.stripped()


def checked_material(material: Material, *, provider: str) -> Material:
    """The material with every part checked. An incomplete AWS pair is refused, never completed from elsewhere."""
    if isinstance(material, ApiKeyMaterial):
        return ApiKeyMaterial(value=checked_key(material.value, provider=provider))
    parts = {"access key id": material.access_key_id, "secret access key": material.secret_access_key}
    missing = [name for name, value in parts.items() if value.is_blank()]
    if missing:
        raise AwsCredentialsIncomplete(provider=provider, missing=" and ".join(missing))
    token = material.session_token
    return AwsKeyPairMaterial(
        access_key_id=checked_key(material.access_key_id, provider=provider),
        secret_access_key=checked_key(material.secret_access_key, provider=provider),
        session_token=None if token is None or token.is_blank() else checked_key(token, provider=provider),
    )
