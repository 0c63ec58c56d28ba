"""What is recorded of traffic, as values. Nothing here does I/O or knows SQL, gRPC or the clock.

Times of records are whole microseconds since 1970, UTC (`*_micros`): there is one for each request of each client, and
none of them is computed with. Texts are empty where something is not known. These are plain tuples, and the one draft
that rows are made from is no value, for the same reason: each microsecond here is one of every request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from credentiald.model import BedrockOptions

DAY_MICROS = 86_400_000_000
# The longest names of models, clients and the like that are kept; longer ones are cut.
NAME_CHARACTERS = 256
# What stands for "there is none" among numbers that are never negative.
NONE = -1


class Outcome(StrEnum):
    """How an interception ended, as in the contract."""

    COMPLETED = "COMPLETED"
    UPSTREAM_ERROR = "UPSTREAM_ERROR"
    CLIENT_GONE = "CLIENT_GONE"
    BRIDGE_STOPPED = "BRIDGE_STOPPED"
    BRIDGE_FAILED = "BRIDGE_FAILED"
    # Presumed, because nothing is heard of the bridge.
    BRIDGE_VANISHED = "BRIDGE_VANISHED"


PRESUMED = Outcome.BRIDGE_VANISHED.value


class ErrorCategory(StrEnum):
    """What kind of trouble an upstream was, as in the contract."""

    BAD_REQUEST = "BAD_REQUEST"
    UNAUTHORIZED = "UNAUTHORIZED"
    RATE_LIMITED = "RATE_LIMITED"
    OVERLOADED = "OVERLOADED"
    SERVER_ERROR = "SERVER_ERROR"
    TIMEOUT = "TIMEOUT"
    UNREACHABLE = "UNREACHABLE"
    UNKNOWN = "UNKNOWN"


class Rejection(StrEnum):
    """Why records will never be stored, as in the contract."""

    RECEIPT_INVALID = "RECEIPT_INVALID"
    RECEIPT_OF_ANOTHER_SERVICE = "RECEIPT_OF_ANOTHER_SERVICE"
    RECORD_INVALID = "RECORD_INVALID"
    INTERCEPTION_TAKEN = "INTERCEPTION_TAKEN"


class Origin(NamedTuple):
    """What a decision says about every interception that it answers."""

    service_id: str
    user_id: str
    provider_id: str
    provider_name: str
    provider_type: str
    source: str
    credential_id: str


class Decided(NamedTuple):
    """A decision about an operation, as it is kept for the next requests: nothing in it is secret.

    `opens`: requests that it answers are interceptions, because a bridge asked about a turn of a conversation.
    """

    origin: Origin
    operation: str
    bedrock: BedrockOptions | None
    opens: bool
    # For the audit alone: records find names by ids.
    service_name: str = ""
    role: str = ""
    username: str = ""
    access_token_id: str = ""


# An opening as an answer leaves it behind, from which Opening is made later: ids of interception and resolution in
# ASCII, the decision, the model as asked for, client, bridge instance, the MAC of its receipt if that says the same,
# time.
Noted = tuple[bytes, bytes, Decided, str, str, str, bytes, int]


class Opening(NamedTuple):
    """An interception that credentiald has let begin."""

    interception_id: str
    resolution_id: str
    origin: Origin
    bridge_instance_id: str
    operation: str
    model: str
    upstream_model: str
    client: str
    start_micros: int


# The values of an Opening: its type is half of what making one takes.
OpeningRow = tuple[Any, ...]


class Facts(NamedTuple):
    """What the request itself says."""

    client: str = ""
    user_agent: str = ""
    client_session_id: str = ""
    correlating_tool_call_id: str = ""
    operation: str = ""
    model: str = ""
    upstream_model: str = ""
    streaming: bool = False


class End(NamedTuple):
    """How it ended. `first_byte_micros` is None where the upstream sent none."""

    end_micros: int
    outcome: str
    error_category: str = ""
    error_reason: str = ""
    error_message: str = ""
    http_status: int = 0
    upstream_request_id: str = ""
    duration_micros: int = 0
    first_byte_micros: int | None = None


class TokenUsage(NamedTuple):
    """What one upstream call took; cached input is not in `input_tokens`. `metadata` is a JSON object.

    `cost_micros` is in micro-dollars, for good from when it is stored; None where a price was not known.
    """

    id: str
    create_micros: int
    response_id: str
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_write_input_tokens: int
    metadata: str = "{}"
    partial: bool = False
    cost_micros: int | None = None


class Prompt(NamedTuple):
    """The last thing the user said. `text_bytes` is the length of the whole, kept or not."""

    id: str
    create_micros: int
    response_id: str
    text: str
    text_bytes: int


class ToolCall(NamedTuple):
    """A tool that the model called. `input_bytes` is the length of the whole input, kept or not.

    `partial`: more of it was to come, so this is as far as it was seen.
    """

    id: str
    create_micros: int
    response_id: str
    tool_call_id: str
    item_id: str
    tool: str
    input: str
    input_bytes: int
    server_url: str = ""
    injected: bool = False
    invocation_error: str = ""
    partial: bool = False


class ModelThought(NamedTuple):
    """What the model thought. `content_bytes` is the length of the whole, kept or not; `partial` as of ToolCall."""

    id: str
    create_micros: int
    response_id: str
    content: str
    content_bytes: int
    source: str
    partial: bool = False


class Attempt(NamedTuple):
    """A call to an upstream whose answer the client did not get, because there was another one after it.

    Whose key it had is from the receipt of its own resolution.
    """

    id: str
    create_micros: int
    resolution_id: str
    provider_id: str
    provider_name: str
    source: str
    credential_id: str
    http_status: int
    error_category: str
    error_reason: str
    upstream_request_id: str
    duration_micros: int


Fact = TokenUsage | Prompt | ToolCall | ModelThought | Attempt


class Report(NamedTuple):
    """What a bridge has told about one interception in one call; the first four are from the receipt."""

    interception_id: str
    resolution_id: str
    origin: Origin
    start_micros: int
    bridge_instance_id: str
    facts: Facts | None = None
    token_usages: tuple[TokenUsage, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    model_thoughts: tuple[ModelThought, ...] = ()
    end: End | None = None
    # False where records of it were left out, because no store takes them.
    is_whole: bool = True
    attempts: tuple[Attempt, ...] = ()


def facts_of(report: Report) -> list[Fact]:
    """All that it brings."""
    return [*report.token_usages, *report.prompts, *report.tool_calls, *report.model_thoughts, *report.attempts]


@dataclass(slots=True, kw_only=True)
class InterceptionDraft:
    """A row of interceptions while it is being made: the columns in their order, with their names."""

    id: str
    resolution_id: str
    service_id: str
    bridge_instance_id: str
    user_id: str
    provider_id: str
    provider_name: str
    provider_type: str
    source: str
    credential_id: str
    operation: str
    model: str
    upstream_model: str
    client: str
    user_agent: str
    session_id: str
    thread_parent_id: str
    thread_root_id: str
    correlating_tool_call_id: str
    streaming: bool
    start_time: int
    end_time: int | None
    outcome: str
    error_category: str
    error_reason: str
    error_message: str
    http_status: int
    upstream_request_id: str
    duration_micros: int
    first_byte_micros: int | None


class ThreadPlace(NamedTuple):
    """Where an interception stands: its thread begins with `thread_root_id`."""

    interception_id: str
    thread_root_id: str
    session_id: str


class Tokens(NamedTuple):
    """Sums of token usages."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0


class Cost(NamedTuple):
    """The sum of the costs of token usages, and how many have none."""

    cost_micros: int = 0
    unpriced_token_usages: int = 0


class Kind(NamedTuple):
    """What sums and metrics tell interceptions apart by."""

    origin: Origin
    model: str
    upstream_model: str
    client: str
    outcome: str
    start_day: int


class Tally(NamedTuple):
    """What was reported of interceptions of one kind, and how many are new. `sums` are as in a row of usage_days."""

    new: int
    sums: Sequence[int]
    prompts: int
    tool_calls: int
    model_thoughts: int
