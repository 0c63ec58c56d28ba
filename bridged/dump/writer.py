"""The thread that writes dumps: it gets what happened through a queue of bounded size, and nobody waits for it.

What there is no room for is dropped and counted; so is an attempt whose file cannot be written. Work is taken as it
has gathered, so that the interpreter is not asked for with each piece of an answer.
"""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from bridged.dump.attempt_files import Attempt, AttemptFiles
from bridged.dump.folder import DumpFolder
from bridged.dump.names import Places
from bridged.model import Headers

log = logging.getLogger(__name__)

MOST_QUEUED_BYTES = 64 * 1024 * 1024
# What an event costs beside its bytes.
_EVENT_BYTES = 512
_GATHER_SECONDS = 0.02
_TURN_SECONDS = 0.0005
_COMPLAIN_SECONDS = 60.0

Counted = Callable[[int], None]
Dropped = Callable[[str], None]


def _bytes_of(headers: Headers) -> int:
    return sum(len(name) + len(value) for name, value in headers)


class AttemptDump:
    """One attempt, as the loop tells it. `lost_bytes` had no room; after the first of them nothing more is told."""

    __slots__ = ("files", "is_lost", "lost_bytes")

    def __init__(self) -> None:
        self.lost_bytes = 0
        self.is_lost = False
        # Only on the thread.
        self.files: AttemptFiles | None = None


class DumpWriter:
    """`files`, `written` and `dropped` count, on the thread or on the loop: they must bear both."""

    def __init__(
        self,
        folder: DumpFolder,
        *,
        files: Counted,
        written: Counted,
        dropped: Dropped,
        most_queued_bytes: int = MOST_QUEUED_BYTES,
    ) -> None:
        self._folder = folder
        self._places = Places()
        self._count_files = files
        self._count_bytes = written
        self._count_dropped = dropped
        self._most_queued_bytes = most_queued_bytes
        self._queue: SimpleQueue[tuple[int, Callable[..., None], tuple[object, ...]] | None] = SimpleQueue()
        # Each is written by one side only.
        self._put_bytes = 0
        self._done_bytes = 0
        self._complained_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="API dump", daemon=True)
        self._thread.start()

    # -- on the loop ------------------------------------------------------------------------------------------------

    def begin(self, attempt: Attempt) -> AttemptDump:
        """An attempt is going out."""
        dump = AttemptDump()
        size_bytes = len(attempt.sent.body or b"") + len(attempt.sent.lines) + _bytes_of(attempt.received.headers)
        self._put(dump, size_bytes, self._begin, dump, attempt)
        return dump

    def request_data(self, dump: AttemptDump, data: bytes) -> None:
        """A piece of a streamed body went out."""
        self._put(dump, len(data), self._request_data, dump, data)

    def request_end(self, dump: AttemptDump) -> None:
        """All of a streamed body went out."""
        self._put(dump, 0, self._request_end, dump)

    def response_head(self, dump: AttemptDump, status: int, headers: Headers) -> None:
        """The answer begins."""
        self._put(dump, _bytes_of(headers), self._response_head, dump, status, headers)

    def response_data(self, dump: AttemptDump, data: bytes) -> None:
        """A piece of the answer's body."""
        self._put(dump, len(data), self._response_data, dump, data)

    def end(self, dump: AttemptDump, how: str) -> None:
        """The attempt is over; `how` is empty where its answer is complete."""
        # There is always room for this: what is open must be closed.
        self._put_bytes += _EVENT_BYTES
        self._queue.put((_EVENT_BYTES, self._end, (dump, how)))

    def close(self, timeout_seconds: float) -> bool:
        """Whether all that was told is written, within the time. To be called from a thread that may wait."""
        self._queue.put(None)
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _put(self, dump: AttemptDump, size_bytes: int, step: Callable[..., None], *told: object) -> None:
        whole_bytes = size_bytes + _EVENT_BYTES
        if dump.is_lost or self._put_bytes - self._done_bytes + whole_bytes > self._most_queued_bytes:
            dump.lost_bytes += size_bytes
            if not dump.is_lost:
                dump.is_lost = True
                self._drop("queue", "they come faster than they can be written")
            return
        self._put_bytes += whole_bytes
        self._queue.put((whole_bytes, step, told))

    # -- on the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        queue, clock = self._queue, time.perf_counter
        while True:
            event = queue.get()
            since_seconds = clock()
            while event is not None:
                size_bytes, step, told = event
                self._do(step, told)
                self._done_bytes += size_bytes
                # Let go of what it holds before the wait for the next.
                del event, step, told
                if clock() - since_seconds > _TURN_SECONDS:
                    # The loop may have the interpreter. Each time costs both of us, so not with each event.
                    time.sleep(0)
                    since_seconds = clock()
                try:
                    event = queue.get_nowait()
                except Empty:
                    time.sleep(_GATHER_SECONDS)
                    event = queue.get()
            self._folder.close()
            return

    def _do(self, step: Callable[..., None], told: tuple[object, ...]) -> None:
        dump = told[0]
        try:
            step(*told)
        except OSError as error:
            self._give_up(dump, errno.errorcode.get(error.errno or 0, "OSError"), os.strerror(error.errno or errno.EIO))
        except Exception as error:
            # Not its text, which may quote what is being written.
            self._give_up(dump, "bug", type(error).__name__)

    def _give_up(self, dump: object, why: str, text: str) -> None:
        if isinstance(dump, AttemptDump):
            files, dump.files = dump.files, None
            if files is not None:
                files.abandon()
        self._drop("disk" if why != "bug" else "bug", text)

    def _drop(self, why: str, text: str) -> None:
        self._count_dropped(why)
        now_seconds = time.monotonic()
        if not self._complained_seconds or now_seconds - self._complained_seconds > _COMPLAIN_SECONDS:
            self._complained_seconds = now_seconds
            log.warning("dumps of requests are dropped; requests are not affected", extra={"why": text})

    def _begin(self, dump: AttemptDump, attempt: Attempt) -> None:
        dump.files = AttemptFiles(self._folder, self._places, attempt)
        self._count_files(1)

    def _request_data(self, dump: AttemptDump, data: bytes) -> None:
        if dump.files is not None:
            dump.files.request_data(data)

    def _request_end(self, dump: AttemptDump) -> None:
        if dump.files is not None:
            dump.files.request_end()

    def _response_head(self, dump: AttemptDump, status: int, headers: Headers) -> None:
        if dump.files is not None:
            dump.files.response_head(status, headers)
            self._count_files(1)

    def _response_data(self, dump: AttemptDump, data: bytes) -> None:
        if dump.files is not None:
            dump.files.response_data(data)

    def _end(self, dump: AttemptDump, how: str) -> None:
        files, dump.files = dump.files, None
        if files is None:
            return
        try:
            files.close(how, dump.lost_bytes)
        except BaseException:
            files.abandon()
            raise
        self._count_bytes(files.written_bytes)
