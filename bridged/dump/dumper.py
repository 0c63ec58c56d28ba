"""Tells the writer what goes out and comes back. On the loop: nothing is copied, and nothing waits.

A DumpedCall stands outermost of all receivers of one call to an upstream, so that it hears the answer as the upstream
gave it, whoever else holds it back or changes it.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bridged.client_token import ClientCredentials
from bridged.dump.attempt_files import Attempt
from bridged.dump.dump_metrics import DumpMetrics
from bridged.dump.folder import DumpFolder
from bridged.dump.writer import MOST_QUEUED_BYTES, DumpWriter
from bridged.http1.framing import Request
from bridged.http1.request_head import OutgoingRequest
from bridged.http1.response_head import BodyFraming
from bridged.http1.upstream import NOBODY, ResponseReceiver, UpstreamError
from bridged.model import Headers, Resolution
from bridged.quoted_keys import secrets_of

if TYPE_CHECKING:
    from bridged.interception import Interception

log = logging.getLogger(__name__)

_WARN_SECONDS = 3600.0
_CLOSE_SECONDS = 5.0
_NOT_FOLLOWED = "the request was decided anew before it went out, or is sent another way"


@asynccontextmanager
async def running_dumper(
    folder: DumpFolder | None, metrics: DumpMetrics, *, most_queued_bytes: int = MOST_QUEUED_BYTES
) -> AsyncIterator["Dumper | None"]:
    """What dumps into this folder for the length of the block; None where there is none."""
    if folder is None:
        yield None
        return
    path = folder.path
    if folder.is_open_to_others:
        log.warning("others may enter the folder of the API dump: chmod 700", extra={"dump_dir": path})
    writer = DumpWriter(
        folder,
        files=metrics.files.inc,
        written=metrics.bytes.inc,
        dropped=metrics.dropped,
        most_queued_bytes=most_queued_bytes,
    )
    dumper = Dumper(writer, path)
    metrics.enabled.set(1)
    dumper.warn()
    try:
        yield dumper
    finally:
        dumper.stop()
        if not await asyncio.to_thread(writer.close, _CLOSE_SECONDS):
            log.warning("the end of the API dump is lost: the disk is too slow", extra={"dump_dir": path})


class DumpedCall:
    """One call to an upstream. `receiver` is who hears of the answer."""

    __slots__ = ("_dump", "_is_over", "_writer", "number", "receiver", "secrets")

    def __init__(self, writer: DumpWriter, attempt: Attempt, receiver: ResponseReceiver) -> None:
        self._writer = writer
        self._dump = writer.begin(attempt)
        self._is_over = False
        self.number = attempt.number
        self.secrets = attempt.secrets
        self.receiver = receiver

    def before(self, receiver: ResponseReceiver) -> "DumpedCall":
        """The same, with another one who hears of the rest."""
        self.receiver = receiver
        return self

    def request_data(self, data: bytes) -> None:
        """A piece of the streamed body."""
        if not self._is_over:
            self._writer.request_data(self._dump, data)

    def request_end(self) -> None:
        """All of the streamed body went out."""
        if not self._is_over:
            self._writer.request_end(self._dump)

    def over(self, how: str) -> None:
        """Nothing more comes; `how` is empty where the answer is complete. Once; later ones do nothing."""
        if not self._is_over:
            self._is_over = True
            self.receiver = NOBODY
            self._writer.end(self._dump, how)

    # What it hears of the answer. First the file, because whoever comes after may end it all.

    def response_head(self, status: int, headers: Headers, body: BodyFraming, *, more: bool) -> None:
        """Status and headers."""
        self._writer.response_head(self._dump, status, headers)
        self.receiver.response_head(status, headers, body, more=more)

    def response_data(self, data: bytes, *, more: bool) -> None:
        """Some of the body."""
        if not self._is_over:
            self._writer.response_data(self._dump, data)
        self.receiver.response_data(data, more=more)

    def response_end(self) -> None:
        """The answer is complete."""
        receiver = self.receiver
        self.over("")
        receiver.response_end()

    def response_failed(self, error: UpstreamError) -> None:
        """There is no answer, or no rest of it."""
        receiver = self.receiver
        self.over(str(error) or type(error).__name__)
        receiver.response_failed(error)

    def pause_body(self) -> None:
        """The upstream reads slowly."""
        self.receiver.pause_body()

    def resume_body(self) -> None:
        """The upstream reads again."""
        self.receiver.resume_body()


class Dumper:
    """Begins the dump of each attempt, and says in the log that there are dumps, as long as there are."""

    def __init__(self, writer: DumpWriter, path: str) -> None:
        self._writer = writer
        self._path = path
        self._warning: asyncio.TimerHandle | None = None

    def begin(
        self,
        interception: "Interception",
        request: Request,
        client: ClientCredentials,
        resolution: Resolution,
        outgoing: OutgoingRequest,
        receiver: ResponseReceiver,
    ) -> DumpedCall:
        """A request is going out; who hears of its answer from now on."""
        before, match = interception.dumped, interception.match
        number, secrets = 1, tuple(secrets_of(resolution, client))
        if before is not None:
            before.over(_NOT_FOLLOWED)
            number, secrets = before.number + 1, (*before.secrets, *secrets)
        is_turn = match is not None and match.intercepted
        dumped = interception.dumped = DumpedCall(
            self._writer,
            Attempt(
                interception_id=interception.interception_id,
                number=number,
                begin_milliseconds=time.time_ns() // 1_000_000,
                provider=resolution.provider_name,
                model=interception.facts.model if is_turn else None,
                path=outgoing.target.partition("?")[0],
                received=request,
                sent=outgoing,
                secrets=secrets,
            ),
            receiver,
        )
        return dumped

    def warn(self) -> None:
        """Say so now, and once an hour from now on."""
        log.warning(
            "the API dump is on: what is asked and answered is written to files, prompts and all, credentials masked",
            extra={"dump_dir": self._path},
        )
        self._warning = asyncio.get_running_loop().call_later(_WARN_SECONDS, self.warn)

    def stop(self) -> None:
        """Say so no more."""
        if self._warning is not None:
            self._warning.cancel()
