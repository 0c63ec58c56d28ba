"""`credentiald users`, `tokens` and `services` against a server on a socket."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from drawbridge.v1 import user_pb2

from tests.fakes.admin_service import FakePlane, serving
from tests.support.credentiald_cli import ADMIN_TOKEN, administer, administer_json, run


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[FakePlane]:
    with serving(tmp_path) as plane:
        yield plane


def test_a_created_user_is_said_on_stderr_and_nothing_on_stdout(plane):
    result = administer(plane, "users", "create", "ada")
    assert (result.stdout, result.stderr) == ("", "created user 'ada'\n")
    assert plane.last.user.username == "ada"
    assert plane.last.user.admin is False
    assert plane.last_authorization == f"Bearer {ADMIN_TOKEN}"


def test_with_json_a_created_user_is_one_object(plane):
    assert administer_json(plane, "users", "create", "ada") == {
        "id": "id-ada",
        "username": "ada",
        "admin": False,
        "state": "ACTIVE",
        "create_time": "2027-01-15T08:00:00Z",
        "update_time": "2027-01-15T08:01:00Z",
        "etag": "1",
    }


def test_admin_makes_an_administrator_and_the_address_stands_before_the_noun(plane):
    env = {"CREDENTIALD_ADMIN_TOKEN": ADMIN_TOKEN}
    result = run("--admin", plane.address, "users", "create", "root", "--admin", env=env)
    assert result.exit_code == 0, result.output
    assert plane.users["root"].admin is True


def test_the_address_may_also_stand_behind_the_verb_and_wins_there(plane):
    env = {"CREDENTIALD_ADMIN_TOKEN": ADMIN_TOKEN, "CREDENTIALD_ADMIN": "127.0.0.1:1"}
    result = run("--admin", "127.0.0.1:2", "users", "list", "--admin", plane.address, env=env)
    assert result.exit_code == 0, result.output


def test_the_token_file_beside_the_database_is_enough(plane, tmp_path):
    (tmp_path / "credentiald.admin-token").write_text("dbs_from-the-file\n")
    env = {"CREDENTIALD_ADMIN": plane.address, "CREDENTIALD_DATABASE": f"sqlite:///{tmp_path}/credentiald.db"}
    assert run("users", "list", env=env).exit_code == 0
    assert plane.last_authorization == "Bearer dbs_from-the-file"


def test_a_list_is_one_array_of_all_pages(plane):
    for name in ("ada", "bob", "cyd", "dan", "eve"):
        plane.users[name] = user_pb2.User(username=name)
    listed = administer_json(plane, "users", "list")
    assert [user["username"] for user in listed] == ["ada", "bob", "cyd", "dan", "eve"]
    assert [request.page_token for _, request, _ in plane.calls] == ["", "2", "4"]


def test_an_empty_list_is_an_empty_array(plane):
    assert administer_json(plane, "users", "list") == []


def test_a_list_for_people_has_columns_under_headings(plane):
    administer(plane, "users", "create", "ada")
    plane.users["bob"] = user_pb2.User(username="bob", id="b", admin=True, state=user_pb2.USER_STATE_SUSPENDED)
    assert administer(plane, "users", "list").stdout.splitlines() == [
        "NAME  ID      ADMIN  STATE      CREATED",
        "ada   id-ada  no     ACTIVE     2027-01-15T08:00:00Z",
        "bob   b       yes    SUSPENDED  -",
    ]


def test_a_user_is_shown_a_line_a_field(plane):
    administer(plane, "users", "create", "ada")
    lines = administer(plane, "users", "show", "ada").stdout.splitlines()
    assert lines[:4] == ["id: id-ada", "username: ada", "admin: no", "state: ACTIVE"]


def test_suspend_resume_and_delete_name_the_user(plane):
    administer(plane, "users", "create", "ada")
    assert administer_json(plane, "users", "suspend", "ada")["state"] == "SUSPENDED"
    assert administer_json(plane, "users", "resume", "ada")["state"] == "ACTIVE"
    assert administer_json(plane, "users", "delete", "ada") == {}
    assert plane.users == {}
    methods = [method for method, _, _ in plane.calls]
    assert methods == ["CreateUser", "SuspendUser", "ResumeUser", "DeleteUser"]


def test_a_new_token_is_alone_on_stdout(plane):
    result = administer(plane, "tokens", "create", "--user", "ada")
    assert (result.stdout, result.stderr) == ("dbu_of_ada\n", "")
    assert not plane.last.HasField("expire_time")


def test_with_json_a_new_token_stands_beside_its_resource(plane):
    made = administer_json(plane, "tokens", "create", "--user", "ada")
    assert made["access_token"] == "dbu_of_ada"
    assert (made["token"]["id"], made["token"]["username"], made["token"]["expire_time"]) == ("token-0", "ada", None)


@pytest.mark.parametrize(
    ("text", "lifetime"),
    [("30d", timedelta(days=30)), ("90m", timedelta(minutes=90)), ("1h30m", timedelta(minutes=90))],
)
def test_a_token_expires_that_long_after_now(plane, text, lifetime):
    before = datetime.now(UTC)
    administer(plane, "tokens", "create", "--user", "ada", "--expires", text)
    expires = plane.last.expire_time.ToDatetime(tzinfo=UTC)
    assert before + lifetime <= expires <= datetime.now(UTC) + lifetime


@pytest.mark.parametrize("text", ["", "0", "0d", "30", "-1d", "soon", "999999999d", "9999999999999d"])
def test_a_lifetime_that_is_none_is_wrong_usage(plane, text):
    result = administer(plane, "tokens", "create", "--user", "ada", "--expires", text, code=2)
    assert "--expires" in result.stderr
    assert plane.calls == []


def test_tokens_are_listed_for_all_users_or_for_one(plane):
    for user in ("ada", "bob", "ada"):
        administer(plane, "tokens", "create", "--user", user)
    assert [token["username"] for token in administer_json(plane, "tokens", "list")] == ["ada", "bob", "ada"]
    assert [token["id"] for token in administer_json(plane, "tokens", "list", "--user", "bob")] == ["token-1"]


def test_a_token_is_revoked_by_its_id(plane):
    administer(plane, "tokens", "create", "--user", "ada")
    result = administer(plane, "tokens", "revoke", "token-0")
    assert result.stderr == "revoked token token-0 of user 'ada'\n"
    assert plane.tokens["token-0"].HasField("revoke_time")


@pytest.mark.parametrize(
    ("role", "number"),
    [
        ("bridge", user_pb2.SERVICE_ROLE_BRIDGE),
        ("internal", user_pb2.SERVICE_ROLE_INTERNAL),
        ("admin", user_pb2.SERVICE_ROLE_ADMIN),
    ],
)
def test_a_new_services_token_is_alone_on_stdout(plane, role, number):
    result = administer(plane, "services", "create", "edge", "--role", role)
    assert (result.stdout, result.stderr) == ("dbs_new\n", "")
    assert (plane.last.service.name, plane.last.service.role) == ("edge", number)
    assert plane.last.service.may_act_for_users is False


def test_a_service_may_act_for_users_at_some_providers(plane):
    arguments = ("--role", "internal", "--may-act-for-users", "--provider", "a", "--provider", "b")
    made = administer_json(plane, "services", "create", "chat", *arguments)
    assert made["service_token"] == "dbs_new"
    assert made["service"]["may_act_for_users"] is True
    assert made["service"]["act_for_providers"] == ["a", "b"]


def test_providers_without_the_right_to_act_for_users_are_wrong_usage(plane):
    administer(plane, "services", "create", "chat", "--role", "internal", "--provider", "a", code=2)
    assert plane.calls == []


def test_a_rotated_token_is_alone_on_stdout_and_beside_its_service_with_json(plane):
    administer(plane, "services", "create", "edge", "--role", "bridge")
    assert administer(plane, "services", "rotate", "edge").stdout == "dbs_rotated\n"
    rotated = administer_json(plane, "services", "rotate", "edge")
    assert (rotated["service_token"], rotated["service"]["name"]) == ("dbs_rotated", "edge")


def test_a_service_with_a_certificate_gets_a_token_only_where_it_is_asked_for(plane):
    sans = ("--certificate-san", "spiffe://example.org/edge", "--certificate-san", "edge.example.org")
    made = administer(plane, "services", "create", "edge", "--role", "bridge", *sans)
    assert made.stdout == ""
    assert list(plane.last.service.certificate_sans) == ["spiffe://example.org/edge", "edge.example.org"]
    assert administer(plane, "services", "create", "both", "--role", "bridge", *sans, "--token").stdout == "dbs_new\n"
    assert plane.last.with_token


def test_the_certificates_of_a_service_are_replaced_as_a_whole(plane):
    administer(plane, "services", "create", "edge", "--role", "bridge")
    administer(plane, "services", "set-sans", "edge", "urn:a", "urn:b")
    assert list(plane.last.certificate_sans) == ["urn:a", "urn:b"]
    assert administer_json(plane, "services", "set-sans", "edge")["certificate_sans"] == []


@pytest.mark.parametrize(("flags", "seconds"), [((), 0), (("--keep-old", "10m"), 600), (("--keep-old", "1h30m"), 5400)])
def test_an_old_token_is_kept_for_as_long_as_is_said(plane, flags, seconds):
    administer(plane, "services", "create", "edge", "--role", "bridge")
    assert administer(plane, "services", "rotate", "edge", *flags).stdout == "dbs_rotated\n"
    assert plane.last.keep_old.seconds == seconds


def test_a_token_whose_entry_of_a_strict_audit_waits_is_printed_and_the_command_fails(plane):
    administer(plane, "services", "create", "edge", "--role", "bridge")
    plane.trailing = (("drawbridge-audit-waiting", "strict"),)
    made = administer(plane, "services", "rotate", "edge", code=1)
    assert made.stdout == "dbs_rotated\n"
    assert "the token is made and valid, but the audit" in made.stderr


def test_an_old_token_is_revoked_without_a_new_one(plane):
    administer(plane, "services", "create", "edge", "--role", "bridge")
    revoked = administer(plane, "services", "rotate", "edge", "--revoke-old")
    assert (revoked.stdout, revoked.stderr) == ("", "the old token of service 'edge' is refused from now on\n")


@pytest.mark.parametrize("flags", [("--keep-old", "soon"), ("--keep-old", "10m", "--revoke-old")])
def test_a_rotation_that_makes_no_sense_is_wrong_usage(plane, flags):
    administer(plane, "services", "rotate", "edge", *flags, code=2)
    assert plane.calls == []


def test_services_are_listed_and_deleted(plane):
    for name in ("a", "b", "c"):
        administer(plane, "services", "create", name, "--role", "bridge")
    assert [service["name"] for service in administer_json(plane, "services", "list")] == ["a", "b", "c"]
    assert administer(plane, "services", "delete", "b").stderr == "deleted service 'b'\n"
    assert list(plane.services) == ["a", "c"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("users", "create"),
        ("users", "show"),
        ("users", "list", "surplus"),
        ("users", "list", "--jason"),
        ("users", "rename", "ada"),
        ("tokens", "create"),
        ("tokens", "revoke"),
        ("services", "create", "edge"),
        ("services", "create", "edge", "--role", "king"),
        ("nouns", "list"),
    ],
)
def test_wrong_usage_exits_2_and_asks_nobody(plane, arguments):
    result = administer(plane, *arguments, code=2)
    assert result.stdout == ""
    assert "Usage: credentiald" in result.stderr
    assert plane.calls == []
