"""Ports of this machine that stay somebody's while nobody listens on them."""

import contextlib
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


def keep(address: str) -> socket.socket:
    """A socket that keeps HOST:PORT and does not listen; with port 0 it chooses one.

    Whoever binds this port by its number gets it, whoever asks for any port does not (Linux: all say SO_REUSEADDR).
    """
    host, _, port = address.rpartition(":")
    kept = socket.socket()
    try:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind((host, int(port)))
    except BaseException:
        kept.close()
        raise
    return kept


@contextmanager
def keeping(*addresses: str) -> Iterator[None]:
    """Keep these for the length of the block: their owner has stopped, and comes back."""
    with ExitStack() as stack:
        for address in addresses:
            stack.enter_context(contextlib.closing(keep(address)))
        yield
