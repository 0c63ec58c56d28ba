"""AdminService: the central keys of providers."""

from typing import Any

from drawbridge.v1 import admin_service_pb2 as pb
from drawbridge.v1 import provider_pb2

from credentiald import administer_keys as keys
from credentiald import administer_providers as providers
from credentiald.errors import KeyRequired
from credentiald.model import Material, Provider
from credentiald.plane import Plane
from credentiald.rpc import codec
from credentiald.rpc.admin_log import log_change


def _same(stored: Provider) -> Provider:
    return stored


class Keys:
    """Answers what is asked about central keys."""

    _plane: Plane

    async def SetCentralKey(self, request: pb.SetCentralKeyRequest, context: Any) -> provider_pb2.Provider:
        key = given_key(request)
        if key is None:
            raise KeyRequired(provider=request.provider)
        changed = await providers.update_provider(
            self._plane, request.provider, _same, expected_version=_version(request), central_key=key
        )
        log_change("central key set", request.provider)
        return codec.provider(changed)

    async def DeleteCentralKey(self, request: pb.DeleteCentralKeyRequest, context: Any) -> provider_pb2.Provider:
        changed = await providers.update_provider(
            self._plane, request.provider, _same, expected_version=_version(request), clear_central_key=True
        )
        log_change("central key deleted", request.provider)
        return codec.provider(changed)

    async def AddCentralKey(self, request: pb.AddCentralKeyRequest, context: Any) -> provider_pb2.Provider:
        key = given_key(request)
        if key is None:
            raise KeyRequired(provider=request.provider)
        changed = await keys.add_key(
            self._plane, request.provider, key, is_first=request.first, expected_version=_version(request)
        )
        added = changed.central_keys[0 if request.first else -1]
        log_change("central key added", request.provider, credential_id=added.credential_id)
        return codec.provider(changed)

    async def RemoveCentralKey(self, request: pb.RemoveCentralKeyRequest, context: Any) -> provider_pb2.Provider:
        changed = await keys.remove_key(
            self._plane, request.provider, request.credential_id, expected_version=_version(request)
        )
        log_change("central key removed", request.provider, credential_id=request.credential_id)
        return codec.provider(changed)

    async def OrderCentralKeys(self, request: pb.OrderCentralKeysRequest, context: Any) -> provider_pb2.Provider:
        changed = await keys.order_keys(
            self._plane, request.provider, request.credential_ids, expected_version=_version(request)
        )
        log_change("central keys ordered", request.provider)
        return codec.provider(changed)


def given_key(
    request: pb.CreateProviderRequest | pb.UpdateProviderRequest | pb.SetCentralKeyRequest | pb.AddCentralKeyRequest,
) -> Material | None:
    """The key material of a request, None where it has none."""
    return codec.material(request.central_key) if request.HasField("central_key") else None


def _version(
    request: pb.SetCentralKeyRequest
    | pb.DeleteCentralKeyRequest
    | pb.AddCentralKeyRequest
    | pb.RemoveCentralKeyRequest
    | pb.OrderCentralKeysRequest,
) -> int | None:
    return codec.version_of(request.etag, resource="provider", name=request.provider)
