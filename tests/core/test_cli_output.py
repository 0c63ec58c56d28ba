"""What commands print."""

import json

import pytest
from drawbridge.v1 import admin_service_pb2, explain_service_pb2, provider_pb2, user_key_pb2, user_pb2
from hypothesis import given
from hypothesis import strategies as st

from credentiald.cli.output import printable, text_of, to_dict


def test_every_field_is_there_even_when_nothing_is_set():
    assert to_dict(provider_pb2.Provider()) == {
        "id": "",
        "name": "",
        "type": "",
        "display_name": "",
        "base_url": "",
        "enabled": None,
        "key_policy": None,
        "central_key_set": False,
        "central_keys": [],
        "origin": None,
        "bedrock": None,
        "send_actor_headers": None,
        "wire_type": "",
        "etag": "",
        "create_time": None,
        "update_time": None,
        "timeouts": None,
        "fallback_provider": "",
    }


def test_enums_lose_their_prefix_times_are_utc_and_nested_messages_are_objects():
    provider = provider_pb2.Provider(
        name="corp",
        enabled=False,
        origin=provider_pb2.PROVIDER_ORIGIN_DATABASE,
        central_keys=[provider_pb2.CentralKey(credential_id="c1", kind=provider_pb2.KEY_KIND_AWS_ACCESS_KEY_PAIR)],
    )
    provider.key_policy.central_key_enabled = True
    provider.create_time.FromSeconds(1_800_000_000)
    shown = to_dict(provider)
    assert shown["origin"] == "DATABASE"
    assert shown["enabled"] is False
    assert shown["create_time"] == "2027-01-15T08:00:00Z"
    assert shown["central_keys"] == [{"credential_id": "c1", "kind": "AWS_ACCESS_KEY_PAIR", "create_time": None}]
    assert shown["key_policy"] == {
        "central_key_enabled": True,
        "user_keys_allowed": None,
        "central_key_fallback": None,
    }


@pytest.mark.parametrize(
    ("message", "field", "name"),
    [
        (user_pb2.User(state=user_pb2.USER_STATE_SUSPENDED), "state", "SUSPENDED"),
        (user_pb2.Service(role=user_pb2.SERVICE_ROLE_BRIDGE), "role", "BRIDGE"),
        (user_key_pb2.UserKey(status=user_key_pb2.USER_KEY_STATUS_USING_SHARED_KEY), "status", "USING_SHARED_KEY"),
        (explain_service_pb2.ExplanationCheck(outcome=3), "outcome", "NOT_REACHED"),
        (explain_service_pb2.ExplainProviderResponse(reason=13), "reason", "USER_KEY_REQUIRED"),
        (explain_service_pb2.ExplainProviderResponse(source=2), "source", "CENTRAL_KEY"),
        (explain_service_pb2.ExplainProviderResponse(), "source", None),
        (user_pb2.Service(role=99), "role", "99"),
    ],
)
def test_an_enum_is_its_name_without_the_prefix_of_its_type(message, field, name):
    assert to_dict(message)[field] == name


def test_large_integers_stay_numbers():
    shown = to_dict(explain_service_pb2.ExplainProviderResponse(revision=2**53 + 1))
    assert json.loads(json.dumps(shown))["revision"] == 2**53 + 1


def test_fields_with_key_or_token_material_are_left_out_of_every_message():
    made = admin_service_pb2.CreateTokenResponse(access_token="dbu_canary")
    asked = admin_service_pb2.CreateProviderRequest(central_key=provider_pb2.KeyMaterial(api_key="sk-canary"))
    assert to_dict(made) == {"token": None}
    assert "canary" not in json.dumps(to_dict(asked))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("", "-"),
        ([], "-"),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        (["a", "b"], "a, b"),
        ("\x1b[2Jname", "\\x1b[2Jname"),
    ],
)
def test_a_cell_for_people(value, text):
    assert text_of(value) == text


@given(st.text())
def test_nothing_that_steers_a_terminal_is_printed(text):
    assert printable(text).isprintable()


@given(st.text().filter(str.isprintable))
def test_printable_text_is_printed_as_it_is(text):
    assert printable(text) == text
