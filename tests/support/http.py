"""HTTP/1.1 by hand, for tests that care about bytes."""

import asyncio
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """One answer: its status, its headers in order, its body with chunk framing taken off."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    raw: bytes

    def header(self, name: str) -> str:
        """The value of a header, empty if it is absent; it must not come twice."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else ""


async def send(
    address: str,
    method: str,
    target: str,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    *,
    timeout_seconds: float = 10,
) -> Answer:
    """The answer to one request on a connection of its own. The target goes out as it is."""
    lines = {"Host": address, "Connection": "close", **(headers or {})}
    if body or method in ("POST", "PUT", "PATCH"):
        lines.setdefault("Content-Length", str(len(body)))
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return parse(await exchange(address, head.encode("latin-1") + b"\r\n" + body, timeout_seconds=timeout_seconds))


async def exchange(address: str, request: bytes, *, timeout_seconds: float = 10) -> bytes:
    """What comes back for these bytes, until the answer is whole or the connection is closed."""
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(timeout_seconds):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(request)
            answer = b""
            try:
                while not _is_whole(answer) and (data := await reader.read(65536)):
                    answer += data
            except ConnectionResetError:
                # The peer refused before it had read everything; what it said first still counts.
                assert answer, "reset without an answer"
            return answer
        finally:
            writer.close()


def _is_whole(raw: bytes) -> bool:
    """Whether these bytes hold an answer with a Content-Length to its end."""
    head, separator, body = raw.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    return bool(separator) and length is not None and len(body) >= int(length[1])


def parse(raw: bytes) -> Answer:
    """The one answer in these bytes."""
    head, separator, body = raw.partition(b"\r\n\r\n")
    assert separator, f"no answer in {raw[:200]!r}"
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    if any(name.lower() == "transfer-encoding" for name, _ in headers):
        body = _unchunked(body)
    return Answer(int(status_line.split()[1]), headers, body, raw)


def _unchunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        if not length:
            return whole
        whole, body = whole + rest[:length], rest[length + 2 :]
    raise AssertionError("the chunked body has no end")
