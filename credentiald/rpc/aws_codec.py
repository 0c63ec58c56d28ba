"""What AWS has to do with an answer, as messages. No material passes here."""

from drawbridge.v1 import aws_pb2

from credentiald.aws.account import CREDENTIALS, AwsAccount
from credentiald.aws.regions import Placement
from credentiald.aws.steps import MEANINGS, Step
from credentiald.aws.supply import SupplyState
from credentiald.rpc.times import timestamp


def explanation(value: AwsAccount) -> aws_pb2.AwsExplanation:
    """How a request gets its credential."""
    return aws_pb2.AwsExplanation(
        credential=CREDENTIALS[value.identity],
        place=place(value.placement),
        role_arn=value.role_arn,
        role_session_name=value.role_session_name,
        states=[_state(one) for one in value.states],
    )


def place(value: Placement | None) -> aws_pb2.AwsPlace | None:
    """Where requests go; unset where that is not known."""
    if value is None:
        return None
    return aws_pb2.AwsPlace(
        region=value.region.name,
        region_origin=value.region.origin,
        base_url=value.base_url,
        base_url_origin=value.base_url_origin,
        control_base_url=value.control_base_url,
    )


def _state(value: SupplyState) -> aws_pb2.AwsCredentialState:
    span, failures = value.span, value.failures
    return aws_pb2.AwsCredentialState(
        kind=value.kind,
        answered_by=value.answered_by,
        served=value.is_served,
        fetch_time=timestamp(span.fetch_time if span else None),
        expire_time=timestamp(span.expire_time if span else None),
        fetching=value.fetching,
        failed_attempts=failures.count,
        outage_time=timestamp(failures.first_time),
        retry_time=timestamp(failures.retry_time),
        steps=[step(one) for one in value.steps],
    )


def step(value: Step) -> aws_pb2.AwsStep:
    """One step with what it looks at."""
    return aws_pb2.AwsStep(
        name=value.name,
        outcome=aws_pb2.AwsStep.Outcome.Value(f"OUTCOME_{value.outcome.value}"),
        detail=value.detail,
        duration_seconds=round(value.seconds, 3),
        meaning=MEANINGS.get(value.name, ""),
    )
