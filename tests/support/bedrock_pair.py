"""The real pair with a provider `aws` at a fake Bedrock, in each of the ways in which a provider gets its credentials.

async with bedrock_pair(folder, "container") as at:
    ... at.pair.url("aws") ...
    at.bedrock.requests
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from moto.server import ThreadedMotoServer
from moto.sts.models import AssumedRole, sts_backends

from tests.fakes.aws import CANARY, AwsEndpoints, aws_endpoints, chain_environment
from tests.fakes.bedrock import FakeBedrock, running_bedrock
from tests.fakes.bedrock_auth import Accepted
from tests.support.aws import ROLE
from tests.support.bedrock import MODEL
from tests.support.pair import Pair, running_pair

MODES = ("bearer", "pair", "environment", "container", "role")
KEY_ID, SECRET, SESSION_TOKEN = "AKIAUPSTREAM", f"{CANARY}/secret+", f"{CANARY}-session-token"
BEARER = f"{CANARY}-bedrock-api-key"
_PAIR = {"BEDROCK_ACCESS_KEY": KEY_ID, "BEDROCK_ACCESS_KEY_SECRET": SECRET}
_FIELDS = {
    "bearer": {"KEY": BEARER},
    "pair": _PAIR,
    "role": {**_PAIR, "BEDROCK_ROLE_ARN": ROLE},
}


@dataclass(frozen=True, kw_only=True)
class BedrockPair:
    """What `bedrock_pair` yields. `aws` are the endpoints of the chain, which the mode `container` asks."""

    pair: Pair
    bedrock: FakeBedrock
    aws: AwsEndpoints

    def all_verified(self) -> set[str]:
        """Who the requests are from; each must be from whom Bedrock knows, without anything of the client's."""
        found = set()
        for sent in self.bedrock.requests:
            assert sent.signer is not None, sent.refused
            seen = repr(sent.headers).encode() + sent.target.encode() + sent.body
            assert self.pair.token.encode() not in seen
            if sent.signer.bearer is not None:
                assert not [name for name, _ in sent.headers if name.lower().startswith("x-amz-")]
            found.add(sent.signer.bearer or sent.signer.access_key_id or "")
        return found


@asynccontextmanager
async def bedrock_pair(
    folder: Path, mode: str, *, providers: Mapping[str, Mapping[str, str]] | None = None, lifetime_seconds: float = 3600
) -> AsyncIterator[BedrockPair]:
    """The pair with the provider `aws` in one of MODES, and with more; `{bedrock}` in a value is Bedrock's URL."""
    async with AsyncExitStack() as stack:
        bedrock = await stack.enter_async_context(running_bedrock())
        aws = stack.enter_context(aws_endpoints())
        aws.lifetime_seconds = lifetime_seconds
        bedrock.given = given_by(aws)
        environ = {"AWS_REGION": bedrock.region}
        match mode:
            case "bearer":
                bedrock.accept_bearer(BEARER)
            case "pair":
                bedrock.accept(KEY_ID, SECRET)
            case "environment":
                bedrock.accept(KEY_ID, SECRET, SESSION_TOKEN)
                names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
                environ |= dict(zip(names, (KEY_ID, SECRET, SESSION_TOKEN), strict=True))
            case "container":
                environ |= chain_environment(aws, "container")
            case _:
                bedrock.given = given_by_moto
                environ["AWS_ENDPOINT_URL_STS"] = stack.enter_context(moto())
        at = {"TYPE": "bedrock", "BASE_URL": bedrock.url, "BEDROCK_MODEL": MODEL, **_FIELDS.get(mode, {})}
        more = {
            name: {key: value.replace("{bedrock}", bedrock.url) for key, value in fields.items()}
            for name, fields in (providers or {}).items()
        }
        pair = await stack.enter_async_context(running_pair(folder, {"aws": at, **more}, **environ))
        yield BedrockPair(pair=pair, bedrock=bedrock, aws=aws)


def given_by(aws: AwsEndpoints) -> Callable[[str], Accepted | None]:
    """The keys that these endpoints have given, as long as they are good."""

    def given(access_key_id: str) -> Accepted | None:
        end = aws.given.get(access_key_id)
        if end is None:
            return None
        serial = int(access_key_id[-4:])
        return Accepted(
            secret=f"{CANARY}-secret-{serial}",
            session_token=f"{CANARY}-session-{serial}",
            expire_time=datetime.fromtimestamp(end, UTC),
        )

    return given


def roles_at_moto() -> Sequence[AssumedRole]:
    """The sessions that moto's STS has made."""
    return sts_backends["123456789012"]["aws"].assumed_roles


def given_by_moto(access_key_id: str) -> Accepted | None:
    """The keys of roles that moto's STS has let somebody assume."""
    for role in roles_at_moto():
        if role.access_key_id == access_key_id:
            return Accepted(
                secret=role.secret_access_key,
                session_token=role.session_token,
                expire_time=role.expiration.replace(tzinfo=UTC),
            )
    return None


@contextmanager
def moto() -> Iterator[str]:
    """The URL of an STS that somebody else wrote."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()
