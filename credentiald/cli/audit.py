"""`credentiald audit`: what administrators did, which credentials were released, and whether that is all of it."""

from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from credentiald.cli import audit_file
from credentiald.cli.options import Destination, administers
from credentiald.cli.output import Output, echo_columns, echo_json, printable, text_of, to_dict
from credentiald.cli.records import moment

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

KINDS = ("genesis", "start", "act", "release", "refusals", "lost", "unattributed", "archived")
_COLUMNS = ("SEQUENCE", "TIME", "KIND", "WHO", "WHAT", "OUTCOME", "USER", "PROVIDER", "SOURCE", "DETAILS")
_DETAIL_CHARACTERS = 100


@click.group()
def audit() -> None:
    """Who administered what, and which credentials were released.

    Each entry holds the hash of the one before it, so that whoever has an earlier end of the chain can prove that
    nothing was changed since.
    """


audit.add_command(audit_file.archive)
audit.add_command(audit_file.verify)


@audit.command()
@administers()
def head(destination: Destination, output: Output) -> None:
    """Print where the chain ends: SEQUENCE:HASH. Keep it somewhere else."""
    from drawbridge.v1 import admin_service_pb2 as pb

    with destination.connect() as connection:
        found = connection.call(connection.admin.GetAuditHead, pb.GetAuditHeadRequest())
    if output.as_json:
        echo_json(to_dict(found))
    else:
        click.echo(f"{found.sequence}:{printable(found.hash)}")


@audit.command("list")
@click.option("--since", callback=moment, metavar="TIME", help="From then on: a time in UTC, or 7d for a week ago.")
@click.option("--until", callback=moment, metavar="TIME", help="Before then.")
@click.option("--user", default="", metavar="NAME", help="Of or about this user (name or id).")
@click.option("--provider", default="", metavar="NAME", help="About this provider.")
@click.option("--service", default="", metavar="NAME", help="Of or about this service (name or id).")
@click.option("--kind", type=click.Choice(KINDS), help="Only these.")
@click.option(
    "--limit", default=100, show_default=True, type=click.IntRange(min=1), metavar="N", help="At most this many."
)
@administers()
def list_entries(
    destination: Destination,
    output: Output,
    since: "Timestamp | None",
    until: "Timestamp | None",
    limit: int,
    kind: str | None,
    **wanted: str,
) -> None:
    """Entries, the latest first."""
    from drawbridge.v1 import admin_service_pb2 as pb

    if since is not None and until is not None and since.ToNanoseconds() > until.ToNanoseconds():
        raise click.UsageError("--since is after --until: nothing lies between them")
    request = pb.ListAuditEntriesRequest(
        start_time=since, end_time=until, kind=kind or "", page_size=min(limit, 1000), **wanted
    )
    with destination.connect() as connection:
        pages = connection.pages(connection.admin.ListAuditEntries, request, lambda page: page.entries)
        rows = [to_dict(one) for one in islice(pages, limit)]
    if output.as_json:
        echo_json(rows)
    else:
        echo_columns([list(_COLUMNS), *(_line(row) for row in rows)])


@audit.command("hash")
@administers()
def hash_secret(destination: Destination, output: Output) -> None:
    """Print how the audit tells of a secret: read from a prompt, or from stdin.

    To find out whether a key that turned up somewhere was ever stored here: look for the hash in what
    'credentiald audit list --json' prints.
    """
    from drawbridge.v1 import admin_service_pb2 as pb

    from credentiald.cli.secrets_input import read_key

    secret = read_key("secret")
    with destination.connect() as connection:
        found = connection.call(connection.admin.GetAuditHash, pb.GetAuditHashRequest(secret=secret.reveal()))
    if output.as_json:
        echo_json(to_dict(found))
    else:
        click.echo(printable(found.hash))


def _line(row: dict[str, Any]) -> list[str]:
    who = row["service"] or row["caller_username"] or row["service_id"] or row["caller_user_id"]
    cells = (
        row["sequence"],
        row["time"],
        row["kind"],
        who,
        row["what"],
        row["outcome"],
        row["username"] or row["user_id"],
        row["provider"],
        row["source"],
    )
    return [*(text_of(cell) for cell in cells), _details(row)]


def _details(row: dict[str, Any]) -> str:
    parts = [f"{one['field']}: {_shown(one['old'])} -> {_shown(one['new'])}" for one in row["changes"]]
    parts += [f"{one['field']}={_shown(one['new'])}" for one in row["asked"]]
    parts += [f"revision {one['revision']} {one['kind']} {one['name']}" for one in row["revisions"] if not row["what"]]
    parts += [f"{one['field']}={one['hash'][:24]}…" for one in row["secrets"]]
    parts += [f"{row['count']} times"] if row["kind"] == "refusals" else []
    parts += [row[name] for name in ("credential_id", "interception_id") if row[name]]
    parts += [row["peer"]] if row["kind"] == "refusals" and row["peer"] else []
    text = printable("; ".join(parts))
    return text if len(text) <= _DETAIL_CHARACTERS else text[:_DETAIL_CHARACTERS] + "…"


def _shown(value: str | None) -> str:
    return "(none)" if value is None else value
