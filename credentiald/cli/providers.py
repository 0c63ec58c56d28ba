"""`credentiald providers`: configured upstream accounts."""

import click
from drawbridge.v1 import admin_service_pb2 as pb
from google.protobuf.field_mask_pb2 import FieldMask

from credentiald.catalog import CATALOG
from credentiald.cli.aws import echo_checked
from credentiald.cli.health import echo_health, echo_keys
from credentiald.cli.options import Destination, administers
from credentiald.cli.output import Output, to_dict
from credentiald.cli.provider_options import Given, given_paths, provider_of, provider_options, read_central_key

# credentiald itself takes up to 25 s.
CHECK_SECONDS = 30.0

COLUMNS = {
    "NAME": "name",
    "TYPE": "type",
    "ENABLED": "enabled",
    "CENTRAL KEY": "key_policy.central_key_enabled",
    "KEY SET": "central_key_set",
    "USER KEYS": "key_policy.user_keys_allowed",
    "KEY FALLBACK": "key_policy.central_key_fallback",
    "ORIGIN": "origin",
    "BASE URL": "base_url",
}


@click.group()
def providers() -> None:
    """Configured upstream accounts."""


@providers.command()
@click.argument("name")
@click.option("--type", "type_name", required=True, type=click.Choice(list(CATALOG)), help="Provider type.")
@provider_options
@administers()
def create(
    destination: Destination,
    output: Output,
    name: str,
    type_name: str,
    key_stdin: bool,
    bedrock_access_key_stdin: bool,
    **given: str | bool | None,
) -> None:
    """Make a provider.

    What is not given takes the default of the type.
    """
    provider = provider_of(name, given)
    provider.type = type_name
    with destination.connect() as connection:
        key = read_central_key(key_stdin=key_stdin, bedrock_access_key_stdin=bedrock_access_key_stdin)
        request = pb.CreateProviderRequest(provider=provider, central_key=key)
        output.changed(connection.call(connection.admin.CreateProvider, request), f"created provider '{name}'")


@providers.command("list")
@administers()
def list_providers(destination: Destination, output: Output) -> None:
    """All providers, by name.

    Those of the database and those of the environment of credentiald.
    """
    with destination.connect() as connection:
        found = connection.pages(connection.admin.ListProviders, pb.ListProvidersRequest(), lambda page: page.providers)
        output.listing(map(to_dict, found), COLUMNS)


@providers.command()
@click.argument("name")
@administers()
def show(destination: Destination, output: Output, name: str) -> None:
    """One provider, with its keys' ids and how they are: everything but the keys."""
    with destination.connect() as connection:
        found = connection.call(connection.admin.GetProvider, pb.GetProviderRequest(name=name))
        told = connection.call(connection.admin.GetProviderHealth, pb.GetProviderHealthRequest(name=name))
    output.resource(found, beside={"key_health": to_dict(told)["keys"]})
    if not output.as_json:
        echo_keys(to_dict(told)["keys"])


@providers.command()
@click.argument("name")
@click.option("--enabled/--disabled", "enabled", default=None, help="Whether requests are answered; keys are kept.")
@click.option("--clear-key", is_flag=True, help="Remove the stored central keys, all of them.")
@click.option("--default-send-actor-headers", is_flag=True, help="Follow the setting of the deployment again.")
@click.option("--etag", default="", help="Change only this version, as `show` printed it.")
@provider_options
@administers()
def update(
    destination: Destination,
    output: Output,
    name: str,
    clear_key: bool,
    default_send_actor_headers: bool,
    etag: str,
    key_stdin: bool,
    bedrock_access_key_stdin: bool,
    **given: str | bool | None,
) -> None:
    """Change what is given and nothing else."""
    paths = _changed_paths(given, default_send_actor_headers=default_send_actor_headers)
    takes_key = key_stdin or bedrock_access_key_stdin
    if clear_key and takes_key:
        raise click.UsageError("--clear-key excludes --key-stdin and --bedrock-access-key-stdin")
    if not (paths or clear_key or takes_key):
        raise click.UsageError("nothing to change: give an option that says what")
    provider = provider_of(name, given)
    provider.etag = etag
    with destination.connect() as connection:
        request = pb.UpdateProviderRequest(
            provider=provider,
            update_mask=FieldMask(paths=paths),
            central_key=read_central_key(key_stdin=key_stdin, bedrock_access_key_stdin=bedrock_access_key_stdin),
            clear_central_key=clear_key,
        )
        output.changed(connection.call(connection.admin.UpdateProvider, request), f"updated provider '{name}'")


@providers.command()
@click.argument("name")
@click.option("--etag", default="", help="Delete only this version, as `show` printed it.")
@administers()
def delete(destination: Destination, output: Output, name: str, etag: str) -> None:
    """Delete a provider with all its keys.

    The central key and the keys of users.
    """
    with destination.connect() as connection:
        gone = connection.call(connection.admin.DeleteProvider, pb.DeleteProviderRequest(name=name, etag=etag))
        output.changed(gone, f"deleted provider '{name}'")


@providers.command()
@click.argument("name")
@administers()
def check(destination: Destination, output: Output, name: str) -> None:
    """Try out what a provider's requests are made with.

    A stored key is opened. For a provider that reaches AWS, a credential is fetched now: which step answered, whose it
    is, until when, and how long each step took.
    """
    with destination.connect() as connection:
        request = pb.CheckProviderRequest(name=name)
        found = connection.call(connection.admin.CheckProvider, request, deadline_seconds=CHECK_SECONDS)
    output.account(found, echo_checked)
    if found.reason:
        raise SystemExit(1)


@providers.command()
@click.argument("name", default="")
@administers()
def health(destination: Destination, output: Output, name: str) -> None:
    """How providers are, by what bridges have told.

    Which central keys rest, why and until when, and which circuit breakers are not closed. Of one provider, or of all.
    """
    with destination.connect() as connection:
        if name:
            request = pb.GetProviderHealthRequest(name=name)
            output.account(connection.call(connection.admin.GetProviderHealth, request), echo_health)
        else:
            method, each = connection.admin.ListProviderHealth, pb.ListProviderHealthRequest()
            found = connection.pages(method, each, lambda page: page.providers)
            output.accounts(map(to_dict, found), echo_health)


def _changed_paths(given: Given, *, default_send_actor_headers: bool) -> list[str]:
    """The update mask: what was given, and what returns to its default by being named without a value."""
    paths = list(given_paths(given))
    if default_send_actor_headers and "send_actor_headers" in paths:
        raise click.UsageError("--default-send-actor-headers excludes --send-actor-headers and its opposite")
    return [*paths, "send_actor_headers"] if default_send_actor_headers else paths
