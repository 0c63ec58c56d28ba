"""What credentiald says of a Bedrock provider, as the bridge has it."""

from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import provider_pb2

from bridged.model import BedrockModelRule, BedrockOptions, BedrockProtocol, Resolution
from bridged.resolver_messages import resolution_of


def options_of(options: provider_pb2.BedrockOptions | None) -> BedrockOptions | None:
    answer = pb.ResolveProviderResponse(source=provider_pb2.CREDENTIAL_SOURCE_CENTRAL_KEY)
    if options is not None:
        answer.provider.bedrock.CopyFrom(options)
    found = resolution_of(answer)
    assert isinstance(found, Resolution)
    return found.bedrock


def test_the_bridges_options_are_those_of_the_answer() -> None:
    rule = provider_pb2.BedrockModelRule(contains="a1", family="claude-opus-4-6", betas=["b-1", "b-2"])
    options = provider_pb2.BedrockOptions(
        region="eu-west-1",
        control_base_url="https://control.example",
        model_rules=[rule, provider_pb2.BedrockModelRule(contains="x")],
        protocol=provider_pb2.BEDROCK_PROTOCOL_MANTLE,
    )
    assert options_of(options) == BedrockOptions(
        region="eu-west-1",
        control_base_url="https://control.example",
        model_rules=(
            BedrockModelRule(contains="a1", family="claude-opus-4-6", betas=("b-1", "b-2")),
            BedrockModelRule(contains="x"),
        ),
        protocol=BedrockProtocol.MANTLE,
    )


def test_a_credentiald_that_names_no_protocol_means_invoke_model() -> None:
    assert options_of(provider_pb2.BedrockOptions(region="r")) == BedrockOptions(region="r")
    assert options_of(None) is None
