"""Where a broken stream stands, judged by a parser that reads events as the SDKs do."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.sse import StreamEnd

ERROR = b"event: error\ndata: ERROR\n\n"
LINE_ENDS = [b"\n", b"\r\n", b"\r"]

STREAM = (
    b'event: message_start\ndata: {"n":1}\n\n'
    b": keepalive\n\n"
    b'id: 7\ndata: {"n":2}\n\n'
    b"data:\ndata: two\ndata: lines\n\n"
    b"retry: 10\n\n"
    b"event: delta\ndata:{}\n\n"
    b"data\n\n"
    b"data: [DONE]\n\n"
)


def events(stream: bytes, *, strict: bool) -> list[tuple[bytes, bytes]]:
    """(name, data) of each dispatched event.

    `strict` is WHATWG's rule, by which a blank line after no data dispatches nothing; the SDKs of OpenAI and Anthropic
    dispatch on a blank line after any field.
    """
    found: list[tuple[bytes, bytes]] = []
    name, lines, begun = b"", list[bytes](), False
    for line in re.split(rb"\r\n|\n|\r", stream)[:-1]:
        field, _, value = line.partition(b":")
        if not line:
            if lines or (begun and not strict):
                found.append((name, b"\n".join(lines)))
            name, lines, begun = b"", [], False
        elif field == b"event":
            name, begun = value.removeprefix(b" "), True
        elif field == b"data":
            lines.append(value.removeprefix(b" "))
        elif field in (b"id", b"retry"):
            begun = True
    return found


def ended(sent: list[bytes], *, join: bool = False) -> bytes:
    end = StreamEnd()
    for chunk in sent:
        end.feed(chunk)
    return b"".join(sent) + end.closing_bytes(join=join) + ERROR


def cuts(line_end: bytes) -> list[bytes]:
    stream = STREAM.replace(b"\n", line_end)
    return [stream[:cut] for cut in range(len(stream) + 1)]


def data_is_cut(sent: bytes) -> bool:
    """Whether the last line is a data line that has begun and not ended."""
    return re.search(rb"(?:^|[\r\n])data: ?[^\r\n ][^\r\n]*$", sent) is not None


@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("strict", [True, False])
def test_wherever_a_stream_breaks_the_error_event_arrives_whole(line_end: bytes, strict: bool) -> None:
    for sent in cuts(line_end):
        name, data = events(ended([sent]), strict=strict)[-1]
        assert (name, data.strip()) == (b"error", b"ERROR"), sent


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_clients_that_go_by_the_name_get_an_error_even_in_the_middle_of_data(line_end: bytes) -> None:
    for sent in cuts(line_end):
        received = events(ended([sent], join=True), strict=False)
        name, data = received[-1]
        assert name == b"error", sent
        assert data.endswith(b"ERROR")
        # All before it are what the upstream sent, the last one as far as its lines arrived.
        whole = events(STREAM, strict=False)
        assert received[:-2] == whole[: max(len(received) - 2, 0)]
        assert all(full[1].startswith(part[1]) for full, part in zip(whole, received[:-1], strict=False))


@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("join", [True, False])
def test_no_event_is_lost_that_arrived_and_none_is_made_up(line_end: bytes, join: bool) -> None:
    whole = events(STREAM, strict=True)
    for sent in cuts(line_end):
        received = events(ended([sent], join=join), strict=True)[:-1]
        arrived = events(sent, strict=True)
        assert received[: len(arrived)] == arrived
        if not data_is_cut(sent):
            # A multi-line event may be cut between its lines: then its beginning is what arrived.
            assert all(data in full for (_, data), (_, full) in zip(received, whole, strict=False)), sent


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_no_event_without_data_is_dispatched(line_end: bytes) -> None:
    for sent in cuts(line_end):
        made = events(ended([sent]), strict=False)[:-1]
        assert all(event in events(STREAM, strict=False) or data_is_cut(sent) or event[1] for event in made), sent


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_a_stream_that_comes_byte_by_byte_stands_where_a_whole_one_does(line_end: bytes) -> None:
    end = StreamEnd()
    for sent in cuts(line_end):
        end.feed(sent[-1:])
        for join in (True, False):
            assert sent + end.closing_bytes(join=join) + ERROR == ended([sent], join=join)


@given(st.integers(0, len(STREAM)), st.lists(st.integers(0, len(STREAM)), max_size=6), st.sampled_from(LINE_ENDS))
def test_how_the_network_cut_the_chunks_does_not_matter(length: int, places: list[int], line_end: bytes) -> None:
    sent = STREAM.replace(b"\n", line_end)[:length]
    edges = [0, *sorted(place for place in places if place < len(sent)), len(sent)]
    chunks = [sent[start:stop] for start, stop in itertools.pairwise(edges)]
    for join in (True, False):
        assert ended(chunks, join=join) == ended([sent], join=join)


@given(
    st.lists(st.sampled_from([b"data", b":", b" ", b"x", b"\r", b"\n", b"event: e", b"data: {", b"\n\n"]), max_size=12)
)
def test_after_any_bytes_the_error_event_is_the_last(chunks: list[bytes]) -> None:
    name, data = events(ended(chunks, join=True), strict=False)[-1]
    assert name == b"error"
    assert data.endswith(b"ERROR")
    assert ended(chunks, join=True) == ended([b"".join(chunks)], join=True)
    assert ended(chunks) == ended([b"".join(chunks)])
    assert events(ended(chunks), strict=True)[-1][1].endswith(b"ERROR")


def test_a_stream_that_ended_between_events_is_followed_by_the_error_event_at_once() -> None:
    assert StreamEnd().closing_bytes() == b""
    assert ended([b"data: x\n\n"]) == b"data: x\n\n" + ERROR
    assert ended([b"data: x\r\n\r", b"\n"]) == b"data: x\r\n\r\n" + ERROR


def test_a_line_without_end_takes_no_memory() -> None:
    end = StreamEnd()
    for _ in range(1000):
        end.feed(b"data: " + b"x" * 10_000)
    assert len(end._head) < 20
