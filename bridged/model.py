"""The nouns of the data plane, as frozen values, and the one error that a client is meant to see.

Nothing here does I/O. Header names and values, paths and queries are text that stands for bytes as they came
(latin-1), so that nothing is decoded twice. Words as in docs/glossary.md.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from bridged.errors import row_of
from daemonkit.secret import Secret

if TYPE_CHECKING:
    from bridged.conversation import AnyConversation

# Ordered pairs with the names as received: order, case and repetition survive.
Headers = tuple[tuple[str, str], ...]


class DialectName(StrEnum):
    """A client wire format; `dialects.DIALECTS` has what each can do."""

    ANTHROPIC_MESSAGES = "anthropic_messages"
    OPENAI_CHAT = "openai_chat"
    OPENAI_RESPONSES = "openai_responses"
    GOOGLE_GENERATE = "google_generate"
    BEDROCK = "bedrock"


class Source(StrEnum):
    """What supplied the credential of a request."""

    USER_KEY = "USER_KEY"
    CENTRAL_KEY = "CENTRAL_KEY"
    AMBIENT = "AMBIENT"
    PRESENTED_KEY = "PRESENTED_KEY"


class Refused(Exception):
    """A refusal of the bridge or of credentiald, on its way to the client.

    Status and default Retry-After come from `errors.REFUSALS`; `grpc_code` decides for reasons of a newer
    credentiald. `message` says what to do next and never holds key or token material, nor bytes of the client's
    request. `allow` lists the methods of a 405. `fallback_provider` is the name of the provider that may be asked in
    place of the one that is refused. `retry_after_ms` is for who understands it, beside the whole seconds. `limit` is
    which of our own limits was reached, empty for every other reason.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        retry_after_seconds: int | None = None,
        grpc_code: int | None = None,
        allow: tuple[str, ...] = (),
        fallback_provider: str = "",
        retry_after_ms: int | None = None,
        limit: str = "",
    ) -> None:
        row = row_of(reason, grpc_code)
        self.reason = reason
        self.message = row.message or message
        self.retry_after_seconds = row.retry_after_seconds if retry_after_seconds is None else retry_after_seconds
        self.http_status = row.status
        if row.status_without_wait is not None and self.retry_after_seconds is None:
            self.http_status = row.status_without_wait
        self.allow = allow
        self.fallback_provider = fallback_provider
        self.retry_after_ms = retry_after_ms
        self.limit = limit
        super().__init__(f"{reason}: {self.message}")


# The values of every request are neither frozen nor by keywords only: either would double or triple what it costs to
# make one. Nobody changes them.
@dataclass(slots=True)
class ApiKey:
    """A key that goes where the provider type wants it."""

    value: Secret


@dataclass(slots=True)
class Bearer:
    """A token that goes into `Authorization: Bearer`, whatever the type."""

    value: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsKeys:
    """Keys that sign a request. `session_token` is None for long-lived ones."""

    access_key_id: Secret
    secret_access_key: Secret
    session_token: Secret | None = None


Credential = ApiKey | Bearer | AwsKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentedKey:
    """The user's own provider key, as the request itself carried it (BYOK in the request).

    Each field is the value of one header, `authorization` with its scheme; `query_key` is `?key=`, decoded. None
    where absent, blank, or nothing but another copy of a token of ours.
    """

    authorization: Secret | None = None
    x_api_key: Secret | None = None
    api_key: Secret | None = None
    x_goog_api_key: Secret | None = None
    query_key: Secret | None = None


class BedrockProtocol(StrEnum):
    """Which of Bedrock's ways of calling a model a provider uses: InvokeModel, or Mantle's vendor APIs as they are."""

    INVOKE_MODEL = "invoke_model"
    MANTLE = "mantle"


