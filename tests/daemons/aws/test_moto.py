"""The questions to STS against somebody else's idea of it: moto's server."""

import pytest
from moto.server import ThreadedMotoServer

from tests.support.aws import ROLE, ask, checked, make_bedrock
from tests.support.credentiald import running


@pytest.fixture
def sts_url():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


async def test_a_role_from_a_pair_and_who_that_is(tmp_path, sts_url, use):
    use(AWS_ENDPOINT_URL_STS=sts_url)
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada@example.com")
        await make_bedrock(one, pair=True, role_arn=ROLE, external_id="ext", role_duration_seconds=900)
        found = await ask(one, token)
        assert found.key_id.startswith("ASIA")
        assert 800 < found.expire_time - one.plane.clock().timestamp() <= 900
        seen = await checked(one)
        assert (seen.reason, seen.answered_by) == (0, "provider-role")
        assert seen.arn == "arn:aws:sts::123456789012:assumed-role/bedrock/admin"


async def test_web_identity(tmp_path, sts_url, use):
    token_file = tmp_path / "jwt"
    token_file.write_text("header.payload.signature")
    use(AWS_ENDPOINT_URL_STS=sts_url, AWS_WEB_IDENTITY_TOKEN_FILE=str(token_file), AWS_ROLE_ARN=ROLE)
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one)
        assert (await ask(one, token)).key_id.startswith("ASIA")
        assert (await checked(one)).answered_by == "assume-role-with-web-identity"
