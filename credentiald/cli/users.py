"""`credentiald users`: people."""

import click
from drawbridge.v1 import admin_service_pb2 as pb
from drawbridge.v1.user_pb2 import User

from credentiald.cli.options import Destination, administers
from credentiald.cli.output import Output, to_dict

COLUMNS = {"NAME": "username", "ID": "id", "ADMIN": "admin", "STATE": "state", "CREATED": "create_time"}


@click.group()
def users() -> None:
    """People who may have tokens and keys."""


@users.command()
@click.argument("name")
@click.option("--admin", is_flag=True, help="Tokens of this user may administer.")
@administers(admin_names_address=False)
def create(destination: Destination, output: Output, name: str, admin: bool) -> None:
    """Make a user.

    Here --admin makes an administrator; an address stands before the noun:
    `credentiald --admin ADDRESS users create NAME`.
    """
    with destination.connect() as connection:
        request = pb.CreateUserRequest(user=User(username=name, admin=admin))
        output.changed(connection.call(connection.admin.CreateUser, request), f"created user '{name}'")


@users.command("list")
@administers()
def list_users(destination: Destination, output: Output) -> None:
    """All users, by name."""
    with destination.connect() as connection:
        found = connection.pages(connection.admin.ListUsers, pb.ListUsersRequest(), lambda page: page.users)
        output.listing(map(to_dict, found), COLUMNS)


@users.command()
@click.argument("name")
@administers()
def show(destination: Destination, output: Output, name: str) -> None:
    """One user, by name or id."""
    with destination.connect() as connection:
        output.resource(connection.call(connection.admin.GetUser, pb.GetUserRequest(user=name)))


@users.command()
@click.argument("name")
@administers()
def suspend(destination: Destination, output: Output, name: str) -> None:
    """Refuse the tokens of a user.

    All of them, from now on. Tokens and keys are kept.
    """
    with destination.connect() as connection:
        changed = connection.call(connection.admin.SuspendUser, pb.SuspendUserRequest(user=name))
        output.changed(changed, f"suspended user '{name}'")


@users.command()
@click.argument("name")
@administers()
def resume(destination: Destination, output: Output, name: str) -> None:
    """Accept the tokens of a user again."""
    with destination.connect() as connection:
        changed = connection.call(connection.admin.ResumeUser, pb.ResumeUserRequest(user=name))
        output.changed(changed, f"resumed user '{name}'")


@users.command()
@click.argument("name")
@administers()
def delete(destination: Destination, output: Output, name: str) -> None:
    """Delete a user with all tokens and keys."""
    with destination.connect() as connection:
        gone = connection.call(connection.admin.DeleteUser, pb.DeleteUserRequest(user=name))
        output.changed(gone, f"deleted user '{name}'")
