"""One gRPC connection for one command, and how its errors read.

Only imported when a command runs: `--help` and completion must not pay for grpc.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar, cast

import click
import grpc
from drawbridge.v1.admin_service_pb2_grpc import AdminServiceStub
from drawbridge.v1.explain_service_pb2_grpc import ExplainServiceStub
from drawbridge.v1.usage_service_pb2_grpc import UsageServiceStub
from drawbridge.v1.user_key_service_pb2_grpc import UserKeyServiceStub
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from credentiald.cli.errors import Refused
from credentiald.cli.target import Target
from credentiald.rpc.names import AUDIT_WAITING, STRICT, UNACKNOWLEDGED

DEADLINE_SECONDS = 10.0
_DOMAIN = "drawbridge"
# The token must not visit a proxy that the environment names for HTTP.
_NO_PROXY = ("grpc.enable_http_proxy", 0)
# One request may have been told of in more than the 4 MiB that gRPC takes by itself.
_LONGEST_ANSWER = ("grpc.max_receive_message_length", 16 * 1024 * 1024)
_CHANNEL_OPTIONS = (_NO_PROXY, _LONGEST_ANSWER)
# gRPC tells a handshake that failed as a connection that was lost.
_TLS_HINT = (
    "If it is: --admin-ca must have the authority of its certificate, which must be for this address; where it asks "
    "for client certificates, --admin-cert must be one of an authority that it knows."
)
_PLAINTEXT_HINT = "If it is, and speaks TLS there: --admin-ca is needed."

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
ItemT = TypeVar("ItemT")


class PageRequest(Protocol):
    """A request for one page of a list."""

    page_token: str


class Page(Protocol):
    """One page of a list; the token is empty on the last."""

    @property
    def next_page_token(self) -> str: ...


PageRequestT = TypeVar("PageRequestT", bound=PageRequest)
PageT = TypeVar("PageT", bound=Page)


class Connection:
    """The services of one credentiald, each call with token and deadline."""

    def __init__(self, channel: grpc.Channel, target: Target, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self.admin = AdminServiceStub(channel)
        self.user_keys = UserKeyServiceStub(channel)
        self.explain = ExplainServiceStub(channel)
        self.usage = UsageServiceStub(channel)
        self._target = target
        self._deadline_seconds = deadline_seconds
        # Whether something was done that the audit, which is strict, does not tell of yet.
        self.is_unwritten = False

    def call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[RequestT, ResponseT]",
        request: RequestT,
        *,
        deadline_seconds: float | None = None,
    ) -> ResponseT:
        """The answer to one call of a method of the stubs above. Raises Refused.

        `deadline_seconds` is for a call that takes its time.
        """
        seconds = deadline_seconds or self._deadline_seconds
        token = self._target.token
        metadata = () if token is None else (("authorization", f"Bearer {token.reveal()}"),)
        try:
            answer, call = method.with_call(request, timeout=seconds, metadata=metadata)
        except grpc.RpcError as error:
            raise refused(error, self._target, seconds) from None
        _warn_of_bridges(call)
        self.is_unwritten |= (AUDIT_WAITING, STRICT) in (call.trailing_metadata() or ())
        return answer

    def pages(
        self,
        method: "grpc.UnaryUnaryMultiCallable[PageRequestT, PageT]",
        request: PageRequestT,
        items: Callable[[PageT], Iterable[ItemT]],
    ) -> Iterator[ItemT]:
        """The items of all pages, in order, a call a page."""
        while True:
            page = self.call(method, request)
            yield from items(page)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


@contextmanager
def connected(target: Target) -> Iterator[Connection]:
    """A connection for the length of the block. Nothing is sent before the first call.

    Refused at its end, when the token is printed, where the audit is strict and does not tell of it yet.
    """
    with _channel(target) as channel:
        connection = Connection(channel, target)
        yield connection
    if connection.is_unwritten:
        raise Refused("the token is made and valid, but the audit, which is strict, does not tell of it yet")


def _channel(target: Target) -> grpc.Channel:
    if target.tls is None:
        return grpc.insecure_channel(target.address, options=_CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=target.tls.ca,
        private_key=target.tls.key.reveal().encode() if target.tls.key else None,
        certificate_chain=target.tls.certificate,
    )
    return grpc.secure_channel(target.address, credentials, options=_CHANNEL_OPTIONS)


def _warn_of_bridges(call: grpc.Call) -> None:
    """Say where a change is not obeyed yet: whoever revokes a token that leaked has to know."""
    if any(key == AUDIT_WAITING for key, _ in call.trailing_metadata() or ()):
        click.echo(
            "warning: it is done, but the audit cannot be written: the entry waits in credentiald's memory until it "
            "can. credentiald's log says more.",
            err=True,
        )
    told = [str(value) for key, value in call.trailing_metadata() or () if key == UNACKNOWLEDGED]
    if not told:
        return
    words = {"unknown": "it is not known which bridges have", "1": "one bridge has not"}
    who = words.get(told[0], f"{told[0]} bridges have not")
    click.echo(
        f"warning: the change is made, but {who} confirmed it in time: a request that was decided before may still go "
        "out there. credentiald's log names the bridges; they learn of it as soon as they can.",
        err=True,
    )


def refused(error: grpc.RpcError, target: Target, deadline_seconds: float) -> Refused:
    """The error as the person reads it: the refusal's own words, or what is wrong with the connection."""
    code, details, address = error.code(), error.details() or "", target.address
    info = _error_info(error)
    if info is not None:
        if info.reason == "ACCESS_TOKEN_MISSING" and target.tls and target.tls.certificate:
            hint = "and no service is known by a name of the certificate of --admin-cert: 'credentiald services list'"
            return Refused(details, hint, reason=info.reason)
        return Refused(details, reason=info.reason)
    if code is grpc.StatusCode.UNAVAILABLE:
        lines = f"cannot reach credentiald at {address}: is it running?", f"gRPC says: {details}"
        nobody_listens = "Connection refused" in details or address.startswith("unix:")
        hints = () if nobody_listens else (_TLS_HINT if target.tls else _PLAINTEXT_HINT,)
        return Refused(*lines, *hints)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Refused(
            f"credentiald at {address} did not answer within {deadline_seconds:g} s: "
            "a change may have been made all the same, so look before you repeat it"
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Refused(
            f"credentiald does not offer this at {address}: is it the listener for administration (by default "
            "port 7411), and as new as this program?"
        )
    return Refused(f"{details or 'no details'}", reason=code.name)


def _error_info(error: grpc.RpcError) -> error_details_pb2.ErrorInfo | None:
    """The one ErrorInfo of our domain, where the status has one."""
    try:
        # Every error that a stub raises is its call as well; the stubs for the checker do not say so.
        status = rpc_status.from_call(cast(grpc.Call, error))
    except (ValueError, DecodeError):
        return None
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == _DOMAIN:
            return info
    return None
