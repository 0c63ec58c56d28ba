"""`credentiald explain`: which source supplies the credential, and why the others do not."""

from typing import Any

import click
from drawbridge.v1.explain_service_pb2 import ExplainProviderRequest

from credentiald.cli.aws import echo_aws
from credentiald.cli.options import Destination, administers, check_one_user, names_user
from credentiald.cli.output import Output, echo_columns, printable, text_of

_CHECK_WORDS = {"PASSED": "passed", "REFUSED": "refused", "NOT_REACHED": "not reached"}
_ROW_COLUMNS = {
    "CENTRAL": "central_key",
    "USER KEYS": "user_keys",
    "FALLBACK": "fallback",
    "USER HAS KEY": "user_has_key",
    "CENTRAL STORED": "central_key_stored",
    "RESULT": "result",
    "WHY NOT": "mismatch",
}


@click.command()
@click.argument("provider")
@names_user
@click.option("--presented-key", is_flag=True, help="As if the request carried the user's own key.")
@click.option("--operation", default="", help="Judge this operation as well, such as anthropic.messages.")
@administers()
def explain(
    destination: Destination,
    output: Output,
    provider: str,
    user: str,
    mine: bool,
    presented_key: bool,
    operation: str,
) -> None:
    """Why a request gets its key, or none.

    The decision for one user and one provider, row by row, without any secret.
    """
    check_one_user(user, mine=mine, required=True)
    request = ExplainProviderRequest(provider=provider, user=user, presented_key=presented_key, operation=operation)
    with destination.connect(mine=mine) as connection:
        answer = connection.call(connection.explain.ExplainProvider, request)
    output.account(answer, echo_account)


def echo_account(account: dict[str, Any]) -> None:
    """Print the account for a person: the answer first, then what led to it."""
    answer = account["source"] or account["reason"]
    click.echo(f"{_name(account, 'provider', 'name')} for {_name(account, 'user', 'username')}: {text_of(answer)}")
    click.echo(f"  {text_of(account['message'])}")
    if account["credential_id"]:
        click.echo(f"  credential: {text_of(account['credential_id'])}")
    _echo_section("Inputs", [[row["name"], row["value"], row["origin"]] for row in account["inputs"]])
    _echo_section("Checks, in their order", [_check_cells(row) for row in account["checks"]])
    _echo_section("Policy table (> applies)", [["", *_ROW_COLUMNS], *map(_row_cells, account["rows"])])
    _echo_section("Sources (> chosen)", [_candidate_cells(row) for row in account["candidates"]])
    if account["aws"]:
        echo_aws(account["aws"])
    click.echo(f"\nRevision {account['revision']}")


def _name(account: dict[str, Any], resource: str, field: str) -> str:
    return text_of((account[resource] or {}).get(field))


def _echo_section(title: str, lines: list[list[str]]) -> None:
    click.echo(f"\n{title}")
    echo_columns([[printable(cell) for cell in line] for line in lines], indent="  ")


def _check_cells(row: dict[str, Any]) -> list[str]:
    refused = row["outcome"] == "REFUSED"
    return [row["name"], _CHECK_WORDS.get(row["outcome"], "-"), row["detail"] if refused else ""]


def _row_cells(row: dict[str, Any]) -> list[str]:
    return [">" if row["applies"] else "", *(row[field] for field in _ROW_COLUMNS.values())]


def _candidate_cells(row: dict[str, Any]) -> list[str]:
    return [">" if row["chosen"] else "", text_of(row["source"]), row["why"]]
