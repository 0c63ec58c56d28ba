"""scripts/run from a clean clone with an empty home: what the README says of it."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.clone import ANY_PORTS, INSTALL_SECONDS, Run, bare_environ, make_clone, running

# How long what was recorded may take to be found.
RECORDED_SECONDS = 15.0


def chunks_of(process: subprocess.Popen[bytes]) -> Iterator[tuple[float, bytes]]:
    """What a process writes, as it comes, with the time of arrival."""
    assert process.stdout is not None
    while chunk := os.read(process.stdout.fileno(), 65536):
        yield time.monotonic(), chunk


def curl(run: Run, line: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        ["sh", "-c", line], env=bare_environ(run.clone), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def answer_to(run: Run, line: str) -> bytes:
    """All that a curl line brings."""
    with curl(run, line) as process:
        return b"".join(chunk for _, chunk in chunks_of(process))


def administer(run: Run, *arguments: str, database: str = "sqlite:///.run/credentiald.db", stdin: str = "") -> str:
    """stdout of an administering command, given as the README gives it."""
    done = subprocess.run(
        [".venv/bin/credentiald", *arguments],
        cwd=run.clone,
        env=bare_environ(run.clone, CREDENTIALD_DATABASE=database, CREDENTIALD_ADMIN=run.admin_address),
        input=stdin,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_printed_curl_streams_an_answer_event_by_event(clone: Path) -> None:
    with running(clone, bare_environ(clone, **ANY_PORTS)) as run, curl(run, run.wait_ready()) as process:
        arrived = list(chunks_of(process))

    body = b"".join(chunk for _, chunk in arrived)
    assert process.returncode == 0
    assert body.startswith(b"event: message_start")
    assert b"event: message_stop" in body
    assert b"message_stop" not in arrived[0][1]
    assert arrived[-1][0] - arrived[0][0] > 0.2


def test_the_printed_usage_command_shows_what_a_request_took(clone: Path, tmp_path: Path) -> None:
    # With data of its own: what another test asked counts, too.
    database = f"sqlite:///{tmp_path}/data/mine.db"
    with running(clone, bare_environ(clone, **ANY_PORTS, CREDENTIALD_DATABASE=database)) as run:
        assert b"message_stop" in answer_to(run, run.wait_ready())
        [line] = [line.partition("usage ")[2] for line in run.out.splitlines() if line.startswith("usage ")]
        deadline = time.monotonic() + RECORDED_SECONDS
        rows: list[dict[str, Any]] = []
        while not rows and time.monotonic() < deadline:
            done = subprocess.run(
                ["sh", "-c", f"{line} --json"], cwd=tmp_path, env=bare_environ(clone), capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            rows = json.loads(done.stdout)

    [row] = rows
    assert (row["provider"], row["model"], row["interceptions"]) == ("anthropic", "claude-opus-4-6", 1)
    assert row["tokens"]["output_tokens"] > 0


def test_what_is_kept_is_for_its_owner_alone_and_not_in_the_process_list(clone: Path) -> None:
    with running(clone, bare_environ(clone, **ANY_PORTS)) as run:
        run.wait_ready()
        folder = clone / ".run"
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        listing = subprocess.run(["ps", "-ww", "-eo", "args="], capture_output=True, text=True, check=True).stdout
        secrets = [path.read_text().strip() for path in folder.glob("*token")]

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {"access-token", "credentiald.db", "credentiald.sealing", "credentiald.admin-token"} <= modes.keys()
    assert set(modes.values()) == {0o600}
    assert len(secrets) == 3
    assert [secret for secret in secrets if secret in listing] == []


def test_a_second_run_keeps_data_and_token(clone: Path) -> None:
    environ = bare_environ(clone, **ANY_PORTS)
    with running(clone, environ) as first:
        first.wait_ready()
        token = first.token_file.read_text()
        users = json.loads(administer(first, "users", "list", "--json"))
        assert first.end() == 0
    with running(clone, environ) as second:
        line = second.wait_ready()
        again = json.loads(administer(second, "users", "list", "--json"))
        answer = answer_to(second, line)

    assert second.token_file.read_text() == token
    assert [user["id"] for user in users] == [user["id"] for user in again]
    assert b"message_stop" in answer


def test_a_token_that_credentiald_no_longer_takes_is_replaced(clone: Path) -> None:
    environ = bare_environ(clone, **ANY_PORTS)
    with running(clone, environ) as first:
        first.wait_ready()
        token = first.token_file.read_text()
        for each in json.loads(administer(first, "tokens", "list", "--json")):
            administer(first, "tokens", "revoke", each["id"])
        first.end()
    with running(clone, environ) as second:
        answer = answer_to(second, second.wait_ready())

    assert second.token_file.read_text() != token
    assert b"message_stop" in answer


def test_ctrl_c_lets_an_open_stream_end_and_stops_everything(clone: Path) -> None:
    with running(clone, bare_environ(clone, **ANY_PORTS)) as run, curl(run, run.wait_ready()) as process:
        arriving = chunks_of(process)
        _, body = next(arriving)
        children = run.children()
        status = run.end()
        body += b"".join(chunk for _, chunk in arriving)

    assert status == 0
    assert b"event: message_stop" in body
    assert process.returncode == 0
    assert children.keys() == {"credentiald serve", "bridged serve", "bridged demo-upstream"}
    assert [pid for pid in children.values() if Path(f"/proc/{pid}").exists()] == []


def test_a_second_ctrl_c_does_not_wait_for_open_streams(clone: Path) -> None:
    with running(clone, bare_environ(clone, **ANY_PORTS)) as run, curl(run, run.wait_ready()) as process:
        arriving = chunks_of(process)
        next(arriving)
        children = run.children()
        os.killpg(run.process.pid, signal.SIGINT)
        run.wait_for_error("draining")
        run.end()
        rest = b"".join(chunk for _, chunk in arriving)

    assert b"message_stop" not in rest
    assert [pid for pid in children.values() if Path(f"/proc/{pid}").exists()] == []


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("CREDENTIALD_LISTEN", "credentiald"),
        ("CREDENTIALD_METRICS_LISTEN", "credentiald"),
        ("BRIDGED_LISTEN", "bridged"),
    ],
)
def test_a_taken_port_is_a_clear_message(clone: Path, setting: str, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environ = bare_environ(clone, **ANY_PORTS | {setting: f"127.0.0.1:{port}"})
        with running(clone, environ) as run:
            assert run.wait(INSTALL_SECONDS) == 1

    assert f"127.0.0.1:{port}" in run.err
    assert f"{name} has stopped" in run.err
    assert setting in run.err
    assert "Traceback" not in run.err


def test_when_a_daemon_dies_the_rest_is_stopped_with_a_message(clone: Path) -> None:
    with running(clone, bare_environ(clone, **ANY_PORTS)) as run:
        run.wait_ready()
        children = run.children()
        os.kill(children["credentiald serve"], signal.SIGKILL)
        status = run.wait()

    assert status == 1
    assert "credentiald has stopped" in run.err
    assert [pid for pid in children.values() if Path(f"/proc/{pid}").exists()] == []


def test_well_known_key_variables_become_providers_and_no_demo_is_started(clone: Path) -> None:
    keys = {"ANTHROPIC_API_KEY": "sk-ant-canary", "OPENAI_API_KEY": "sk-canary"}
    with running(clone, bare_environ(clone, **ANY_PORTS, **keys)) as run:
        line = run.wait_ready()
        providers = json.loads(administer(run, "providers", "list", "--json"))
        children = run.children()

    assert [(each["name"], each["base_url"], each["central_key_set"]) for each in providers] == [
        ("anthropic", "", True),
        ("openai", "", True),
    ]
    assert "/api/v2/aibridge/anthropic/v1/messages" in line
    assert "bridged demo-upstream" not in children
    assert "canary" not in run.out + run.err


def test_a_provider_in_the_database_stands_beside_the_demo(tmp_path: Path, clone: Path) -> None:
    database = f"sqlite:///{tmp_path}/data/mine.db"
    environ = bare_environ(clone, **ANY_PORTS, CREDENTIALD_DATABASE=database)
    with running(clone, environ | {"OPENAI_API_KEY": "sk-other"}) as first:
        first.wait_ready()
        # It takes one of the two names that the demo uses.
        create = ("providers", "create", "anthropic", "--type", "anthropic", "--key-stdin")
        administer(first, *create, database=database, stdin="sk-own\n")
        first.end()
    with running(clone, environ) as second:
        second.wait_ready()
        providers = json.loads(administer(second, "providers", "list", "--json", database=database))
        children = second.children()

    assert (tmp_path / "data" / "access-token").exists()
    assert [(each["name"], each["origin"]) for each in providers] == [
        ("anthropic", "DATABASE"),
        ("openai", "ENVIRONMENT"),
    ]
    assert "bridged demo-upstream" in children


def test_an_old_python_is_told_what_is_needed(tmp_path: Path) -> None:
    clone = make_clone(tmp_path)
    script = (clone / "scripts" / "python_environment.py").read_text()
    (clone / "scripts" / "python_environment.py").write_text(script.replace("OLDEST = (3, 11)", "OLDEST = (9, 0)"))
    done = subprocess.run(
        [sys.executable, clone / "scripts" / "run"],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert "or newer is needed" in done.stderr
    assert "Traceback" not in done.stderr
