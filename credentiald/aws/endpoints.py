"""Regions and endpoints as the machine's AWS configuration and botocore's data have them. Reads files, no network."""

import os
from typing import Any

from credentiald.aws.failures import words_of
from credentiald.aws.quiet import new_session, published_data
from credentiald.aws.regions import (
    Identity,
    MachineSettings,
    Placement,
    Region,
    choose_region,
    control_base_url,
    mantle_url,
)
from credentiald.errors import RegionRequired
from credentiald.model import BedrockOptions, BedrockProtocol, Provider

# botocore reads the second only; AWS's other SDKs read the first, and so does source-2.
_REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")


def place(provider: Provider, identity: Identity) -> Placement:
    """Where a provider's requests go, or RegionRequired. Blocks: it reads AWS's files and loads botocore."""
    options = provider.bedrock or BedrockOptions()
    machine = machine_settings(new_session())
    region = choose_region(
        provider=provider.name,
        configured=options.region,
        base_url=provider.base_url,
        identity=identity,
        machine=machine,
    )
    if provider.base_url:
        return Placement(
            region=region,
            base_url=provider.base_url,
            base_url_origin="the provider's base URL",
            control_base_url=control_base_url(provider.base_url),
        )
    endpoints = _Endpoints(machine, region, provider.name)
    runtime = (
        mantle_url(endpoints.find("bedrock-runtime", use_dual_stack=True))
        if options.protocol is BedrockProtocol.MANTLE
        else endpoints.find("bedrock-runtime", use_dual_stack=machine.use_dual_stack)
    )
    return Placement(
        region=region,
        base_url=runtime,
        base_url_origin="the region",
        control_base_url=endpoints.find("bedrock", use_dual_stack=machine.use_dual_stack),
    )


def machine_settings(session: Any) -> MachineSettings:
    """The machine's region and kind of endpoints. A profile that cannot be read has none, and is said."""
    problem = ""
    found = {}
    for name in ("region", "use_fips_endpoint", "use_dualstack_endpoint"):
        try:
            found[name] = session.get_config_variable(name)
        except Exception as error:
            problem = f"the AWS profile: {words_of(error)}"
    # The variable that botocore itself reads for the region is looked at first here, so what is left is the profile's.
    region, origin = found.get("region") or "", "the AWS profile"
    for variable in _REGION_VARIABLES:
        if os.environ.get(variable):
            region, origin = os.environ[variable], variable
            break
    return MachineSettings(
        region=region,
        region_origin=origin if region else "",
        use_fips=bool(found.get("use_fips_endpoint")),
        use_dual_stack=bool(found.get("use_dualstack_endpoint")),
        problem=problem,
    )


class _Endpoints:
    """botocore's rule sets for one region. AWS_ENDPOINT_URL is not asked: a credential's host is the provider's."""

    def __init__(self, machine: MachineSettings, region: Region, provider: str) -> None:
        self._loader = published_data()
        self._machine = machine
        self._region = region
        self._provider = provider

    def find(self, service: str, *, use_dual_stack: bool) -> str:
        """The endpoint of a service, without a slash at the end."""
        from botocore.endpoint_provider import EndpointProvider
        from botocore.exceptions import BotoCoreError

        rules = self._loader.load_service_model(service, "endpoint-rule-set-1")
        try:
            found = EndpointProvider(rules, self._loader.load_data("partitions")).resolve_endpoint(
                Region=self._region.name, UseFIPS=self._machine.use_fips, UseDualStack=use_dual_stack
            )
        except BotoCoreError:
            raise RegionRequired(
                provider=self._provider,
                settings=f"a region with an endpoint of the kind that the machine asks for "
                f"(FIPS or dual stack); {self._region.name} has none",
            ) from None
        return str(found.url)
