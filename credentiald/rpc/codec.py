"""Contract messages to model values and back. With the CLI, the only place that builds or reads them.

Plaintext passes here once in each direction: key material on its way in, credentials on their way to a bridge.
"""

from datetime import UTC, datetime, timedelta

from drawbridge.v1 import (
    credential_service_pb2,
    error_reason_pb2,
    explain_service_pb2,
    provider_pb2,
    user_key_pb2,
    user_pb2,
)
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from credentiald.bridge_instances import INSTANCE_CHARACTERS
from credentiald.catalog import wire_of
from credentiald.errors import EtagMismatch, InvalidArgument
from credentiald.explain import Check, Explanation
from credentiald.ids import canonical_uuid
from credentiald.manage_user_keys import UserKeyView
from credentiald.model import (
    NO_TIMEOUTS,
    ApiKeyMaterial,
    AwsKeyPairMaterial,
    BedrockModelRule,
    BedrockOptions,
    BedrockProtocol,
    Material,
    Provider,
    Role,
    Service,
    Source,
    Timeouts,
    Token,
    User,
)
from credentiald.resolve import Answer, Question, is_bearer
from credentiald.rpc import aws_codec
from credentiald.rpc.times import duration, timestamp
from daemonkit.secret import Secret


def moment(message: Timestamp) -> datetime:
    """The aware UTC datetime of a timestamp; INVALID_ARGUMENT for one that no calendar has."""
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(field="expire_time", problem="is not a valid time") from error


def length(message: Duration, *, field: str) -> timedelta:
    """The length of time of a duration; INVALID_ARGUMENT for one that no calendar has."""
    try:
        return message.ToTimedelta()
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(field=field, problem="is not a duration") from error


def source_value(source: Source | None) -> provider_pb2.CredentialSource.ValueType:
    """The enum value; unspecified for None."""
    name = source.value if source else "UNSPECIFIED"
    return provider_pb2.CredentialSource.Value(f"CREDENTIAL_SOURCE_{name}")


def version_of(etag: str, *, resource: str, name: str) -> int | None:
    """The row version that an etag names, None for no etag. An etag we never gave out matches nothing."""
    if not etag:
        return None
    if not (etag.isascii() and etag.isdigit() and len(etag) < 19):
        raise EtagMismatch(resource=resource, name=name)
    return int(etag)


def provider(value: Provider) -> provider_pb2.Provider:
    """What administrators and explanations see; never a secret."""
    policy = value.policy
    return provider_pb2.Provider(
        id=value.id,
        name=value.name,
        type=value.type,
        display_name=value.display_name,
        base_url=value.base_url,
        enabled=value.enabled,
        key_policy=provider_pb2.KeyPolicy(
            central_key_enabled=policy.central_key_enabled,
            user_keys_allowed=policy.user_keys_allowed,
            central_key_fallback=policy.central_key_fallback,
        ),
        central_key_set=value.central_key_set,
        central_keys=[
            provider_pb2.CentralKey(
                credential_id=key.credential_id,
                kind=provider_pb2.KeyKind.Value(f"KEY_KIND_{key.kind.value}"),
                create_time=timestamp(key.create_time),
            )
            for key in value.central_keys
        ],
        origin=provider_pb2.ProviderOrigin.Value(f"PROVIDER_ORIGIN_{value.origin.value}"),
        bedrock=bedrock(value.bedrock),
        send_actor_headers=value.send_actor_headers,
        timeouts=_timeouts(value.timeouts),
        fallback_provider=value.fallback_provider,
        wire_type=wire_of(value),
        etag=str(value.version) if value.create_time else "",
        create_time=timestamp(value.create_time),
        update_time=timestamp(value.update_time),
    )


def bedrock(value: BedrockOptions | None) -> provider_pb2.BedrockOptions | None:
    """The options, unset for providers that have none."""
    if value is None:
        return None
    return provider_pb2.BedrockOptions(
        region=value.region,
        role_arn=value.role_arn,
        external_id=value.external_id,
        model=value.model,
        small_fast_model=value.small_fast_model,
        models=dict(value.models),
        model_rules=_model_rules(value),
        role_duration_seconds=value.role_duration_seconds,
        session_policy=value.session_policy,
        protocol=_protocol(value),
        set_source_identity=value.set_source_identity,
        session_tags=value.session_tags,
    )


def _bedrock_for_bridges(value: Answer) -> provider_pb2.BedrockOptions | None:
    """What a bridge needs to address and sign: nothing of the role, which is assumed here."""
    if value.bedrock is None:
        return None
    return provider_pb2.BedrockOptions(
        region=value.bedrock.region,
        model_rules=_model_rules(value.bedrock),
        protocol=_protocol(value.bedrock),
        control_base_url=value.control_base_url,
    )


