"""`traceparent` as W3C Trace Context writes it, and everything that only looks like one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemonkit.trace_context import TraceParent, parse_trace_parent, trace_parent_text

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = TraceParent(int(TRACE, 16), int(SPAN, 16), True)


@pytest.mark.parametrize(
    ("text", "parent"),
    [
        (f"00-{TRACE}-{SPAN}-01", PARENT),
        (f"00-{TRACE}-{SPAN}-00", PARENT._replace(is_sampled=False)),
        (f"00-{TRACE}-{SPAN}-02", PARENT._replace(is_sampled=False)),
        (f"00-{TRACE}-{SPAN}-03", PARENT),
        (f" \t00-{TRACE}-{SPAN}-01 ", PARENT),
        # A later version may say more behind what is known.
        (f"01-{TRACE}-{SPAN}-01-more", PARENT),
        (f"cc-{TRACE}-{SPAN}-01", PARENT),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"01-{TRACE}-{SPAN}-01more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE[1:]}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        (f"00-{TRACE}-{SPAN}-1", None),
        (f"00-{TRACE}-{SPAN}-01\n", None),
        (f"00-{TRACE[:-1]}\u0663-{SPAN}-01", None),
        ("", None),
    ],
)
def test_a_trace_parent_is_read_strictly(text: str, parent: TraceParent | None) -> None:
    assert parse_trace_parent([text]) == parent


def test_none_and_several_are_no_parent() -> None:
    text = f"00-{TRACE}-{SPAN}-01"

    assert parse_trace_parent([]) is None
    assert parse_trace_parent([text, text]) is None


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_what_is_written_reads_the_same(trace_id: int, span_id: int, is_sampled: bool) -> None:
    text = trace_parent_text(trace_id, span_id, is_sampled=is_sampled)

    assert parse_trace_parent([text]) == TraceParent(trace_id, span_id, is_sampled)


@given(st.text(max_size=80))
def test_any_text_is_read_without_an_error(text: str) -> None:
    parent = parse_trace_parent([text])

    assert parent is None or parent.trace_id
