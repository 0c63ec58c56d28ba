"""How providers are, to messages; and what bridges say of their breakers, to values."""

from collections.abc import Sequence
from datetime import UTC, datetime

from drawbridge.v1 import credential_service_pb2, provider_health_pb2, provider_pb2

from credentiald.breaker_book import Breaker
from credentiald.key_health import Cooldown
from credentiald.provider_health import KeyHealth, ProviderHealth
from credentiald.rpc.times import timestamp
from credentiald.store.times import from_micros

_TEXT_CHARACTERS = 128
_PHASES = {value.number: value.name.removeprefix("BREAKER_PHASE_") for value in
           credential_service_pb2.BreakerPhase.DESCRIPTOR.values}  # fmt: skip
# Callers take 4 MiB, and the health of one provider is less than 2 (provider_health.py).
_PAGE_BYTES = 2 * 1024 * 1024
_LAST_SECOND = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp())


def breaker(message: credential_service_pb2.BreakerState) -> Breaker:
    """What a bridge says, cut to what is kept. It only describes, so nothing of it is refused."""
    seconds = message.since.seconds
    return Breaker(
        provider=message.provider[:_TEXT_CHARACTERS],
        operation=message.operation[:_TEXT_CHARACTERS],
        model=message.model[:_TEXT_CHARACTERS],
        state=_PHASES.get(message.state, _PHASES[0]),
        since_micros=seconds * 1_000_000 + message.since.nanos // 1000 if 0 < seconds < _LAST_SECOND else 0,
        failures=message.failures,
        last_error=message.last_error[:_TEXT_CHARACTERS],
    )


def health(value: ProviderHealth) -> provider_health_pb2.ProviderHealth:
    """One provider's health."""
    return provider_health_pb2.ProviderHealth(
        provider=value.provider.name,
        type=value.provider.type,
        enabled=value.provider.enabled,
        keys=[
            provider_health_pb2.KeyHealth(
                credential_id=one.key.credential_id,
                kind=provider_pb2.KeyKind.Value(f"KEY_KIND_{one.key.kind.value}"),
                state=_state(one),
                rest_until=timestamp(one.rest_until_time),
                complaints=[_complaint(each, value) for each in one.complaints],
            )
            for one in value.keys
        ],
        bridges=[
            provider_health_pb2.BridgeHealth(
                service=value.service_names.get(one.service_id, ""),
                bridge_instance_id=one.instance_id,
                heard_time=timestamp(one.heard_time),
                breakers=[_breaker(each) for each in one.breakers],
            )
            for one in value.bridges
        ],
    )


def fitting(messages: Sequence[provider_health_pb2.ProviderHealth]) -> int:
    """How many of these fit on one page: all or fewer, but one at least."""
    room_bytes = _PAGE_BYTES
    for place, message in enumerate(messages):
        room_bytes -= message.ByteSize()
        if room_bytes < 0:
            return max(1, place)
    return len(messages)


def _state(value: KeyHealth) -> provider_health_pb2.KeyState.ValueType:
    return provider_health_pb2.KeyState.Value(f"KEY_STATE_{value.state.value}")


def _complaint(value: Cooldown, of: ProviderHealth) -> provider_health_pb2.KeyComplaint:
    service_id, instance_id = value.teller
    return provider_health_pb2.KeyComplaint(
        service=of.service_names.get(service_id, ""),
        bridge_instance_id=instance_id,
        kind=credential_service_pb2.CredentialOutcomeKind.Value(f"CREDENTIAL_OUTCOME_KIND_{value.kind.value}"),
        since=timestamp(value.since_time),
        until=timestamp(value.until_time),
        strikes=value.strikes,
        error=value.error,
        http_status=value.http_status,
    )


def _breaker(value: Breaker) -> credential_service_pb2.BreakerState:
    return credential_service_pb2.BreakerState(
        provider=value.provider,
        operation=value.operation,
        model=value.model,
        state=credential_service_pb2.BreakerPhase.Value(f"BREAKER_PHASE_{value.state}"),
        since=timestamp(from_micros(value.since_micros) if value.since_micros else None),
        failures=value.failures,
        last_error=value.last_error,
    )
