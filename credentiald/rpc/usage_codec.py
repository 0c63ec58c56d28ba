"""Stored records to messages, for who asks about them."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from drawbridge.v1 import provider_pb2, record_pb2
from drawbridge.v1 import usage_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from credentiald.errors import InvalidArgument
from credentiald.record_model import (
    NAME_CHARACTERS,
    Attempt,
    Cost,
    ModelThought,
    Prompt,
    Tokens,
    TokenUsage,
    ToolCall,
)
from credentiald.store.record_queries import Detail, StoredInterception, StoredSession
from credentiald.store.record_scan import Filter
from credentiald.store.usage_queries import DIMENSIONS, UsageSum

Names = Mapping[str, str]
_FIRST_DAY = date(1970, 1, 1)


def wanted(message: pb.UsageFilter, user_id: str) -> Filter:
    """The filter, for the rows of this user (everybody's where that is empty). INVALID_ARGUMENT."""
    for field in ("provider", "provider_type", "model", "client", "session_id"):
        if len(getattr(message, field)) > NAME_CHARACTERS:
            # No row has such a text, and SQLite has trouble with a pattern of it.
            raise InvalidArgument(field=f"filter.{field}", problem=f"is longer than {NAME_CHARACTERS} characters")
    return Filter(
        user_id=user_id,
        provider=message.provider,
        provider_type=message.provider_type,
        model=message.model,
        client=message.client,
        session_id=message.session_id,
        after_micros=_micros(message, "start_after"),
        before_micros=_micros(message, "start_before"),
    )


def dimensions(group_by: Iterable[int]) -> list[str]:
    """Names of DIMENSIONS (record_queries.py). INVALID_ARGUMENT."""
    known = pb.UsageDimension.DESCRIPTOR.values_by_number
    names = [known[one].name.removeprefix("USAGE_DIMENSION_") if one in known else "" for one in group_by]
    if len(set(names)) < len(names) or not set(names) <= DIMENSIONS.keys():
        raise InvalidArgument(field="group_by", problem="takes each dimension once")
    return names


def session(value: StoredSession, names: Names) -> pb.Session:
    """One session."""
    return pb.Session(
        session_id=value.session_id,
        user_id=value.user_id,
        username=names.get(value.user_id, ""),
        providers=value.providers,
        models=value.models,
        client=value.client,
        start_time=_timestamp(value.start_micros),
        last_active_time=_timestamp(value.last_active_micros),
        interceptions=value.interceptions,
        threads=value.threads,
        tokens=_tokens(value.tokens),
        cost=_cost(value.cost),
        last_prompt=value.last_prompt,
    )


def interception(value: StoredInterception, names: Names) -> pb.Interception:
    """One interception without its records."""
    row = value.row
    return pb.Interception(
        id=row.id,
        resolution_id=row.resolution_id,
        user_id=row.user_id,
        username=names.get(row.user_id, ""),
        provider=row.provider_name,
        provider_type=row.provider_type,
        source=provider_pb2.CredentialSource.Value(f"CREDENTIAL_SOURCE_{row.source}"),
        credential_id=row.credential_id,
        operation=row.operation,
        model=row.model,
        upstream_model=row.upstream_model,
        client=row.client,
        user_agent=row.user_agent,
        session_id=row.session_id,
        thread_parent_id=row.thread_parent_id,
        thread_root_id=row.thread_root_id,
        correlating_tool_call_id=row.correlating_tool_call_id,
        streaming=bool(row.streaming),
        start_time=_timestamp(row.start_time),
        end_time=None if row.end_time is None else _timestamp(row.end_time),
        outcome=record_pb2.InterceptionOutcome.Value(f"INTERCEPTION_OUTCOME_{row.outcome or 'UNSPECIFIED'}"),
        error_category=record_pb2.UpstreamErrorCategory.Value(
            f"UPSTREAM_ERROR_CATEGORY_{row.error_category or 'UNSPECIFIED'}"
        ),
        error_reason=row.error_reason,
        error_message=row.error_message,
        http_status=row.http_status,
        upstream_request_id=row.upstream_request_id,
        duration_micros=row.duration_micros,
        first_byte_micros=row.first_byte_micros,
        tokens=_tokens(value.tokens),
        cost=_cost(value.cost),
        bridge_instance_id=row.bridge_instance_id,
    )


def with_thread(found: StoredInterception, thread: Iterable[Detail], names: Names) -> pb.GetInterceptionResponse:
    """One interception, and its thread."""
    return pb.GetInterceptionResponse(
        interception=interception(found, names), thread=[detail(one, names) for one in thread]
    )


def detail(value: Detail, names: Names) -> pb.InterceptionDetail:
    """One interception with its records."""
    message = pb.InterceptionDetail(
        interception=interception(value.interception, names), records_left_out=not value.is_whole
    )
    for fact in value.facts:
        created = _timestamp(fact.create_micros)
        match fact:
            case TokenUsage():
                message.token_usages.add(
                    id=fact.id,
                    create_time=created,
                    response_id=fact.response_id,
                    input_tokens=fact.input_tokens,
                    output_tokens=fact.output_tokens,
                    cache_read_input_tokens=fact.cache_read_input_tokens,
                    cache_write_input_tokens=fact.cache_write_input_tokens,
                    metadata=json.loads(fact.metadata),
                    partial=bool(fact.partial),
                    cost_micros=fact.cost_micros,
                )
            case Prompt():
                message.prompts.add(
                    id=fact.id,
                    create_time=created,
                    response_id=fact.response_id,
                    text=fact.text,
                    text_bytes=fact.text_bytes,
                )
            case ToolCall():
                message.tool_calls.add(
                    id=fact.id,
                    create_time=created,
                    response_id=fact.response_id,
                    tool_call_id=fact.tool_call_id,
                    item_id=fact.item_id,
                    tool=fact.tool,
                    input=fact.input,
                    input_bytes=fact.input_bytes,
                    server_url=fact.server_url,
                    injected=bool(fact.injected),
                    invocation_error=fact.invocation_error,
                    partial=bool(fact.partial),
                )
            case ModelThought():
                message.model_thoughts.add(
                    id=fact.id,
                    create_time=created,
                    response_id=fact.response_id,
                    content=fact.content,
                    content_bytes=fact.content_bytes,
                    source=fact.source,
                    partial=bool(fact.partial),
                )
            case Attempt():
                message.attempts.add(
                    id=fact.id,
                    create_time=created,
                    resolution_id=fact.resolution_id,
                    provider=fact.provider_name,
                    source=provider_pb2.CredentialSource.Value(f"CREDENTIAL_SOURCE_{fact.source}"),
                    credential_id=fact.credential_id,
                    http_status=fact.http_status,
                    error_category=record_pb2.UpstreamErrorCategory.Value(
                        f"UPSTREAM_ERROR_CATEGORY_{fact.error_category or 'UNSPECIFIED'}"
                    ),
                    error_reason=fact.error_reason,
                    upstream_request_id=fact.upstream_request_id,
                    duration_micros=fact.duration_micros,
                )
    return message


def usage_row(value: UsageSum, names: Names) -> pb.UsageRow:
    """One row of sums."""
    return pb.UsageRow(
        day="" if value.day is None else (_FIRST_DAY + timedelta(days=value.day)).isoformat(),
        user_id=value.user_id,
        username=names.get(value.user_id, ""),
        provider=value.provider,
        model=value.model,
        client=value.client,
        interceptions=value.interceptions,
        token_usages=value.token_usages,
        tokens=_tokens(value.tokens),
        cost=_cost(value.cost),
    )


def _tokens(value: Tokens) -> pb.TokenTotals:
    return pb.TokenTotals(**value._asdict())


def _cost(value: Cost) -> pb.CostTotals:
    return pb.CostTotals(**value._asdict())


def _timestamp(micros: int) -> Timestamp:
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def _micros(message: pb.UsageFilter, name: Literal["start_after", "start_before"]) -> int | None:
    if not message.HasField(name):
        return None
    moment: Timestamp = getattr(message, name)
    try:
        time = moment.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(field=name, problem="is not a valid time") from error
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
