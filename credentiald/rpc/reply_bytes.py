"""Replies to batches, put together from bytes instead of messages.

The fields of a message may stand in any order (protobuf.dev, "Encoding: Field order"), so what differs from request
to request is appended to the serialised rest. A test holds these bytes against protobuf's own reading.
"""

from drawbridge.v1 import credential_service_pb2 as pb

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


def answered(unchanged: bytes, *, resolution_id: str, upstream_model: str, receipt: bytes) -> bytes:
    """One good result in a reply. `unchanged` is a serialised ResolveProviderResponse without these three fields.

    `resolution_id` is a UUID in its form of 36 characters.
    """
    response = b"".join((unchanged, _RESOLUTION_ID, resolution_id.encode(), _RECEIPT, varint(len(receipt)), receipt))
    if upstream_model:
        model = upstream_model.encode()
        response = b"".join((response, _UPSTREAM_MODEL, varint(len(model)), model))
    size = varint(len(response))
    return b"".join((_RESULT, varint(1 + len(size) + len(response)), _RESPONSE, size, response))


def refused(refusal: pb.ResolveRefusal) -> bytes:
    """One refusal in a reply."""
    result = pb.ResolveProviderResult(refusal=refusal).SerializeToString()
    return b"".join((_RESULT, varint(len(result)), result))


def varint(number: int) -> bytes:
    """A length in base 128, lowest digits first (protobuf.dev, "Base 128 Varints")."""
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    digits = bytearray()
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)