@dataclass(frozen=True, slots=True, kw_only=True)
class BedrockModelRule:
    """What a model id that contains this text stands for: a family of bedrock/families.py, and further beta flags."""

    contains: str
    family: str = ""
    betas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BedrockOptions:
    """What only Bedrock needs.

    `region` signs. `control_base_url` is where lists of models are, empty where they are at the base URL. The first of
    `model_rules` that applies to a model decides.
    """

    region: str = ""
    control_base_url: str = ""
    model_rules: tuple[BedrockModelRule, ...] = ()
    protocol: BedrockProtocol = BedrockProtocol.INVOKE_MODEL


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamTimeouts:
    """How long one upstream may take to be connected to, to begin its answer, to pause in it. None is as all others."""

    connect_seconds: float | None = None
    first_byte_seconds: float | None = None
    idle_seconds: float | None = None


@dataclass(slots=True)
class Resolution:
    """credentiald's answer for one request and its retries. It is not kept longer than that.

    `wire_type` is the type whose rules of addressing and authentication apply; `base_url` has the default filled
    in. `credential` is None for a presented key. `upstream_model` is empty where the provider maps no models.
    `access_token_id` is that of the user's token. `receipt` goes back with the records. `revision` is of the
    administrative state that decided. With a `pool_size` above 1 there is another key to try; `probe`: the key had been
    refused, and its outcome is to be reported.
    """

    provider_id: str
    provider_name: str
    provider_type: str
    wire_type: str
    base_url: str
    user_id: str
    username: str
    source: Source
    credential: Credential | None = None
    credential_id: str = ""
    resolution_id: str = ""
    upstream_model: str = ""
    send_actor_headers: bool = False
    bedrock: BedrockOptions | None = None
    access_token_id: str = ""
    receipt: bytes = field(default=b"", repr=False)
    revision: int = 0
    pool_size: int = 0
    probe: bool = False
    # None where the provider has none of its own.
    timeouts: UpstreamTimeouts | None = None
    # The name of the provider to ask where the upstream fails; empty for none.
    fallback_provider: str = ""


@dataclass(slots=True)
class RequestFacts:
    """What the bridge wants to know of a request: the model as asked for, and whether a stream was asked for.

    `conversation` is what a turn can be read from; None where the body was not read, or is of another shape.
    """

    model: str = ""
    stream: bool = False
    conversation: "AnyConversation | None" = field(default=None, repr=False, compare=False)


def has_header(headers: Headers, name: str) -> bool:
    """Whether there is a header of this lower-case name: the quick way to ask, for what is rarely there."""
    length = len(name)
    for key, _ in headers:  # noqa: SIM110 - a generator takes twice as long
        if len(key) == length and key.lower() == name:
            return True
    return False


def header_values(headers: Headers, name: str) -> list[str]:
    """The values of all headers of this lower-case name, in order, without white space around them."""
    length = len(name)
    return [value.strip(" \t") for key, value in headers if len(key) == length and key.lower() == name]


class HeaderNames(dict[str, str]):
    """Names of headers that somebody reads: looked up as they are written, in lower case; "" for all others."""

    def __init__(self, *names: str) -> None:
        """`names` in lower case."""
        super().__init__()
        self._names = frozenset(names)
        # Those that nobody reads, as they are written: most are, and to look there costs half.
        self.others: set[str] = set()

    def __missing__(self, written: str) -> str:
        lowered = written.lower()
        found = lowered if lowered in self._names else ""
        if len(self) < _REMEMBERED_NAMES and len(written) <= _REMEMBERED_CHARACTERS:
            self[written] = found
            if not found:
                self.others.add(written)
        return found


# Names are chosen by clients, so there is a bound to how many are remembered; and a token is longer than this.
_REMEMBERED_NAMES, _REMEMBERED_CHARACTERS = 2048, 32


def named_values(headers: Headers, names: HeaderNames) -> dict[str, str]:
    """The values of the headers with these names that are not blank, those of one name joined with commas.

    One look at each header, for who wants several of them.
    """
    found: dict[str, str] = {}
    others = names.others
    for written, value in headers:
        if written in others:
            continue
        name = names[written]
        if name and (text := value.strip()):
            found[name] = f"{found[name]}, {text}" if name in found else text
    return found
