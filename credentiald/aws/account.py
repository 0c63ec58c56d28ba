"""How a request to Bedrock gets its credential, told without asking AWS anything."""

from dataclasses import dataclass

from credentiald.aws.regions import Identity, Placement
from credentiald.aws.supply import SupplyState
from credentiald.errors import Refusal

CREDENTIALS = {
    Identity.BEARER: "bearer token",
    Identity.PAIR: "access key pair",
    Identity.AMBIENT: "ambient",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsAccount:
    """What is known. `refusal` is what a request would meet now; `placement` is None where the region is missing."""

    identity: Identity
    placement: Placement | None
    role_arn: str = ""
    role_session_name: str = ""
    states: tuple[SupplyState, ...] = ()
    refusal: Refusal | None = None
