"""How openings, reports and presumed ends become one row for each interception, in whatever order they come.

An opening may be lost (then the receipt stands in for it), come late, or come twice after a failover; a report may be
repeated; an end may be presumed before the bridge tells the real one. Whatever the order, the row is the same.
"""

from credentiald.record_model import (
    PRESUMED,
    End,
    Facts,
    InterceptionDraft,
    Noted,
    Opening,
    Origin,
    Report,
    ThreadPlace,
)


def opened(draft: InterceptionDraft | None, opening: Opening) -> InterceptionDraft | None:
    """The row with what the opening says; None where the id is somebody else's."""
    origin = opening.origin
    if draft is None:
        draft = _new(opening.interception_id, opening.resolution_id, origin, opening.start_micros)
    elif not _is_of(draft, origin):
        return None
    else:
        _resolved(draft, opening.resolution_id, origin, opening.start_micros)
    draft.bridge_instance_id = draft.bridge_instance_id or opening.bridge_instance_id
    draft.operation = draft.operation or opening.operation
    draft.model = draft.model or opening.model
    if draft.provider_id == origin.provider_id:
        draft.upstream_model = draft.upstream_model or opening.upstream_model
    draft.client = draft.client or opening.client
    return draft


def reported(draft: InterceptionDraft | None, report: Report) -> InterceptionDraft | None:
    """The row with what the report says; None where the id is somebody else's."""
    origin = report.origin
    if draft is None:
        draft = _new(report.interception_id, report.resolution_id, origin, report.start_micros)
    elif not _is_of(draft, origin):
        return None
    else:
        _resolved(draft, report.resolution_id, origin, report.start_micros)
    if not draft.bridge_instance_id:
        draft.bridge_instance_id = report.bridge_instance_id
    if report.facts is not None:
        _add_facts(draft, report.facts, origin)
    # A real end takes the place of a presumed one, and of nothing else.
    if report.end is not None and (draft.end_time is None or draft.outcome == PRESUMED):
        _add_end(draft, report.end)
    return draft


def noted_again(one: Noted, other: Noted) -> Noted:
    """One opening of an interception that was resolved twice; the first alone where the second is somebody else's."""
    if not _is_of(one[2].origin, other[2].origin):
        return one
    first, last = (one, other) if one[1] <= other[1] else (other, one)
    interception_id, _, _, model, client, bridge_instance_id, _, micros = first
    return (
        interception_id,
        last[1],
        last[2],
        model or last[3],
        client or last[4],
        bridge_instance_id or last[5],
        # What two receipts say in part.
        b"",
        min(micros, last[-1]),
    )


def presumed_ended(draft: InterceptionDraft, end_micros: int) -> None:
    """End a row whose bridge has vanished. One that has ended stays as it is."""
    if draft.end_time is None:
        draft.end_time = max(end_micros, draft.start_time)
        draft.outcome = PRESUMED
        draft.duration_micros = draft.end_time - draft.start_time


def join_thread(draft: InterceptionDraft, client_session_id: str, parent: ThreadPlace | None) -> None:
    """Give the row its thread and session, for good.

    The session is the one that the client names, else that of the interception whose tool call this one answers, else
    one of its own.
    """
    if parent is not None and parent.interception_id != draft.id:
        draft.thread_parent_id = parent.interception_id
        draft.thread_root_id = parent.thread_root_id or parent.interception_id
        draft.session_id = client_session_id or parent.session_id or draft.thread_root_id
    else:
        draft.thread_root_id = draft.id
        draft.session_id = client_session_id or draft.id


def _new(interception_id: str, resolution_id: str, origin: Origin, start_micros: int) -> InterceptionDraft:
    return InterceptionDraft(
        id=interception_id,
        resolution_id=resolution_id,
        service_id=origin.service_id,
        bridge_instance_id="",
        user_id=origin.user_id,
        provider_id=origin.provider_id,
        provider_name=origin.provider_name,
        provider_type=origin.provider_type,
        source=origin.source,
        credential_id=origin.credential_id,
        operation="",
        model="",
        upstream_model="",
        client="",
        user_agent="",
        session_id="",
        thread_parent_id="",
        thread_root_id="",
        correlating_tool_call_id="",
        streaming=False,
        start_time=start_micros,
        end_time=None,
        outcome="",
        error_category="",
        error_reason="",
        error_message="",
        http_status=0,
        upstream_request_id="",
        duration_micros=0,
        first_byte_micros=None,
    )


def _is_of(whose: InterceptionDraft | Origin, origin: Origin) -> bool:
    """Ids of interceptions are chosen by bridges: one that names another's must not get at its row."""
    return whose.service_id == origin.service_id and whose.user_id == origin.user_id


def _resolved(draft: InterceptionDraft, resolution_id: str, origin: Origin, start_micros: int) -> None:
    """Another resolution of the same request: the first says when it began, the last which credential it had.

    Of which provider, too: it may be the fallback of the first. Ids of resolutions rise with time.
    """
    if resolution_id > draft.resolution_id and draft.provider_id != origin.provider_id:
        draft.provider_id, draft.upstream_model = origin.provider_id, ""
        draft.provider_name, draft.provider_type = origin.provider_name, origin.provider_type
    elif draft.provider_id == origin.provider_id:
        draft.provider_name = draft.provider_name or origin.provider_name
        draft.provider_type = draft.provider_type or origin.provider_type
    draft.start_time = min(draft.start_time, start_micros)
    if resolution_id > draft.resolution_id:
        draft.resolution_id, draft.source, draft.credential_id = resolution_id, origin.source, origin.credential_id


def _add_facts(draft: InterceptionDraft, facts: Facts, origin: Origin) -> None:
    draft.client = draft.client or facts.client
    draft.user_agent = draft.user_agent or facts.user_agent
    draft.correlating_tool_call_id = draft.correlating_tool_call_id or facts.correlating_tool_call_id
    draft.operation = draft.operation or facts.operation
    draft.model = draft.model or facts.model
    if draft.provider_id == origin.provider_id:
        draft.upstream_model = draft.upstream_model or facts.upstream_model
    draft.streaming = draft.streaming or facts.streaming


def _add_end(draft: InterceptionDraft, end: End) -> None:
    draft.end_time = end.end_micros
    draft.outcome = end.outcome
    draft.error_category = end.error_category
    draft.error_reason = end.error_reason
    draft.error_message = end.error_message
    draft.http_status = end.http_status
    draft.upstream_request_id = end.upstream_request_id
    draft.duration_micros = end.duration_micros
    draft.first_byte_micros = end.first_byte_micros
