"""`credentiald models`: what models cost, so that records say what requests cost."""

from collections.abc import Callable, Mapping
from typing import Any

import click
from drawbridge.v1 import admin_service_pb2 as pb
from drawbridge.v1 import model_pb2
from google.protobuf.field_mask_pb2 import FieldMask

from credentiald.cli.options import Destination, administers
from credentiald.cli.output import Output, text_of, to_dict
from credentiald.prices import parse_price_micros, written_usd

Command = Callable[..., None]

# Heading to field of the contract, in the order of printing.
PRICES = {
    "INPUT": "input_price_micros",
    "OUTPUT": "output_price_micros",
    "CACHE READ": "cache_read_price_micros",
    "CACHE WRITE": "cache_write_price_micros",
}
COLUMNS = {"PROVIDER": "provider", "MODEL": "name", **{heading: heading for heading in PRICES}}
# What stands for a price that is not known, where it is to replace one that is.
_NOT_KNOWN = "none"


_KINDS = {
    "input_price_micros": "input",
    "output_price_micros": "output",
    "cache_read_price_micros": "cached input",
    "cache_write_price_micros": "written-to-cache input",
}


def _price(context: click.Context, parameter: click.Parameter, text: str | None) -> int | str | None:
    """Micro-dollars per million tokens; `none` as it is."""
    if text is None or text == _NOT_KNOWN:
        return text
    try:
        return parse_price_micros(text)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def _price_options(command: Command) -> Command:
    """Gives a command a parameter for each field of PRICES."""
    for heading, field in reversed(PRICES.items()):
        flag = f"--{heading.lower().replace(' ', '-')}"
        meaning = f"USD per million {_KINDS[field]} tokens, such as 3 or 0.075; {_NOT_KNOWN} where it is not known."
        command = click.option(flag, field, callback=_price, metavar="USD", help=meaning)(command)
    return command


@click.group()
def models() -> None:
    """What models cost.

    Prices are in USD per million tokens. They count for what is recorded from then on; what has no price is shown as
    unpriced.
    """


@models.command()
@click.argument("provider")
@click.argument("name", metavar="MODEL")
@_price_options
@administers()
def create(destination: Destination, output: Output, provider: str, name: str, **given: int | str | None) -> None:
    """Give a model of a provider its prices.

    MODEL is its name as clients ask for it, or as the provider maps it for the upstream.
    """
    model = _model(provider, name, given)
    with destination.connect() as connection:
        made = connection.call(connection.admin.CreateModel, pb.CreateModelRequest(model=model))
        output.changed(made, f"created model '{name}' of provider '{provider}'")


@models.command("list")
@click.option("--provider", default="", metavar="NAME", help="Of this provider.")
@administers()
def list_models(destination: Destination, output: Output, provider: str) -> None:
    """All models with prices, by provider."""
    with destination.connect() as connection:
        request = pb.ListModelsRequest(provider=provider)
        found = map(to_dict, connection.pages(connection.admin.ListModels, request, lambda page: page.models))
        output.listing(found if output.as_json else map(_with_prices, found), COLUMNS)


@models.command()
@click.argument("provider")
@click.argument("name", metavar="MODEL")
@administers()
def show(destination: Destination, output: Output, provider: str, name: str) -> None:
    """One model with its prices."""
    with destination.connect() as connection:
        found = connection.call(connection.admin.GetModel, pb.GetModelRequest(provider=provider, name=name))
    output.account(found, _echo_model)


@models.command()
@click.argument("provider")
@click.argument("name", metavar="MODEL")
@click.option("--etag", default="", help="Change only this version, as `show` printed it.")
@_price_options
@administers()
def update(
    destination: Destination, output: Output, provider: str, name: str, etag: str, **given: int | str | None
) -> None:
    """Change the prices that are given and no others.

    What is recorded already keeps its cost.
    """
    paths = [field for field, price in given.items() if price is not None]
    if not paths:
        raise click.UsageError("nothing to change: give a price")
    model = _model(provider, name, given)
    model.etag = etag
    with destination.connect() as connection:
        request = pb.UpdateModelRequest(model=model, update_mask=FieldMask(paths=paths))
        changed = connection.call(connection.admin.UpdateModel, request)
        output.changed(changed, f"updated model '{name}' of provider '{provider}'")


@models.command()
@click.argument("provider")
@click.argument("name", metavar="MODEL")
@click.option("--etag", default="", help="Delete only this version, as `show` printed it.")
@administers()
def delete(destination: Destination, output: Output, provider: str, name: str, etag: str) -> None:
    """Forget the prices of a model.

    What is recorded already keeps its cost.
    """
    with destination.connect() as connection:
        request = pb.DeleteModelRequest(provider=provider, name=name, etag=etag)
        gone = connection.call(connection.admin.DeleteModel, request)
        output.changed(gone, f"deleted model '{name}' of provider '{provider}'")


def _model(provider: str, name: str, given: Mapping[str, int | str | None]) -> model_pb2.Model:
    known: dict[str, Any] = {field: price for field, price in given.items() if isinstance(price, int)}
    return model_pb2.Model(provider=provider, name=name, **known)


def _with_prices(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its prices in USD, under their headings."""
    return row | {heading: _usd(row[field]) for heading, field in PRICES.items()}


def _usd(price_micros: int | None) -> str | None:
    return None if price_micros is None else written_usd(price_micros)


def _echo_model(found: Mapping[str, Any]) -> None:
    for field in ("id", "provider", "name"):
        click.echo(f"{field}: {text_of(found[field])}")
    for heading, field in PRICES.items():
        usd = _usd(found[field])
        click.echo(f"{heading.lower()}: {'-' if usd is None else f'{usd} USD per million tokens'}")
    for field in ("etag", "create_time", "update_time"):
        click.echo(f"{field}: {text_of(found[field])}")
