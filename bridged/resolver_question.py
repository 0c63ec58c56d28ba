"""Questions as they stand in a batch, put together from bytes instead of messages.

A batch is a message with one repeated field, so its bytes are those of its items one after the other
(protobuf.dev, "Encoding"). A test holds these bytes against protobuf's own reading. They hold tokens: never print them.
"""

from collections.abc import Collection
from dataclasses import dataclass

from drawbridge.v1 import credential_service_pb2 as pb

from daemonkit.secret import Secret
from daemonkit.varint import VARINTS, sized, varint

_LENGTH_DELIMITED = 2


def _tag(number: int, wire_type: int = _LENGTH_DELIMITED) -> bytes:
    """What stands before a field; one byte for field numbers below 16."""
    return bytes((number << 3 | wire_type,))


_ITEM = _tag(pb.ResolveProviderStreamRequest.ITEMS_FIELD_NUMBER)
_PROVIDER = _tag(pb.ResolveProviderRequest.PROVIDER_FIELD_NUMBER)
_ACCESS_TOKEN = _tag(pb.ResolveProviderRequest.ACCESS_TOKEN_FIELD_NUMBER)
_OPERATION = _tag(pb.ResolveProviderRequest.OPERATION_FIELD_NUMBER)
_MODEL = _tag(pb.ResolveProviderRequest.MODEL_FIELD_NUMBER)
_PRESENTED_KEY = _tag(pb.ResolveProviderRequest.PRESENTED_KEY_FIELD_NUMBER, 0) + b"\1"
_FAILED = _tag(pb.ResolveProviderRequest.FAILED_CREDENTIAL_IDS_FIELD_NUMBER)
_INTERCEPTION_ID = _tag(pb.ResolveProviderRequest.INTERCEPTION_ID_FIELD_NUMBER)
_CLIENT = _tag(pb.ResolveProviderRequest.CLIENT_FIELD_NUMBER)
_BRIDGE_INSTANCE_ID = _tag(pb.ResolveProviderRequest.BRIDGE_INSTANCE_ID_FIELD_NUMBER)
_TRACE_PARENT = _tag(pb.ResolveProviderRequest.TRACE_PARENT_FIELD_NUMBER)
_MIN_REVISION = _tag(pb.ResolveProviderRequest.MIN_REVISION_FIELD_NUMBER, 0)


# Made for every request, and therefore neither frozen nor by keywords only: either would double what it costs.
@dataclass(slots=True)
class Question:
    """What the bridge asks for one request. The user's own key is only mentioned, never sent.

    `client` is the name of the client's program, empty where nothing is recorded.
    """

    provider: str
    access_token: Secret
    operation: str
    model: str
    presented_key: bool
    interception_id: str
    client: str = ""
    # A `traceparent`; empty where the request is not traced.
    trace_parent: str = ""
    # Keys that the upstream has refused: for this request, and for others so lately that credentiald may not know.
    failed_credential_ids: Collection[str] = ()


def of_this_bridge(bridge_instance_id: str, min_revision: int) -> bytes:
    """What every question of a bridge says until it has seen a higher revision."""
    return b"".join((_BRIDGE_INSTANCE_ID, sized(bridge_instance_id), _MIN_REVISION, varint(min_revision)))


def item(question: Question, of_this_bridge: bytes) -> bytes:
    """One question, as an item of a batch. UnicodeEncodeError for what is no text."""
    provider, token = question.provider.encode(), question.access_token.reveal().encode()
    operation, model = question.operation.encode(), question.model.encode()
    interception_id, client = question.interception_id.encode(), question.client.encode()
    trace_parent, failed = question.trace_parent, question.failed_credential_ids
    asked = b"".join(
        (
            _PROVIDER,
            VARINTS[len(provider)],
            provider,
            _ACCESS_TOKEN,
            VARINTS[len(token)],
            token,
            _OPERATION,
            VARINTS[len(operation)],
            operation,
            _MODEL,
            VARINTS[len(model)],
            model,
            _PRESENTED_KEY if question.presented_key else b"",
            _INTERCEPTION_ID,
            VARINTS[len(interception_id)],
            interception_id,
            _CLIENT,
            VARINTS[len(client)],
            client,
            of_this_bridge,
            _TRACE_PARENT + sized(trace_parent) if trace_parent else b"",
            b"".join([_FAILED + sized(one) for one in failed]) if failed else b"",
        )
    )
    return b"".join((_ITEM, VARINTS[len(asked)], asked))


def message_of(item: bytes) -> pb.ResolveProviderRequest:
    """The question of an item, for a call of its own."""
    return pb.ResolveProviderStreamRequest.FromString(item).items[0]
