"""The part of AdminService that is about prices of models."""

from collections.abc import Callable, Sequence
from typing import Any

from drawbridge.v1 import admin_service_pb2 as pb
from drawbridge.v1 import model_pb2
from google.protobuf.empty_pb2 import Empty

from credentiald import administer_models as models
from credentiald.errors import InvalidArgument
from credentiald.model import Model, ModelPrices
from credentiald.plane import Plane
from credentiald.rpc import codec, masks, paging
from credentiald.rpc.admin_log import log_change
from credentiald.rpc.times import timestamp


class Models:
    """Models; Admin adds the rest of the service."""

    _plane: Plane
    _pages: paging.Pages

    async def CreateModel(self, request: pb.CreateModelRequest, context: Any) -> model_pb2.Model:
        wanted = request.model
        made = await models.create_model(
            self._plane, provider=wanted.provider, name=wanted.name, prices=_prices(wanted), model_id=wanted.id
        )
        log_change("model created", made.provider_name, model=made.name)
        return _message(made)

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> model_pb2.Model:
        return _message(await models.get_model(self._plane, provider=request.provider, name=request.name))

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        size = paging.size_of(request.page_size)
        list_filter = f"models/{request.provider}"
        after = self._pages.after(request.page_token, list_filter)
        # No name of a provider has a slash.
        provider, _, name = after.partition("/")
        found = await models.list_models(
            self._plane, provider=request.provider, after=(provider, name) if after else None, limit=size + 1
        )
        page, next_token = self._pages.cut(found, size, list_filter, lambda one: f"{one.provider_name}/{one.name}")
        return pb.ListModelsResponse(models=[_message(one) for one in page], next_page_token=next_token)

    async def UpdateModel(self, request: pb.UpdateModelRequest, context: Any) -> model_pb2.Model:
        wanted = request.model
        changed = await models.update_model(
            self._plane,
            provider=wanted.provider,
            name=wanted.name,
            edit=_edit(wanted, request.update_mask.paths),
            expected_version=codec.version_of(wanted.etag, resource="model", name=wanted.name),
        )
        log_change("model updated", changed.provider_name, model=changed.name)
        return _message(changed)

    async def DeleteModel(self, request: pb.DeleteModelRequest, context: Any) -> Empty:
        version = codec.version_of(request.etag, resource="model", name=request.name)
        await models.delete_model(self._plane, provider=request.provider, name=request.name, expected_version=version)
        log_change("model deleted", request.provider, model=request.name)
        return Empty()


def _prices(message: model_pb2.Model) -> ModelPrices:
    present = masks.present_fields(message)
    return ModelPrices(**{field: present.get(field) for field in ModelPrices._fields})


def _edit(message: model_pb2.Model, paths: Sequence[str]) -> Callable[[ModelPrices], ModelPrices]:
    """What an update does to the stored prices. A path that is none of ours is refused by name (AIP-134)."""
    if not paths:
        raise InvalidArgument(field="update_mask", problem="names nothing to change")
    for path in paths:
        if path not in ModelPrices._fields:
            raise InvalidArgument(field="update_mask", problem=f"'{path}' cannot be updated")
    given = {field: value for field, value in _prices(message)._asdict().items() if field in paths}
    return lambda stored: stored._replace(**given)


def _message(value: Model) -> model_pb2.Model:
    return model_pb2.Model(
        id=value.id,
        provider=value.provider_name,
        name=value.name,
        **value.prices._asdict(),
        etag=str(value.version),
        create_time=timestamp(value.create_time),
        update_time=timestamp(value.update_time),
    )
