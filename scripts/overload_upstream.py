"""The upstream of scripts/overload, a process of its own: an answer takes so long, however many there are.

python scripts/overload_upstream.py SECONDS        prints its port, then serves until it is killed

That is on average: some take half, some half as much again. Were it the same for all, those that began together would
end together for ever.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys

ANSWER = json.dumps(
    {"id": "chatcmpl-1", "choices": [{"message": {"role": "assistant", "content": "x" * 900}}]}
).encode()
CHANCE = random.Random(1)
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)


class Connection(asyncio.Protocol):
    """One connection. The bridge asks one thing at a time on it, with Content-Length."""

    def __init__(self, service_seconds: float) -> None:
        self._service_seconds = service_seconds
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, separator, body = self._data.partition(b"\r\n\r\n")
        if separator and len(body) >= int(head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]):
            self._data = b""
            service_seconds = self._service_seconds * CHANCE.uniform(0.5, 1.5)
            asyncio.get_running_loop().call_later(service_seconds, self._transport.write, WHOLE)


async def main(service_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(service_seconds), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
