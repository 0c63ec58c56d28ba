"""`credentiald services`: programs that call gRPC, and their tokens."""

from datetime import timedelta

import click
from drawbridge.v1 import admin_service_pb2 as pb
from drawbridge.v1 import user_pb2

from credentiald.cli.options import Destination, administers
from credentiald.cli.output import Output, to_dict
from daemonkit.durations import parse_duration

COLUMNS = {
    "NAME": "name",
    "ID": "id",
    "ROLE": "role",
    "ACTS FOR USERS": "may_act_for_users",
    "ONLY FOR PROVIDERS": "act_for_providers",
    "CREATED": "create_time",
    "TOKEN MADE": "rotate_time",
    "OLD TOKEN UNTIL": "old_token_expire_time",
    "CERTIFICATES": "certificate_sans",
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
@click.option(
    "--certificate-san",
    "sans",
    multiple=True,
    metavar="SAN",
    help="A URI or DNS name in client certificates that are this service; no token is made then. Repeat for several.",
)
@click.option("--token", "with_token", is_flag=True, help="With --certificate-san: make a token as well.")
@administers()
def create(
    destination: Destination,
    output: Output,
    name: str,
    role: str,
    may_act_for_users: bool,
    providers: tuple[str, ...],
    sans: tuple[str, ...],
    with_token: bool,
) -> None:
    """Make a service and print its token.

    Nothing else goes to stdout, and the token is shown this once. A service that is known by its certificate gets a
    token only with --token.
    """
    if providers and not may_act_for_users:
        raise click.UsageError("--provider says where the service may act for users: give --may-act-for-users too")
    service = user_pb2.Service(
        name=name,
        role=ROLES[role],
        may_act_for_users=may_act_for_users,
        act_for_providers=providers,
        certificate_sans=sans,
    )
    request = pb.CreateServiceRequest(service=service, with_token=with_token)
    with destination.connect() as connection:
        made = connection.call(connection.admin.CreateService, request)
        if not made.service_token:
            output.changed(made.service, f"made service '{name}', which is known by its certificate")
            return
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
@click.option(
    "--keep-old",
    default="0",
    metavar="DURATION",
    help="How long the old token stays valid beside the new one, such as 10m; at most 30d, by default not at all.",
)
@click.option("--revoke-old", is_flag=True, help="Make no token; end the one that --keep-old has kept.")
@administers()
def rotate(destination: Destination, output: Output, name: str, keep_old: str, revoke_old: bool) -> None:
    """Make a new token and print it.

    Nothing else goes to stdout. The old token is refused from now on, unless --keep-old says how long it is kept. While
    one is kept, --keep-old is refused: the service has two tokens at most. Without --keep-old both are replaced.
    """
    kept = _duration(keep_old)
    if revoke_old and kept:
        raise click.UsageError("--keep-old and --revoke-old exclude each other")
    with destination.connect() as connection:
        if revoke_old:
            service = connection.call(
                connection.admin.RevokeOldServiceToken, pb.RevokeOldServiceTokenRequest(name=name)
            )
            output.changed(service, f"the old token of service '{name}' is refused from now on")
            return
        request = pb.RotateServiceTokenRequest(name=name)
        request.keep_old.FromTimedelta(kept)
        made = connection.call(connection.admin.RotateServiceToken, request)
        output.new_token(made.service_token, field="service_token", beside={"service": made.service})


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.UsageError(f"--keep-old: {error}") from None


@services.command("set-sans")
@click.argument("name")
@click.argument("sans", nargs=-1, metavar="[SAN]...")
@administers()
def set_sans(destination: Destination, output: Output, name: str, sans: tuple[str, ...]) -> None:
    """Say which client certificates are a service.

    These URIs and DNS names take the place of those that it had; without any, no certificate is the service.
    """
    request = pb.SetServiceCertificatesRequest(name=name, certificate_sans=sans)
    with destination.connect() as connection:
        service = connection.call(connection.admin.SetServiceCertificates, request)
        output.changed(service, f"service '{name}' is known by {len(service.certificate_sans)} names of certificates")


@services.command()
@click.argument("name")
@administers()
def delete(destination: Destination, output: Output, name: str) -> None:
    """Delete a service.

    Its tokens and certificates are refused from now on.
    """
    with destination.connect() as connection:
        gone = connection.call(connection.admin.DeleteService, pb.DeleteServiceRequest(name=name))
        output.changed(gone, f"deleted service '{name}'")