def _model_rules(value: BedrockOptions) -> list[provider_pb2.BedrockModelRule]:
    return [
        provider_pb2.BedrockModelRule(contains=rule.contains, family=rule.family, betas=rule.betas)
        for rule in value.model_rules
    ]


def _protocol(value: BedrockOptions) -> provider_pb2.BedrockProtocol.ValueType:
    return provider_pb2.BedrockProtocol.Value(f"BEDROCK_PROTOCOL_{value.protocol.value}")


def bedrock_options(message: provider_pb2.BedrockOptions) -> BedrockOptions:
    """The options of a message; INVALID_ARGUMENT for a protocol that we do not know."""
    protocols = {
        provider_pb2.BEDROCK_PROTOCOL_UNSPECIFIED: BedrockProtocol.INVOKE_MODEL,
        provider_pb2.BEDROCK_PROTOCOL_INVOKE_MODEL: BedrockProtocol.INVOKE_MODEL,
        provider_pb2.BEDROCK_PROTOCOL_MANTLE: BedrockProtocol.MANTLE,
    }
    protocol = protocols.get(message.protocol)
    if protocol is None:
        raise InvalidArgument(field="provider.bedrock.protocol", problem="is none that this version knows")
    return BedrockOptions(
        region=message.region,
        role_arn=message.role_arn,
        external_id=message.external_id,
        model=message.model,
        small_fast_model=message.small_fast_model,
        models=tuple(sorted(message.models.items())),
        model_rules=tuple(
            BedrockModelRule(contains=rule.contains, family=rule.family, betas=tuple(rule.betas))
            for rule in message.model_rules
        ),
        role_duration_seconds=message.role_duration_seconds,
        session_policy=message.session_policy,
        protocol=protocol,
        set_source_identity=message.set_source_identity,
        session_tags=message.session_tags,
    )


def _timeouts(value: Timeouts) -> provider_pb2.ProviderTimeouts | None:
    """The time-outs; unset where none of them is."""
    if value == NO_TIMEOUTS:
        return None
    return provider_pb2.ProviderTimeouts(
        connect=duration(value.connect), first_byte=duration(value.first_byte), idle=duration(value.idle)
    )


def timeouts(message: provider_pb2.ProviderTimeouts) -> Timeouts:
    """The time-outs of a message; INVALID_ARGUMENT for what is no duration."""
    read: dict[str, timedelta] = {}
    for descriptor, value in message.ListFields():
        read[descriptor.name] = length(value, field=f"provider.timeouts.{descriptor.name}")
    return Timeouts(**read)


def material(message: provider_pb2.KeyMaterial) -> Material:
    """Key material on its way in; a message without any is an empty key, which the rules refuse."""
    if message.WhichOneof("material") == "aws_access_key_pair":
        pair = message.aws_access_key_pair
        return AwsKeyPairMaterial(
            access_key_id=Secret(pair.access_key_id),
            secret_access_key=Secret(pair.secret_access_key),
            session_token=Secret(pair.session_token) if pair.session_token else None,
        )
    return ApiKeyMaterial(value=Secret(message.api_key))


def user(value: User) -> user_pb2.User:
    """A user as administrators see it."""
    state = user_pb2.USER_STATE_SUSPENDED if value.suspended else user_pb2.USER_STATE_ACTIVE
    return user_pb2.User(
        id=value.id,
        username=value.username,
        admin=value.admin,
        state=state,
        create_time=timestamp(value.create_time),
        update_time=timestamp(value.update_time),
        etag=str(value.version),
    )


def token(value: Token) -> user_pb2.Token:
    """What is known of an access token; never the token."""
    return user_pb2.Token(
        id=value.id,
        user_id=value.user_id,
        username=value.username,
        create_time=timestamp(value.create_time),
        expire_time=timestamp(value.expire_time),
        revoke_time=timestamp(value.revoke_time),
    )


def service(value: Service) -> user_pb2.Service:
    """A service as administrators see it."""
    return user_pb2.Service(
        id=value.id,
        name=value.name,
        role=user_pb2.ServiceRole.Value(f"SERVICE_ROLE_{value.role.value}"),
        may_act_for_users=value.may_act_for_users,
        act_for_providers=value.act_for_providers,
        create_time=timestamp(value.create_time),
        rotate_time=timestamp(value.rotate_time),
        certificate_sans=value.certificate_sans,
        old_token_expire_time=timestamp(value.old_token_expire_time),
    )


def role(value: user_pb2.ServiceRole.ValueType) -> Role:
    """The role of a service; Role.NONE for unspecified and unknown values."""
    names = {
        user_pb2.SERVICE_ROLE_BRIDGE: Role.BRIDGE,
        user_pb2.SERVICE_ROLE_INTERNAL: Role.INTERNAL,
        user_pb2.SERVICE_ROLE_ADMIN: Role.ADMIN,
    }
    return names.get(value, Role.NONE)


