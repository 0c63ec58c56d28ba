"""The files of one attempt, written on the writer's thread: what went out, what came back, or why nothing did.

<stem>.req.txt         the request as it was sent, its head as it was received, its body as it was sent
<stem>.resp.txt        the head of the answer, its body, how it ended
<stem>.req_error.txt   why there is no answer
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bridged.dump.body import DumpedBody
from bridged.dump.folder import DumpFile, DumpFolder
from bridged.dump.names import Place, Places
from bridged.dump.needles import Needles
from bridged.dump.shown import head_lines, secrets_in, shown_target
from bridged.http1.framing import Request
from bridged.http1.request_head import OutgoingRequest, authority_of, host_line, port_of, request_head
from bridged.model import Headers
from daemonkit.secret import Secret

MOST_FILE_BYTES = 64 * 1024 * 1024


@dataclass(slots=True, kw_only=True)
class Attempt:
    """What is known as an attempt begins. `model` is None where the request was passed through.

    `secrets` are those that the client's request and all its attempts so far came and went with.
    """

    interception_id: str
    number: int
    begin_milliseconds: int
    provider: str
    model: str | None
    path: str
    received: Request = field(repr=False)
    sent: OutgoingRequest = field(repr=False)
    secrets: Sequence[Secret]


class AttemptFiles:
    """Those of one attempt. Each step may raise OSError; nothing is to be told after that but `close`."""

    def __init__(
        self, folder: DumpFolder, places: Places, attempt: Attempt, *, most_bytes: int = MOST_FILE_BYTES
    ) -> None:
        self._folder = folder
        self._attempt = attempt
        self._most_bytes = most_bytes
        secrets = [secret.reveal() for secret in attempt.secrets]
        # A key may have been presented with its scheme before it.
        secrets += [secret.strip().rpartition(" ")[2] for secret in secrets]
        sent_headers = _sent_headers(attempt.sent)
        secrets += secrets_in(attempt.received.headers, attempt.received.target)
        secrets += secrets_in(sent_headers, attempt.sent.target)
        self._needles = Needles(secrets)
        self._place = self._placed(places)
        self._request: _Written | None = None
        self._response: _Written | None = None
        self.files = 0
        try:
            self._begin_request(sent_headers)
        except BaseException:
            self.abandon()
            raise

    @property
    def written_bytes(self) -> int:
        """What is in its files so far."""
        return sum(one.file.size_bytes for one in (self._request, self._response) if one is not None)

    def request_data(self, data: bytes) -> None:
        """A piece of the request's body."""
        if self._request is not None:
            self._request.feed(data)

    def request_end(self) -> None:
        """All of the request's body is there: an answer may take minutes, and it would be held for as long."""
        if self._request is not None:
            self._request.end("")

    def response_head(self, status: int, headers: Headers) -> None:
        """The answer's head. Its body is that of an event stream or not."""
        needles = Needles(secrets_in(headers), besides=self._needles)
        kind = next((value for name, value in headers if name.lower() == "content-type"), "")
        is_stream = "stream" in kind.lower()
        body = DumpedBody("body as it came", headers, needles, is_stream=is_stream)
        self._response = self._new(".resp.txt", body)
        self._response.text(
            f"# answer of the upstream, {self._which()}",
            f"HTTP/1.1 {status}",
            *head_lines(headers, needles),
        )

    def response_data(self, data: bytes) -> None:
        """A piece of the answer's body."""
        if self._response is not None:
            self._response.feed(data)

    def close(self, how: str, lost_bytes: int) -> None:
        """The attempt is over: complete where `how` is empty, else that says why not.

        `lost_bytes` are those that there was no room for on their way here.
        """
        how = self._needles.masked_text(how)
        lost = f"# {lost_bytes} bytes are not here: they came faster than they could be written" if lost_bytes else ""
        if self._request is not None:
            # Of what there was no room for, the rest of a streamed body may be a part.
            self._request.end(lost if self._response is None else "")
        if self._response is not None:
            size_bytes = self._response.size_bytes
            end = f"broke off after {size_bytes} bytes: {how}" if how else f"complete: {size_bytes} bytes of body"
            self._response.end(lost or f"# {end}")
        elif how:
            error = self._new(".req_error.txt", None)
            error.text(f"# no answer, {self._which()}", how)
            error.end(lost)

    def abandon(self) -> None:
        """Close what is open and write nothing more."""
        for one in (self._request, self._response):
            if one is not None:
                one.file.close()

    def _placed(self, places: Places) -> Place:
        attempt = self._attempt
        again = "" if attempt.number == 1 else f"-{attempt.number}"
        rest = f"{attempt.interception_id}{again}"
        if attempt.model is None:
            return places.of_pass_through(
                attempt.provider, attempt.path, attempt.begin_milliseconds, rest, self._needles
            )
        stem = f"{attempt.begin_milliseconds}-{rest}"
        return places.of_turn(attempt.provider, attempt.model, stem, self._needles)

    def _begin_request(self, headers: Headers) -> None:
        sent, received, needles = self._attempt.sent, self._attempt.received, self._needles
        port = port_of(sent.scheme, sent.port)
        body = DumpedBody("body as it was sent", headers, needles, is_stream=False)
        self._request = request = self._new(".req.txt", body)
        request.text(
            f"# request as it was sent to {sent.scheme}://{authority_of(sent.host, port)}, {self._which()}",
            f"{sent.method} {shown_target(sent.target, needles)} HTTP/1.1",
            *head_lines(headers, needles),
            "",
            "# request as it was received",
            f"{received.method} {shown_target(received.target, needles)} HTTP/1.1",
            *head_lines(received.headers, needles),
        )
        if sent.body:
            request.feed(sent.body)
        if not sent.streamed:
            self.request_end()

    def _which(self) -> str:
        attempt = self._attempt
        return f"attempt {attempt.number} of interception {attempt.interception_id}"

    def _new(self, ending: str, body: DumpedBody | None) -> "_Written":
        file = self._folder.new_file(self._place, ending)
        self.files += 1
        return _Written(file, body, self._most_bytes)


