"""An upstream with one answer a path, for clients whose API the demo upstream does not speak."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class CannedUpstream:
    """`answers` by path without query; `seen` has path and headers of every request, names in lower case."""

    answers: dict[str, Any]
    url: str = ""
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)


@contextmanager
def canned_upstream(answers: dict[str, Any]) -> Iterator[CannedUpstream]:
    """The upstream on a port of its own for the length of the block."""
    upstream = CannedUpstream(answers)

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.partition("?")[0]
            upstream.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            body = json.dumps(upstream.answers.get(path, {"error": {"message": "no such path"}})).encode()
            self.send_response(200 if path in upstream.answers else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Nothing: what was asked is in `seen`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    upstream.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield upstream
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
