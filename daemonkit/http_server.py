"""aiohttp's low-level server with the one habit removed that leaks: quoting a malformed request.

aiohttp answers a head it cannot parse with the line that was wrong, and logs it; that line may hold a token
(contract-tested in tests/core/test_daemonkit_health.py, because the hooks are semi-private).
"""

import logging
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

log = logging.getLogger(__name__)


class QuietProtocol(RequestHandler):
    """One connection, whose errors are answered and logged without a byte of the request."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A fixed answer for the status; a bug of ours is logged by its kind and place."""
        if request.writer.output_size > 0:
            raise ConnectionResetError("the answer is under way, no other can follow it")
        if status >= 500 and exc is not None:
            log.error("a request failed", exc_info=exc)
        text = "bad request\n" if status < 500 else "internal error\n"
        answer = web.Response(status=status, text=text, headers={"Server": "drawbridge"})
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """aiohttp's texts are not ours to vouch for: only the kind of the exception is logged."""
        error = kwargs.get("exc_info")
        log.error("a connection failed", extra={"error": type(error).__name__})


class QuietServer(web.Server):
    """Makes a QuietProtocol for each connection."""

    def __call__(self) -> RequestHandler:
        """The protocol of a new connection."""
        return QuietProtocol(self, loop=self._loop, **self._kwargs)
