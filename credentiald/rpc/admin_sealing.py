"""AdminService: the keys that seal what is stored."""

from typing import Any

from drawbridge.v1 import admin_service_pb2 as pb
from drawbridge.v1 import sealing_pb2

from credentiald.plane import Plane
from credentiald.rpc.admin_log import caller_name, log
from credentiald.rpc.times import timestamp
from credentiald.sealing_keys import KeyView, SealingStatus


class Sealing:
    """Answers what is asked about sealing keys."""

    _plane: Plane

    async def GetSealingStatus(self, request: pb.GetSealingStatusRequest, context: Any) -> sealing_pb2.SealingStatus:
        return _message(await self._plane.sealing_keys.status())

    async def RotateSealingKey(self, request: pb.RotateSealingKeyRequest, context: Any) -> sealing_pb2.SealingStatus:
        status = await self._plane.sealing_keys.rotate()
        log.info("sealing rotated", extra={"sealing_key": status.active_key_id, "caller": caller_name()})
        return _message(status)

    async def RetireSealingKey(self, request: pb.RetireSealingKeyRequest, context: Any) -> sealing_pb2.SealingStatus:
        status = await self._plane.sealing_keys.retire(request.id)
        log.info("sealing key retired", extra={"sealing_key": request.id, "caller": caller_name()})
        return _message(status)


def _message(status: SealingStatus) -> sealing_pb2.SealingStatus:
    return sealing_pb2.SealingStatus(
        active_key_id=status.active_key_id,
        source=status.source,
        keys=[_key(one) for one in status.keys],
        secrets=status.secrets,
        secrets_remaining=status.remaining,
        secrets_unreadable=status.unreadable,
    )


def _key(view: KeyView) -> sealing_pb2.SealingKey:
    return sealing_pb2.SealingKey(
        id=view.id,
        state=sealing_pb2.SealingKeyState.Value(f"SEALING_KEY_STATE_{view.state.value}"),
        kept_in=view.kept_in,
        secrets=view.secrets,
        create_time=timestamp(view.create_time),
        retire_time=timestamp(view.retire_time),
    )
