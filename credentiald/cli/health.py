"""How a provider is, for people: its keys with what bridges told of them, and breakers."""

from collections.abc import Iterable, Sequence
from typing import Any

import click

from credentiald.cli.output import echo_columns, printable, text_of

_STATES = {"AVAILABLE": "available", "RESTING": "resting", "TO_BE_PROBED": "to be probed"}


def echo_health(found: dict[str, Any]) -> None:
    """Print one provider's health."""
    disabled = "" if found["enabled"] else ", disabled"
    click.echo(f"{printable(found['provider'])} ({printable(found['type'])}{disabled})")
    echo_keys(found["keys"], indent="  ")
    for bridge in found["bridges"]:
        click.echo(f"  Breakers of {_bridge(bridge)}, heard of {text_of(bridge['heard_time'])}")
        _echo(_breaker_lines(bridge["breakers"]), indent="    ")


def echo_keys(keys: Sequence[dict[str, Any]], *, indent: str = "") -> None:
    """Print keys with what bridges told of them."""
    click.echo(f"{indent}Keys, in the order of their use{'' if keys else ': none'}")
    for key in keys:
        until = f" until {key['rest_until']}" if key["rest_until"] else ""
        state = _STATES.get(key["state"], text_of(key["state"]))
        click.echo(f"{indent}  {printable(key['credential_id'])}  {state}{until}")
        if key["complaints"]:
            _echo(_complaint_lines(key["complaints"]), indent=f"{indent}    ")


def _echo(lines: Iterable[Iterable[object]], *, indent: str) -> None:
    echo_columns([[text_of(cell) for cell in line] for line in lines], indent=indent)


def _complaint_lines(complaints: Iterable[dict[str, Any]]) -> Iterable[Iterable[object]]:
    yield "TOLD BY", "KIND", "SINCE", "UNTIL", "TIMES", "STATUS", "ERROR"
    for one in complaints:
        status = one["http_status"] or None
        yield _bridge(one), one["kind"], one["since"], one["until"], one["strikes"], status, one["error"]


def _breaker_lines(breakers: Iterable[dict[str, Any]]) -> Iterable[Iterable[object]]:
    yield "OPERATION", "MODEL", "STATE", "SINCE", "FAILURES", "LAST ERROR"
    for one in breakers:
        yield one["operation"], one["model"], one["state"], one["since"], one["failures"], one["last_error"]


def _bridge(one: dict[str, Any]) -> str:
    return printable(f"{one['service'] or 'a deleted service'}/{one['bridge_instance_id']}")
