"""`credentiald keys`: central keys of providers, and users' own keys. Keys go in and never come out."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
from drawbridge.v1 import admin_service_pb2 as pb
from drawbridge.v1 import user_key_service_pb2 as user_key_pb

from credentiald.cli.material import read_access_key_pair, read_api_key
from credentiald.cli.options import Destination, administers, check_one_user, names_user
from credentiald.cli.output import Output, to_dict
from credentiald.cli.secrets_input import read_key

if TYPE_CHECKING:
    from credentiald.cli.connection import Connection

USER_KEY_COLUMNS = {"PROVIDER": "provider", "TYPE": "type", "STATUS": "status", "KEY SET": "update_time"}
CENTRAL_KEY_COLUMNS = {"PROVIDER": "provider", "TYPE": "type", "CENTRAL KEY": "central_key_set", "ORIGIN": "origin"}


@click.group()
def keys() -> None:
    """Central keys of providers, and users' own keys."""


@keys.command("set")
@click.argument("provider")
@click.argument("surplus", nargs=-1, metavar="", type=click.UNPROCESSED)
@names_user
@click.option(
    "--bedrock-access-key-stdin",
    is_flag=True,
    help="Central key: an AWS access key (id, secret and perhaps session token, a line each).",
)
@click.option("--etag", default="", help="Central key: change only this version of the provider.")
@administers()
def set_key(
    destination: Destination,
    output: Output,
    provider: str,
    surplus: tuple[str, ...],
    user: str,
    mine: bool,
    bedrock_access_key_stdin: bool,
    etag: str,
) -> None:
    """Store a key.

    The central key, or with --user or --mine a user's own. It replaces an earlier one, also all of a pool, and is
    read from stdin, or from a prompt without echo.
    """
    _refuse_surplus(surplus)
    check_one_user(user, mine=mine)
    own = bool(user) or mine
    _check_central_options(own=own, bedrock_access_key_stdin=bedrock_access_key_stdin, etag=etag)
    with destination.connect(mine=mine) as connection:
        if own:
            request = user_key_pb.SetUserKeyRequest(provider=provider, user=user, key=read_key().reveal())
            stored = connection.call(connection.user_keys.SetUserKey, request)
            output.changed(stored.user_key, f"stored the user's key for provider '{provider}'")
        else:
            material = read_access_key_pair() if bedrock_access_key_stdin else read_api_key()
            central = pb.SetCentralKeyRequest(provider=provider, central_key=material, etag=etag)
            changed = connection.call(connection.admin.SetCentralKey, central)
            output.changed(changed, f"stored the central key of provider '{provider}'")


@keys.command()
@click.argument("provider")
@names_user
@click.option("--etag", default="", help="Central key: change only this version of the provider.")
@administers()
def delete(destination: Destination, output: Output, provider: str, user: str, mine: bool, etag: str) -> None:
    """Remove a key.

    The central key (all of a pool), or with --user or --mine a user's own.
    """
    check_one_user(user, mine=mine)
    own = bool(user) or mine
    _check_central_options(own=own, etag=etag)
    with destination.connect(mine=mine) as connection:
        if own:
            request = user_key_pb.DeleteUserKeyRequest(provider=provider, user=user)
            gone = connection.call(connection.user_keys.DeleteUserKey, request)
            output.changed(gone, f"removed the user's key for provider '{provider}'")
        else:
            central = pb.DeleteCentralKeyRequest(provider=provider, etag=etag)
            changed = connection.call(connection.admin.DeleteCentralKey, central)
            output.changed(changed, f"removed the central key of provider '{provider}'")


