"""What was found by trying a provider out, as a message. No material passes here."""

from drawbridge.v1 import admin_service_pb2, error_reason_pb2

from credentiald.check_provider import Checked
from credentiald.rpc import aws_codec, codec
from credentiald.rpc.times import timestamp


def checked(value: Checked) -> admin_service_pb2.CheckProviderResponse:
    """What was found by trying."""
    reason = value.refusal.reason() if value.refusal else "UNSPECIFIED"
    return admin_service_pb2.CheckProviderResponse(
        provider=codec.provider(value.provider),
        source=codec.source_value(value.source),
        reason=error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}"),
        message=value.message,
        steps=[aws_codec.step(one) for one in value.steps],
        answered_by=value.answered_by,
        account=value.account,
        arn=value.arn,
        expire_time=timestamp(value.expire_time),
        place=aws_codec.place(value.placement),
        role_arn=value.provider.bedrock.role_arn if value.provider.bedrock else "",
        role_session_name=value.role_session_name,
    )
