"""`credentiald sealing`: the keys that seal what is stored."""

import time
from typing import TYPE_CHECKING, Any

import click
from drawbridge.v1 import admin_service_pb2 as pb

from credentiald.cli.errors import Refused
from credentiald.cli.options import Destination, administers
from credentiald.cli.output import Output, echo_columns, text_of

if TYPE_CHECKING:
    from drawbridge.v1.sealing_pb2 import SealingStatus

    from credentiald.cli.connection import Connection

COLUMNS = {
    "KEY": "id",
    "STATE": "state",
    "SEALS": "secrets",
    "KEPT IN": "kept_in",
    "FIRST USED": "create_time",
    "RETIRED": "retire_time",
}
_POLL_SECONDS = 0.5
# AWS KMS or Vault may have to be asked.
_ROTATE_SECONDS = 30.0


@click.group()
def sealing() -> None:
    """The keys that seal what is stored.

    Central keys, users' keys and the secret of the database are sealed with one of them.
    """


@sealing.command()
@administers()
def status(destination: Destination, output: Output) -> None:
    """Which keys there are, and how far a rotation is."""
    with destination.connect() as connection:
        output.account(connection.call(connection.admin.GetSealingStatus, pb.GetSealingStatusRequest()), _echo)


@sealing.command()
@click.option("--no-wait", is_flag=True, help="Return when it has begun; credentiald goes on by itself.")
@administers()
def rotate(destination: Destination, output: Output, no_wait: bool) -> None:
    """Seal everything with a new key.

    A new key is made and kept in front of the others; where an operator gives the keys, the one that was put first is
    taken. Then what is stored is sealed anew, a little at a time, while credentiald answers as always. Where that was
    interrupted, it goes on by itself, and this command goes on with it.
    """
    with destination.connect() as connection:
        begun = connection.call(
            connection.admin.RotateSealingKey, pb.RotateSealingKeyRequest(), deadline_seconds=_ROTATE_SECONDS
        )
        ended = begun if no_wait else _awaited(connection, begun)
        output.account(ended, _echo)
        if ended.secrets_remaining and not no_wait:
            raise Refused(
                f"{ended.secrets_remaining} secrets keep an older seal, because they do not open: "
                "credentiald's log names them"
            )


@sealing.command()
@click.argument("key_id", metavar="KEYID")
@administers()
def retire(destination: Destination, output: Output, key_id: str) -> None:
    """Forget a key that seals nothing any more.

    Backups of the database that are older than the last rotation need it: keep it with them.
    """
    with destination.connect() as connection:
        status = connection.call(connection.admin.RetireSealingKey, pb.RetireSealingKeyRequest(id=key_id))
        kept_in = next((key.kept_in for key in status.keys if key.id == key_id), "")
        output.changed(
            status,
            f"nothing needs '{key_id}' any more: take it out of {kept_in}" if kept_in else f"forgot '{key_id}'",
        )


def _awaited(connection: "Connection", status: "SealingStatus") -> "SealingStatus":
    """The status when nothing is left that could be sealed anew."""
    told = -1
    while status.secrets_remaining > status.secrets_unreadable:
        if status.secrets_remaining != told:
            told = status.secrets_remaining
            click.echo(f"sealed anew: {status.secrets - told} of {status.secrets}", err=True)
        time.sleep(_POLL_SECONDS)
        status = connection.call(connection.admin.GetSealingStatus, pb.GetSealingStatusRequest())
    return status


def _echo(status: dict[str, Any]) -> None:
    click.echo(f"new keys are made in: {text_of(status['source'])}")
    left = status["secrets_remaining"]
    click.echo(f"secrets: {status['secrets']}, of which {left} are to be sealed anew")
    if status["secrets_unreadable"]:
        click.echo(f"not readable: {status['secrets_unreadable']} (credentiald's log names them)")
    echo_columns([list(COLUMNS), *([text_of(key[path]) for path in COLUMNS.values()] for key in status["keys"])])
