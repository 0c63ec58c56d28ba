"""The fields of one configured provider: names, aliases, `_FILE` twins, lists of keys.

A provider comes as texts by field name in upper case, from CODER_AIBRIDGE_PROVIDER_<N>_* or from the YAML list
`aibridge.providers`. A field of nothing but white space counts as not set. Keys become Secrets here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from credentiald.key_rules import has_key_form
from credentiald.model import MAX_CENTRAL_KEYS, MAX_KEY_BYTES
from daemonkit.names import nearest
from daemonkit.secret import Secret
from daemonkit.settings import ReadFile, secret_text

KEY = "KEY"
ACCESS_KEY = "BEDROCK_ACCESS_KEY"
ACCESS_KEY_SECRET = "BEDROCK_ACCESS_KEY_SECRET"  # noqa: S105 - the name of a variable
SESSION_TOKEN = "BEDROCK_SESSION_TOKEN"  # noqa: S105 - the name of a variable

# Every field that is no secret, with its meaning for docs/settings.md.
PLAIN_FIELDS = {
    "TYPE": "Required. The provider type.",
    "NAME": "Its name in clients' URLs; default: the type.",
    "DISPLAY_NAME": "Its name for people.",
    "BASE_URL": "Base URL of the upstream; required for azure and openai-compat.",
    "CENTRAL_KEY": "Whether the central key is used; default: true with a key and for Bedrock, else false.",
    "ALLOW_USER_KEYS": "Whether users may bring their own keys; default: false with a key and for Bedrock, else true.",
    "CENTRAL_KEY_FALLBACK": "Whether the central key stands in for users without a key; default: false.",
    "SEND_ACTOR_HEADERS": "Overrides `CODER_AIBRIDGE_SEND_ACTOR_HEADERS` for this provider.",
    "CONNECT_TIMEOUT": "How long a connection to the upstream may take; default: as the bridge is set.",
    "FIRST_BYTE_TIMEOUT": "How long the upstream may take to begin its answer; default: as the bridge is set.",
    "IDLE_TIMEOUT": "How long the upstream may pause inside its answer; default: as the bridge is set.",
    "FALLBACK_PROVIDER": "Name of the provider that turns of conversations go to where the upstream fails.",
    "BEDROCK_BASE_URL": "Endpoint of Bedrock, where it does not follow from the region; not together with BASE_URL.",
    "BEDROCK_REGION": "AWS region.",
    "BEDROCK_ROLE_ARN": "Role to assume.",
    "BEDROCK_EXTERNAL_ID": "External id for assuming the role.",
    "BEDROCK_MODEL": "What a client's model becomes; a default applies for anthropic.",
    "BEDROCK_SMALL_FAST_MODEL": "What a client's small, fast model becomes; a default applies for anthropic.",
    "BEDROCK_MODELS": "What single models become, `NAME=ID` with commas between; they come before the two above.",
    "BEDROCK_MODEL_RULES": "What ids stand for that do not say it, `CONTAINS=FAMILY+BETA…` with commas between.",
    "BEDROCK_ROLE_DURATION": "How long the role's credentials live, `15m` to `12h`; empty is AWS's default.",
    "BEDROCK_SESSION_POLICY": "Session policy for the role, a JSON document on one line.",
    "BEDROCK_SET_SOURCE_IDENTITY": "Whether SourceIdentity says who asks; the role must allow it. Default: false.",
    "BEDROCK_SESSION_TAGS": "Whether the role's session is tagged with user and provider; the role must allow it.",
    "BEDROCK_PROTOCOL": "`invoke-model` (the default) or `mantle`.",
}


@dataclass(frozen=True, slots=True)
class SecretField:
    """A secret of a provider: the names it goes by, each with a `_FILE` twin, and its meaning."""

    names: tuple[str, ...]
    meaning: str

    @property
    def all_names(self) -> tuple[str, ...]:
        """The names and their `_FILE` twins."""
        return (*self.names, *(f"{name}_FILE" for name in self.names))


SECRET_FIELDS = {
    KEY: SecretField(
        ("KEY", "KEYS"), f"API key, or up to {MAX_CENTRAL_KEYS} in order of use. For bedrock a bearer token."
    ),
    ACCESS_KEY: SecretField(("BEDROCK_ACCESS_KEY", "BEDROCK_ACCESS_KEYS"), "AWS access key id, or several."),
    ACCESS_KEY_SECRET: SecretField(
        ("BEDROCK_ACCESS_KEY_SECRET", "BEDROCK_ACCESS_KEY_SECRETS"), "AWS secret access key, one for each id."
    ),
    SESSION_TOKEN: SecretField(("BEDROCK_SESSION_TOKEN",), "AWS session token of a single temporary pair."),
}
_NOT_SUPPORTED = {"DUMP_DIR": "dumps of requests are not supported yet"}
# An access key id may be shared by no two pairs; two pairs with one secret only look odd.
_UNIQUE = (KEY, ACCESS_KEY)


def known_names() -> frozenset[str]:
    """Every field name that a provider may have."""
    return frozenset((*PLAIN_FIELDS, *(name for one in SECRET_FIELDS.values() for name in one.all_names)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A provider as configured, before it is judged. `label` begins its errors, `origin` is for `config check`.

    `fields` holds what is set, without white space around it; `keys` the secrets by field name, in order of use.
    `errors` are those of reading the fields.
    """

    label: str
    origin: str
    fields: Mapping[str, str]
    keys: Mapping[str, tuple[Secret, ...]] = field(default_factory=dict)
    errors: tuple[str, ...] = ()

    def get(self, name: str) -> str:
        """The text of a field, empty if it is not set."""
        return self.fields.get(name, "")

    def secrets(self, name: str) -> tuple[Secret, ...]:
        """The keys of a secret field, in order of use."""
        return self.keys.get(name, ())

    @property
    def has_bedrock_fields(self) -> bool:
        """Whether any BEDROCK_* field is set."""
        return any(name.startswith("BEDROCK_") for name in (*self.fields, *(n for n, k in self.keys.items() if k)))


