"""Reads application/vnd.amazon.eventstream: bytes in, messages out.

    total length   4 bytes   of the whole message
    headers length 4 bytes
    prelude CRC    4 bytes   CRC-32 of the 8 bytes before it
    headers                  name length 1, name, type 1, value
    payload
    message CRC    4 bytes   CRC-32 of everything before it

Numbers are big-endian. Lengths are believed only after the prelude's CRC was right and they are within bounds, so a
corrupted length makes nobody wait. Nothing is passed on before the message's CRC was right.

Source: AWS, "Event stream encoding" (Amazon Transcribe Developer Guide), and Smithy, "Amazon Event Stream
Specification".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from types import MappingProxyType
from zlib import crc32

# A time is an int, milliseconds since 1970; a UUID is its 16 bytes.
HeaderValue = bool | int | bytes | str

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_HEADERS_BYTES = 128 * 1024
_PRELUDE = Struct(">III")
_CRC = Struct(">I")
_LENGTH = Struct(">H")
_OVERHEAD_BYTES = _PRELUDE.size + _CRC.size

_BOOLEANS: dict[int, HeaderValue] = {0: True, 1: False}
_INTEGERS = {2: Struct(">b"), 3: Struct(">h"), 4: Struct(">i"), 5: Struct(">q"), 8: Struct(">q")}
_BYTES, _STRING, _UUID = 6, 7, 9
_UUID_BYTES = 16


@dataclass(slots=True, kw_only=True)
class Message:
    """One message: `headers` such as `:event-type` by their names as they came, and the payload."""

    headers: Mapping[str, HeaderValue]
    payload: bytes


class EventStreamBroken(Exception):
    """The stream is corrupt, over a bound, or ended inside a message. Nothing after this can be read.

    `messages` are those that were whole before it, in the same call.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.messages: list[Message] = []


class EventStreamDecoder:
    """Follows one stream, in chunks that may be cut anywhere. Holds at most one message that is not whole yet."""

    __slots__ = ("_broken", "_buffer", "_headers", "_headers_block", "_max_message_bytes")

    def __init__(self, *, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._max_message_bytes = max_message_bytes
        self._buffer = bytearray()
        self._broken = False
        # Nearly all messages of a stream have the same headers: the last block is not read anew.
        self._headers_block = b""
        self._headers: Mapping[str, HeaderValue] = MappingProxyType({})

    def feed(self, data: bytes) -> list[Message]:
        """The messages that became whole. EventStreamBroken as its class says, and at every call after that."""
        self._refuse_broken()
        self._buffer += data
        messages: list[Message] = []
        start = 0
        try:
            while length := self._length_at(start):
                messages.append(self._message(bytes(memoryview(self._buffer)[start : start + length])))
                start += length
        except EventStreamBroken as broken:
            self._broken = True
            self._buffer.clear()
            broken.messages = messages
            raise
        del self._buffer[:start]
        return messages

    def end(self) -> None:
        """The stream is over. EventStreamBroken if that was inside a message."""
        self._refuse_broken()
        if self._buffer:
            self._broken = True
            raise EventStreamBroken("the stream ended inside a message")

    def _refuse_broken(self) -> None:
        if self._broken:
            raise EventStreamBroken("the stream was broken before")

    def _length_at(self, start: int) -> int:
        """The length of the message that begins here, 0 if it is not whole yet."""
        buffered_bytes = len(self._buffer) - start
        if buffered_bytes < _PRELUDE.size:
            return 0
        total, headers, crc = _PRELUDE.unpack_from(self._buffer, start)
        if crc32(self._buffer[start : start + 8]) != crc:
            raise EventStreamBroken("the checksum of a prelude is wrong")
        if total > self._max_message_bytes or headers > MAX_HEADERS_BYTES:
            raise EventStreamBroken("a message is over its bound")
        if total < headers + _OVERHEAD_BYTES:
            raise EventStreamBroken("the lengths of a message contradict each other")
        return total if buffered_bytes >= total else 0

    def _message(self, data: bytes) -> Message:
        end = len(data) - _CRC.size
        if crc32(memoryview(data)[:end]) != _CRC.unpack_from(data, end)[0]:
            raise EventStreamBroken("the checksum of a message is wrong")
        headers_end = _PRELUDE.size + int.from_bytes(data[4:8])
        block = data[_PRELUDE.size : headers_end]
        if block != self._headers_block:
            self._headers = MappingProxyType(_read_headers(block))
            self._headers_block = block
        return Message(headers=self._headers, payload=data[headers_end:end])


def _read_headers(block: bytes) -> dict[str, HeaderValue]:
    headers: dict[str, HeaderValue] = {}
    reader = _Reader(block)
    while not reader.at_end:
        name = reader.text(reader.byte())
        if name in headers:
            raise EventStreamBroken("a header came twice")
        headers[name] = _read_value(reader)
    return headers


def _read_value(reader: "_Reader") -> HeaderValue:
    kind = reader.byte()
    if (boolean := _BOOLEANS.get(kind)) is not None:
        return boolean
    if integer := _INTEGERS.get(kind):
        value: int = reader.unpack(integer)
        return value
    if kind == _STRING:
        return reader.text(reader.unpack(_LENGTH))
    if kind == _BYTES:
        return reader.take(reader.unpack(_LENGTH))
    if kind == _UUID:
        return reader.take(_UUID_BYTES)
    raise EventStreamBroken("a header has a type that there is not")


class _Reader:
    """Takes values off a block of headers; EventStreamBroken where one goes over its end."""

    __slots__ = ("_at", "_block")

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at == len(self._block)

    def take(self, size_bytes: int) -> bytes:
        end = self._at + size_bytes
        if end > len(self._block):
            raise EventStreamBroken("a header goes over the end of the headers")
        taken = self._block[self._at : end]
        self._at = end
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def unpack(self, form: Struct) -> int:
        value: int = form.unpack(self.take(form.size))[0]
        return value

    def text(self, size_bytes: int) -> str:
        try:
            return self.take(size_bytes).decode("utf-8")
        except UnicodeDecodeError:
            raise EventStreamBroken("a header is not UTF-8") from None
