"""What is known of one request while it is carried, and what is told of it at its end."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from bridged import routes
from bridged.http_types import ClientAnswer, ClientRequest, Tap
from bridged.model import DialectName, RequestFacts, Resolution
from bridged.sse import StreamEnd

log = logging.getLogger(__name__)

# Not a refusal: the client left, and nobody is there to be refused.
CLIENT_GONE = "CLIENT_GONE"


@dataclass(slots=True, kw_only=True)
class Exchange:
    """What is known of one request so far; it fills as the request goes on, for errors, the log line and the tap."""

    request: ClientRequest
    answer: ClientAnswer
    interception_id: str
    dialect: DialectName
    match: routes.RouteMatch | None = None
    provider: str = ""
    facts: RequestFacts = field(default_factory=RequestFacts)
    resolution: Resolution | None = None
    status: int | None = None
    error: str = ""
    sent_bytes: int = 0
    stream_end: StreamEnd | None = None


TapFactory = Callable[[Exchange], Tap | None]


def no_tap(exchange: Exchange) -> Tap | None:
    """Nothing is read along."""
    del exchange
    return None


def log_end(exchange: Exchange, seconds: float) -> None:
    """The one line of a request. Ids and outcomes; no path, no header, no body."""
    resolution = exchange.resolution
    log.info(
        "request",
        extra={
            "interception_id": exchange.interception_id,
            "provider": exchange.provider,
            "operation": exchange.match.operation if exchange.match else "",
            "status": exchange.status,
            "error": exchange.error,
            "stream": exchange.stream_end is not None,
            "resolution_id": resolution.resolution_id if resolution else "",
            "user_id": resolution.user_id if resolution else "",
            "source": resolution.source.value if resolution else "",
            "credential_id": resolution.credential_id if resolution else "",
            "sent_bytes": exchange.sent_bytes,
            "duration_ms": round(seconds * 1000),
        },
    )