def read_entry(texts: Mapping[str, str], *, label: str, origin: str, read_file: ReadFile) -> Entry:
    """The entry with all errors of its fields."""
    given = {name: text for name, text in texts.items() if text.strip()}
    errors = [*_unknown_fields(texts), *(f"{name}: {_NOT_SUPPORTED[name]}" for name in given if name in _NOT_SUPPORTED)]
    keys = {}
    for name, secret in SECRET_FIELDS.items():
        try:
            used, text = _one_secret(given, secret, read_file)
        except ValueError as error:
            errors.append(str(error))
            continue
        keys[name] = tuple(Secret(part.strip()) for part in text.split(",")) if text.strip() else ()
        errors += [f"{used}: {problem}" for problem in key_problems(keys[name], unique=name in _UNIQUE)]
    return Entry(
        label=label,
        origin=origin,
        fields={name: given[name].strip() for name in PLAIN_FIELDS if name in given},
        keys=keys,
        errors=tuple(errors),
    )


def _unknown_fields(names: Mapping[str, str]) -> Iterator[str]:
    known = known_names()
    for name in names:
        if name not in known and name not in _NOT_SUPPORTED:
            yield f"{name} is not a known field: did you mean {nearest(name, known)}?"


def _one_secret(given: Mapping[str, str], secret: SecretField, read_file: ReadFile) -> tuple[str, str]:
    """The name in use and its text, out of a secret's names; empty texts where none is set."""
    used = [name for name in secret.all_names if name in given]
    if len(used) > 1:
        raise ValueError(f"{' and '.join(used)} are mutually exclusive")
    if not used:
        return "", ""
    name = used[0]
    if not name.endswith("_FILE"):
        return name, given[name]
    return name, secret_text(name.removesuffix("_FILE"), "", name, given[name].strip(), read_file)


def key_problems(keys: tuple[Secret, ...], *, unique: bool) -> Iterator[str]:
    """What is wrong with a list of keys, said by index and never by content."""
    if len(keys) > MAX_CENTRAL_KEYS:
        yield f"too many keys ({len(keys)}), maximum is {MAX_CENTRAL_KEYS}"
    for index, key in enumerate(keys):
        if key.is_blank():
            yield f"key at index {index} is empty"
        elif key.size_bytes() > MAX_KEY_BYTES:
            yield f"key at index {index} is larger than {MAX_KEY_BYTES} bytes"
        elif not has_key_form(key):
            yield f"key at index {index} must be visible ASCII characters without spaces or line breaks"
        elif unique and key in keys[:index]:
            yield f"duplicate key at index {index}"
