"""Replies to batches, put together from bytes instead of messages.

The fields of a message may stand in any order (protobuf.dev, "Encoding: Field order"), so what differs from request
to request is appended to the serialised rest. A test holds these bytes against protobuf's own reading.
"""

from drawbridge.v1 import credential_service_pb2 as pb

from daemonkit.varint import varint

_LENGTH_DELIMITED = 2


def _tag(number: int) -> bytes:
    """What stands before a field with a length; one byte for field numbers below 16."""
    return bytes((number << 3 | _LENGTH_DELIMITED,))


_RESULT = _tag(pb.ResolveProviderStreamResponse.RESULTS_FIELD_NUMBER)
_RESPONSE = _tag(pb.ResolveProviderResult.RESPONSE_FIELD_NUMBER)
_UUID_CHARACTERS = 36
_RESOLUTION_ID = _tag(pb.ResolveProviderResponse.RESOLUTION_ID_FIELD_NUMBER) + bytes((_UUID_CHARACTERS,))
_UPSTREAM_MODEL = _tag(pb.ResolveProviderResponse.UPSTREAM_MODEL_FIELD_NUMBER)
_RECEIPT = _tag(pb.ResolveProviderResponse.RECEIPT_FIELD_NUMBER)


def answered(unchanged: bytes, *, resolution_id: bytes, upstream_model: str, receipt: bytes) -> bytes:
    """One good result in a reply. `unchanged` is a serialised ResolveProviderResponse without these three fields.

    `resolution_id` is a UUID in its form of 36 characters, as ASCII.
    """
    model = upstream_model.encode()
    model_field = b"".join((_UPSTREAM_MODEL, varint(len(model)), model)) if model else b""
    before, between = usual(unchanged + model_field, len(receipt))
    return b"".join((before, resolution_id, between, receipt))


def usual(unchanged: bytes, receipt_bytes: int) -> tuple[bytes, bytes]:
    """What stands before the resolution id of one good result, and between that and its receipt, which comes last."""
    between = _RECEIPT + varint(receipt_bytes)
    response_bytes = len(unchanged) + len(_RESOLUTION_ID) + _UUID_CHARACTERS + len(between) + receipt_bytes
    size = varint(response_bytes)
    result = varint(1 + len(size) + response_bytes)
    return b"".join((_RESULT, result, _RESPONSE, size, unchanged, _RESOLUTION_ID)), between


def refused(refusal: pb.ResolveRefusal) -> bytes:
    """One refusal in a reply."""
    result = pb.ResolveProviderResult(refusal=refusal).SerializeToString()
    return b"".join((_RESULT, varint(len(result)), result))
