"""A credentiald as operators run it, with all that may be logged logged: what it says, and what it never says."""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from credentiald.aws.quiet import new_session
from tests.fakes.aws import CANARY, FAIL, OK, chain_environment
from tests.support.processes import clean_environment, command, commanded, credentiald

# What is measured here would be another thing beside other tests.
pytestmark = pytest.mark.alone

ROLE = "arn:aws:iam::123456789012:role/bedrock"


def loud(aws, *sources, **more):
    return chain_environment(aws, *sources) | {"AWS_REGION": "us-west-2", **more}


def said(running):
    with urllib.request.urlopen(f"http://{running.addresses['metrics']}/metrics", timeout=5) as answer:
        return running.output + answer.read().decode()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_nothing_secret_is_said_with_debug_logging_in_any_situation(tmp_path, aws, workers):
    environ = loud(aws, "container") | {
        "CODER_AIBRIDGE_PROVIDER_0_TYPE": "bedrock",
        "CODER_AIBRIDGE_PROVIDER_0_NAME": "pair",
        "CODER_AIBRIDGE_PROVIDER_0_BEDROCK_ACCESS_KEY": "AKIAPAIR",
        "CODER_AIBRIDGE_PROVIDER_0_BEDROCK_ACCESS_KEY_SECRET": f"{CANARY}-pair",
        "CODER_AIBRIDGE_PROVIDER_0_BEDROCK_SESSION_TOKEN": f"{CANARY}-pair-session",
        "CODER_AIBRIDGE_PROVIDER_0_BEDROCK_ROLE_ARN": ROLE,
        "CODER_AIBRIDGE_PROVIDER_1_TYPE": "bedrock",
        "CODER_AIBRIDGE_PROVIDER_1_NAME": "ambient",
    }
    with credentiald(tmp_path, environ, "--log-level", "debug", "--workers", workers) as running:
        seen = commanded(tmp_path, running, "providers", "check", "pair")
        assert "  answered by   provider-role\n" in seen
        assert "  account       123456789012\n" in seen
        seen += commanded(tmp_path, running, "providers", "check", "ambient")
        assert "  region       us-west-2 (from AWS_REGION)\n" in seen
        for mode in (FAIL, "garbage"):
            aws.modes = {"container": mode, "sts": FAIL}
            for name in ("pair", "ambient"):
                done = command(tmp_path, running, "providers", "check", name)
                assert done.returncode == 1
                seen += done.stdout + done.stderr
        commanded(tmp_path, running, "users", "create", "ada")
        seen += commanded(tmp_path, running, "explain", "ambient", "--user", "ada")
        assert "AWS\n  credential  ambient\n" in seen
        seen += said(running)
    assert CANARY not in seen
    assert "botocore" not in seen
    assert "AKIAPAIR" not in seen.replace("arn:aws:sts::123456789012:key/", "")


def test_a_check_is_json_for_programs(tmp_path, aws):
    environ = loud(aws, "imds") | {"CODER_AIBRIDGE_PROVIDER_0_TYPE": "bedrock"}
    with credentiald(tmp_path, environ) as running:
        found = json.loads(commanded(tmp_path, running, "providers", "check", "bedrock", "--json"))
        assert found["answered_by"] == "iam-role"
        assert found["place"]["region"] == "us-west-2"
        assert {step["name"] for step in found["steps"]} > {"env", "iam-role", "identity"}
        assert all(step["duration_seconds"] >= 0 for step in found["steps"])
        aws.modes["imds"] = "missing"
        done = command(tmp_path, running, "providers", "check", "bedrock", "--json")
        assert (done.returncode, json.loads(done.stdout)["reason"]) == (1, "AMBIENT_CREDENTIALS_UNAVAILABLE")
        aws.modes["imds"] = OK


SLEEPER = """
import os, pathlib, sys, time
here = pathlib.Path(sys.argv[1])
here.with_suffix(".new").write_text(str(os.getpid()))
here.with_suffix(".new").rename(here)
time.sleep(120)
"""


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_credential_process_that_hangs_does_not_outlive_credentiald(tmp_path):
    script, mark, config = tmp_path / "process.py", tmp_path / "pid", tmp_path / "config"
    script.write_text(SLEEPER)
    config.write_text(f"[default]\ncredential_process = {sys.executable} {script} {mark}\n")
    environ = {
        "AWS_CONFIG_FILE": str(config),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REGION": "us-west-2",
        "CODER_AIBRIDGE_PROVIDER_0_TYPE": "bedrock",
    }
    with credentiald(tmp_path, environ) as running:
        checking = threading.Thread(target=command, args=(tmp_path, running, "providers", "check", "bedrock"))
        checking.start()
        deadline = time.monotonic() + 10
        while not mark.exists():
            assert time.monotonic() < deadline
            os.sched_yield()
        assert is_alive(mark.read_text())
        assert running.stop() == 0
        checking.join(10)
        deadline = time.monotonic() + 1
        while is_alive(mark.read_text()) and time.monotonic() < deadline:
            os.sched_yield()
        assert not is_alive(mark.read_text())


def test_sessions_share_the_data_of_botocore_which_are_slow_to_read_and_nothing_else():
    one, other = new_session(), new_session()
    assert one.get_component("data_loader") is other.get_component("data_loader")
    assert one.get_component("credential_provider") is not other.get_component("credential_provider")


def test_who_has_no_bedrock_provider_never_loads_botocore():
    code = (
        "import sys, credentiald.serve, credentiald.rpc.server, credentiald.cli.root, credentiald.cli.providers\n"
        "assert not [name for name in sys.modules if name.startswith(('botocore', 'boto3'))]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
