"""Whether an upstream gets headers that tell of a trace: `traceparent`, `tracestate`, `baggage`.

They say who calls whom, so they end at the bridge unless the operator names the provider. Pure.
"""

from dataclasses import dataclass

from bridged.client_token import is_ours
from bridged.http1.fields import may_hold_secret
from bridged.model import Headers, header_values
from daemonkit.secret import Secret

TRACE_PARENT, TRACE_STATE, BAGGAGE = "traceparent", "tracestate", "baggage"
_NAMES = (TRACE_PARENT, TRACE_STATE, BAGGAGE)
NONE, ALL = "none", "all"


@dataclass(frozen=True, slots=True)
class TraceHeaders:
    """Which providers' upstreams get them: these by name, or all."""

    providers: frozenset[str] = frozenset()
    everywhere: bool = False

    def go_to(self, provider_name: str) -> bool:
        """Whether the upstream of this provider gets them."""
        return self.everywhere or provider_name in self.providers


def parse_trace_headers(text: str) -> TraceHeaders | None:
    """`none` (None), `all`, or names of providers with commas between them."""
    names = [one.strip() for one in text.split(",") if one.strip()]
    if names == [NONE]:
        return None
    if names == [ALL]:
        return TraceHeaders(everywhere=True)
    if not names or NONE in names or ALL in names:
        raise ValueError(f"{text!r} is neither none, nor all, nor names of providers with commas between them")
    return TraceHeaders(frozenset(names))


def clients_trace_headers(headers: Headers, token: Secret) -> Headers:
    """The client's own, as they came, without any that has the client's token in it."""
    return tuple(pair for pair in headers if pair[0].lower() in _NAMES and not is_ours(pair[1], token.reveal()))


def own_trace_headers(headers: Headers, token: Secret, *, trace_parent: str, trace_state: str) -> Headers:
    """Those of a span of ours. Baggage is about the request and not about a span: the client's goes along."""
    baggage = tuple(pair for pair in clients_trace_headers(headers, token) if pair[0].lower() == BAGGAGE)
    state = ((TRACE_STATE, trace_state),) if trace_state else ()
    return ((TRACE_PARENT, trace_parent), *state, *baggage)


def trace_state_of(headers: Headers) -> str:
    """The client's `tracestate`, several joined; empty without one, and where it may hold a secret: it is exported."""
    joined = ",".join(header_values(headers, TRACE_STATE))
    return "" if may_hold_secret(TRACE_STATE, joined) else joined
