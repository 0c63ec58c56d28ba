"""The reader of AWS's binary streams: cut at every byte, corrupted at every byte, and compared with botocore's."""

import itertools
import struct
from collections.abc import Iterable
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer, ParserError
from hypothesis import given
from hypothesis import strategies as st

from bridged.aws.event_stream import (
    MAX_HEADERS_BYTES,
    MAX_MESSAGE_BYTES,
    EventStreamBroken,
    EventStreamDecoder,
    HeaderValue,
)
from tests.support.event_stream import Typed, event, exception, framed, header, message

Read = list[tuple[dict[str, HeaderValue], bytes]]

ALL_TYPES = message(
    {
        "true": True,
        "false": False,
        "byte": Typed(2, struct.pack(">b", -2)),
        "short": Typed(3, struct.pack(">h", -300)),
        "integer": Typed(4, struct.pack(">i", -70_000)),
        "long": Typed(5, struct.pack(">q", -5_000_000_000)),
        "bytes": b"\x00\xff",
        "text": "grüße",
        "time": Typed(8, struct.pack(">q", 1_447_000_000_000)),
        "uuid": Typed(9, bytes(range(16))),
        "": "",
    },
    b"payload",
)
STREAM = [
    event("chunk", b'{"bytes":"e30="}'),
    event("chunk", b'{"bytes":"eyJhIjoxfQ=="}'),
    ALL_TYPES,
    message({}),
    exception("throttlingException", b'{"message":"slow down"}'),
]


def read(chunks: Iterable[bytes], decoder: EventStreamDecoder | None = None) -> tuple[Read, bool]:
    """What is read, and whether it all was whole."""
    decoder = decoder or EventStreamDecoder()
    found: Read = []
    try:
        for chunk in chunks:
            found += [(dict(message.headers), message.payload) for message in decoder.feed(chunk)]
        decoder.end()
    except EventStreamBroken as broken:
        return found + [(dict(message.headers), message.payload) for message in broken.messages], False
    return found, True


def read_by_botocore(data: bytes) -> tuple[Read, bool]:
    """The same by botocore, whose errors are of many types."""
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    found: Read = []
    try:
        found.extend((message.headers, message.payload) for message in buffer)
    except (ParserError, KeyError, UnicodeDecodeError, struct.error):
        return found, False
    return found, not buffer._data


WHOLE, _ = read([b"".join(STREAM)])


def test_headers_of_all_types_are_read() -> None:
    assert WHOLE[2] == (
        {
            "true": True,
            "false": False,
            "byte": -2,
            "short": -300,
            "integer": -70_000,
            "long": -5_000_000_000,
            "bytes": b"\x00\xff",
            "text": "grüße",
            "time": 1_447_000_000_000,
            "uuid": bytes(range(16)),
            "": "",
        },
        b"payload",
    )


def test_events_and_exceptions_are_read_as_they_come() -> None:
    decoder = EventStreamDecoder()
    for data, (headers, payload) in zip(STREAM, WHOLE, strict=True):
        (got,) = decoder.feed(data)
        assert (got.headers, got.payload) == (headers, payload)
    decoder.end()


@pytest.mark.parametrize("size_bytes", [1, 2, 3, 7, 11, 12, 13, 16, 64, 10_000])
def test_a_stream_may_be_cut_anywhere(size_bytes: int) -> None:
    data = b"".join(STREAM)

    assert read(data[at : at + size_bytes] for at in range(0, len(data), size_bytes)) == (WHOLE, True)


def test_a_stream_that_ends_inside_a_message_is_broken_and_nowhere_else() -> None:
    data = b"".join(STREAM)
    ends = {len(b"".join(STREAM[:count])): count for count in range(len(STREAM) + 1)}
    for cut in range(len(data) + 1):
        found, whole = read([data[:cut]])

        assert whole == (cut in ends), cut
        assert found == WHOLE[: max(count for end, count in ends.items() if end <= cut)], cut


def test_a_message_is_there_with_its_last_byte() -> None:
    decoder = EventStreamDecoder()
    counts = [len(decoder.feed(bytes([byte]))) for byte in STREAM[0]]

    assert counts == [0] * (len(STREAM[0]) - 1) + [1]


@pytest.mark.parametrize("flipped", [0x01, 0x80, 0xFF])
def test_no_corrupted_byte_gets_through(flipped: int) -> None:
    data = bytearray(b"".join(STREAM))
    starts = [len(b"".join(STREAM[:count])) for count in range(len(STREAM))]
    for at in range(len(data)):
        data[at] ^= flipped
        found, whole = read([bytes(data)])
        data[at] ^= flipped

        assert not whole, at
        assert found == WHOLE[: sum(start <= at for start in starts) - 1], at


@pytest.mark.parametrize("at", range(12))
def test_a_corrupted_prelude_is_known_before_the_message_is_there(at: int) -> None:
    data = bytearray(STREAM[0])
    data[at] ^= 0x40

    with pytest.raises(EventStreamBroken):
        EventStreamDecoder().feed(bytes(data[:12]))


def prelude(total: int, headers: int) -> bytes:
    lengths = struct.pack(">II", total, headers)
    return lengths + struct.pack(">I", crc32(lengths))


