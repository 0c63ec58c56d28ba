"""Messages of the contract as the audit tells of them, and entries of the audit as messages.

What a message marks as secret (`debug_redact`) is never told in the clear; `secrets` finds it, to be hashed.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from drawbridge.v1 import audit_pb2 as pb
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from credentiald import audit_model
from credentiald.audit_chain import Row
from credentiald.audit_model import Archive, Decision, Kind, Release, Revision, Told
from credentiald.rpc.times import timestamp
from credentiald.store.times import from_micros
from daemonkit.secret import MASK, masked

_NOT_OF_A_URL = re.compile(r"(?<=//).*@|[?#].*", re.DOTALL)
# The outcome of a row that is none of ours.
UNREADABLE = "UNREADABLE"
# These change with everything, and say nothing.
_NOISE = frozenset({"etag", "create_time", "update_time", "page_size", "page_token", "trace_parent"})


# What things are called. Of other texts of a request nobody knows what a caller has put there by mistake.
_NAMING = frozenset({"name", "user", "username", "provider", "id", "credential_id", "operation"})


def fields(message: Message) -> dict[str, str]:
    """The fields of a message that are no secret, each by its path; what was not given is not there."""
    return {path: text for path, text, _ in _fields(message, "")}


def asked(request: Message, hashed: Callable[[str], str]) -> dict[str, str]:
    """What a request says, which nobody has judged: texts that are no names as hashes."""
    return {
        path: hashed(text) if is_text and path.rpartition(".")[2] not in _NAMING else masked(text)
        for path, text, is_text in _fields(request, "")
    }


def _fields(message: Message, path: str) -> Iterator[tuple[str, str, bool]]:
    """Path, text, and whether that is the caller's own words."""
    for field in message.DESCRIPTOR.fields:
        if field.GetOptions().debug_redact or field.name in _NOISE:
            continue
        name, value = path + field.name, getattr(message, field.name)
        if field.has_presence and not message.HasField(field.name):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            entries = json.dumps({key: value[key] for key in sorted(value)}, ensure_ascii=False, default=str)
            if value:
                yield name, entries, True
        elif field.message_type is None:
            text = json.dumps(list(value), ensure_ascii=False) if field.is_repeated else _scalar(value, field)
            if text not in ("", "[]"):
                # A URL that is refused for it may have a password in it, or a key in its query.
                told = _NOT_OF_A_URL.sub(MASK, text) if field.name.endswith("url") else text
                yield name, told, field.cpp_type == field.CPPTYPE_STRING
        else:
            for place, one in enumerate(value if field.is_repeated else [value]):
                at = f"{name}[{place}]" if field.is_repeated else name
                if one.DESCRIPTOR.full_name.startswith("google.protobuf."):
                    yield at, _well_known(one), isinstance(one, FieldMask)
                else:
                    yield from _fields(one, f"{at}.")


def _well_known(message: Message) -> str:
    """A time or a mask as JSON has it; what a caller sent may be none."""
    try:
        return MessageToJson(message, indent=None).strip('"')
    except (ValueError, OverflowError):
        return "invalid"


def _scalar(value: Any, field: Any) -> str:
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return str(value) if known is None else known.name
    return str(value).lower() if isinstance(value, bool) else str(value)


def secrets(message: Message, path: str = "") -> Iterator[tuple[str, str]]:
    """The texts of a message that it marks as secret, each by its path."""
    yield from _secrets(message, path, is_secret=False)


def _secrets(message: Message, path: str, *, is_secret: bool) -> Iterator[tuple[str, str]]:
    for field, value in message.ListFields():
        name, hidden = path + field.name, is_secret or field.GetOptions().debug_redact
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        for one in value if field.is_repeated else [value]:
            if isinstance(one, Message):
                yield from _secrets(one, f"{name}.", is_secret=hidden)
            elif hidden and isinstance(one, str) and one:
                yield name, one


def about(request: Any, method: str) -> tuple[str, str]:
    """User and provider that a request is about, as it names them; empty where it names none."""
    names = {field.name for field, _ in request.ListFields()}
    inner = getattr(request, "filter", request) if "filter" in names else request
    user = getattr(inner, "user", "")
    provider = getattr(inner, "provider", "")
    if isinstance(user, Message):
        user = getattr(user, "username", "")
    if isinstance(provider, Message):
        provider = getattr(provider, "name", "")
    if not provider and "model" in names and isinstance(request.model, Message):
        provider = getattr(request.model, "provider", "")
    if not provider and method.endswith("Provider"):
        provider = getattr(request, "name", "")
    return masked(str(user)[:256]), masked(str(provider)[:256])


# -- entries as messages ----------------------------------------------------------------------------------------------


class Wanted(NamedTuple):
    """What is asked for; empty fields do not filter. `users` are name and id of one user, in lower case."""

    users: frozenset[str]
    provider: str
    service: str


def is_about(row: Row, wanted: Wanted) -> bool:
    """Whether anything in the row may be what is wanted; cheaper than to look at all of it."""
    if row.kind != Kind.RELEASE or not any(wanted):
        return True
    try:
        return any(_is_wanted(one, wanted) for one in audit_model.common(row.body)[0])
    except (ValueError, TypeError, AttributeError):
        return True


