"""Health on the main listener, as an answer to a request like any other."""

import json
from collections.abc import Sequence

from bridged.http1.answer_framing import Framing
from bridged.http1.exchange import Exchange


class HealthAnswer:
    """`/healthz`: the loop is alive. `/readyz`: whether to send requests here, and if not, why. Reads no body."""

    def __init__(self, exchange: Exchange, not_ready: Sequence[str], date: tuple[str, str]) -> None:
        if exchange.request.target == "/readyz":
            status, kind = (503 if not_ready else 200), "application/json"
            body = json.dumps({"ready": not not_ready, "reasons": list(not_ready)}).encode() + b"\n"
        else:
            status, kind, body = 200, "text/plain; charset=utf-8", b"ok\n"
        headers = (("Content-Type", kind), ("Cache-Control", "no-store"), ("Content-Length", str(len(body))), date)
        exchange.send_head(status, headers, body=Framing.LENGTH, length_bytes=len(body))
        exchange.send(body)
        exchange.finish()

    def body_part(self, data: bytes) -> None: ...

    def body_end(self) -> None: ...

    def body_whole(self, data: bytes) -> None: ...

    def body_failed(self, error: object) -> None: ...

    def client_gone(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...
