"""A worker's side of the line to its supervisor: one inherited socket for all that the two say to each other.

First the supervisor sends the hand-over, then nothing more. The end of what it sends means "drain", whether it asked
for that or died. The worker answers with one byte once it serves; the end of what it sends is its own end.
"""

import asyncio
import json
import signal
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from daemonkit.listen import Address, parse_addresses
from daemonkit.stopping import end_at_once

SERVING = b"\n"
# How a supervisor ends its workers at once. It ends a Python that is still starting, too.
AT_ONCE = signal.SIGUSR1

_SIZE = struct.Struct(">I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """What a worker is told. Secrets are not among it: a worker reads its settings from the same places again.

    `flags` are those of the command line by Row.param. `addresses` has the real addresses of listeners by setting, as
    an operator writes them, `sockets` the file descriptors of those that are bound already. `metrics_path` is the
    unix socket on which the supervisor asks for metrics and readiness.
    """

    flags: Mapping[str, str | None]
    addresses: Mapping[str, str]
    sockets: Mapping[str, Sequence[int]]
    metrics_path: str

    def to_bytes(self) -> bytes:
        """As it goes over the line."""
        text = json.dumps(asdict(self)).encode()
        return _SIZE.pack(len(text)) + text


class Worker:
    """The line as the worker has it, from the file descriptor that its command names."""

    def __init__(self, fd: int) -> None:
        """Blocks until the hand-over is there; ValueError if this is no line to a supervisor."""
        try:
            self._line = socket.socket(fileno=fd)
        except OSError as error:
            raise ValueError(f"there is no line to a supervisor: {error.strerror}") from None
        try:
            size: int = _SIZE.unpack(self._exactly(_SIZE.size))[0]
            self._handover = Handover(**json.loads(self._exactly(size)))
        except (OSError, ValueError):
            self.close()
            raise ValueError("the supervisor ended before it had handed over") from None

    def close(self) -> None:
        """Close the line: for the supervisor, the end of the worker."""
        self._line.close()

    @property
    def flags(self) -> Mapping[str, str | None]:
        """The flags that the supervisor was given."""
        return self._handover.flags

    @property
    def metrics_listen(self) -> tuple[Address, ...]:
        """Where the supervisor asks for metrics, in place of the setting."""
        return (Address(path=self._handover.metrics_path),)

    def addresses(self, setting_name: str) -> tuple[Address, ...]:
        """The addresses of a listener, real ports and all."""
        return parse_addresses(self._handover.addresses[setting_name])

    def sockets(self, setting_name: str) -> tuple[socket.socket, ...]:
        """The sockets of a listener that all workers share. Call it once: they belong to the caller."""
        return tuple(socket.socket(fileno=fd) for fd in self._handover.sockets[setting_name])

    def serving(self) -> None:
        """Tell the supervisor that every listener is there."""
        try:
            self._line.send(SERVING)
        except OSError:
            # It is gone; the end of the line says so, and the worker drains.
            return

    def stop_requested(self, at_once: Callable[[], None] | None = None) -> asyncio.Future[None]:
        """Done when the supervisor asks for the drain or is gone, or with the first SIGTERM or SIGINT.

        A second signal changes nothing: service managers signal each process of a service, and the supervisor, which
        gets one as well, ends its workers at once where it is meant so: by AT_ONCE, before which `at_once` is called.
        """
        loop = asyncio.get_running_loop()
        asked: asyncio.Future[None] = loop.create_future()

        def ask() -> None:
            if not asked.done():
                asked.set_result(None)

        def on_line() -> None:
            loop.remove_reader(self._line)
            ask()

        self._line.setblocking(False)
        loop.add_reader(self._line, on_line)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ask)
        loop.add_signal_handler(AT_ONCE, end_at_once, 128 + AT_ONCE, at_once)
        return asked

    def _exactly(self, size_bytes: int) -> bytes:
        data = self._line.recv(size_bytes, socket.MSG_WAITALL)
        if len(data) < size_bytes:
            raise ValueError("the line ended early")
        return data
