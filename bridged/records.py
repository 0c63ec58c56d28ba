"""What the bridge knows of a turn of a conversation: the values that become records.

Nobody here knows the time, a user or an id of a record: whoever sends them adds those. Fields have the names of the
structured log. `partial` on any of them says that more was to come: the answer was cut before its end, or the upstream
says that it is incomplete. What a bound of ours has cut is not partial, and has its true length in `..._bytes`, else 0.

They are made for every request, so they are msgspec's Structs, which cost a quarter of what dataclasses do, and not
frozen. Nobody changes them, and none of them holds itself.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec


class Trouble(StrEnum):
    """Why a tap may have seen less than there was. For counting and for the log."""

    GARBAGE = "garbage"  # what should have been JSON or a message of an event stream was not
    OVERLONG = "overlong"  # an event or a body was over the bound for one
    TEXT_BOUND = "text_bound"  # tool inputs and thoughts were over the bound for all of an answer
    FAILED = "failed"  # the tap itself failed: a bug, which the log has
    CODING = "coding"  # a content coding that is not known, was corrupt or expanded beyond its bound


class TokenUsage(msgspec.Struct, gc=False):
    """What one call to an upstream used. No token is in two of the four counts.

    `input_tokens` are those that were neither read from a cache nor written to one. `metadata` has further kinds: they
    are parts of the four counts, or count other things (searches).
    """

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    metadata: Mapping[str, int] = {}
    partial: bool = False


class ToolUsage(msgspec.Struct, kw_only=True, gc=False):
    """A call of a client's tool that the model asked for.

    `input` is JSON as the model wrote it, or free text for custom tools. `item_id` is of Responses. Server URL,
    injection and its error of the structured log are not here: the bridge injects no tools.
    """

    tool: str
    input: str
    tool_call_id: str = ""
    item_id: str = ""
    partial: bool = False
    input_bytes: int = 0


class ModelThought(msgspec.Struct, kw_only=True, gc=False):
    """Something that the model thought. `source` is the API's word for where it stood: `thinking`, `commentary` …"""

    content: str
    source: str
    partial: bool = False
    content_bytes: int = 0


class AnswerRecords(msgspec.Struct, gc=False):
    """All that a tap saw of one answer.

    `msg_id` is the upstream's id of it, and `model` as the upstream named it. `usage` is None where it reported none.
    `error_type` and `error_message` are of an error that the upstream told, in its own words.
    `over`: nothing that means anything could have followed, whether or not the HTTP answer came to its end.
    """

    msg_id: str = ""
    model: str = ""
    usage: TokenUsage | None = None
    tools: tuple[ToolUsage, ...] = ()
    thoughts: tuple[ModelThought, ...] = ()
    partial: bool = False
    error_type: str = ""
    error_message: str = ""
    over: bool = False
    troubles: frozenset[Trouble] = frozenset()


NO_ANSWER = AnswerRecords()
# Of a whole answer of which nothing but usage is recorded: the upstream's id, the four counts of TokenUsage, and its
# `metadata` as `further_counts` has it.
UsualAnswer = tuple[str, int, int, int, int, str]


def further_counts(metadata: Mapping[str, int]) -> str:
    """Counts of further kinds as a JSON object; empty where there are none."""
    return msgspec.json.encode(metadata).decode() if metadata else ""


class Turn(msgspec.Struct, gc=False):
    """What a request says of the conversation that it is part of.

    `prompt` is None where the turn has none of a user. `prompt_bytes` is the length of the whole where it was cut, else
    0. `correlating_tool_call_id` is of the call whose result the request brings. `session_id` is one that the body
    names; headers come first (clients.py). `model` and `streaming` are of a compressed body, which is read for records
    only.
    """

    prompt: str | None = None
    prompt_bytes: int = 0
    correlating_tool_call_id: str = ""
    session_id: str = ""
    model: str = ""
    streaming: bool = False


NO_TURN = Turn()


class Outcome(StrEnum):
    """How an interception ended, as in the contract."""

    COMPLETED = "COMPLETED"
    UPSTREAM_ERROR = "UPSTREAM_ERROR"
    CLIENT_GONE = "CLIENT_GONE"
    BRIDGE_STOPPED = "BRIDGE_STOPPED"
    BRIDGE_FAILED = "BRIDGE_FAILED"


class ErrorCategory(StrEnum):
    """What kind of trouble an upstream was, as in the contract."""

    NONE = "UNSPECIFIED"
    BAD_REQUEST = "BAD_REQUEST"
    UNAUTHORIZED = "UNAUTHORIZED"
    RATE_LIMITED = "RATE_LIMITED"
    OVERLOADED = "OVERLOADED"
    SERVER_ERROR = "SERVER_ERROR"
    TIMEOUT = "TIMEOUT"
    UNREACHABLE = "UNREACHABLE"
    UNKNOWN = "UNKNOWN"


class Attempt(NamedTuple):
    """A call to an upstream whose answer did not go to the client. `reason` is the upstream's type of the error."""

    create_micros: int
    receipt: bytes
    http_status: int
    category: ErrorCategory
    reason: str
    upstream_request_id: str = ""
    duration_micros: int = 0


class Ending(NamedTuple):
    """How an interception ended, in whose words. `reason` is the bridge's, or the upstream's type of the error."""

    outcome: Outcome
    category: ErrorCategory = ErrorCategory.NONE
    reason: str = ""
    message: str = ""


class Report(msgspec.Struct, gc=False):
    """All that the bridge tells credentiald of one interception, once, when it has ended. Not made by keywords: with so
    many of them that costs five times as much.

    `http_status` is what the client got, 0 where it got none. `first_byte_micros` is None where the upstream sent none.
    Times: `end_micros` since 1970, the others since the request arrived.
    """

    interception_id: str
    receipt: bytes
    client: str
    user_agent: str
    session_id: str
    operation: str
    model: str
    upstream_model: str
    streaming: bool
    turn: Turn
    answer: AnswerRecords
    ending: Ending
    http_status: int
    upstream_request_id: str
    end_micros: int
    duration_micros: int
    first_byte_micros: int | None
    attempts: tuple[Attempt, ...] = ()

    def __repr__(self) -> str:
        """Which it is, and none of what was said in it."""
        return f"Report({self.interception_id!r})"
