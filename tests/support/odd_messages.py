"""Messages of the contract that no honest peer sends: every field with values that a careless reader trips over."""

import random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_TEXTS = [
    "", "ann", "openai", "x" * 300, "x" * 20_000, "\0", "a\r\nb: c", "../../etc/passwd", "%00",
    "'; DROP TABLE users; --", "00000000-0000-7000-8000-000000000000", "not-a-uuid", "\U0001f600", "\u202e", "http://[",
    "http://x\\@y", "-1",
    "NaN", f"dbu_{'x' * 49}", f"dbs_{'x' * 49}", "*", "{", "key_policy.central_key_enabled", "no.such.path", "z" * 33,
]  # fmt: skip
_WHOLE = [0, 1, -1, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63), 253402300800, 1_000_000_000]
_PARTS = [0.0, -1.0, float("nan"), float("inf"), 1e308]
_MOST_DEEP = 4
_WIDTHS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}


def odd_request(method: MethodDescriptor, dice: random.Random) -> bytes:
    """The bytes of a request of this rpc; one in eight is none at all."""
    message = GetMessageClass(method.input_type)()
    _fill(message, dice, 0)
    data = message.SerializeToString()
    if dice.random() < 0.125 and data:
        place = dice.randrange(len(data))
        data = data[:place] + bytes([data[place] ^ 1 << dice.randrange(8)]) + data[place + 1 :]
    return data


def _fill(message: Message, dice: random.Random, depth: int) -> None:
    for field in message.DESCRIPTOR.fields:
        if dice.random() < 0.4:
            continue
        there = getattr(message, field.name)
        if field.message_type is None:
            if field.is_repeated:
                there.extend(_value(field, dice) for _ in range(dice.randrange(4)))
            else:
                setattr(message, field.name, _value(field, dice))
        elif field.message_type.GetOptions().map_entry:
            key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
            if value.message_type is None:
                there[_value(key, dice)] = _value(value, dice)
        elif depth < _MOST_DEEP:
            for one in [there.add() for _ in range(dice.randrange(3))] if field.is_repeated else [there]:
                one.SetInParent()
                _fill(one, dice, depth + 1)


def _value(field: FieldDescriptor, dice: random.Random) -> Any:
    kind = field.cpp_type
    if field.type == FieldDescriptor.TYPE_BYTES:
        return dice.randbytes(dice.choice((0, 1, 16, 5000)))
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return dice.choice(_TEXTS)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return dice.random() < 0.5
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return dice.choice(_PARTS)
    low, high = _WIDTHS[kind]
    if kind == FieldDescriptor.CPPTYPE_ENUM and dice.random() < 0.7:
        return dice.choice([value.number for value in field.enum_type.values])
    return min(max(dice.choice(_WHOLE), low), high)