def _is_wanted(decision: Decision, wanted: Wanted) -> bool:
    users, provider, service = wanted
    return (
        (not users or decision.user_id in users or decision.username.casefold() in users)
        and provider in ("", decision.provider)
        and service in ("", decision.service, decision.service_id)
    )


def matches(entry: pb.AuditEntry, wanted: Wanted) -> bool:
    """Whether this is what is wanted."""
    users, provider, service = wanted
    people = (entry.user_id, entry.username.casefold(), entry.caller_user_id, entry.caller_username.casefold())
    services = (entry.service, entry.service_id, *(one.name for one in entry.revisions if _is_of_service(one)))
    return (
        (not users or not users.isdisjoint(people))
        and provider in ("", entry.provider)
        and (not service or service in services)
    )


def _is_of_service(revision: pb.AuditedRevision) -> bool:
    return revision.kind.startswith("service.")


def messages(row: Row) -> list[pb.AuditEntry]:
    """What one row tells, the earliest first. A row that is none of ours says so."""
    try:
        return _messages(row)
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError):
        # SQLite keeps whatever somebody wrote into a column.
        return [pb.AuditEntry(sequence=row.sequence, kind=str(row.kind)[:32], outcome=UNREADABLE)]


def _messages(row: Row) -> list[pb.AuditEntry]:
    if row.kind == Kind.RELEASE:
        return [_release(row, one) for one in audit_model.releases(row.body)]
    if row.kind == Kind.ACT:
        return [_act(row)]
    told = audit_model.told_of(row.body)
    if row.kind == Kind.REFUSALS:
        others = [_entry(row, row.time, what="further callers", count=told.others)] if told.others else []
        return [
            *(
                _entry(
                    row,
                    row.time,
                    what=one.what,
                    outcome=one.reason,
                    caller_username=one.caller,
                    peer=one.peer,
                    count=one.count,
                )
                for one in told.refused
            ),
            *others,
        ]
    return [_of_daemon(row, told)]


def _of_daemon(row: Row, told: Told) -> pb.AuditEntry:
    asked = {
        name: value
        for name, value in {
            "database_id": told.database_id,
            "version": told.version,
            "mode": told.mode,
            "revision": str(told.revision or ""),
            "until": from_micros(told.until_micros).isoformat() if told.until_micros else "",
            **{f"lost[{kind}]": str(count) for kind, count in told.lost.items()},
            "head": told.head,
            **(_archived(told.archive) if told.archive is not None else {}),
        }.items()
        if value
    }
    return _entry(
        row,
        row.from_time if row.kind == Kind.LOST else row.time,
        revisions=_revisions(told.revisions),
        asked=[pb.AuditedChange(field=name, new=value) for name, value in asked.items()],
        count=sum(told.lost.values()) or len(told.revisions) or (told.archive.count if told.archive else 0),
    )


def _archived(archive: Archive) -> dict[str, str]:
    return {"head": f"{archive.sequence}:{archive.hash}", "file": archive.file, "by": archive.by}


def _act(row: Row) -> pb.AuditEntry:
    act = audit_model.act_of(row.body)
    who = act.who
    return _entry(
        row,
        row.from_time,
        what=act.what,
        outcome=act.outcome,
        service_id=who.service_id,
        service=who.service,
        role=who.role,
        caller_user_id=who.user_id,
        caller_username=who.username,
        peer=who.peer,
        username=act.user,
        provider=act.provider,
        revisions=_revisions(act.revisions),
        changes=[pb.AuditedChange(field=one.field, old=one.old, new=one.new) for one in act.changes],
        secrets=[pb.AuditSecret(field=name, hash=hashed) for name, hashed in act.secrets.items()],
        asked=[pb.AuditedChange(field=name, new=value) for name, value in act.asked.items()],
        intent_sequence=act.intent,
    )


def _release(row: Row, one: Release) -> pb.AuditEntry:
    decision = one.decision
    return _entry(
        row,
        one.micros,
        what=decision.operation,
        outcome="DONE",
        service_id=decision.service_id,
        service=decision.service,
        role=decision.role,
        bridge_instance_id=decision.bridge_instance_id,
        user_id=decision.user_id,
        username=decision.username,
        token_id=decision.token_id,
        provider_id=decision.provider_id,
        provider=decision.provider,
        source=decision.source,
        credential_id=decision.credential_id,
        resolution_id=one.resolution_id,
        interception_id=one.interception_id,
        model=one.model,
    )


def _revisions(revisions: tuple[Revision, ...]) -> list[pb.AuditedRevision]:
    return [
        pb.AuditedRevision(revision=one.revision, kind=one.kind, resource_id=one.resource_id, name=one.name)
        for one in revisions
    ]


def _entry(row: Row, micros: int, **more: Any) -> pb.AuditEntry:
    return pb.AuditEntry(
        sequence=row.sequence, kind=row.kind, time=timestamp(from_micros(micros)), hash=row.hash.hex(), **more
    )
