"""What can go wrong on either side of a request: words that both sides share."""


class BodyTooLarge(Exception):
    """The client's body is over the limit, by its Content-Length or by what has arrived so far."""


class BodyBroken(Exception):
    """The client's body is not well-formed HTTP, or stopped short of its length."""


class BodyTimeout(Exception):
    """The client's body stopped arriving."""


class UpstreamUnreachable(Exception):
    """No connection could be made, or it broke before the answer's head was complete."""


class UpstreamNotAllowed(Exception):
    """The operator's settings keep the bridge from going there; nothing was sent, and nobody was asked."""


class UpstreamTimeout(Exception):
    """Connecting, the first byte or the next byte took longer than its limit."""


class UpstreamBroken(Exception):
    """The answer's body ended before its time."""
