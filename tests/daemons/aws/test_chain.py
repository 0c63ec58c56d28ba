"""AWS's chain row by row, each in a process of its own with a clean environment, against real loopback endpoints."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest

from credentiald.aws.failures import words_of
from credentiald.aws.overlooked import refuse_unreadable_files
from credentiald.aws.quiet import new_session
from tests.fakes.aws import (
    CANARY,
    CONTAINER_TOKEN,
    EXPIRED,
    FAIL,
    GARBAGE,
    HANG,
    MISSING,
    SSO_TOKEN,
    aws_endpoints,
    chain_environment,
)

# What asks a place that hangs, or the metadata service, which gets a second to answer, runs by itself.

ROOT = Path(__file__).parents[3]
REGION = "us-west-2"
ROLE = "arn:aws:iam::123456789012:role/from-profile"
PAIR = f"aws_access_key_id = AKIAFILE\naws_secret_access_key = {CANARY}-file\n"


@pytest.fixture
def aws():
    with aws_endpoints() as endpoints:
        yield endpoints


@dataclass
class Situation:
    """A machine: its variables and its files."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    def config(self, text: str) -> None:
        self.folder.joinpath("config").write_text(text)

    def credentials(self, text: str) -> None:
        self.folder.joinpath("credentials").write_text(text)

    def process(self, script: str) -> str:
        """A credential_process that runs this Python."""
        path = self.folder / "process.py"
        path.write_text(script)
        return f"{sys.executable} {path}"

    def walk(self, region: str = REGION) -> dict[str, Any]:
        """What the chain finds, after looking that no secret was printed anywhere."""
        for name in ("config", "credentials"):
            self.folder.joinpath(name).touch()
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'protos'}",
            "HOME": str(self.folder),
            "AWS_CONFIG_FILE": str(self.folder / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "credentials"),
            "AWS_EC2_METADATA_DISABLED": "true",
            **self.environ,
        }
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.chain_child", region],
            env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert CANARY not in done.stdout + done.stderr
        assert "botocore" not in done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture
def machine(tmp_path):
    return Situation(folder=tmp_path)


def step(found, name):
    """Outcome and detail of one step."""
    return next((outcome, detail) for each, outcome, detail in found["steps"] if each == name)


def answered(found):
    return [name for name, outcome, _ in found["steps"] if outcome == "ANSWERED"]


def failed(found):
    return {name: detail for name, outcome, detail in found["steps"] if outcome == "FAILED"}


def test_nothing_at_all_is_no_credential_and_every_step_is_told(machine):
    found = machine.walk()
    assert found["cause"] == "no step has anything"
    assert [name for name, _, _ in found["steps"]] == [
        "env", "assume-role", "assume-role-with-web-identity", "sso", "shared-credentials-file", "login",
        "custom-process", "config-file", "ec2-credentials-file", "boto-config", "container-role", "iam-role",
    ]  # fmt: skip
    assert {outcome for _, outcome, _ in found["steps"]} == {"NOTHING"}
    assert found["told"].startswith("nothing from env, assume-role, ")