def user_key(view: UserKeyView) -> user_key_pb2.UserKey:
    """One provider as a user sees it."""
    return user_key_pb2.UserKey(
        provider=view.provider.name,
        display_name=view.provider.display_name,
        type=view.provider.type,
        status=user_key_pb2.UserKeyStatus.Value(f"USER_KEY_STATUS_{view.status.value}"),
        credential_id=view.key.credential_id if view.key else "",
        update_time=timestamp(view.key.update_time if view.key else None),
    )


def question(message: credential_service_pb2.ResolveProviderRequest) -> Question:
    """What is asked; INVALID_ARGUMENT for an interception id that is no UUID."""
    interception_id = uuid_of(message.interception_id, field="interception_id")
    principal = message.WhichOneof("principal")
    return Question(
        provider=message.provider,
        access_token=Secret(message.access_token) if principal == "access_token" else None,
        user_id=message.user if principal == "user" else None,
        operation=message.operation,
        model=message.model,
        presented_key=message.presented_key,
        failed_credential_ids=frozenset(message.failed_credential_ids),
        interception_id=interception_id,
        instance_id=message.bridge_instance_id[:INSTANCE_CHARACTERS],
        min_revision=message.min_revision,
    )


def uuid_of(text: str, *, field: str) -> str:
    """The UUID as we write it, empty for none; INVALID_ARGUMENT for everything else."""
    found = canonical_uuid(text) if text else ""
    if found is None:
        raise InvalidArgument(field=field, problem="must be a UUID")
    return found


def answer(value: Answer) -> credential_service_pb2.ResolveProviderResponse:
    """What is answered, credential included."""
    return credential_service_pb2.ResolveProviderResponse(
        provider=provider_pb2.Provider(
            id=value.provider.id,
            name=value.provider.name,
            type=value.provider.type,
            wire_type=value.wire_type,
            base_url=value.base_url,
            bedrock=_bedrock_for_bridges(value),
            send_actor_headers=value.send_actor_headers,
            timeouts=_timeouts(value.provider.timeouts),
            fallback_provider=value.provider.fallback_provider,
        ),
        user=user_pb2.User(id=value.user.id, username=value.user.username),
        source=source_value(value.source),
        credential=credential(value),
        resolution_id=value.resolution_id,
        upstream_model=value.upstream_model,
        revision=value.revision,
        receipt=value.receipt,
        pool_size=value.pool_size,
        probe=value.is_probe,
        access_token_id=value.access_token_id,
    )


def credential(value: Answer) -> credential_service_pb2.Credential | None:
    """The credential on its way to the bridge, unset for a presented key."""
    if value.material is None:
        return None
    message = credential_service_pb2.Credential(
        credential_id=value.credential_id, expire_time=timestamp(value.credential_expire_time)
    )
    if isinstance(value.material, AwsKeyPairMaterial):
        token_part = value.material.session_token
        message.aws_credentials.access_key_id = value.material.access_key_id.reveal()
        message.aws_credentials.secret_access_key = value.material.secret_access_key.reveal()
        message.aws_credentials.session_token = token_part.reveal() if token_part else ""
    elif is_bearer(value.provider, value.material):
        message.bearer_token.value = value.material.value.reveal()
    else:
        message.api_key.value = value.material.value.reveal()
    return message


def explanation(value: Explanation) -> explain_service_pb2.ExplainProviderResponse:
    """The account of a decision."""
    reason = value.refusal.reason() if value.refusal else "UNSPECIFIED"
    return explain_service_pb2.ExplainProviderResponse(
        provider=provider(value.provider),
        user=user(value.user),
        source=source_value(value.source),
        reason=error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}"),
        message=value.message,
        inputs=[
            explain_service_pb2.ExplanationInput(name=one.name, value=one.value, origin=one.origin)
            for one in value.inputs
        ],
        checks=[_check(one) for one in value.checks],
        rows=[
            explain_service_pb2.ExplanationRow(
                central_key=row.cells[0],
                user_keys=row.cells[1],
                fallback=row.cells[2],
                user_has_key=row.cells[3],
                central_key_stored=row.cells[4],
                result=row.result,
                applies=row.applies,
                mismatch=row.mismatch,
            )
            for row in value.rows
        ],
        candidates=[
            explain_service_pb2.ExplanationCandidate(source=source_value(one.source), chosen=one.chosen, why=one.why)
            for one in value.candidates
        ],
        revision=value.revision,
        credential_id=value.credential_id,
        aws=aws_codec.explanation(value.aws) if value.aws else None,
    )


def _check(value: Check) -> explain_service_pb2.ExplanationCheck:
    kinds = explain_service_pb2.ExplanationCheck
    outcomes = {None: kinds.OUTCOME_NOT_REACHED, True: kinds.OUTCOME_REFUSED, False: kinds.OUTCOME_PASSED}
    return kinds(name=value.name, outcome=outcomes[value.refused], detail=value.detail)