class _Written:
    """One file, up to its largest size."""

    __slots__ = ("_has_ended", "_is_full", "_most_bytes", "body", "file")

    def __init__(self, file: DumpFile, body: DumpedBody | None, most_bytes: int) -> None:
        self.file = file
        self.body = body
        self._most_bytes = most_bytes
        self._is_full = False
        self._has_ended = False

    @property
    def size_bytes(self) -> int:
        """Of the body, as it came."""
        return 0 if self.body is None else self.body.size_bytes

    def text(self, *lines: str) -> None:
        self._write("".join(f"{line}\n" for line in lines).encode("latin-1", "replace"))

    def feed(self, data: bytes) -> None:
        if self.body is None:
            return
        if self._is_full:
            self.body.size_bytes += len(data)
            return
        self._write_all(self.body.feed(data))

    def end(self, last_line: str) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        if self.body is not None and not self._is_full:
            self._write_all(self.body.end())
        if last_line and not self._is_full:
            self.text(last_line)
        self.file.close()

    def _write_all(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self._write(piece)

    def _write(self, data: bytes) -> None:
        if not data or self._is_full:
            return
        if self.file.size_bytes + len(data) > self._most_bytes:
            self._is_full = True
            self.file.write(data[: self._most_bytes - self.file.size_bytes])
            data = b"\n# cut here: a file of a dump holds no more\n"
        self.file.write(data)


def _sent_headers(sent: OutgoingRequest) -> Headers:
    """All headers as they left, those that are written last as well."""
    head = request_head(sent, host_line(sent.scheme, sent.host, port_of(sent.scheme, sent.port)))
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    return tuple(_pair(line) for line in lines)


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.strip(" \t")
