"""Messages of the contract to values of the bridge: answers, refusals in a batch, and statuses.

They carry keys, so none is ever printed; an error says its code and reason, nothing else.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import grpc
import grpc.aio
from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import provider_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from bridged.breaker import BreakerView, State
from bridged.key_outcomes import ToldOutcome
from bridged.model import (
    ApiKey,
    AwsKeys,
    Bearer,
    BedrockModelRule,
    BedrockOptions,
    BedrockProtocol,
    Credential,
    Refused,
    Resolution,
    Source,
    UpstreamTimeouts,
)
from daemonkit.secret import Secret

UNREACHABLE = "CREDENTIALD_UNREACHABLE"
# credentiald, or what asks it, met an error of its own.
FAILED = "INTERNAL"
# What is refused so will be, however often it is sent: it is too large for the peer, or malformed for it.
NEVER_TAKEN = frozenset({"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"})
# An item of a batch is refused so that it is asked again by a single call.
ASK_SINGLY = "ASK_SINGLY"
# A reason goes into a header and into metrics; one of a later credentiald has this form, too (error_reason.proto).
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,62}")
_DOMAIN = "drawbridge"
_PHASES = {
    State.CLOSED: pb.BREAKER_PHASE_CLOSED,
    State.OPEN: pb.BREAKER_PHASE_OPEN,
    State.HALF_OPEN: pb.BREAKER_PHASE_HALF_OPEN,
}
_MOST_BREAKERS_TOLD = 64
_FALLBACK_PROVIDER = "fallback_provider"
_SOURCES = {
    provider_pb2.CREDENTIAL_SOURCE_USER_KEY: Source.USER_KEY,
    provider_pb2.CREDENTIAL_SOURCE_CENTRAL_KEY: Source.CENTRAL_KEY,
    provider_pb2.CREDENTIAL_SOURCE_AMBIENT: Source.AMBIENT,
    provider_pb2.CREDENTIAL_SOURCE_PRESENTED_KEY: Source.PRESENTED_KEY,
}


def unreachable(why: str) -> Refused:
    """There is no answer of credentiald's. `why` is a word for the log and the client, never a peer's text."""
    return Refused(
        UNREACHABLE,
        f"the bridge got no answer from credentiald in time ({why}): try again; the operator finds more in both logs",
    )


def outcome_of(result: pb.ResolveProviderResult) -> Resolution | Refused | None:
    """What a batch says about one question; None where it is to be asked singly."""
    if result.HasField("response"):
        return resolution_of(result.response)
    refusal = result.refusal
    if refusal.domain != _DOMAIN or not _REASON.fullmatch(refusal.reason):
        return unreachable(f"code {refusal.code}")
    if refusal.reason == ASK_SINGLY:
        return None
    helps = refusal.HasField("retry_delay") and _waiting_helps(refusal.metadata)
    return Refused(
        refusal.reason,
        refusal.message or refusal.reason,
        retry_after_seconds=_whole_seconds(refusal.retry_delay) if helps else None,
        grpc_code=refusal.code,
        fallback_provider=refusal.metadata.get(_FALLBACK_PROVIDER, ""),
    )


def refused_from(error: grpc.aio.AioRpcError) -> Refused:
    """The refusal that a status stands for: its ErrorInfo, or CREDENTIALD_UNREACHABLE where it has none of ours.

    A status without ErrorInfo comes from the transport, a proxy or a bug, so it is trouble, whatever its code says; and
    so is one that asks for the single question that this was the answer to.
    """
    info, retry_after_seconds = _details(error)
    if info is None or info.reason == ASK_SINGLY:
        return unreachable(error.code().name)
    return Refused(
        info.reason,
        error.details() or info.reason,
        retry_after_seconds=retry_after_seconds if _waiting_helps(info.metadata) else None,
        grpc_code=error.code().value[0],
        fallback_provider=info.metadata.get(_FALLBACK_PROVIDER, ""),
    )


def outcomes_message(bridge_instance_id: str, outcomes: Iterable[ToldOutcome]) -> pb.ReportOutcomeRequest:
    """What became of keys, for credentiald."""
    message = pb.ReportOutcomeRequest(bridge_instance_id=bridge_instance_id)
    for receipt, outcome in outcomes:
        one = message.outcomes.add(
            receipt=receipt,
            kind=pb.CredentialOutcomeKind.Value(f"CREDENTIAL_OUTCOME_KIND_{outcome.kind.value}"),
            http_status=outcome.status,
            error=outcome.error,
        )
        if outcome.asked_seconds is not None:
            seconds, millis = divmod(math.ceil(outcome.asked_seconds * 1000), 1000)
            one.retry_after.seconds, one.retry_after.nanos = seconds, millis * 1_000_000
    return message


def _details(error: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo | None, int | None]:
    """Our ErrorInfo, and the wait that a RetryInfo asks for, in whole seconds."""
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
    except ValueError:  # code or text of the detailed status differ from the plain ones
        return None, None
    info: error_details_pb2.ErrorInfo | None = None
    retry_after_seconds: int | None = None
    for packed in status.details if status is not None else ():
        found = error_details_pb2.ErrorInfo()
        if packed.Unpack(found) and found.domain == _DOMAIN and _REASON.fullmatch(found.reason):
            info = found
        retry = error_details_pb2.RetryInfo()
        if packed.Unpack(retry):
            retry_after_seconds = _whole_seconds(retry.retry_delay)
    return info, retry_after_seconds


def _waiting_helps(metadata: Mapping[str, str]) -> bool:
    """Whether a refusal's wait is worth waiting; of a pool, only where its keys are not simply wrong.

    Where all of them are named in the question, the bridge knows better (failed).
    """
    return metadata.get("cause") not in ("unauthorized", "failed")


def _whole_seconds(duration: Duration) -> int:
    return max(1, int(duration.seconds) + (1 if duration.nanos > 0 else 0))


def resolution_of(answer: pb.ResolveProviderResponse) -> Resolution | Refused:
    """A good answer; a refusal where this bridge does not understand it."""
    source = _SOURCES.get(answer.source)
    if source is None:
        return Refused(
            UNREACHABLE, "credentiald named a credential source that this bridge does not know: upgrade the bridge"
        )
    provider, user, credential = answer.provider, answer.user, answer.credential
    return Resolution(
        provider.id,
        provider.name,
        provider.type,
        provider.wire_type,
        provider.base_url,
        user.id,
        user.username,
        source,
        _credential(credential),
        credential.credential_id,
        answer.resolution_id,
        answer.upstream_model,
        provider.send_actor_headers,
        _bedrock(provider.bedrock) if provider.HasField("bedrock") else None,
        answer.access_token_id,
        answer.receipt,
        answer.revision,
        answer.pool_size,
        answer.probe,
        _timeouts(provider.timeouts) if provider.HasField("timeouts") else None,
        provider.fallback_provider,
    )


def _bedrock(options: provider_pb2.BedrockOptions) -> BedrockOptions:
    mantle = options.protocol == provider_pb2.BEDROCK_PROTOCOL_MANTLE
    return BedrockOptions(
        region=options.region,
        control_base_url=options.control_base_url,
        model_rules=tuple(
            [
                BedrockModelRule(contains=rule.contains, family=rule.family, betas=tuple(rule.betas))
                for rule in options.model_rules
            ]
        ),
        protocol=BedrockProtocol.MANTLE if mantle else BedrockProtocol.INVOKE_MODEL,
    )


def _timeouts(timeouts: provider_pb2.ProviderTimeouts) -> UpstreamTimeouts:
    return UpstreamTimeouts(
        connect_seconds=_seconds(timeouts.connect) if timeouts.HasField("connect") else None,
        first_byte_seconds=_seconds(timeouts.first_byte) if timeouts.HasField("first_byte") else None,
        idle_seconds=_seconds(timeouts.idle) if timeouts.HasField("idle") else None,
    )


def _seconds(duration: Duration) -> float:
    return float(duration.seconds) + float(duration.nanos) / 1e9


def ping_request(
    bridge_instance_id: str, oldest_interception_id: str, breakers: Sequence[BreakerView]
) -> pb.PingRequest:
    """A ping. Of the breakers, whose times are of the wall clock, as many are told as credentiald keeps."""
    return pb.PingRequest(
        bridge_instance_id=bridge_instance_id,
        oldest_interception_id=oldest_interception_id,
        breakers=[_breaker_state(view) for view in breakers[:_MOST_BREAKERS_TOLD]],
    )


def _breaker_state(view: BreakerView) -> pb.BreakerState:
    provider, operation, model = view.key
    since = Timestamp()
    since.FromNanoseconds(int(view.since_seconds * 1_000_000) * 1000)
    return pb.BreakerState(
        provider=provider,
        operation=operation,
        model=model,
        state=_PHASES[view.state],
        since=since,
        failures=view.failures,
        last_error=view.last_error,
    )


def _credential(credential: pb.Credential) -> Credential | None:
    """The credential; None where the message has none, as for a presented key."""
    kind = credential.WhichOneof("material")
    if kind == "api_key":
        return ApiKey(Secret(credential.api_key.value))
    if kind == "bearer_token":
        return Bearer(value=Secret(credential.bearer_token.value))
    if kind == "aws_credentials":
        keys = credential.aws_credentials
        return AwsKeys(
            access_key_id=Secret(keys.access_key_id),
            secret_access_key=Secret(keys.secret_access_key),
            session_token=Secret(keys.session_token) if keys.session_token else None,
        )
    return None
