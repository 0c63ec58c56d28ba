"""Questions as they stand in a batch, put together from bytes instead of messages.

A batch is a message with one repeated field, so its bytes are those of its items one after the other
(protobuf.dev, "Encoding"). A test holds these bytes against protobuf's own reading. They hold tokens: never print them.
"""

from collections.abc import Collection

from drawbridge.v1 import credential_service_pb2 as pb

from daemonkit.varint import sized, varint

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


def of_this_bridge(bridge_instance_id: str, min_revision: int) -> bytes:
    """What every question of a bridge says until it has seen a higher revision."""
    return b"".join((_BRIDGE_INSTANCE_ID, sized(bridge_instance_id), _MIN_REVISION, varint(min_revision)))


def item(
    provider: str,
    access_token: str,
    operation: str,
    model: str,
    interception_id: str,
    client: str,
    *,
    presented_key: bool,
    of_this_bridge: bytes,
    trace_parent: str = "",
    failed_credential_ids: Collection[str] = (),
) -> bytes:
    """One question, as an item of a batch. UnicodeEncodeError for what is no text."""
    question = b"".join(
        (
            _PROVIDER,
            sized(provider),
            _ACCESS_TOKEN,
            sized(access_token),
            _OPERATION,
            sized(operation),
            _MODEL,
            sized(model),
            _PRESENTED_KEY if presented_key else b"",
            _INTERCEPTION_ID,
            sized(interception_id),
            _CLIENT,
            sized(client),
            of_this_bridge,
            _TRACE_PARENT + sized(trace_parent) if trace_parent else b"",
            b"".join([_FAILED + sized(one) for one in failed_credential_ids]) if failed_credential_ids else b"",
        )
    )
    return b"".join((_ITEM, varint(len(question)), question))


def message_of(item: bytes) -> pb.ResolveProviderRequest:
    """The question of an item, for a call of its own."""
    return pb.ResolveProviderStreamRequest.FromString(item).items[0]
