"""`credentiald keys`: whose key, from where, and that it shows nowhere."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from drawbridge.v1 import provider_pb2, user_key_pb2

from credentiald.model import MAX_KEY_BYTES
from tests.fakes.admin_service import FakePlane, serving
from tests.support.credentiald_cli import ADMIN_TOKEN, OWN_TOKEN, administer, administer_json

DEADLINE_SECONDS = 20.0


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[FakePlane]:
    with serving(tmp_path) as plane:
        plane.providers["corp"] = provider_pb2.Provider(name="corp", type="openai")
        yield plane


def test_without_a_user_it_is_the_central_key(plane):
    result = administer(plane, "keys", "set", "corp", "--etag", "3", stdin="sk-1\n")
    assert plane.last_method == "SetCentralKey"
    assert (plane.last.provider, plane.last.central_key.api_key, plane.last.etag) == ("corp", "sk-1", "3")
    assert (result.stdout, result.stderr) == ("", "stored the central key of provider 'corp'\n")


def test_with_a_user_it_is_that_users_key_and_the_administrators_token(plane):
    stored = administer_json(plane, "keys", "set", "corp", "--user", "ada", stdin="sk-1\n")
    assert (plane.last_method, plane.last.user, plane.last.key) == ("SetUserKey", "ada", "sk-1")
    assert plane.last_authorization == f"Bearer {ADMIN_TOKEN}"
    assert (stored["provider"], stored["status"], stored["update_time"]) == ("corp", "KEY_SAVED", None)


def test_with_mine_it_is_the_callers_key_and_the_callers_token(plane):
    administer(plane, "keys", "set", "corp", "--mine", stdin="sk-1\n")
    assert (plane.last_method, plane.last.user, plane.last.key) == ("SetUserKey", "", "sk-1")
    assert plane.last_authorization == f"Bearer {OWN_TOKEN}"


def test_an_aws_access_key_may_be_a_central_key(plane):
    administer(plane, "keys", "set", "corp", "--bedrock-access-key-stdin", stdin="AKIA1\nsecret\n")
    pair = plane.last.central_key.aws_access_key_pair
    assert (pair.access_key_id, pair.secret_access_key) == ("AKIA1", "secret")


@pytest.mark.parametrize(
    ("stdin", "key"),
    [
        ("sk-1", "sk-1"),
        ("sk-1\n", "sk-1"),
        ("sk-1\r\n", "sk-1"),
        ("sk-1\n\n", "sk-1\n"),
        (" sk-1 ", " sk-1 "),
        ("k" * MAX_KEY_BYTES, "k" * MAX_KEY_BYTES),
        ("k" * MAX_KEY_BYTES + "\r\n", "k" * MAX_KEY_BYTES),
        ("é" * (MAX_KEY_BYTES // 2) + "\n", "é" * (MAX_KEY_BYTES // 2)),
    ],
)
def test_stdin_is_the_key_but_for_one_newline_at_its_end(plane, stdin, key):
    administer(plane, "keys", "set", "corp", stdin=stdin)
    assert plane.last.central_key.api_key == key


@pytest.mark.parametrize(
    ("stdin", "reason"),
    [
        (b"", "KEY_REQUIRED"),
        (b"\n", "KEY_REQUIRED"),
        (b" \t \n", "KEY_REQUIRED"),
        (b"k" * (MAX_KEY_BYTES + 1), "KEY_TOO_LARGE"),
        ("é".encode() * MAX_KEY_BYTES, "KEY_TOO_LARGE"),
        (b"k" * 1_000_000, "KEY_TOO_LARGE"),
        (b"sk-canary\xff", "INVALID_ARGUMENT"),
    ],
)
@pytest.mark.parametrize("whose", [(), ("--user", "ada"), ("--mine",)])
def test_what_cannot_be_a_key_is_refused_here_without_repeating_it(plane, stdin, reason, whose):
    result = administer(plane, "keys", "set", "corp", *whose, stdin=stdin, code=1)
    assert f"({reason})" in result.stderr
    assert "canary" not in result.output
    assert plane.calls == []


def test_a_key_given_as_an_argument_is_refused_without_repeating_it(plane):
    result = administer(plane, "keys", "set", "corp", "sk-canary", code=2)
    assert "never an argument" in result.stderr
    assert "canary" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("set", "corp", "--user", "ada", "--mine"),
        ("delete", "corp", "--user", "ada", "--mine"),
        ("list", "--user", "ada", "--mine"),
        ("set", "corp", "--mine", "--etag", "1"),
        ("delete", "corp", "--user", "ada", "--etag", "1"),
        ("set", "corp", "--user", "ada", "--bedrock-access-key-stdin"),
    ],
)
def test_options_that_contradict_each_other_are_wrong_usage(plane, arguments):
    administer(plane, "keys", *arguments, stdin="sk-1\n", code=2)
    assert plane.calls == []


def test_delete_follows_the_same_three_ways(plane):
    administer(plane, "keys", "delete", "corp", "--etag", "3")
    assert (plane.last_method, plane.last.provider, plane.last.etag) == ("DeleteCentralKey", "corp", "3")
    assert administer_json(plane, "keys", "delete", "corp", "--user", "ada") == {}
    assert (plane.last_method, plane.last.user) == ("DeleteUserKey", "ada")
    administer(plane, "keys", "delete", "corp", "--mine")
    assert (plane.last.user, plane.last_authorization) == ("", f"Bearer {OWN_TOKEN}")


def test_without_a_user_the_list_says_which_providers_have_a_central_key(plane):
    stored = provider_pb2.CentralKey(credential_id="c1", kind=provider_pb2.KEY_KIND_API_KEY)
    plane.providers["a"] = provider_pb2.Provider(name="a", central_key_set=True, central_keys=[stored])
    plane.providers["b"] = provider_pb2.Provider(name="b")
    listed = administer_json(plane, "keys", "list")
    assert [(one["provider"], one["central_key_set"]) for one in listed] == [("corp", False), ("a", True), ("b", False)]
    assert listed[1]["central_keys"] == [{"credential_id": "c1", "kind": "API_KEY", "create_time": None}]
    assert administer(plane, "keys", "list").stdout.splitlines()[1].split() == ["corp", "openai", "no", "-"]


@pytest.mark.parametrize(("whose", "user"), [(("--user", "ada"), "ada"), (("--mine",), "")])
def test_with_a_user_the_list_says_the_statuses(plane, whose, user):
    for name, status in (("a", 1), ("b", 2), ("c", 3)):
        plane.user_keys.append(user_key_pb2.UserKey(provider=name, status=status))
    listed = administer_json(plane, "keys", "list", *whose)
    assert [one["status"] for one in listed] == ["KEY_SAVED", "USING_SHARED_KEY", "NO_KEY"]
    assert {request.user for _, request, _ in plane.calls} == {user}
    assert administer(plane, "keys", "list", *whose).stdout.splitlines()[1].split() == ["a", "-", "KEY_SAVED", "-"]


def converse(plane: FakePlane, *arguments: str, answers: list[str]) -> tuple[str, int]:
    """What a terminal shows while a person types the answers, each when the program waits for one; and the code."""
    env = {**os.environ, "CREDENTIALD_ADMIN": plane.address, "CREDENTIALD_ADMIN_TOKEN": ADMIN_TOKEN}
    ours, theirs = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-m", "credentiald", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env,
        start_new_session=True,
    )
    os.close(theirs)
    shown, waiting = b"", list(answers)
    deadline = time.monotonic() + DEADLINE_SECONDS
    try:
        while time.monotonic() < deadline:
            if ours not in select.select([ours], [], [], 0.1)[0]:
                continue
            try:
                shown += os.read(ours, 4096)
            except OSError:  # Linux says EIO when the last writer has closed
                break
            if waiting and shown.endswith(b": "):
                os.write(ours, waiting.pop(0).encode() + b"\n")
        return shown.decode(), program.wait(timeout=DEADLINE_SECONDS)
    finally:
        program.kill()
        program.wait()
        os.close(ours)


def test_at_a_terminal_the_key_is_prompted_for_and_not_echoed(plane):
    shown, code = converse(plane, "keys", "set", "corp", answers=["sk-canary"])
    assert (code, plane.last.central_key.api_key) == (0, "sk-canary")
    assert "key: " in shown
    assert "canary" not in shown


def test_at_a_terminal_an_aws_access_key_is_three_prompts_and_the_last_may_stay_empty(plane):
    answers = ["AKIAcanary", "secret-canary", ""]
    shown, code = converse(plane, "keys", "set", "corp", "--bedrock-access-key-stdin", answers=answers)
    pair = plane.last.central_key.aws_access_key_pair
    assert code == 0, shown
    assert (pair.access_key_id, pair.secret_access_key, pair.session_token) == ("AKIAcanary", "secret-canary", "")
    assert "canary" not in shown


def test_an_empty_answer_at_a_terminal_is_refused(plane):
    shown, code = converse(plane, "keys", "set", "corp", answers=[""])
    assert code == 1
    assert "(KEY_REQUIRED)" in shown


def test_a_key_is_added_to_a_pool_after_the_others_or_before_them(plane):
    result = administer(plane, "keys", "add", "corp", "--etag", "3", stdin="sk-1\n")
    assert (plane.last_method, plane.last.provider, plane.last.central_key.api_key) == ("AddCentralKey", "corp", "sk-1")
    assert (plane.last.first, plane.last.etag) == (False, "3")
    assert (result.stdout, result.stderr) == ("", "added the central key key-0 to provider 'corp', which has 1 now\n")
    result = administer(plane, "keys", "add", "corp", "--first", "--bedrock-access-key-stdin", stdin="AKIA1\nsecret\n")
    assert (plane.last.first, plane.last.central_key.aws_access_key_pair.access_key_id) == (True, "AKIA1")
    assert result.stderr == "added the central key key-1 to provider 'corp', which has 2 now\n"


def test_a_key_of_a_pool_is_removed_by_its_id(plane):
    result = administer(plane, "keys", "remove", "corp", "id-2", "--etag", "3")
    assert (plane.last_method, plane.last.provider, plane.last.credential_id) == ("RemoveCentralKey", "corp", "id-2")
    assert (plane.last.etag, result.stderr) == ("3", "removed the central key id-2 of provider 'corp'\n")


def test_the_keys_of_a_pool_are_ordered_by_their_ids(plane):
    administer(plane, "keys", "order", "corp", "id-2", "id-1")
    assert (plane.last_method, plane.last.credential_ids) == ("OrderCentralKeys", ["id-2", "id-1"])
    assert administer(plane, "keys", "order", "corp", code=2).stdout == ""


def test_a_key_to_be_added_is_never_an_argument(plane):
    result = administer(plane, "keys", "add", "corp", "sk-canary", code=2)
    assert "sk-canary" not in result.output
    assert not plane.calls