def test_keys_in_the_environment(machine):
    machine.environ = {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": f"{CANARY}-env"}
    found = machine.walk()
    assert (found["key_id"], found["has_token"], found["expire_time"], answered(found)) == (
        "AKIAENV", False, None, ["env"],
    )  # fmt: skip
    machine.environ["AWS_SESSION_TOKEN"] = f"{CANARY}-token"
    assert machine.walk()["has_token"]


@pytest.mark.parametrize("half", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
def test_half_a_pair_in_the_environment_is_refused_and_nothing_else_is_tried(machine, half):
    machine.credentials(f"[default]\n{PAIR}")
    machine.environ = {half: f"{CANARY}-half"}
    found = machine.walk()
    assert list(failed(found)) == ["env"]
    assert failed(found)["env"].startswith("incomplete: ")
    assert len(found["steps"]) == 1


def test_a_pair_with_an_end_has_that_end(machine):
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=5)
    machine.environ = {
        "AWS_ACCESS_KEY_ID": "AKIAENV",
        "AWS_SECRET_ACCESS_KEY": f"{CANARY}-env",
        "AWS_CREDENTIAL_EXPIRATION": end.isoformat(),
    }
    assert machine.walk()["expire_time"] == end.timestamp()


def test_the_environment_wins_over_a_profile(machine):
    machine.config(f"[profile other]\nregion = eu-west-1\n{PAIR}")
    machine.environ = {
        "AWS_PROFILE": "other", "AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": f"{CANARY}-env",
    }  # fmt: skip
    assert machine.walk()["key_id"] == "AKIAENV"


def test_a_profile_that_does_not_exist_is_a_refusal_of_its_own(machine):
    machine.config(f"[default]\n{PAIR}")
    machine.environ = {"AWS_PROFILE": "missing"}
    assert failed(machine.walk()) == {
        "profile": "the profile that AWS_PROFILE names does not exist: correct AWS_PROFILE or the file"
    }


@pytest.mark.parametrize(("name", "method"), [("credentials", "shared-credentials-file"), ("config", "config-file")])
def test_files(machine, name, method):
    (machine.folder / name).write_text(f"[default]\n{PAIR}")
    found = machine.walk()
    assert (found["key_id"], answered(found)) == ("AKIAFILE", [method])


def test_a_file_with_half_a_pair_is_refused(machine):
    machine.credentials("[default]\naws_access_key_id = AKIAFILE\n")
    assert list(failed(machine.walk())) == ["shared-credentials-file"]


@pytest.mark.parametrize("half", ["aws_secret_access_key", "aws_session_token"])
@pytest.mark.parametrize("name", ["credentials", "config"])
def test_half_a_pair_without_its_id_is_refused_and_the_machines_own_identity_is_not_used(machine, aws, name, half):
    machine.environ = chain_environment(aws, "container")
    (machine.folder / name).write_text(f"[default]\n{half} = {CANARY}\n")
    assert failed(machine.walk()) == {
        "shared-credentials-file": "incomplete: one half of the credential is missing or empty"
    }
    assert aws.calls == []


@pytest.mark.parametrize(
    "text", [f"aws_access_key_id =\naws_secret_access_key = {CANARY}", "aws_access_key_id = A\naws_secret_access_key ="]
)
def test_an_empty_half_is_no_half(machine, text):
    machine.credentials(f"[default]\n{text}\n")
    assert list(failed(machine.walk())) == ["shared-credentials-file"]


@pytest.mark.parametrize("variable", ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"])
def test_a_file_that_is_named_and_not_there_is_refused_unless_the_environment_has_a_pair(machine, aws, variable):
    machine.environ = chain_environment(aws, "container") | {variable: str(machine.folder / "missing")}
    assert failed(machine.walk()) == {
        "profile": "a file that AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE names does not exist"
    }
    assert aws.calls == []
    machine.environ |= {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": f"{CANARY}-env"}
    assert machine.walk()["key_id"] == "AKIAENV"


@pytest.mark.parametrize(
    ("name", "variable"), [("credentials", "AWS_SHARED_CREDENTIALS_FILE"), ("config", "AWS_CONFIG_FILE")]
)
def test_a_file_that_must_not_be_read_is_refused(monkeypatch, name, variable):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / name
        path.write_text(f"[default]\n{PAIR}")
        path.chmod(0o000)
        monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv(variable, str(path))
        assert as_nobody(refuse_unreadable_files, new_session()) == "PermissionError"
    words = "AWS's configuration or credentials file must not be read"
    assert words_of(PermissionError(), step="profile") == words


def as_nobody(look, session):
    """What a look at files raises, in a process that may not read everything, as who runs tests may."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        raised = ""
        try:
            if os.getuid() == 0:
                os.seteuid(65534)
            look(session)
        except BaseException as error:
            raised = type(error).__name__
        os.write(write_end, raised.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as told:
        raised = told.read()
    os.waitpid(child, 0)
    return raised


@pytest.mark.parametrize(
    ("environ", "config", "step", "words"),
    [
        ({"AWS_ROLE_ARN": ROLE}, "", "assume-role-with-web-identity", "incomplete: a role is named and no token file"),
        (
            {"AWS_WEB_IDENTITY_TOKEN_FILE": ""},
            f"role_arn = {ROLE}\nweb_identity_token_file = /nowhere",
            "assume-role-with-web-identity",
            "incomplete: a role is named and no token file",
        ),
        (
            {},
            "source_profile = base",
            "assume-role",
            "incomplete: the profile has source_profile or credential_source and no role_arn",
        ),
        (
            {},
            "credential_source = Environment",
            "assume-role",
            "incomplete: the profile has source_profile or credential_source and no role_arn",
        ),
    ],
)
def test_half_a_role_is_refused_and_the_machines_own_identity_is_not_used(machine, aws, environ, config, step, words):
    machine.environ = chain_environment(aws, "container") | environ
    machine.config(f"[default]\n{config}\n")
    assert failed(machine.walk()) == {step: words}
    assert aws.calls == []


def test_a_file_of_the_old_tools_with_half_a_pair_is_refused(machine, aws):
    path = machine.folder / "old"
    path.write_text(f"AWSSecretKey={CANARY}\n")
    machine.environ = chain_environment(aws, "container") | {"AWS_CREDENTIAL_FILE": str(path)}
    assert list(failed(machine.walk())) == ["ec2-credentials-file"]
    assert aws.calls == []


def test_a_file_that_cannot_be_read_as_one_is_refused(machine):
    machine.config("[default\nregion")
    assert set(failed(machine.walk()).values()) == {"AWS's configuration file cannot be read"}


def test_a_profile_with_a_role_and_a_source(machine, aws):
    machine.config(f"[default]\nrole_arn = {ROLE}\nsource_profile = base\n[profile base]\n{PAIR}")
    machine.environ = chain_environment(aws)
    found = machine.walk()
    assert (found["key_id"], found["has_token"], answered(found)) == ("ASIASTSXXXXX0001", True, ["assume-role"])
    assert aws.asked("sts")[0]["signer"] == "AKIAFILE"
    assert found["expire_time"] == pytest.approx(aws.given["ASIASTSXXXXX0001"], abs=0.01)


@pytest.mark.parametrize("region", [REGION, "cn-north-1"])
def test_a_profile_with_a_role_and_a_named_source_takes_the_providers_region(machine, aws, region):
    machine.config(f"[default]\nrole_arn = {ROLE}\ncredential_source = EcsContainer\n")
    machine.environ = chain_environment(aws, "container")
    found = machine.walk(region)
    assert answered(found) == ["assume-role"]
    assert aws.asked("sts")[0]["signer"].startswith("ASIACONTAINER")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("", "incomplete: one half of the credential, or its source, is missing"),
        ("source_profile = nowhere\n", "the profile is not configured rightly"),
        ("credential_source = Moon\n", "the profile is not configured rightly"),
        ("source_profile = base\nmfa_serial = arn:aws:iam::1:mfa/x\n", "the profile asks for a one-time code"),
    ],
)
def test_a_profile_with_a_role_that_cannot_be_assumed(machine, aws, config, words):
    machine.config(f"[default]\nrole_arn = {ROLE}\n{config}[profile base]\n{PAIR}")
    machine.environ = chain_environment(aws)
    detail = failed(machine.walk())["assume-role"]
    assert detail.startswith(words)
    assert aws.count("sts") == 0


def test_profiles_that_go_in_a_circle(machine, aws):
    machine.config(
        f"[default]\nrole_arn = {ROLE}\nsource_profile = a\n[profile a]\nrole_arn = {ROLE}\nsource_profile = default\n"
    )
    machine.environ = chain_environment(aws)
    assert failed(machine.walk())["assume-role"] == "the profiles refer to each other in a circle"


def web_identity(machine, aws, token=f"{CANARY}.jwt"):
    path = machine.folder / "token"
    if token:
        path.write_text(token)
    machine.environ = chain_environment(aws) | {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(path),
        "AWS_ROLE_ARN": ROLE,
        "AWS_ROLE_SESSION_NAME": "eks",
    }


def test_web_identity_wins_over_the_default_profile(machine, aws):
    web_identity(machine, aws)
    machine.credentials(f"[default]\n{PAIR}")
    found = machine.walk()
    assert answered(found) == ["assume-role-with-web-identity"]
    assert aws.asked("sts")[0]["Action"] == "AssumeRoleWithWebIdentity"
    assert aws.asked("sts")[0]["WebIdentityToken"] == f"{CANARY}.jwt"


def test_web_identity_without_its_file(machine, aws):
    web_identity(machine, aws, token="")
    machine.credentials(f"[default]\n{PAIR}")
    assert failed(machine.walk()) == {
        "assume-role-with-web-identity": (
            "the token file does not exist: check that the service account's token is mounted"
        )
    }


@pytest.mark.parametrize(
    ("mode", "code", "words"),
    [
        (FAIL, "AccessDenied", "AWS denied it: check the role's trust policy"),
        (FAIL, "InvalidIdentityToken", "AWS did not accept the web identity token (InvalidIdentityToken)"),
        (FAIL, f"{CANARY}Code", "AWS refused it"),
        (FAIL, "", "AWS failed (InternalFailure)"),
        (EXPIRED, "", "it gave credentials that have expired"),
    ],
)
def test_web_identity_where_sts_says_no(machine, aws, mode, code, words):
    web_identity(machine, aws)
    aws.modes["sts"], aws.sts_code = mode, code
    found = machine.walk()
    assert failed(found)["assume-role-with-web-identity"].startswith(words)


@pytest.mark.alone
def test_web_identity_where_sts_is_down(machine, aws):
    web_identity(machine, aws)
    machine.environ["AWS_ENDPOINT_URL_STS"] = "http://127.0.0.1:9"
    found = machine.walk()
    assert failed(found) == {"assume-role-with-web-identity": "no connection"}
    assert found["seconds"] < 8


@pytest.mark.alone
def test_web_identity_where_sts_hangs(machine, aws):
    web_identity(machine, aws)
    aws.modes["sts"] = HANG
    found = machine.walk()
    assert failed(found) == {"assume-role-with-web-identity": "no answer in time"}
    assert found["seconds"] < 9


def printing(**fields):
    return f"import json\nprint(json.dumps({json.dumps(fields)}))"


def test_a_credential_process(machine):
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=40)
    script = printing(
        Version=1, AccessKeyId="AKIAPROC", SecretAccessKey=f"{CANARY}-proc", SessionToken=f"{CANARY}-t",
        Expiration=end.isoformat(),
    )  # fmt: skip
    machine.config(f"[default]\ncredential_process = {machine.process(script)}\n")
    found = machine.walk()
    assert (found["key_id"], answered(found)) == ("AKIAPROC", ["custom-process"])
    # botocore would have asked twice for one with so little time left.
    assert found["expire_time"] == end.timestamp()


PROCESS_FAILED = "the process failed, or did not print credentials: run it by hand, as the user that runs credentiald"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (f"import sys; sys.exit('{CANARY} on stderr')", PROCESS_FAILED),
        (f"print('{CANARY} no json')", "its answer is not JSON"),
        (printing(Version=2), PROCESS_FAILED),
        (printing(Version=1, AccessKeyId="x"), PROCESS_FAILED),
    ],
)
def test_a_credential_process_that_fails(machine, script, words):
    machine.config(f"[default]\ncredential_process = {machine.process(script)}\n")
    assert failed(machine.walk()) == {"custom-process": words}


def test_a_credential_process_that_does_not_exist(machine):
    machine.config("[default]\ncredential_process = /nowhere/process\n")
    assert failed(machine.walk()) == {"custom-process": "the program that credential_process names does not exist"}


SLEEPER = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
open({marks!r}, "w").write(f"{{os.getpid()}} {{child.pid}} {{sorted(n for n in os.environ if 'CREDENTIALD' in n)}}")
time.sleep(120)
"""


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.alone
@pytest.mark.parametrize("profile", ["default", "source"])
def test_a_credential_process_that_hangs_is_killed_with_its_children(machine, aws, profile):
    marks = machine.folder / "marks"
    process = f"credential_process = {machine.process(SLEEPER.format(marks=str(marks)))}\n"
    config = {
        "default": f"[default]\n{process}",
        "source": f"[default]\nrole_arn = {ROLE}\nsource_profile = base\n[profile base]\n{process}",
    }
    machine.config(config[profile])
    machine.environ = chain_environment(aws) | {"CREDENTIALD_SEALING_KEYS": f"k:{CANARY}"}
    found = machine.walk()
    method = {"default": "custom-process", "source": "assume-role"}[profile]
    assert failed(found) == {method: "the process did not end in time and was killed"}
    assert found["seconds"] < 10
    parent, child, ours = marks.read_text().split(" ", 2)
    deadline = time.monotonic() + 5
    while (is_alive(parent) or is_alive(child)) and time.monotonic() < deadline:
        os.sched_yield()
    assert not is_alive(parent)
    assert not is_alive(child)
    # Nor does such a process see what only credentiald may know.
    assert ours == "[]"


def sso(machine, aws, *, token=SSO_TOKEN, hours=1):
    url = "https://login.example/start"
    machine.config(
        f"[default]\nsso_start_url = {url}\nsso_region = us-east-1\nsso_account_id = 123456789012\nsso_role_name = r\n"
    )
    machine.environ = chain_environment(aws)
    if token:
        cache = machine.folder / ".aws/sso/cache"
        cache.mkdir(parents=True)
        end = datetime.now(UTC) + timedelta(hours=hours)
        content = {"accessToken": token, "expiresAt": end.strftime("%Y-%m-%dT%H:%M:%SZ"), "startUrl": url}
        (cache / f"{sha1(url.encode()).hexdigest()}.json").write_text(json.dumps(content))


def test_a_login_of_identity_center(machine, aws):
    sso(machine, aws)
    found = machine.walk()
    assert (found["key_id"], answered(found)) == ("ASIASSOXXXXX0001", ["sso"])


@pytest.mark.parametrize(
    ("token", "hours", "words"),
    [
        ("", 1, "nobody is logged in: run 'aws sso login'"),
        (SSO_TOKEN, -1, "the login has expired: run 'aws sso login'"),
        (f"{CANARY}-wrong", 1, "the login has expired: run 'aws sso login'"),
    ],
)
def test_a_login_that_does_not_count(machine, aws, token, hours, words):
    sso(machine, aws, token=token, hours=hours)
    assert failed(machine.walk()) == {"sso": words}


@pytest.mark.parametrize("where", ["variable", "file"])
def test_a_container_endpoint(machine, aws, where):
    machine.environ = chain_environment(aws, "container")
    if where == "file":
        del machine.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
        (machine.folder / "token").write_text(CONTAINER_TOKEN)
        machine.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = str(machine.folder / "token")
    aws.lifetime_seconds = 20
    found = machine.walk()
    assert (found["key_id"], answered(found)) == ("ASIACONTAINER0001", ["container-role"])
    assert found["expire_time"] == pytest.approx(aws.given["ASIACONTAINER0001"], abs=0.01)
    # botocore's public way asks again for whatever has less than 15 minutes left.
    assert aws.count("container") == 1


@pytest.mark.alone
@pytest.mark.parametrize(
    ("mode", "why"),
    [
        (FAIL, "it answered 500"),
        (GARBAGE, "its answer is not JSON"),
        (HANG, "no answer in time"),
        ("unauthorized", "it answered 401"),
        ("down", "no connection"),
    ],
)
def test_a_container_endpoint_that_fails_ends_the_chain_and_tells_how(machine, aws, mode, why):
    machine.environ = chain_environment(aws, "container", "imds")
    if mode == "unauthorized":
        machine.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = f"{CANARY}-wrong"
    elif mode == "down":
        machine.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = "http://127.0.0.1:9/container"
    else:
        aws.modes["container"] = mode
    found = machine.walk()
    assert failed(found) == {"container-role": f"the container endpoint did not give credentials: {why}"}
    assert aws.count("imds") == 0
    assert found["seconds"] < 10


def test_a_container_endpoint_whose_token_file_is_not_there(machine, aws):
    machine.environ = chain_environment(aws, "container")
    del machine.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    machine.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = "/nowhere/token"
    assert failed(machine.walk()) == {
        "container-role": "the file of AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE does not exist"
    }


def test_a_container_endpoint_elsewhere_is_not_asked(machine, aws):
    machine.environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://metadata.example/x"}
    assert list(failed(machine.walk())) == ["container-role"]


@pytest.mark.alone
def test_the_metadata_service_and_its_true_expiry(machine, aws):
    machine.environ = chain_environment(aws, "imds")
    aws.lifetime_seconds = 20
    found = machine.walk()
    assert (found["key_id"], answered(found)) == ("ASIAIMDSXXXX0001", ["iam-role"])
    # botocore would have said that these 20 seconds are more than 17 minutes.
    assert found["expire_time"] == pytest.approx(aws.given["ASIAIMDSXXXX0001"], abs=0.01)
    assert aws.count("imds") == 1


@pytest.mark.alone
@pytest.mark.parametrize("mode", [MISSING, FAIL, HANG, GARBAGE])
def test_a_metadata_service_that_gives_nothing_is_told_apart_from_one_that_is_off(machine, aws, mode):
    machine.environ = chain_environment(aws, "imds")
    aws.modes["imds"] = mode
    found = machine.walk()
    outcome, detail = step(found, "iam-role")
    assert (outcome, detail) == (
        "NOTHING",
        "the metadata service gives nothing: it does not answer, or this machine has no role",
    )
    assert found["seconds"] < 6


@pytest.mark.alone
def test_version_one_of_the_metadata_service_may_be_off(machine, aws):
    machine.environ = chain_environment(aws, "imds") | {"AWS_EC2_METADATA_V1_DISABLED": "true"}
    aws.modes["imds"] = MISSING
    found = machine.walk()
    assert failed(found) == {"iam-role": "the metadata service gave no token, and version 1 is off"}
