"""Which upstreams are told of a trace, and what."""

import pytest

from bridged.trace_headers import (
    TraceHeaders,
    clients_trace_headers,
    own_trace_headers,
    parse_trace_headers,
    trace_state_of,
)
from daemonkit.secret import Secret

TOKEN = Secret("dbu_" + "t" * 49)
CLIENT = (("Traceparent", "00-a"), ("X-Other", "1"), ("tracestate", "a=1"), ("baggage", "user=2"))


@pytest.mark.parametrize(
    ("text", "named", "other"),
    [("all", True, True), ("corp", True, False), (" corp , lab ", True, False), ("lab", False, False)],
)
def test_the_setting_names_providers(text: str, named: bool, other: bool) -> None:
    sends = parse_trace_headers(text)

    assert sends is not None
    assert (sends.go_to("corp"), sends.go_to("other")) == (named, other)


def test_none_is_nobody() -> None:
    assert parse_trace_headers("none") is None


@pytest.mark.parametrize("text", ["", " , ", "none,corp", "corp,all"])
def test_what_is_neither_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="neither none, nor all"):
        parse_trace_headers(text)


def test_a_name_is_not_a_part_of_another() -> None:
    assert not TraceHeaders(frozenset({"corp"})).go_to("cor")


def test_the_clients_own_pass_as_they_came_but_for_its_token() -> None:
    leaking = (*CLIENT, ("baggage", f"t={TOKEN.reveal()}"))

    assert clients_trace_headers(leaking, TOKEN) == (CLIENT[0], CLIENT[2], CLIENT[3])


def test_a_span_of_ours_takes_the_place_of_the_clients_and_baggage_stays() -> None:
    headers = own_trace_headers(CLIENT, TOKEN, trace_parent="00-b", trace_state="a=1")

    assert headers == (("traceparent", "00-b"), ("tracestate", "a=1"), ("baggage", "user=2"))
    assert own_trace_headers((), TOKEN, trace_parent="00-b", trace_state="") == (("traceparent", "00-b"),)


def test_a_trace_state_that_may_hold_a_secret_is_not_taken_over() -> None:
    assert trace_state_of(CLIENT) == "a=1"
    assert trace_state_of((("tracestate", "a=1"), ("tracestate", "b=2"))) == "a=1,b=2"
    assert trace_state_of((("tracestate", "a=sk-secret"),)) == ""
    assert trace_state_of(()) == ""