@pytest.mark.parametrize(
    ("total", "headers", "words"),
    [
        (MAX_MESSAGE_BYTES + 1, 0, "over its bound"),
        (2**32 - 1, 2**32 - 1, "over its bound"),
        (MAX_MESSAGE_BYTES, MAX_HEADERS_BYTES + 1, "over its bound"),
        (15, 0, "contradict"),
        (0, 0, "contradict"),
        (116, 101, "contradict"),
    ],
)
def test_lengths_are_judged_before_anything_is_waited_for(total: int, headers: int, words: str) -> None:
    with pytest.raises(EventStreamBroken, match=words):
        EventStreamDecoder().feed(prelude(total, headers))


@pytest.mark.parametrize(("total", "headers"), [(MAX_MESSAGE_BYTES, MAX_HEADERS_BYTES), (116, 100), (16, 0)])
def test_lengths_at_the_bound_are_waited_for(total: int, headers: int) -> None:
    assert EventStreamDecoder().feed(prelude(total, headers)) == []


def test_the_bound_of_a_message_can_be_set() -> None:
    data = message({}, b"12345")

    assert read([data], EventStreamDecoder(max_message_bytes=21)) == ([({}, b"12345")], True)
    assert read([data], EventStreamDecoder(max_message_bytes=20)) == ([], False)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (header("a", "1") + header("a", "2"), "twice"),
        (b"\x01a\x0a", "type that there is not"),
        (b"\x01a", "over the end"),
        (b"\x05a", "over the end"),
        (b"\x01a\x07\x00", "over the end"),
        (b"\x01a\x07\x00\x02x", "over the end"),
        (b"\x01a\x06\xff\xffx", "over the end"),
        (b"\x01a\x05" + bytes(7), "over the end"),
        (b"\x01a\x09" + bytes(15), "over the end"),
        (b"\x01\xff\x00", "not UTF-8"),
        (b"\x01a\x07\x00\x01\xff", "not UTF-8"),
    ],
)
def test_headers_that_make_no_sense_break_the_stream(block: bytes, words: str) -> None:
    with pytest.raises(EventStreamBroken, match=words):
        EventStreamDecoder().feed(framed(block))


def test_a_broken_stream_stays_broken_and_holds_nothing() -> None:
    decoder = EventStreamDecoder()
    with pytest.raises(EventStreamBroken) as broken:
        decoder.feed(STREAM[0] + bytes(12) + STREAM[1])
    assert [message.payload for message in broken.value.messages] == [b'{"bytes":"e30="}']

    for again in (lambda: decoder.feed(STREAM[0]), lambda: decoder.feed(b""), decoder.end):
        with pytest.raises(EventStreamBroken, match="before") as repeated:
            again()
        assert repeated.value.messages == []
    assert not decoder._buffer


def test_a_stream_that_ended_in_the_middle_stays_broken() -> None:
    decoder = EventStreamDecoder()
    decoder.feed(STREAM[0][:-1])
    with pytest.raises(EventStreamBroken, match="inside a message"):
        decoder.end()
    with pytest.raises(EventStreamBroken, match="before"):
        decoder.feed(STREAM[0][-1:])


def test_headers_that_are_read_again_cannot_be_changed() -> None:
    first, second = EventStreamDecoder().feed(STREAM[0] * 2)

    with pytest.raises(TypeError):
        first.headers[":event-type"] = "other"  # type: ignore[index]
    assert second.headers == first.headers


texts = st.text(max_size=20)
names = st.text(max_size=20).filter(lambda name: len(name.encode()) < 256)
values = (
    st.booleans()
    | texts
    | st.binary(max_size=40)
    | st.builds(Typed, st.just(2), st.binary(min_size=1, max_size=1))
    | st.builds(Typed, st.just(3), st.binary(min_size=2, max_size=2))
    | st.builds(Typed, st.just(4), st.binary(min_size=4, max_size=4))
    | st.builds(Typed, st.sampled_from([5, 8]), st.binary(min_size=8, max_size=8))
    | st.builds(Typed, st.just(9), st.binary(min_size=16, max_size=16))
)
messages = st.builds(message, st.dictionaries(names, values, max_size=5), st.binary(max_size=100))


@given(st.lists(messages, max_size=6), st.lists(st.integers(0, 600), max_size=6))
def test_botocore_reads_the_same(stream: list[bytes], cuts: list[int]) -> None:
    data = b"".join(stream)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]

    found = read(data[start:end] for start, end in itertools.pairwise(edges))

    assert found == read_by_botocore(data)
    assert found[1]


@given(st.lists(messages, min_size=1, max_size=3), st.data())
def test_what_botocore_refuses_or_waits_for_is_not_read(stream: list[bytes], data: st.DataObject) -> None:
    damaged = bytearray(b"".join(stream))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))

    assert read([bytes(damaged)]) == read_by_botocore(bytes(damaged))


@given(st.lists(st.binary(max_size=12).map(framed), min_size=1, max_size=3))
def test_of_any_headers_we_read_no_more_than_botocore(stream: list[bytes]) -> None:
    """botocore takes a value that is cut short by the end of the headers; we do not."""
    ours, whole = read(stream)
    theirs, _ = read_by_botocore(b"".join(stream))

    assert ours == theirs[: len(ours)]
    assert whole == (len(ours) == len(stream))


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes_at_all_give_messages_or_the_one_error(chunks: list[bytes]) -> None:
    found, whole = read(chunks)

    assert found == []
    assert whole == (not b"".join(chunks))
