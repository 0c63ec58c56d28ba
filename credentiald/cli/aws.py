"""What AWS has to do with a provider, for people: steps on the way to a credential, where requests go, what is held."""

from typing import Any

import click

from credentiald.cli.output import echo_columns, printable, text_of

_OUTCOMES = {"ANSWERED": "answered", "NOTHING": "nothing", "FAILED": "FAILED", "RUNNING": "no answer yet"}
_KINDS = {"source": "the chain's credential", "role": "the role's credential"}


def echo_checked(found: dict[str, Any]) -> None:
    """Print what was found by trying a provider out: the answer first, then what led to it."""
    name = (found["provider"] or {}).get("name")
    click.echo(f"{text_of(name)}: {text_of(found['reason']) if found['reason'] else 'ok'}")
    click.echo(f"  {text_of(found['message'])}")
    if not found["source"]:
        return
    lines = [
        ["source", text_of(found["source"])],
        ["answered by", text_of(found["answered_by"])],
        ["account", text_of(found["account"])],
        ["identity", text_of(found["arn"])],
        ["expires", text_of(found["expire_time"])],
        *_role_lines(found),
        *_place_lines(found["place"]),
    ]
    echo_columns([line for line in lines if line[1] != "-"], indent="  ")
    echo_steps(found["steps"], indent="")


def echo_aws(account: dict[str, Any]) -> None:
    """Print how a request to a provider that reaches AWS gets its credential."""
    click.echo("\nAWS")
    lines = [["credential", text_of(account["credential"])], *_role_lines(account), *_place_lines(account["place"])]
    if not account["states"] and (account["credential"] == "ambient" or account["role_arn"]) and account["place"]:
        lines.append(["fetched", "not yet; 'credentiald providers check' tries it out"])
    echo_columns(lines, indent="  ")
    for state in account["states"]:
        _echo_state(state)


def echo_steps(steps: list[dict[str, Any]], *, indent: str) -> None:
    """Print steps in their order, each with its time and what it looks at."""
    if not steps:
        return
    click.echo(f"{indent}Steps, in their order")
    echo_columns([_step_cells(step) for step in steps], indent=f"{indent}  ")


def _step_cells(step: dict[str, Any]) -> list[str]:
    cells = (
        step["name"],
        _OUTCOMES.get(step["outcome"], "-"),
        f"{step['duration_seconds']:.2f} s",
        step["detail"] or f"({step['meaning']})",
    )
    return [printable(cell) for cell in cells]


def _role_lines(found: dict[str, Any]) -> list[list[str]]:
    if not found["role_arn"]:
        return []
    return [["role", text_of(found["role_arn"])], ["role session", text_of(found["role_session_name"])]]


def _place_lines(place: dict[str, Any] | None) -> list[list[str]]:
    if place is None:
        return []
    return [
        ["region", f"{text_of(place['region'])} (from {text_of(place['region_origin'])})"],
        ["endpoint", f"{text_of(place['base_url'])} (from {text_of(place['base_url_origin'])})"],
    ]


def _echo_state(state: dict[str, Any]) -> None:
    click.echo(f"  {_KINDS.get(state['kind'], text_of(state['kind']))}, as this process of credentiald has it")
    lines = [
        ["there", text_of(state["served"])],
        ["answered by", text_of(state["answered_by"])],
        ["fetched", text_of(state["fetch_time"])],
        ["expires", text_of(state["expire_time"])],
    ]
    if state["failed_attempts"]:
        lines += [
            ["OUTAGE since", text_of(state["outage_time"])],
            ["failed attempts", text_of(state["failed_attempts"])],
            ["tried again from", text_of(state["retry_time"])],
        ]
    if state["fetching"]:
        lines.append(["being fetched", "yes"])
    echo_columns(lines, indent="    ")
    if state["failed_attempts"] or not state["served"]:
        echo_steps(state["steps"], indent="    ")
