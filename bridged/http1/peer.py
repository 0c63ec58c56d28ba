"""What the kernel knows of a client that has ended its side, or that is not being read. Questions to a socket only.

A client that closed its socket and one that only ended its side (`shutdown`) have sent the same FIN. What tells them
apart is what comes back for bytes that are sent after it: a reset, or an acknowledgement.
"""

import fcntl
import select
import socket
import struct
import termios
from enum import Enum
from typing import NamedTuple

# Linux only: elsewhere the end of a side that is not being read shows when it is read again.
_ENDED = getattr(select, "POLLRDHUP", 0)
# Of Linux's struct tcp_info (linux/tcp.h): tcpi_unacked, tcpi_bytes_acked, tcpi_notsent_bytes.
_TCP_INFO = struct.Struct("=24xI92xQ16xI")
_INT = struct.Struct("i")


class Peer(Enum):
    """Whether somebody is there."""

    THERE = "there"
    ENDED = "it has ended its side"
    GONE = "its socket is closed, or reset"


class Delivery(NamedTuple):
    """How far what was sent has come: whether some of it is still under way, and the bytes that were acknowledged."""

    under_way: bool
    acknowledged_bytes: int


def peer_of(sock: socket.socket) -> Peer:
    """Who is at the other end, without reading."""
    poll = select.poll()
    # A reset, or both sides closed, is told without asking.
    poll.register(sock.fileno(), _ENDED)
    found = poll.poll(0)
    if not found:
        return Peer.THERE
    return Peer.ENDED if found[0][1] == _ENDED else Peer.GONE


def unread_bytes(sock: socket.socket) -> int:
    """How many bytes wait to be read. After the other end has ended its side no more come."""
    return int(_INT.unpack(fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(_INT.size)))[0])


def delivery_of(sock: socket.socket) -> Delivery:
    """How far what was sent over TCP has come. Where the system does not say: nothing was acknowledged."""
    if not hasattr(socket, "TCP_INFO"):
        return Delivery(under_way=False, acknowledged_bytes=0)
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    unacknowledged, acknowledged_bytes, unsent_bytes = _TCP_INFO.unpack(info.ljust(_TCP_INFO.size, b"\0"))
    return Delivery(under_way=bool(unacknowledged or unsent_bytes), acknowledged_bytes=acknowledged_bytes)


def ask_when_silent(listener: socket.socket, idle_seconds: int) -> None:
    """Let TCP ask those who connect here whether they are there, when nothing was heard of them for so long.

    Accepted sockets inherit it, so it costs no call each. A machine that is gone is given up after three more questions
    that stay without an answer, a quarter of the time apart.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_seconds)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, idle_seconds // 4))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
