"""What credentiald makes of its peers: every rpc of both listeners gets a clear status for any bytes as its message.

The first byte of an input chooses the rpc, the second who asks; the rest is the message. A real credentiald on unix
sockets in this process, with a real database in a temporary folder, answers.
"""

import asyncio
import atexit
import contextlib
import shutil
import tempfile
from pathlib import Path

import grpc
from drawbridge.v1 import (
    admin_service_pb2,
    credential_service_pb2,
    explain_service_pb2,
    record_service_pb2,
    usage_service_pb2,
    user_key_service_pb2,
)
from google.protobuf.descriptor import MethodDescriptor

from tests.support import credentiald
from tests.support.credentiald import bearer

MAIN = (credential_service_pb2, record_service_pb2, user_key_service_pb2, explain_service_pb2, usage_service_pb2)
METHODS: list[tuple[bool, MethodDescriptor]] = [
    (module is admin_service_pb2, method)
    for module in (*MAIN, admin_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if not method.client_streaming and not method.server_streaming
]
# A peer may hear of its own mistakes and of trouble; never that we do not know what happened.
BAD = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
RPC_SECONDS = 10.0
WORDS = [
    b"\x0a",
    b"\x12",
    b"\x1a\x02",
    b"\x08\x01",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"openai",
    b"ann",
    b"../",
    b"%",
    b"\0",
]
SEEDS = [bytes([number, caller]) for number in range(len(METHODS)) for caller in range(2)] + [
    bytes([number, 0, 10, 6]) + b"openai" for number in range(len(METHODS))
]
LOOP = asyncio.new_event_loop()
FOLDER = Path(tempfile.mkdtemp(prefix="drawbridge-fuzz-"))
# It ends with the process, which has nothing to keep.
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
_STACK = contextlib.AsyncExitStack()


async def _started() -> credentiald.Running:
    running = await _STACK.enter_async_context(credentiald.running(FOLDER))
    await running.make_provider("openai", key="sk-fuzz")
    await running.make_user("ann")
    return running


_RUNNING = LOOP.run_until_complete(_started())


def one_input(data: bytes) -> None:
    if len(data) < 2:
        return
    is_admin, method = METHODS[data[0] % len(METHODS)]
    token = _RUNNING.admin_token if data[1] % 2 == 0 else _RUNNING.bridge_token
    LOOP.run_until_complete(_ask(is_admin, method, token, data[2:]))


async def _ask(is_admin: bool, method: MethodDescriptor, token: str, message: bytes) -> None:
    channel = _RUNNING.administration if is_admin else _RUNNING.main
    rpc = channel.unary_unary(f"/{method.containing_service.full_name}/{method.name}")
    code = await rpc(message, metadata=bearer(token), timeout=RPC_SECONDS).code()
    assert code not in BAD, (method.full_name, code, message)
