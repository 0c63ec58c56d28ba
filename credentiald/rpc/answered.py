"""What records and the audit are told of the questions that were answered."""

from collections.abc import Sequence

from drawbridge.v1 import credential_service_pb2 as pb

from credentiald.bridge_instances import INSTANCE_CHARACTERS
from credentiald.catalog import TURNS
from credentiald.model import Caller, Role
from credentiald.record_model import NAME_CHARACTERS, Decided, Noted
from credentiald.resolve import Answer, Question

# The question, the ids of interception and resolution, the decision, and the MAC of the receipt where that was written
# when the batch was answered.
OneAnswered = tuple[pb.ResolveProviderRequest, bytes, bytes, Decided, bytes]


def noted_one(request: pb.ResolveProviderRequest, question: Question, answer: Answer, caller: Caller) -> list[Noted]:
    """A single question that was answered, as records and the audit are told of it."""
    ids = (question.interception_id.encode(), answer.resolution_id.encode())
    return noted_of([(request, *ids, decided_of(answer, question.operation, caller), b"")], answer.resolve_time_micros)


def noted_of(answered: Sequence[OneAnswered], micros: int) -> list[Noted]:
    """What was answered; nothing of the questions stays but these texts."""
    return [
        (
            interception_id,
            resolution_id,
            decided,
            item.model[:NAME_CHARACTERS],
            item.client[:NAME_CHARACTERS],
            item.bridge_instance_id,
            mac,
            micros,
        )
        for item, interception_id, resolution_id, decided, mac in answered
    ]


def openings(noted: Sequence[Noted]) -> list[Noted]:
    """Those that are interceptions. Whom we could not hear of any more, nothing is kept open for."""
    return [one for one in noted if one[2].opens and one[0] and 0 < len(one[5]) <= INSTANCE_CHARACTERS]


def decided_of(answer: Answer, operation: str, caller: Caller) -> Decided:
    """What a decision says of the interceptions that it answers."""
    opens = caller.role is Role.BRIDGE and operation in TURNS
    return Decided(
        answer.origin,
        operation,
        answer.provider.bedrock,
        opens,
        caller.service.name if caller.service else "",
        caller.role.value,
        answer.user.username,
        answer.access_token_id,
    )
