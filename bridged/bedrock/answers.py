"""What stands between an upstream's answer and the client's, where an answer does not simply pass. Sans-I/O.

An Answer is told what comes of the upstream's: `head` once, `feed` for each piece, `end`. What it says is to be asked
after each of them:

    headers   those of the client's answer, as soon as they are known; None where it is going to be `whole`
    feed      what goes to the client now, if anything; never before there are headers
    failure   what is to be told the client after the bytes so far
    whole     the whole answer, status and all, where nothing has gone to the client
    complete  the client has all of it already: nothing that the upstream says or fails to say can change that
"""

from dataclasses import dataclass
from typing import Protocol

from bridged.bedrock.errors import anthropic_error, refused_credential
from bridged.model import Headers, Refused, header_values

# An error or a count is short; more is not read.
MAX_GATHERED_BYTES = 1024 * 1024

OK = 200
_FIRST_ERROR = 400
# About the bytes that were, not those that go to the client.
_OF_THE_BODY = frozenset({"content-type", "content-length", "content-encoding"})


class Answer(Protocol):
    """What turns an upstream's answer into the client's; see the head of this module."""

    headers: Headers | None
    failure: Refused | None
    whole: "Gathered | None"
    complete: bool

    def head(self, status: int, headers: Headers) -> None: ...

    def feed(self, data: bytes) -> bytes: ...

    def end(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """A whole answer. `headers` are the upstream's; what they say of a body is true of this one."""

    status: int
    headers: Headers
    body: bytes


class Gathering:
    """An answer that is needed as a whole."""

    __slots__ = ("_data", "headers", "request_id", "status", "too_long")

    def __init__(self, status: int, headers: Headers) -> None:
        self.status, self.headers = status, headers
        self.request_id = next(iter(header_values(headers, "x-amzn-requestid")), "")
        self.too_long = False
        self._data = bytearray()

    def add(self, data: bytes) -> None:
        self.too_long = self.too_long or len(self._data) + len(data) > MAX_GATHERED_BYTES
        if not self.too_long:
            self._data += data

    @property
    def body(self) -> bytes:
        """Nothing if it was too long or is compressed: then it is no answer of AWS."""
        return b"" if self.too_long or is_compressed(self.headers) else bytes(self._data)

    def answer(self, status: int, body: bytes) -> Gathered:
        headers = _json_headers(self.headers, body, self.request_id)
        return Gathered(status=status, headers=headers, body=body)

    def unchanged(self) -> Gathered:
        headers = self.headers
        if not header_values(headers, "content-length"):
            headers = (*headers, ("Content-Length", str(len(self._data))))
        return Gathered(status=self.status, headers=headers, body=bytes(self._data))

    def error(self) -> Gathered:
        body = anthropic_error(self.status, self.headers, self.body, request_id=self.request_id)
        return self.answer(self.status, body)

    def refused_credential(self) -> Refused | None:
        return refused_credential(self.headers, self.body)


class PassingAnswer:
    """An answer that passes as it comes, but for errors about the provider's credential: see refused_credential."""

    __slots__ = ("_gathering", "complete", "failure", "headers", "whole")

    def __init__(self) -> None:
        self.headers: Headers | None = None
        self.failure: Refused | None = None
        self.whole: Gathered | None = None
        self.complete = False
        self._gathering: Gathering | None = None

    def head(self, status: int, headers: Headers) -> None:
        if status < _FIRST_ERROR:
            self.headers = headers
        else:
            self._gathering = Gathering(status, headers)

    def feed(self, data: bytes) -> bytes:
        if self._gathering is None:
            return data
        self._gathering.add(data)
        if self._gathering.too_long:
            # Its end may never come.
            self.end()
        return b""

    def end(self) -> None:
        if self._gathering is None:
            return
        self.failure = self._gathering.refused_credential()
        if self._gathering.too_long:
            self.failure = Refused("UPSTREAM_UNREACHABLE", "the upstream's error is too long to be one of AWS")
        self.whole = self._gathering.unchanged()


def refuse_other_success(status: int) -> None:
    """UPSTREAM_UNREACHABLE for what is neither 200 nor an error: these operations have no such answer."""
    if OK != status < _FIRST_ERROR:
        raise Refused(
            "UPSTREAM_UNREACHABLE",
            f"the upstream answered with status {status}, which Bedrock does not: "
            "an administrator may correct the base URL",
        )


def with_request_id(headers: Headers) -> Headers:
    """With AWS's id where Anthropic's SDKs look for one."""
    ids = header_values(headers, "x-amzn-requestid")
    if not ids or header_values(headers, "request-id"):
        return headers
    return (*headers, ("request-id", ids[0]))


def _json_headers(headers: Headers, body: bytes, request_id: str) -> Headers:
    kept = without_body_headers(with_request_id(headers) if request_id else headers)
    return (*kept, ("Content-Type", "application/json"), ("Content-Length", str(len(body))))


def without_body_headers(headers: Headers) -> Headers:
    return tuple([pair for pair in headers if pair[0].lower() not in _OF_THE_BODY])


def is_kind(headers: Headers, kind: str) -> bool:
    return any(value.partition(";")[0].strip().lower() == kind for value in header_values(headers, "content-type"))


def is_compressed(headers: Headers) -> bool:
    return any(value.lower() not in ("", "identity") for value in header_values(headers, "content-encoding"))
