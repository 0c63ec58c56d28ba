"""`credentiald audit verify` and `archive`: what works on the audit's file, on this machine, without a token."""

import getpass
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import click

from credentiald.cli.errors import Refused, WrongUsage
from credentiald.cli.options import json_option
from credentiald.cli.output import echo_json, printable
from credentiald.cli.records import moment

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from credentiald.audit_chain import Head, Verdict


@click.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--head", "head_text", metavar="SEQ:HASH", help="The chain must hold this end of it.")
@click.option(
    "--archive",
    "archives",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="What was archived of it: the chain must go on from there. Repeat for several.",
)
@click.option("--database", default="", metavar="URL", help="Where the store is. [env: CREDENTIALD_DATABASE]")
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    path: Path | None,
    head_text: str | None,
    archives: tuple[Path, ...],
    database: str,
    as_json: bool,
) -> None:
    """Follow the chain in the file on this machine, while credentiald runs or not.

    PATH is the audit's file, or an archive of it; by default the one beside the database. The exit code is 1 where
    anything was changed, taken out, put in or moved, and the first such entry is named. That entries are missing at the
    end, only --head can show.
    """
    from credentiald.audit_chain import parse_head

    try:
        # An empty one is none that was lost on the way here: not to be taken for "whole".
        expected = None if head_text is None else parse_head(head_text)
    except ValueError as error:
        raise WrongUsage(str(error)) from None
    file, database_id, known = _file_of(path, database)
    parts = sorted(
        ((one, _followed(one, None, database_id)) for one in archives), key=lambda part: part[1].beginning.sequence
    )
    for place, (one, found) in enumerate(parts):
        if expected is not None and found.beginning.sequence < expected.sequence <= found.head.sequence:
            parts[place] = (one, _followed(one, expected, database_id))
            expected = None
    verdict = _followed(file, expected, database_id, may_be_archive=database_id is None)
    gap = _gap(parts, file) or _missing(file, known)
    if as_json:
        echo_json(_as_json(verdict) | {"archives": [{"file": str(one), **_as_json(found)} for one, found in parts]})
        if gap:
            click.echo(gap, err=True)
    else:
        for one, found in parts:
            click.echo(f"archive {printable(str(one))}")
            _echo(found)
        _echo(verdict)
        if gap:
            click.echo(gap)
    if gap or any(found.damage is not None for found in (verdict, *(found for _, found in parts))):
        ctx.exit(1)


def _gap(parts: "Sequence[tuple[Path, Verdict]]", file: Path) -> str:
    """Where the parts of a chain do not meet, in a sentence; empty where they do."""
    from credentiald.store.audit_archive import is_linked

    if not parts:
        return ""
    if (first := parts[0][1].beginning).sequence:
        return f"gap: entries 1 to {first.sequence} are in another archive"
    for (one, found), (other, following) in pairwise(parts):
        if found.head != following.beginning:
            return f"gap: {printable(str(other))} does not go on where {printable(str(one))} ends, at {found.head}"
    last = parts[-1][1].head
    return (
        "" if is_linked(file, last) else f"gap: {printable(str(file))} does not go on where its archive ends, at {last}"
    )


def _missing(file: Path, known: "Head | None") -> str:
    """What the database knows of the chain and the file does not hold, in a sentence; empty where it does."""
    from credentiald.store import audit_heads, inspection

    if known is None or inspection.inspect(file, lambda conn: audit_heads.is_held(conn, known)):
        return ""
    return f"missing: the database knows of {known}, which is not in this file"


