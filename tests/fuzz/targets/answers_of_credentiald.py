"""What a bridge makes of messages of credentiald: a resolution or a refusal, whatever a well-formed message holds."""

from drawbridge.v1 import credential_service_pb2 as pb
from google.protobuf.message import DecodeError

from bridged.model import Refused, Resolution
from bridged.resolver_messages import outcome_of, resolution_of

WORDS = [
    b"\x0a",
    b"\x12",
    b"\x1a",
    b"\x22\x04",
    b"\x08\x01",
    b"\x18\x02",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"drawbridge",
]
_ANSWER = pb.ResolveProviderResponse(source=2, resolution_id="r", receipt=b"r", revision=7)
_ANSWER.provider.name, _ANSWER.provider.type, _ANSWER.provider.base_url = "a", "openai", "https://a/v1"
_ANSWER.credential.credential_id, _ANSWER.credential.api_key.value = "c", "k"
_ANSWER.provider.timeouts.connect.seconds = 3
_BEDROCK = pb.ResolveProviderResponse(source=3)
_BEDROCK.provider.bedrock.region = "us-east-1"
_BEDROCK.credential.aws_credentials.access_key_id = "AKIA"
_REFUSED = pb.ResolveProviderResult()
_REFUSED.refusal.domain, _REFUSED.refusal.reason, _REFUSED.refusal.code = "drawbridge", "USER_SUSPENDED", 16
_REFUSED.refusal.retry_delay.seconds = 4
_REFUSED.refusal.metadata["cause"] = "unauthorized"
_RESULT = pb.ResolveProviderResult(response=_ANSWER)
SEEDS = [one.SerializeToString() for one in (_ANSWER, _BEDROCK, _REFUSED, _RESULT)]


def one_input(data: bytes) -> None:
    for kind, read in ((pb.ResolveProviderResponse, resolution_of), (pb.ResolveProviderResult, outcome_of)):
        try:
            message = kind.FromString(data)  # type: ignore[attr-defined]
        except DecodeError:
            continue
        found = read(message)
        assert found is None or isinstance(found, (Resolution, Refused)), data
