"""What an administrator does with the prices of models. A change counts for what is recorded from then on."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from credentiald.errors import InvalidArgument
from credentiald.ids import canonical_uuid, uuid7
from credentiald.model import Model, ModelPrices
from credentiald.plane import Plane
from credentiald.prices import price_problem
from credentiald.store import models, providers
from credentiald.store.connection import Connection
from credentiald.validation import model_name_problem

# What an update may do to the prices: takes the stored ones, gives the new ones.
Edit = Callable[[ModelPrices], ModelPrices]


async def create_model(plane: Plane, *, provider: str, name: str, prices: ModelPrices, model_id: str = "") -> Model:
    """Save the prices of a model that has none yet. ProviderNotFound, AlreadyExists, InvalidArgument."""
    problem = model_name_problem(name)
    if problem is not None:
        raise InvalidArgument(field="model.name", problem=problem)
    _check_prices(prices)
    now = plane.clock()
    given_id = canonical_uuid(model_id) if model_id else uuid7(now)
    if given_id is None:
        raise InvalidArgument(field="model.id", problem="must be a UUID")
    return await plane.db.write(_create, plane, provider, name, prices, given_id, now=now)


def _create(
    conn: Connection, plane: Plane, provider: str, name: str, prices: ModelPrices, model_id: str, *, now: datetime
) -> Model:
    owner = plane.find_provider(conn, provider)
    draft = Model(
        id=model_id,
        provider_id=owner.id,
        provider_name=owner.name,
        name=name,
        prices=prices,
        create_time=now,
        update_time=now,
    )
    return models.create(conn, draft, now=now)


async def get_model(plane: Plane, *, provider: str, name: str) -> Model:
    """The model, or ProviderNotFound or ModelNotFound."""
    return await plane.db.read(_get, plane, provider, name)


def _get(conn: Connection, plane: Plane, provider: str, name: str) -> Model:
    owner = plane.find_provider(conn, provider)
    return models.get(conn, provider_id=owner.id, provider_name=owner.name, name=name)


async def list_models(plane: Plane, *, provider: str, after: tuple[str, str] | None, limit: int) -> list[Model]:
    """At most `limit` models by provider and name, those behind `after`; of one provider, or of all with "".

    Models of a provider that is not configured in the environment any more are kept, and come again with it.
    """
    return await plane.db.read(_list, plane, provider, after, limit)


def _list(conn: Connection, plane: Plane, provider: str, after: tuple[str, str] | None, limit: int) -> list[Model]:
    if provider:
        owner = plane.find_provider(conn, provider)
        names = {owner.id: owner.name}
    else:
        names = {provider_id: name for provider_id, (name, _) in providers.names(conn).items()}
        names |= {one.provider.id: name for name, one in plane.environment.items()}
    return models.list_page(conn, names, after=after, limit=limit)


async def update_model(plane: Plane, *, provider: str, name: str, edit: Edit, expected_version: int | None) -> Model:
    """Apply the edit and save it. ProviderNotFound, ModelNotFound, EtagMismatch, InvalidArgument."""
    return await plane.db.write(_update, plane, provider, name, edit, expected_version, now=plane.clock())


def _update(
    conn: Connection,
    plane: Plane,
    provider: str,
    name: str,
    edit: Edit,
    expected_version: int | None,
    *,
    now: datetime,
) -> Model:
    before = _get(conn, plane, provider, name)
    prices = edit(before.prices)
    _check_prices(prices)
    return models.update(conn, replace(before, prices=prices), expected_version=expected_version, now=now)


async def delete_model(plane: Plane, *, provider: str, name: str, expected_version: int | None) -> None:
    """Remove the model: what is recorded from now on is unpriced. ProviderNotFound, ModelNotFound, EtagMismatch."""
    await plane.db.write(_delete, plane, provider, name, expected_version, now=plane.clock())


def _delete(
    conn: Connection, plane: Plane, provider: str, name: str, expected_version: int | None, *, now: datetime
) -> None:
    models.delete(conn, _get(conn, plane, provider, name), expected_version=expected_version, now=now)


def _check_prices(prices: ModelPrices) -> None:
    for field, price_micros in prices._asdict().items():
        problem = None if price_micros is None else price_problem(price_micros)
        if problem is not None:
            raise InvalidArgument(field=f"model.{field}", problem=problem)
