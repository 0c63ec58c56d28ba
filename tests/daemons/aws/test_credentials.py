"""What a bridge gets for a Bedrock provider, in every mode, and that it is never somebody else."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from drawbridge.v1 import admin_service_pb2 as admin
from drawbridge.v1 import provider_pb2, user_key_service_pb2
from drawbridge.v1.error_reason_pb2 import ErrorReason

from credentiald.aws.regions import Identity
from credentiald.errors import RegionRequired
from tests.fakes.aws import EXPIRED, FAIL, HANG
from tests.support.aws import PAIR_ID, REGION, ROLE, Stream, ask, checked, explained, make_bedrock, pb
from tests.support.credentiald import bearer, running

RUNTIME = f"https://bedrock-runtime.{REGION}.amazonaws.com"


def pb_reason(name):
    return ErrorReason.Value(f"ERROR_REASON_{name}")


def source_of(answer):
    return provider_pb2.CredentialSource.Name(answer.source).removeprefix("CREDENTIAL_SOURCE_")


async def test_a_bearer_token_goes_to_the_default_region_and_aws_is_not_asked(tmp_path, aws, use):
    use(region="")
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one, key="bearer-token")
        answer = (await ask(one, token)).answer
        assert answer.credential.bearer_token.value == "bearer-token"
        assert answer.provider.base_url == "https://bedrock-runtime.us-east-1.amazonaws.com"
        assert answer.provider.bedrock.region == "us-east-1"
        assert answer.provider.bedrock.control_base_url == "https://bedrock.us-east-1.amazonaws.com"
        assert not answer.credential.HasField("expire_time")
        assert aws.calls == []


async def test_a_users_own_key_is_a_bearer_token_and_needs_no_region(tmp_path, aws, use):
    use(region="")
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one, flags=(False, True, False), role_arn=ROLE)
        own = user_key_service_pb2.SetUserKeyRequest(provider="aws", key="own-bedrock-key")
        await one.user_keys.SetUserKey(own, metadata=bearer(token))
        answer = (await ask(one, token)).answer
        assert (source_of(answer), answer.credential.bearer_token.value) == ("USER_KEY", "own-bedrock-key")
        presented = (await ask(one, token, presented_key=True)).answer
        assert source_of(presented) == "PRESENTED_KEY"
        assert presented.provider.base_url == "https://bedrock-runtime.us-east-1.amazonaws.com"
        assert aws.calls == []


async def test_a_pair_is_the_credential_and_aws_is_not_asked(tmp_path, aws, use):
    use()
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one, pair=True, region="eu-west-1")
        found = await ask(one, token)
        assert found.key_id == PAIR_ID
        assert found.answer.provider.bedrock.region == "eu-west-1"
        assert aws.calls == []


async def test_a_pair_with_nothing_but_a_base_url_works_behind_a_proxy(tmp_path, aws, use):
    use(region="")
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one, pair=True, base_url="https://proxy.example/bedrock")
        answer = (await ask(one, token)).answer
        assert (answer.provider.base_url, answer.provider.bedrock.region) == (
            "https://proxy.example/bedrock", "us-east-1",
        )  # fmt: skip
        account = await explained(one, token)
        assert account.aws.place.region_origin == "the default of a pair with a base URL"


@pytest.mark.parametrize("source", ["container", "imds"])
async def test_ambient_credentials(tmp_path, aws, use, source):
    use(source)
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one)
        found = await ask(one, token)
        assert found.key_id in aws.given
        assert found.expire_time == pytest.approx(aws.given[found.key_id], abs=0.001)
        assert (source_of(found.answer), found.answer.provider.base_url) == ("AMBIENT", RUNTIME)
        again = await ask(one, token)
        assert (again.key_id, aws.count(source)) == (found.key_id, 1)
        assert again.answer.credential.credential_id == found.answer.credential.credential_id


async def test_ambient_without_a_region_says_what_to_set(tmp_path, aws, use):
    use("container", region="")
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one)
        found = await ask(one, token)
        assert found.reason == "REGION_REQUIRED"
        assert "the provider's region, AWS_REGION, AWS_DEFAULT_REGION, the region of the AWS profile" in found.message
        assert aws.calls == []
        account = await explained(one, token)
        assert account.reason == pb_reason("REGION_REQUIRED")
        await make_bedrock(one, "by-host", base_url="https://bedrock-runtime.eu-west-3.amazonaws.com")
        assert (await ask(one, token, "by-host")).answer.provider.bedrock.region == "eu-west-3"


async def test_a_missing_region_that_many_ask_for_holds_on_to_none_of_them(tmp_path, aws, use):
    use("container", region="")
    async with running(tmp_path) as one:
        await make_bedrock(one)
        provider = await one.plane.db.read(one.plane.find_provider, "aws")
        with pytest.raises(RegionRequired):
            await one.plane.aws.placed(provider, Identity.AMBIENT, seconds=5)

        def refusal():
            with pytest.raises(RegionRequired) as caught:
                one.plane.aws.placement(provider, Identity.AMBIENT)
            return caught.value

        first, second = refusal(), refusal()
        assert first is not second
        assert first.facts == second.facts


@pytest.mark.parametrize("pair", [True, False])
async def test_a_role_is_assumed_for_each_user_by_name(tmp_path, aws, use, pair):
    use("container")
    async with running(tmp_path) as one:
        tokens = {name: (await one.make_user(name))[1] for name in ("ada@example.com", "bob")}
        options = {
            "external_id": "ext",
            "role_duration_seconds": 900,
            "session_tags": True,
            "set_source_identity": True,
        }
        await make_bedrock(one, pair=pair, role_arn=ROLE, **options)
        keys = {}
        for name, token in tokens.items():
            for _ in range(3):
                found = await ask(one, token)
                keys.setdefault(name, set()).add(found.key_id)
                assert found.expire_time == pytest.approx(aws.given[found.key_id], abs=0.001)
        assert [len(each) for each in keys.values()] == [1, 1]
        assert len(set.union(*keys.values())) == 2
        asked = aws.asked("sts")
        assert [call["RoleSessionName"] for call in asked] == list(tokens)
        assert all(call["signer"].startswith(PAIR_ID if pair else "ASIACONTAINER") for call in asked)
        assert asked[0]["RoleArn"] == ROLE
        assert asked[0]["ExternalId"] == "ext"
        assert asked[0]["DurationSeconds"] == "900"
        assert asked[0]["SourceIdentity"] == "ada@example.com"
        assert asked[0]["Tags.member.1.Value"] == "ada@example.com"
        assert aws.count("container") == (0 if pair else 1)


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        ("AccessDenied", "ROLE_NOT_ASSUMABLE", "check the role's trust policy"),
        ("ExpiredToken", "ROLE_NOT_ASSUMABLE", "has expired"),
        ("", "AMBIENT_CREDENTIALS_UNAVAILABLE", "provider-role: AWS failed"),
        ("Throttling", "AMBIENT_CREDENTIALS_UNAVAILABLE", "provider-role: AWS throttled it"),
    ],
)
@pytest.mark.parametrize("pair", [True, False])
async def test_a_role_that_cannot_be_assumed_is_a_refusal_and_not_the_identity_behind_it(
    tmp_path, aws, use, pair, code, reason, words
):
    use("container")
    aws.modes["sts"], aws.sts_code = FAIL, code
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one, pair=pair, role_arn=ROLE)
        found = await ask(one, token)
        assert (found.reason, found.key_id) == (reason, "")
        assert words in found.message
        assert "cAnArY" not in found.message
        # The source is left alone for a while.
        tries = aws.count("sts")
        for _ in range(5):
            assert (await ask(one, token)).reason == reason
        assert aws.count("sts") == tries
        account = await explained(one, token)
        assert account.reason == pb_reason(reason)
        assert account.aws.states[-1].failed_attempts == 1


async def test_an_ambient_chain_with_nothing_is_unavailable_and_tells_the_steps(tmp_path, aws, use):
    use()
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one)
        found = await ask(one, token)
        assert found.reason == "AMBIENT_CREDENTIALS_UNAVAILABLE"
        assert "steps tried: nothing from env, assume-role, " in found.message
        assert "container-role, iam-role; give the machine of credentiald a role" in found.message


async def test_clearing_a_bearer_token_returns_to_ambient(tmp_path, aws, use):
    use("container")
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one, key="bearer-token")
        assert (await ask(one, token)).answer.credential.bearer_token.value == "bearer-token"
        request = admin.UpdateProviderRequest(provider=provider_pb2.Provider(name="aws"), clear_central_key=True)
        await one.admin.UpdateProvider(request, metadata=bearer(one.admin_token))
        assert source_of((await ask(one, token)).answer) == "AMBIENT"


async def test_the_bridge_gets_what_it_needs_to_sign_and_nothing_of_the_role(tmp_path, aws, use):
    use()
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        rule = provider_pb2.BedrockModelRule(contains="/abc", family="claude-opus-4-5")
        await make_bedrock(
            one,
            pair=True,
            role_arn=ROLE,
            external_id="ext",
            model_rules=[rule],
            models={"opus": "us.opus"},
            region=REGION,
        )
        answer = (await ask(one, token, model="opus")).answer
        assert answer.upstream_model == "us.opus"
        assert answer.provider.bedrock == provider_pb2.BedrockOptions(
            region=REGION,
            model_rules=[rule],
            protocol=provider_pb2.BEDROCK_PROTOCOL_INVOKE_MODEL,
            control_base_url=f"https://bedrock.{REGION}.amazonaws.com",
        )


async def test_two_providers_share_no_credential(tmp_path, aws, use):
    use("container")
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        for name in ("one", "two"):
            await make_bedrock(one, name)
        keys = {(await ask(one, token, name)).key_id for name in ("one", "two")}
        assert (len(keys), aws.count("container")) == (2, 2)


async def test_a_change_of_configuration_is_a_new_credential(tmp_path, aws, use):
    use("container")
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one)
        before = await ask(one, token)
        provider = provider_pb2.Provider(name="aws", bedrock=provider_pb2.BedrockOptions(role_arn=ROLE))
        request = admin.UpdateProviderRequest(provider=provider)
        request.update_mask.paths.append("bedrock.role_arn")
        await one.admin.UpdateProvider(request, metadata=bearer(one.admin_token))
        after = await ask(one, token)
        assert before.key_id.startswith("ASIACONTAINER")
        assert after.key_id.startswith("ASIASTS")


async def test_many_waiters_are_one_fetch(tmp_path, aws, use):
    use("container")
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one)
        found = await asyncio.gather(*(ask(one, token) for _ in range(50)))
        assert len({each.key_id for each in found}) == 1
        assert aws.count("container") == 1


async def test_what_is_revoked_while_aws_is_asked_is_revoked(tmp_path, aws, use):
    use("container")
    aws.modes["container"] = HANG
    async with running(tmp_path) as one:
        user_id, token = await one.make_user("ada")
        await make_bedrock(one)
        waiting = asyncio.create_task(ask(one, token))
        while not aws.count("container"):
            await asyncio.sleep(0)
        await one.admin.SuspendUser(admin.SuspendUserRequest(user=user_id), metadata=bearer(one.admin_token))
        aws.modes["container"] = "ok"
        aws.released.set()
        assert (await waiting).reason == "USER_SUSPENDED"


async def test_a_batch_does_not_wait_for_aws(tmp_path, aws, use):
    use("container")
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one)
        await one.make_provider("plain", key="sk-plain")
        aws.modes["container"] = HANG
        stream = Stream(one)
        items = [pb.ResolveProviderRequest(provider=name, access_token=token) for name in ("aws", "plain", "aws")]
        async with asyncio.timeout(2):
            asked = await stream.ask(*items)
        assert [each.reason for each in asked] == ["ASK_SINGLY", "", "ASK_SINGLY"]
        aws.modes["container"] = "ok"
        aws.released.set()
        assert (await ask(one, token)).key_id in aws.given
        # From then on the batch has it, and it is kept.
        for _ in range(3):
            asked = await stream.ask(*items)
            assert [each.reason for each in asked] == ["", "", ""]
        assert len({each.key_id for each in asked} - {""}) == 1
        await stream.close()


async def test_a_check_tells_who_it_is_and_which_step_answered(tmp_path, aws, use):
    use("container")
    async with running(tmp_path) as one:
        await make_bedrock(one)
        await make_bedrock(one, "with-role", role_arn=ROLE)
        await make_bedrock(one, "pair", pair=True)
        found = {name: await checked(one, name) for name in ("aws", "with-role", "pair")}
        assert {name: each.answered_by for name, each in found.items()} == {
            "aws": "container-role", "with-role": "provider-role", "pair": "key-pair",
        }  # fmt: skip
        assert {each.account for each in found.values()} == {"123456789012"}
        assert found["pair"].arn.endswith(PAIR_ID)
        assert found["with-role"].role_session_name == aws.asked("sts")[0]["RoleSessionName"] == "admin"
        assert found["with-role"].HasField("expire_time")
        assert not found["pair"].HasField("expire_time")
        assert all(not each.reason for each in found.values())
        assert [step.name for step in found["with-role"].steps][-3:] == ["container-role", "provider-role", "identity"]
        assert found["aws"].place.region_origin == "AWS_REGION"
        # A check keeps nothing.
        assert list(one.plane.aws.states()) == []


async def test_a_check_tells_what_is_wrong(tmp_path, aws, use):
    use("container")
    async with running(tmp_path) as one:
        aws.modes["container"] = FAIL
        await make_bedrock(one)
        found = await checked(one)
        assert found.reason == pb_reason("AMBIENT_CREDENTIALS_UNAVAILABLE")
        assert [step.detail for step in found.steps if step.detail] == [
            "the container endpoint did not give credentials: it answered 500"
        ]
        assert found.steps[-1].duration_seconds > 2
        aws.modes |= {"container": "ok", "sts": FAIL}
        await make_bedrock(one, "with-role", role_arn=ROLE)
        found = await checked(one, "with-role")
        assert found.reason == pb_reason("ROLE_NOT_ASSUMABLE")
        assert (found.account, found.answered_by) == ("", "")


async def test_a_check_has_the_time_that_a_hanging_source_takes(tmp_path, aws, use):
    use("container")
    aws.modes["container"] = HANG
    async with running(tmp_path) as one:
        await make_bedrock(one)
        found = await checked(one)
        assert found.reason == pb_reason("AMBIENT_CREDENTIALS_UNAVAILABLE")
        assert (found.steps[-1].name, found.steps[-1].duration_seconds > 5) == ("container-role", True)


async def test_a_credential_of_which_aws_does_not_say_whose_it_is_is_still_one(tmp_path, aws, use):
    use("container")
    async with running(tmp_path) as one:
        aws.modes["identity"] = FAIL
        await make_bedrock(one)
        found = await checked(one)
        assert (found.reason, found.account, found.answered_by) == (0, "", "container-role")
        assert "did not say whose it is" in found.message


async def test_a_check_refuses_what_has_ended_as_a_request_would_be(tmp_path, aws, use):
    use("container")
    aws.modes["container"] = EXPIRED
    async with running(tmp_path) as one:
        await make_bedrock(one)
        found = await checked(one)
        assert found.reason == pb_reason("AMBIENT_CREDENTIALS_UNAVAILABLE")
        assert "container-role: it gave a credential that has expired" in found.message
        assert (found.answered_by, found.account, found.HasField("expire_time")) == ("", "", False)
        assert (found.steps[-1].name, found.steps[-1].detail) == (
            "container-role",
            "it gave a credential that has expired",
        )


@pytest.mark.parametrize("code", ["InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken"])
async def test_a_check_tells_that_a_credential_is_none_of_aws(tmp_path, aws, use, code):
    use()
    async with running(tmp_path) as one:
        aws.modes["identity"], aws.sts_code = FAIL, code
        await make_bedrock(one, pair=True)
        found = await checked(one)
        assert found.reason == pb_reason("KEY_POOL_EXHAUSTED")
        assert found.message.startswith("no credential of AWS: ")
        assert code in found.message
        assert found.answered_by == ""
        # A gateway in front of Bedrock may have pairs of its own making.
        await make_bedrock(one, "proxied", pair=True, base_url="https://proxy.example/bedrock")
        found = await checked(one, "proxied")
        assert (found.reason, found.answered_by) == (0, "key-pair")
        assert "right only where the base URL is another gateway's" in found.message


async def test_an_explanation_tells_the_last_failure_also_when_the_next_request_may_try_again(tmp_path, aws, use):
    use()
    later = timedelta()
    async with running(tmp_path, clock=lambda: datetime.now(UTC) + later) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one)
        await ask(one, token)
        later = timedelta(minutes=1)
        account = await explained(one, token)
        assert account.reason == pb_reason("AMBIENT_CREDENTIALS_UNAVAILABLE")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ({"type_name": "openai", "key": "sk-x"}, "the stored key can be opened"),
        ({"type_name": "openai", "flags": (False, True, False)}, "users bring their own keys"),
        ({"type_name": "bedrock", "key": "bearer"}, "the stored key can be opened"),
    ],
)
async def test_what_does_not_reach_aws_with_a_credential_of_its_own_is_checked_without_asking_anybody(
    tmp_path, aws, use, make, message
):
    use()
    async with running(tmp_path) as one:
        await one.make_provider("prov", **make)
        found = await checked(one, "prov")
        assert message in found.message
        assert (found.reason, list(found.steps)) == (0, [])
        assert aws.calls == []


async def test_an_explanation_asks_nobody(tmp_path, aws, use):
    use("container")
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        await make_bedrock(one, role_arn=ROLE)
        account = await explained(one, token)
        assert (account.aws.credential, account.aws.role_session_name) == ("ambient", "ada")
        assert (account.aws.place.region, account.aws.place.base_url) == (REGION, RUNTIME)
        assert list(account.aws.states) == []
        assert source_of(account) == "AMBIENT"
        assert aws.calls == []
        await ask(one, token)
        states = {state.kind: state for state in (await explained(one, token)).aws.states}
        assert states["source"].answered_by == "container-role"
        assert states["role"].answered_by == "provider-role"
        assert all(state.served and not state.failed_attempts for state in states.values())