def _echo(verdict: "Verdict") -> None:
    from credentiald.audit_chain import DamageKind

    if verdict.damage is None:
        # Kinds are what the file says, which anybody may have written.
        counted = ", ".join(f"{count} {printable(kind)}" for kind, count in verdict.kinds.items())
        click.echo(f"whole: {sum(verdict.kinds.values())} entries ({counted})")
        if verdict.beginning.sequence:
            click.echo(f"begins after: {verdict.beginning}")
        click.echo(f"head: {verdict.head}")
        return
    click.echo(f"entry {verdict.damage.sequence}: {verdict.damage.kind.value}: {printable(verdict.damage.message)}")
    if verdict.damage.kind is not DamageKind.REWRITTEN:
        # A chain that was made anew is sound in itself: none of its heads is one to keep.
        click.echo(f"whole up to: {verdict.head}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--before",
    required=True,
    callback=moment,
    metavar="TIME",
    help="What was written before then: a time in UTC, or 90d for ninety days ago.",
)
@click.option("--database", default="", metavar="URL", help="Where the store is. [env: CREDENTIALD_DATABASE]")
@json_option
def archive(file: Path, before: "Timestamp", database: str, as_json: bool) -> None:
    """Move the oldest entries into a file of their own, on this machine, while credentiald runs or not.

    FILE is new. It is whole and on the disk before an entry says what is in it, and before anything is removed. Keep
    it: 'credentiald audit verify FILE' follows it by itself, and 'credentiald audit verify --archive FILE' shows that
    the audit goes on where it ends. Where this was interrupted, the same command goes on with it.
    """
    import sqlite3
    from datetime import UTC, datetime

    from credentiald.store import audit_archive
    from credentiald.store.times import to_micros

    path, _, _ = _file_of(None, database)
    try:
        part = audit_archive.archive(
            path,
            file,
            before_micros=before.ToMicroseconds(),
            by=_person(),
            now_micros=lambda: to_micros(datetime.now(UTC)),
        )
    except audit_archive.ArchiveRefused as refused:
        raise Refused(f"{printable(str(path))} was not archived: {printable(str(refused))}") from None
    except (sqlite3.Error, OSError) as error:
        raise Refused(f"{printable(str(path))} could not be archived: {printable(str(error))}") from None
    if as_json:
        echo_json(
            {
                "file": None if part is None else str(file),
                "entries": 0 if part is None else part.count,
                "sequence": None if part is None else part.head.sequence,
                "hash": None if part is None else part.head.hash.hex(),
            }
        )
    elif part is None:
        click.echo("nothing is older than that", err=True)
    else:
        click.echo(f"archived: {part.count} entries")
        click.echo(f"head: {part.head}")


def _person() -> str:
    """Who runs this, as the machine knows them."""
    try:
        return f"{getpass.getuser()} (uid {os.getuid()})"
    except (OSError, KeyError):
        return f"uid {os.getuid()}"


def _file_of(path: Path | None, url: str) -> "tuple[Path, str | None, Head | None]":
    """The file, and of the database beside it, where there is one, its id and the end of the chain that it knows."""
    import sqlite3

    from credentiald.store import audit_heads, inspection, meta
    from credentiald.store.audit import audit_path
    from credentiald.store.sqlite import database_path

    beside: Path | None = None
    try:
        if path is None or url:
            beside = database_path(url or os.environ.get("CREDENTIALD_DATABASE", "sqlite:///credentiald.db"))
    except ValueError as error:
        raise WrongUsage(str(error)) from None
    file = path or audit_path(beside or Path())
    if not file.exists():
        raise Refused(f"there is no audit at {printable(str(file))}")
    if beside is None and file.stem.endswith(".audit"):
        beside = file.with_name(file.stem.removesuffix(".audit") + file.suffix)
    if beside is None or not beside.exists():
        return file, None, None
    try:
        found, known = inspection.inspect(beside, lambda conn: (meta.find(conn), audit_heads.known(conn)))
    except sqlite3.Error:
        # What is verified is the audit: it says itself of which database it is.
        return file, None, None
    return file, None if found is None else found.database_id, known


def _followed(
    file: Path, expected: "Head | None", database_id: str | None, *, may_be_archive: bool = True
) -> "Verdict":
    import sqlite3

    from credentiald.store import audit as stored

    try:
        return stored.verify(file, expected=expected, database_id=database_id, may_be_archive=may_be_archive)
    except sqlite3.Error as error:
        raise Refused(f"{printable(str(file))} cannot be read: {error}") from None


def _as_json(verdict: "Verdict") -> dict[str, object]:
    damage = verdict.damage
    return {
        "whole": damage is None,
        "beginning": {"sequence": verdict.beginning.sequence, "hash": verdict.beginning.hash.hex()},
        "sequence": verdict.head.sequence,
        "hash": verdict.head.hash.hex(),
        "database_id": verdict.database_id,
        "kinds": verdict.kinds,
        "damage": damage and {"sequence": damage.sequence, "kind": damage.kind.value, "message": damage.message},
    }