@keys.command()
@click.argument("provider")
@click.argument("surplus", nargs=-1, metavar="", type=click.UNPROCESSED)
@click.option("--first", is_flag=True, help="To be used before the keys that are there; after them otherwise.")
@click.option(
    "--bedrock-access-key-stdin",
    is_flag=True,
    help="An AWS access key (id, secret and perhaps session token, a line each).",
)
@click.option("--etag", default="", help="Change only this version of the provider.")
@administers()
def add(
    destination: Destination,
    output: Output,
    provider: str,
    surplus: tuple[str, ...],
    first: bool,
    bedrock_access_key_stdin: bool,
    etag: str,
) -> None:
    """Add a central key to a provider's pool.

    Up to five of one kind. The key is read from stdin, or from a prompt without echo.
    """
    _refuse_surplus(surplus)
    with destination.connect() as connection:
        material = read_access_key_pair() if bedrock_access_key_stdin else read_api_key()
        request = pb.AddCentralKeyRequest(provider=provider, central_key=material, first=first, etag=etag)
        changed = connection.call(connection.admin.AddCentralKey, request)
        count = len(changed.central_keys)
        # Nothing else tells keys apart.
        added = changed.central_keys[0 if first else -1].credential_id
        output.changed(changed, f"added the central key {added} to provider '{provider}', which has {count} now")


@keys.command()
@click.argument("provider")
@click.argument("credential_id")
@click.option("--etag", default="", help="Change only this version of the provider.")
@administers()
def remove(destination: Destination, output: Output, provider: str, credential_id: str, etag: str) -> None:
    """Remove one central key from a provider's pool.

    `credentiald providers show` has the ids.
    """
    with destination.connect() as connection:
        request = pb.RemoveCentralKeyRequest(provider=provider, credential_id=credential_id, etag=etag)
        changed = connection.call(connection.admin.RemoveCentralKey, request)
        output.changed(changed, f"removed the central key {credential_id} of provider '{provider}'")


@keys.command()
@click.argument("provider")
@click.argument("credential_ids", nargs=-1, required=True)
@click.option("--etag", default="", help="Change only this version of the provider.")
@administers()
def order(destination: Destination, output: Output, provider: str, credential_ids: tuple[str, ...], etag: str) -> None:
    """Say which central keys are used first.

    Those that are not named follow as they were.
    """
    with destination.connect() as connection:
        request = pb.OrderCentralKeysRequest(provider=provider, credential_ids=credential_ids, etag=etag)
        changed = connection.call(connection.admin.OrderCentralKeys, request)
        output.changed(changed, f"ordered the central keys of provider '{provider}'")


@keys.command("list")
@names_user
@administers()
def list_keys(destination: Destination, output: Output, user: str, mine: bool) -> None:
    """Which keys are stored.

    The central keys; with --user or --mine the user's own for the providers that allow them, as KEY_SAVED,
    USING_SHARED_KEY or NO_KEY.
    """
    check_one_user(user, mine=mine)
    with destination.connect(mine=mine) as connection:
        if user or mine:
            request = user_key_pb.ListUserKeysRequest(user=user)
            found = connection.pages(connection.user_keys.ListUserKeys, request, lambda page: page.user_keys)
            output.listing(map(to_dict, found), USER_KEY_COLUMNS)
        else:
            output.listing(_central_keys(connection), CENTRAL_KEY_COLUMNS)


def _central_keys(connection: "Connection") -> Iterator[dict[str, Any]]:
    """What is known of the central keys of each provider, named as in listings of user keys."""
    found = connection.pages(connection.admin.ListProviders, pb.ListProvidersRequest(), lambda page: page.providers)
    for row in map(to_dict, found):
        kept = ("display_name", "type", "central_key_set", "central_keys", "origin")
        yield {"provider": row["name"]} | {field: row[field] for field in kept}


def _refuse_surplus(surplus: tuple[str, ...]) -> None:
    if surplus:
        # click's own message would repeat the arguments, and the likely one is the key.
        raise click.UsageError("a key is never an argument: it is read from stdin or from a prompt")


def _check_central_options(*, own: bool, etag: str, bedrock_access_key_stdin: bool = False) -> None:
    if own and (etag or bedrock_access_key_stdin):
        raise click.UsageError("--etag and --bedrock-access-key-stdin are for central keys, not for a user's own")
