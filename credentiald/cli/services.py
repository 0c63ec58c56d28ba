"""`credentiald services`: programs that call gRPC, and their tokens."""

import click
from drawbridge.v1 import admin_service_pb2 as pb
from drawbridge.v1 import user_pb2

from credentiald.cli.options import Destination, administers
from credentiald.cli.output import Output, to_dict

COLUMNS = {
    "NAME": "name",
    "ID": "id",
    "ROLE": "role",
    "ACTS FOR USERS": "may_act_for_users",
    "ONLY FOR PROVIDERS": "act_for_providers",
    "CREATED": "create_time",
    "TOKEN MADE": "rotate_time",
}
ROLES = {
    "bridge": user_pb2.SERVICE_ROLE_BRIDGE,
    "internal": user_pb2.SERVICE_ROLE_INTERNAL,
    "admin": user_pb2.SERVICE_ROLE_ADMIN,
}


@click.group()
def services() -> None:
    """Programs that call credentiald.

    Bridges, internal services, and programs that administer.
    """


@services.command()
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(list(ROLES)), help="What its token may do.")
@click.option("--may-act-for-users", is_flag=True, help="It may resolve for a user that it names by id.")
@click.option(
    "--provider",
    "providers",
    multiple=True,
    metavar="NAME",
    help="With --may-act-for-users: only for this provider. Repeat for several; without it, for all.",
)
@administers()
def create(
    destination: Destination,
    output: Output,
    name: str,
    role: str,
    may_act_for_users: bool,
    providers: tuple[str, ...],
) -> None:
    """Make a service and print its token.

    Nothing else goes to stdout, and the token is shown this once.
    """
    if providers and not may_act_for_users:
        raise click.UsageError("--provider says where the service may act for users: give --may-act-for-users too")
    service = user_pb2.Service(
        name=name, role=ROLES[role], may_act_for_users=may_act_for_users, act_for_providers=providers
    )
    with destination.connect() as connection:
        made = connection.call(connection.admin.CreateService, pb.CreateServiceRequest(service=service))
        output.new_token(made.service_token, field="service_token", beside={"service": made.service})


@services.command("list")
@administers()
def list_services(destination: Destination, output: Output) -> None:
    """All services, by name."""
    with destination.connect() as connection:
        found = connection.pages(connection.admin.ListServices, pb.ListServicesRequest(), lambda page: page.services)
        output.listing(map(to_dict, found), COLUMNS)


@services.command()
@click.argument("name")
@administers()
def rotate(destination: Destination, output: Output, name: str) -> None:
    """Make a new token and print it.

    Nothing else goes to stdout. The old token is refused from now on.
    """
    with destination.connect() as connection:
        made = connection.call(connection.admin.RotateServiceToken, pb.RotateServiceTokenRequest(name=name))
        output.new_token(made.service_token, field="service_token", beside={"service": made.service})


@services.command()
@click.argument("name")
@administers()
def delete(destination: Destination, output: Output, name: str) -> None:
    """Delete a service.

    Its token is refused from now on.
    """
    with destination.connect() as connection:
        gone = connection.call(connection.admin.DeleteService, pb.DeleteServiceRequest(name=name))
        output.changed(gone, f"deleted service '{name}'")
