"""An answer on its way to the client: whole events take a shorter way than what is cut, and nobody can tell."""

import itertools
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.answer_relay import AnswerRelay
from bridged.http1.response_head import BodyFraming
from bridged.sse import StreamEnd
from bridged.taps.scanner import TOGETHER_BYTES
from bridged.taps.usage_chunk import UsageChunkFilter
from tests.support.taps import data

CHUNK = b'data: {"choices":[{"delta":{"content":"word"}}]}\n\n'
EXTRA = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
PIECES = [
    CHUNK,
    CHUNK * 3,
    CHUNK * 100,
    CHUNK.replace(b"\n", b"\r\n"),
    CHUNK.replace(b"\n", b"\r"),
    b'data: {"choices":[{"delta":{"content":"etion_tokens"}}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"\\",\\"usage\\":null"}}]}\n\n',
    b'data: {"choices":[{"delta":{}, "finish_reason":"stop"}],\ndata: "usage":{"completion_tokens":2}}\n\n',
    EXTRA,
    EXTRA.replace(b"\n", b"\r\n"),
    b'data:{"choices":[],\ndata: "usage":{"completion_tokens":2}}\n\n',
    b": comment\n\n",
    b"data: [DONE]\n\n",
]


class Client:
    """Who gets the answer, in place of an exchange."""

    def __init__(self) -> None:
        self.got = b""

    def send(self, sent: bytes, *, more: bool) -> None:
        self.got += sent

    def send_head(self, *_: object, **__: object) -> None:
        """Heads are others' business."""


class Surroundings:
    """The interception that an answer belongs to, with a tap, and the bridge."""

    interception_id = "id"

    def __init__(self, tap: Callable[[bytes], None] | None) -> None:
        self.tap = tap

    def answer_begins(self, *_: object, **__: object) -> Callable[[bytes], None] | None:
        return self.tap

    def date_line(self) -> bytes:
        return b""

    def fail(self, failure: Exception) -> None:
        raise failure

    def tap_failed(self) -> None:
        raise AssertionError("the tap failed")


def relay(tap: Callable[[bytes], None] | None, usage_filter: UsageChunkFilter | None) -> tuple[AnswerRelay, Client]:
    client, around = Client(), cast(Any, Surroundings(tap))
    made = AnswerRelay(around, around, cast(Any, client))
    made.usage_filter = usage_filter
    made.response_head(200, (("Content-Type", "text/event-stream"),), BodyFraming.CHUNKED, more=False)
    return made, client


def carried(pieces: list[bytes], *, with_filter: bool) -> tuple[bytes, bytes, list[bytes]]:
    """What the client got, what an error would have to begin with now, and what the tap was shown."""
    shown: list[bytes] = []
    answer, client = relay(shown.append, UsageChunkFilter() if with_filter else None)
    for piece in pieces:
        answer.response_data(piece, more=False)
    answer.send_held()
    answer.show_rest()
    assert answer.stream_end is not None
    assert answer.sent_bytes == len(client.got)
    return client.got, answer.stream_end.closing_bytes(), shown


def expected(stream: bytes, *, with_filter: bool) -> tuple[bytes, bytes]:
    """Likewise by the parts alone, in one piece."""
    taken_out, end = UsageChunkFilter(), StreamEnd()
    got = taken_out.feed(stream) + taken_out.end() if with_filter else stream
    end.feed(got)
    return got, end.closing_bytes()


# An upstream has it in every chunk or in none.
@pytest.mark.parametrize("null", [b"", b',"usage":null'])
@pytest.mark.parametrize("with_filter", [False, True])
@given(
    parts=st.lists(st.tuples(st.sampled_from(PIECES), st.integers(min_value=0, max_value=3)), min_size=1, max_size=8),
    cut_bytes=st.integers(min_value=0, max_value=60),
    more_cuts=st.lists(st.integers(min_value=0, max_value=600), max_size=2),
)
def test_whatever_is_whole_in_a_piece_makes_no_difference(
    parts: list[tuple[bytes, int]], cut_bytes: int, more_cuts: list[int], with_filter: bool, null: bytes
) -> None:
    """Each piece begins somewhat before an event does, and the last one is cut."""
    events = [(event.replace(b'"}}]}', b'"}}]' + null + b"}"), before) for event, before in parts]
    stream = b"".join(event for event, _ in events)
    stream = stream[: len(stream) - cut_bytes]
    ends = itertools.accumulate(len(event) for event, _ in events)
    places = {end - before for end, (_, before) in zip(ends, events, strict=True)} | {*more_cuts}
    cuts = [0, *sorted(place for place in places if 0 < place < len(stream)), len(stream)]
    got, closing, shown = carried([stream[a:b] for a, b in itertools.pairwise(cuts) if a < b], with_filter=with_filter)

    assert (got, closing) == expected(stream, with_filter=with_filter)
    assert b"".join(shown) == stream


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_recorded_stream_passes_the_same_wherever_it_is_cut(line_end: bytes) -> None:
    stream = data("openai_chat.sse").replace(b"\n", line_end)
    whole = expected(stream, with_filter=True)
    assert len(whole[0]) < len(stream)
    for cut in range(1, len(stream), 3):
        assert carried([stream[:cut], stream[cut:]], with_filter=True)[:2] == whole, cut


@pytest.mark.parametrize("with_filter", [False, True])
@pytest.mark.parametrize("last", [CHUNK, EXTRA])
def test_a_line_feed_that_comes_late_belongs_to_the_event_before(last: bytes, with_filter: bool) -> None:
    pieces = [CHUNK, last.replace(b"\n", b"\r\n")[:-1], b"\n" + CHUNK]
    assert carried(pieces, with_filter=with_filter)[:2] == expected(b"".join(pieces), with_filter=with_filter)


def test_a_tap_is_shown_short_pieces_together_and_long_ones_at_once() -> None:
    shown = carried([CHUNK] * 200 + [CHUNK * 100, CHUNK], with_filter=True)[2]

    assert max(len(piece) for piece in shown[:-2]) <= TOGETHER_BYTES
    assert min(len(piece) for piece in shown[:-3]) > TOGETHER_BYTES - len(CHUNK)
    assert shown[-2:] == [CHUNK * 100, CHUNK]
    assert b"".join(shown) == CHUNK * 301


def test_what_waits_for_a_tap_is_bounded_by_what_came_and_not_by_what_went_out() -> None:
    null = b',"usage":null'
    shown = carried([CHUNK.replace(b'"}}]}', b'"}}]' + null + b"}")] + [null * 50 + b"\n\n"] * 100, with_filter=True)[2]

    assert max(len(piece) for piece in shown) <= TOGETHER_BYTES + len(null * 50 + b"\n\n")
