"""Records as lines of the log (CODER_AIBRIDGE_STRUCTURED_LOGGING): message `interception log`, kind in `record_type`.

Field names are those of the product that this one is compatible with. All are there in each line of their kind, empty
where nothing is known. `provider` is the type, `provider_name` the instance.
"""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from credentiald.record_model import (
    PRESUMED,
    Attempt,
    Fact,
    InterceptionDraft,
    ModelThought,
    Prompt,
    TokenUsage,
    ToolCall,
)
from credentiald.store.record_writing import Stored

# A logger of its own: whoever asks for these lines gets them at every --log-level.
log = logging.getLogger("credentiald.records")
MESSAGE = "interception log"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Line = dict[str, object]


def write(stored: Stored) -> None:
    """Log what was stored."""
    for line in lines(stored):
        log.info(MESSAGE, extra=line)


def lines(stored: Stored) -> Iterator[Line]:
    """Beginnings, then facts, then ends, so that an end is the last line of its interception."""
    stored = stored.unfolded()
    for draft in stored.started:
        yield _start(draft)
    for draft, fact in stored.facts:
        yield _fact(draft, fact)
    for draft in stored.ended:
        yield _end(draft)


def _start(draft: InterceptionDraft) -> Line:
    return {
        "record_type": "interception_start",
        "interception_id": draft.id,
        "started_at": _written(draft.start_time),
        **_known(draft),
    }


def _known(draft: InterceptionDraft) -> Line:
    """What a beginning says as far as it is known then, and an end for good.

    Between them a fallback may have taken another provider's place, and half of it comes with the report.
    """
    return {
        "initiator_id": draft.user_id,
        **_asked(draft),
        "client": draft.client,
        "operation": draft.operation,
        "resolution_id": draft.resolution_id,
        "source": draft.source,
        "credential_id": draft.credential_id,
        "session_id": draft.session_id,
        "correlating_tool_call_id": draft.correlating_tool_call_id,
        "thread_parent_id": draft.thread_parent_id,
        "thread_root_id": draft.thread_root_id,
        "metadata": {"request_user_agent": draft.user_agent},
    }


def _asked(draft: InterceptionDraft) -> Line:
    """Who was asked for what: what tokens are counted by."""
    return {
        "provider": draft.provider_type,
        "provider_name": draft.provider_name,
        "model": draft.model,
        "upstream_model": draft.upstream_model,
    }


def _end(draft: InterceptionDraft) -> Line:
    return {
        "record_type": "interception_end",
        "interception_id": draft.id,
        "ended_at": _written(draft.end_time or 0),
        "outcome": draft.outcome,
        "presumed": draft.outcome == PRESUMED,
        "error_type": draft.error_category,
        "error_reason": draft.error_reason,
        "error_message": draft.error_message,
        "http_status": draft.http_status,
        "upstream_request_id": draft.upstream_request_id,
        "duration_micros": draft.duration_micros,
        "first_byte_micros": draft.first_byte_micros,
        **_known(draft),
    }


def _fact(draft: InterceptionDraft, fact: Fact) -> Line:
    shared: Line = {
        "interception_id": draft.id,
        "msg_id": "" if isinstance(fact, Attempt) else fact.response_id,
        "created_at": _written(fact.create_micros),
    }
    match fact:
        case TokenUsage():
            return {
                "record_type": "token_usage",
                **shared,
                **_asked(draft),
                "input_tokens": fact.input_tokens,
                "output_tokens": fact.output_tokens,
                "cache_read_input_tokens": fact.cache_read_input_tokens,
                "cache_write_input_tokens": fact.cache_write_input_tokens,
                "partial": fact.partial,
                "cost_micros": fact.cost_micros,
                "metadata": json.loads(fact.metadata),
            }
        case Prompt():
            return {"record_type": "prompt_usage", **shared, "prompt": fact.text, "prompt_bytes": fact.text_bytes}
        case ToolCall():
            return {
                "record_type": "tool_usage",
                **shared,
                "tool": fact.tool,
                "input": fact.input,
                "input_bytes": fact.input_bytes,
                "server_url": fact.server_url,
                "injected": fact.injected,
                "tool_call_id": fact.tool_call_id,
                "item_id": fact.item_id,
                "invocation_error": fact.invocation_error,
                "partial": fact.partial,
            }
        case ModelThought():
            return {
                "record_type": "model_thought",
                **shared,
                "content": fact.content,
                "content_bytes": fact.content_bytes,
                "source": fact.source,
                "partial": fact.partial,
            }
        case Attempt():
            return {
                "record_type": "attempt",
                **shared,
                "provider_name": fact.provider_name,
                "resolution_id": fact.resolution_id,
                "source": fact.source,
                "credential_id": fact.credential_id,
                "http_status": fact.http_status,
                "error_type": fact.error_category,
                "error_reason": fact.error_reason,
                "upstream_request_id": fact.upstream_request_id,
                "duration_micros": fact.duration_micros,
            }


def _written(micros: int) -> str:
    return (_EPOCH + timedelta(microseconds=micros)).isoformat(timespec="microseconds").replace("+00:00", "Z")
