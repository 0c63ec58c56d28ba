"""Writes lines of a log on a thread of its own: nobody who logs waits for who reads.

Lines wait in a queue that is bounded in lines and in bytes, for one may have a prompt of a megabyte in it; what does
not fit is counted. What is written at once is whole lines. At the end of a file that is one piece, however long
(open(2), O_APPEND), but in a pipe only up to PIPE_BUF bytes are (pipe(7)). So workers that write to one pipe lock it,
for short lines too: in the midst of another's long one there is room for them.
"""

import errno
import fcntl
import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate

_MOST_LINES = 10_000
_MOST_BYTES = 64 * 1024 * 1024
_FLUSH_SECONDS = 2.0
_DEADLOCK_REST_SECONDS = 0.001


class LogWriter:
    """Writes to a descriptor. `write` returns at once."""

    def __init__(
        self, fd: int, lost_line: Callable[[int], str], *, owned: bool, mutex: threading.Lock, shared: bool
    ) -> None:
        """`lost_line` says how many lines were lost. What is `owned` is closed at the end. The mutex is that of all who
        write to this file in this process; in others there are some if it is `shared`. OSError."""
        self._fd = fd
        self._lost_line = lost_line
        self._owned = owned
        self._mutex = mutex
        self._locks = shared and _tears(fd)
        self._lines = _Lines()
        self._lost_said = 0
        self._is_torn = False
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """How many lines were lost since the beginning."""
        return self._lines.lost

    def write(self, line: str) -> None:
        """Have a line written, or the lines of one record."""
        self._lines.put(_encoded(line))

    def close(self, seconds: float = _FLUSH_SECONDS) -> None:
        """Write what is queued, within a limit: a reader that has stalled must not keep the daemon."""
        self._lines.close()
        self._thread.join(seconds)
        if self._owned and not self._thread.is_alive():
            os.close(self._fd)

    def _run(self) -> None:
        while piece := self._lines.take():
            self._say_lost()
            self._lines.count_lost(len(piece) - self._write(piece))
        self._say_lost()

    def _say_lost(self) -> None:
        lost = self._lines.lost
        if lost > self._lost_said and self._write([_encoded(self._lost_line(lost - self._lost_said))]):
            self._lost_said = lost

    def _write(self, piece: Sequence[bytes]) -> int:
        """How many of these lines are written whole. A full disk, a closed pipe: the daemon goes on without a log."""
        if self._is_torn:
            # The end of one is missing.
            piece = [b"\n" + piece[0], *piece[1:]]
        ends = list(accumulate(map(len, piece)))
        with self._mutex:
            is_locked = self._locks and _locked(self._fd)
            try:
                written = _written(self._fd, b"".join(piece))
            finally:
                if is_locked:
                    fcntl.lockf(self._fd, fcntl.LOCK_UN)
        self._is_torn = written not in ends if written else self._is_torn
        return sum(end <= written for end in ends)


class _Lines:
    """The queue."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()
        self.lost = 0

    def put(self, line: bytes) -> None:
        with self._changed:
            if len(self._waiting) >= _MOST_LINES or self._bytes + len(line) > _MOST_BYTES:
                self.lost += 1
                return
            self._waiting.append(line)
            self._bytes += len(line)
            if len(self._waiting) == 1:
                self._changed.notify()

    def count_lost(self, lines: int) -> None:
        if lines:
            with self._changed:
                self.lost += lines

    def take(self) -> list[bytes]:
        """What is written at once: all that fits into PIPE_BUF bytes, or one that is longer. None at the end."""
        piece: list[bytes] = []
        left = select.PIPE_BUF
        with self._changed:
            while not (self._waiting or self._closed):
                self._changed.wait()
            while self._waiting and (not piece or len(self._waiting[0]) <= left):
                line = self._waiting.popleft()
                piece.append(line)
                left -= len(line)
                self._bytes -= len(line)
        return piece

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()


def _encoded(line: str) -> bytes:
    return f"{line}\n".encode(errors="backslashreplace")


def _tears(fd: int) -> bool:
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _locked(fd: int) -> bool:
    """Wait for the lock of a file; False where there is none: a log that may be torn is better than none.

    Of fcntl's locks, because they are a process's, wherever it has the descriptor from: workers inherit one, and
    `flock` would let all of them in.
    """
    while True:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno != errno.EDEADLK:
                return False
        else:
            return True
        # Two processes with two logs each: the system does not know that other threads of theirs will go on.
        time.sleep(_DEADLOCK_REST_SECONDS)


def _written(fd: int, data: bytes) -> int:
    """How many of these bytes were written."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            # Who has started us may have made it so.
            writable = select.poll()
            writable.register(fd, select.POLLOUT)
            writable.poll()
        except OSError:
            break
    return len(data) - len(rest)
