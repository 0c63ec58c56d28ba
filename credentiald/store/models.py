"""Prices of models.

A model belongs to the id of its provider, because providers from the environment have models, too, and no row.
"""

import json
from collections.abc import Mapping
from datetime import datetime

from credentiald.errors import AlreadyExists, EtagMismatch, ModelNotFound
from credentiald.model import Model, ModelPrices
from credentiald.prices import PriceTable
from credentiald.store import revision
from credentiald.store.connection import Connection, Row
from credentiald.store.times import from_micros, to_micros

_PRICES = ModelPrices._fields


def get(conn: Connection, *, provider_id: str, provider_name: str, name: str) -> Model:
    """The model of this name, or ModelNotFound."""
    row = conn.execute(
        "SELECT m.*, ? AS provider_name FROM models AS m WHERE m.provider_id = ? AND m.name = ?",
        (provider_name, provider_id, name),
    ).fetchone()
    if row is None:
        raise ModelNotFound(provider=provider_name, model=name)
    return _model(row)


def list_page(
    conn: Connection, providers: Mapping[str, str], *, after: tuple[str, str] | None, limit: int
) -> list[Model]:
    """At most `limit` models by provider and name, those behind `after`, of these providers (name by id)."""
    rows = conn.execute(
        "SELECT m.*, p.value AS provider_name FROM json_each(?) AS p JOIN models AS m ON m.provider_id = p.key"
        " WHERE (p.value, m.name) > (?, ?) ORDER BY p.value, m.name LIMIT ?",
        (json.dumps(dict(providers)), *(after or ("", "")), limit),
    ).fetchall()
    return [_model(row) for row in rows]


def prices(conn: Connection) -> PriceTable:
    """All prices that there are."""
    rows = conn.execute(f"SELECT provider_id, name, {', '.join(_PRICES)} FROM models").fetchall()  # noqa: S608 - our names
    return {(row["provider_id"], row["name"]): _prices(row) for row in rows}


def create(conn: Connection, model: Model, *, now: datetime) -> Model:
    """A new model, at version 1. AlreadyExists for a taken id, or a name that the provider has."""
    inserted = conn.execute(
        f"INSERT INTO models (id, provider_id, name, {', '.join(_PRICES)}, version, create_time, update_time)"  # noqa: S608
        " VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?, ?) ON CONFLICT DO NOTHING",
        (model.id, model.provider_id, model.name, *model.prices, to_micros(now), to_micros(now)),
    )
    if not inserted.rowcount:
        raise AlreadyExists(resource="model", name=model.name)
    _record(conn, "model.created", model, now)
    return _again(conn, model)


def update(conn: Connection, model: Model, *, expected_version: int | None, now: datetime) -> Model:
    """The model with these prices, at the next version. ModelNotFound, EtagMismatch."""
    stored = _checked(conn, model, expected_version)
    conn.execute(
        f"UPDATE models SET {', '.join(f'{one} = ?' for one in _PRICES)}, version = ?, update_time = ? WHERE id = ?",  # noqa: S608
        (*model.prices, stored.version + 1, to_micros(now), stored.id),
    )
    _record(conn, "model.updated", stored, now)
    return _again(conn, model)


def delete(conn: Connection, model: Model, *, expected_version: int | None, now: datetime) -> None:
    """Remove the model. ModelNotFound, EtagMismatch."""
    stored = _checked(conn, model, expected_version)
    conn.execute("DELETE FROM models WHERE id = ?", (stored.id,))
    _record(conn, "model.deleted", stored, now)


def _again(conn: Connection, model: Model) -> Model:
    return get(conn, provider_id=model.provider_id, provider_name=model.provider_name, name=model.name)


def _checked(conn: Connection, model: Model, expected_version: int | None) -> Model:
    """The stored row, which has the expected version if any was."""
    stored = _again(conn, model)
    if expected_version is not None and expected_version != stored.version:
        raise EtagMismatch(resource="model", name=model.name)
    return stored


def _record(conn: Connection, kind: str, model: Model, now: datetime) -> None:
    name = f"{model.provider_name}/{model.name}"
    revision.record(conn, kind=kind, resource="model", resource_id=model.id, name=name, now=now)


def _prices(row: Row) -> ModelPrices:
    return ModelPrices(*(row[one] for one in _PRICES))


def _model(row: Row) -> Model:
    return Model(
        id=row["id"],
        provider_id=row["provider_id"],
        provider_name=row["provider_name"],
        name=row["name"],
        prices=_prices(row),
        version=row["version"],
        create_time=from_micros(row["create_time"]),
        update_time=from_micros(row["update_time"]),
    )
