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


class Lifetime(click.ParamType):
    """A duration that lies ahead, such as 30d."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The duration, or wrong usage."""
        try:
            lifetime = value if isinstance(value, timedelta) else parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not lifetime:
            self.fail("a token cannot expire at once: leave the option out for one that does not expire", param, ctx)
        return lifetime


@click.group()
def tokens() -> None:
    """Access tokens of users."""


@tokens.command()
@click.option("--user", required=True, metavar="NAME", help="Whose token (name or id).")
@click.option("--expires", type=Lifetime(), help="How long it is accepted, such as 30d; without it, until revoked.")
@administers()
def create(destination: Destination, output: Output, user: str, expires: timedelta | None) -> None:
    """Make a token and print it, alone. It is shown this once."""
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
    """Refuse the token with this id from now on."""
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
