"""`credentiald tokens`: access tokens of users."""

from datetime import UTC, datetime, timedelta

import click
from drawbridge.v1 import admin_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from credentiald.cli.options import Destination, administers
from credentiald.cli.output import Output, to_dict
from daemonkit.durations import parse_duration

COLUMNS = {
    "ID": "id",
    "USER": "username",
    "CREATED": "create_time",
    "EXPIRES": "expire_time",
    "REVOKED": "revoke_time",
}


def lifetime_of(ctx: click.Context, param: click.Parameter, text: str | None) -> timedelta | None:
    """The duration that an option says, None where it was not given. Raises click's BadParameter."""
    if text is None:
        return None
    try:
        lifetime = parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if not lifetime:
        raise click.BadParameter("a token cannot expire at once: without the option it does not expire")
    return lifetime


@click.group()
def tokens() -> None:
    """Access tokens of users."""


@tokens.command()
@click.option("--user", required=True, metavar="NAME", help="Whose token (name or id).")
@click.option(
    "--expires",
    metavar="DURATION",
    callback=lifetime_of,
    help="How long it is accepted, such as 30d; without it, until it is revoked.",
)
@administers()
def create(destination: Destination, output: Output, user: str, expires: timedelta | None) -> None:
    """Make a token and print it.

    Nothing else goes to stdout, and the token is shown this once.
    """
    request = pb.CreateTokenRequest(user=user, expire_time=_from_now(expires))
    with destination.connect() as connection:
        made = connection.call(connection.admin.CreateToken, request)
        output.new_token(made.access_token, field="access_token", beside={"token": made.token})


@tokens.command("list")
@click.option("--user", default="", metavar="NAME", help="Only this user's (name or id).")
@administers()
def list_tokens(destination: Destination, output: Output, user: str) -> None:
    """All tokens, or those of one user; newest last."""
    with destination.connect() as connection:
        request = pb.ListTokensRequest(user=user)
        found = connection.pages(connection.admin.ListTokens, request, lambda page: page.tokens)
        output.listing(map(to_dict, found), COLUMNS)


@tokens.command()
@click.argument("token_id", metavar="ID")
@administers()
def revoke(destination: Destination, output: Output, token_id: str) -> None:
    """Refuse a token from now on."""
    with destination.connect() as connection:
        revoked = connection.call(connection.admin.RevokeToken, pb.RevokeTokenRequest(id=token_id))
        output.changed(revoked, f"revoked token {token_id} of user '{revoked.username}'")


def _from_now(lifetime: timedelta | None) -> Timestamp | None:
    if lifetime is None:
        return None
    moment = Timestamp()
    try:
        moment.FromDatetime(datetime.now(UTC) + lifetime)
    except OverflowError:
        raise click.UsageError("--expires lies too far ahead") from None
    return moment
