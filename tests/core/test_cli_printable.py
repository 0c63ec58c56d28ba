"""Nothing that credentiald answers steers a terminal: here each text is hostile, whichever field it is in."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import grpc
import pytest
from drawbridge.v1 import (  # noqa: F401 - what they import is found by its name
    admin_service_pb2,
    explain_service_pb2,
    usage_service_pb2,
    user_key_service_pb2,
)
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from credentiald.cli.root import cli
from tests.fakes.admin_service import FakePlane
from tests.support.credentiald_cli import administer

HOSTILE = "\x1b]0;owned\x07\x9b31m\u202e\nforged: yes"
# Each command that prints what credentiald answers, with what it must be given.
COMMANDS = (
    "users create ann", "users delete ann", "users list", "users resume ann", "users show ann", "users suspend ann",
    "tokens create --user ann", "tokens list", "tokens revoke t-1",
    "services create one --role bridge", "services delete one", "services list", "services rotate one",
    "services set-sans one dns:one.example",
    "providers check corp", "providers create corp --type openai", "providers delete corp", "providers health corp",
    "providers health", "providers list", "providers show corp", "providers update corp --display-name Corp",
    "keys add corp", "keys delete corp", "keys list", "keys list --user ann", "keys order corp k-1",
    "keys remove corp k-1", "keys set corp",
    "models create corp gpt-5 --input 1", "models delete corp gpt-5", "models list", "models show corp gpt-5",
    "models update corp gpt-5 --input 1",
    "explain corp --user ann",
    "records interceptions", "records sessions", "records show i-1",
    "records usage --by day,user,provider,model,client", "records usage --by model,client --csv",
    "sealing retire k-1", "sealing rotate", "sealing rotate --no-wait", "sealing status",
    "audit hash", "audit head", "audit list",
)  # fmt: skip
# Those that read files of this machine, and have tests of their own.
OTHERS = {("init",), ("serve",), ("config", "check"), ("audit", "archive"), ("audit", "verify")}


def filled(of: Descriptor, number: int) -> Message:
    """A message with every field set: texts hostile, numbers and enums by that number."""
    message = message_factory.GetMessageClass(of)()
    if of.full_name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
        message.FromSeconds(number)
        return message
    for field in of.fields:
        # The first page is the last.
        if field.name != "next_page_token":
            fill(message, field, number)
    return message


def fill(message: Message, field: FieldDescriptor, number: int) -> None:
    kind, held = field.message_type, getattr(message, field.name)
    if kind is None:
        if field.is_repeated:
            held.append(plain(field, number))
        else:
            setattr(message, field.name, plain(field, number))
    elif not kind.GetOptions().map_entry:
        (held.add() if field.is_repeated else held).CopyFrom(filled(kind, number))
    elif (value := kind.fields_by_name["value"]).message_type is None:
        held[HOSTILE] = plain(value, number)
    else:
        held[HOSTILE].CopyFrom(filled(value.message_type, number))


def plain(field: FieldDescriptor, number: int) -> Any:
    if field.enum_type is not None:
        values = field.enum_type.values
        return values[number % len(values)].number
    of_type = {FieldDescriptor.TYPE_STRING: HOSTILE, FieldDescriptor.TYPE_BYTES: HOSTILE.encode()}
    return of_type.get(field.type, bool(number % 2) if field.type == FieldDescriptor.TYPE_BOOL else number)


class Hostile(grpc.GenericRpcHandler):
    """Answers whatever it is asked with a filled message."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.asked: list[str] = []

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        service, method = call.method.strip("/").split("/")
        self.asked.append(method)
        answer = descriptor_pool.Default().FindServiceByName(service).methods_by_name[method].output_type
        return grpc.unary_unary_rpc_method_handler(
            lambda _, context: filled(answer, self._number), None, lambda told: told.SerializeToString()
        )


@pytest.fixture(params=range(7))
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[FakePlane, Hostile]]:
    """Where one answers, and what it was asked. What commands print goes by enums and numbers, so there are several."""
    plane, handler = FakePlane(address=f"unix:{tmp_path}/admin.sock"), Hostile(request.param)
    server = grpc.server(ThreadPoolExecutor(max_workers=2), handlers=[handler])
    server.add_insecure_port(plane.address)
    server.start()
    yield plane, handler
    server.stop(grace=None).wait()


def test_no_text_of_an_answer_steers_the_terminal_whichever_field_it_is_in(hostile):
    plane, handler = hostile
    steered = []
    for command in COMMANDS:
        handler.asked.clear()
        result = administer(plane, *command.split(), stdin="sk-a-key", code=None)
        assert handler.asked, f"{command}: {result.output}"
        lines = (result.stdout + result.stderr).split("\n")
        steered += [(command, line) for line in lines if not line.isprintable() or line.startswith("forged")]
    assert steered == []


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        yield path
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from leaves(found, (*path, name))


def test_no_command_is_forgotten_here():
    tried = {path for path in leaves(cli) for one in COMMANDS if one.split()[: len(path)] == list(path)}
    assert set(leaves(cli)) == tried | OTHERS
