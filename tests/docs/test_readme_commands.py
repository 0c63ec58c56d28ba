"""Every fenced block of the README is run, in a fresh clone, as it stands there but for ports and hosts."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.canned_upstream import canned_upstream
from tests.support.clone import ROOT, Run, bare_environ
from tests.support.readme import block_with, blocks

# What a block begins with (its first line), and who runs it. scripts/test runs this test, so it cannot run in it.
RUN_BY = {
    "flowchart LR": "nobody: it is a picture",
    "scripts/run": "test_scripts_run.py",
    "scripts/test": ".ci/run",
    "export CREDENTIALD_DATABASE=sqlite:///.run/credentiald.db": "test_a_real_provider_in_three_lines",
    "export DRAWBRIDGE_TOKEN=$(cat .run/access-token)": "shell",
    "export ANTHROPIC_BASE_URL=http://127.0.0.1:4001/api/v2/aibridge/anthropic": "test_claude_code",
    'model = "gpt-5.3-codex"': "test_codex",
    'codex exec --skip-git-repo-check "Say hello."': "test_codex",
    "{": "test_opencode",
    'opencode run --model anthropic/claude-sonnet-4-5 "Say hello."': "test_opencode",
    "import os|from anthropic import Anthropic": "test_python_sdks_against_the_demo_upstream",
    "import os|from openai import OpenAI": "test_python_sdks_against_the_demo_upstream",
    ".venv/bin/credentiald providers create azure-openai --type azure --base-url https://my.openai.azure.com/ "
    "--key-stdin": "test_azure_and_google_sdks",
    "import os|from openai import AzureOpenAI": "test_azure_and_google_sdks",
    "import os|from google import genai": "test_azure_and_google_sdks",
    ".venv/bin/credentiald records interceptions --limit 5": "test_what_was_asked_and_what_it_took",
    "credentiald init": "test_operating_it_without_scripts_run",
    "bridged config check": "test_operating_it_without_scripts_run",
    "credentiald users create alice": "test_operating_it_without_scripts_run",
}
DEMO_SAYS = "Hello from the demo upstream"


def first_lines(text: str) -> str:
    """The first line, and for programs the first that tells which."""
    lines = [line for line in text.splitlines() if line]
    return f"{lines[0]}|{lines[1]}" if lines[0] == "import os" else lines[0]


def test_each_block_is_run_somewhere() -> None:
    assert [first_lines(block.text) for block in blocks()] == list(RUN_BY)
    missing = [name for name in RUN_BY.values() if name.startswith("test_") and name.partition(".")[0] not in NAMES]
    assert missing == []


def shell(
    run: Run, text: str, *, stdin: str = "", folder: Path | None = None, **environ: str
) -> "subprocess.CompletedProcess[str]":
    """Run a block in the clone, or in `folder`, with the token exported first and the ports of this run."""
    script = block_with("export DRAWBRIDGE_TOKEN=").replace(".run/", f"{run.clone}/.run/") + "unset CDPATH\n" + text
    tools = [str(Path(sys.executable).parent), str(ROOT / ".venv-test" / "node" / "node_modules" / ".bin")]
    env = bare_environ(run.clone, CREDENTIALD_ADMIN=run.admin_address, **environ)
    return subprocess.run(
        ["bash", "-e", "-c", script.replace("127.0.0.1:4001", run.address)],
        cwd=folder or run.clone,
        env={**env, "PATH": os.pathsep.join([*tools, env["PATH"]])},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
    )


def create_provider(run: Run, line: str, base_url: str) -> None:
    """Run a line that creates a provider, pointed at `base_url`."""
    pointed = re.sub(r" --base-url \S+", "", line).replace("--key-stdin", f"--base-url {base_url} --key-stdin")
    made = shell(run, pointed, stdin="sk-provider\n", CREDENTIALD_DATABASE="sqlite:///.run/credentiald.db")
    assert made.returncode == 0, made.stderr


def test_a_real_provider_in_three_lines(demo: Run) -> None:
    hello = {"id": "m", "type": "message", "role": "assistant", "model": "x", "content": [], "stop_reason": "end_turn"}
    with canned_upstream({"/v1/messages": hello}) as upstream:
        text = block_with("providers create anthropic-corp").replace(
            "--key-stdin", f"--base-url {upstream.url} --key-stdin"
        )
        done = shell(demo, text, stdin="sk-ant-corp\n")
        url = f"http://{demo.address}/api/v2/aibridge/anthropic-corp/v1/messages"
        request = urllib.request.Request(
            url,
            data=b'{"model": "x", "max_tokens": 1, "messages": []}',
            headers={"Authorization": f"Bearer {demo.token_file.read_text().strip()}"},
        )
        with urllib.request.urlopen(request) as answer:
            body = json.load(answer)

    assert len(text.strip().splitlines()) == 3
    assert done.returncode == 0, done.stderr
    assert "the central key is used" in done.stdout
    assert "sk-ant-corp" not in done.stdout + done.stderr
    assert body == hello
    assert [headers["x-api-key"] for _, headers in upstream.seen] == ["sk-ant-corp"]


def test_what_was_asked_and_what_it_took(demo: Run) -> None:
    asked = subprocess.run(["sh", "-c", demo.wait_ready()], capture_output=True, timeout=60, check=True)
    assert b"message_stop" in asked.stdout
    text = block_with("records interceptions")
    deadline = time.monotonic() + 15
    while True:
        done = shell(demo, text, CREDENTIALD_DATABASE="sqlite:///.run/credentiald.db")
        assert done.returncode == 0, done.stderr
        requests, sums = done.stdout.partition("DAY ")[::2]
        # The demo has requests of other tests, too.
        found = re.search(r"me +anthropic +claude-opus-4-6 .*COMPLETED +200", requests)
        if found is not None or time.monotonic() > deadline:
            break

    assert found is not None, requests
    assert re.search(r"me +claude-opus-4-6", sums)


def test_claude_code(demo: Run, tmp_path: Path) -> None:
    done = shell(demo, block_with("claude -p"), folder=tmp_path, CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1")

    assert done.returncode == 0, done.stdout + done.stderr
    assert DEMO_SAYS in done.stdout


def test_codex(demo: Run, tmp_path: Path) -> None:
    folder = tmp_path / ".codex"
    folder.mkdir()
    (folder / "config.toml").write_text(block_with("[model_providers.").replace("127.0.0.1:4001", demo.address))
    done = shell(demo, block_with("codex exec"), folder=tmp_path, CODEX_HOME=str(folder))

    assert done.returncode == 0, done.stdout + done.stderr
    assert DEMO_SAYS in done.stdout


def test_opencode(demo: Run, tmp_path: Path) -> None:
    (tmp_path / "opencode.json").write_text(block_with('"provider": {').replace("127.0.0.1:4001", demo.address))
    done = shell(demo, block_with("opencode run"), folder=tmp_path, XDG_DATA_HOME=str(tmp_path / "data"))

    assert done.returncode == 0, done.stdout + done.stderr
    assert DEMO_SAYS in done.stdout


def run_python(run: Run, text: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", text.replace("127.0.0.1:4001", run.address)],
        env=bare_environ(run.clone, DRAWBRIDGE_TOKEN=run.token_file.read_text().strip()),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("program", ["from anthropic import Anthropic", "from openai import OpenAI"])
def test_python_sdks_against_the_demo_upstream(demo: Run, program: str) -> None:
    assert DEMO_SAYS in run_python(demo, block_with(program))


def test_azure_and_google_sdks(demo: Run) -> None:
    said = "hello from the upstream"
    message = {"role": "assistant", "content": said}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    chat = {"id": "c", "object": "chat.completion", "created": 1, "model": "x", "choices": [choice]}
    gemini = {"candidates": [{"content": {"role": "model", "parts": [{"text": said}]}, "finishReason": "STOP"}]}
    answers = {
        "/openai/deployments/my-deployment/chat/completions": chat,
        "/v1beta/models/gemini-2.5-flash:generateContent": gemini,
        "/v1/models/gemini-2.5-flash:generateContent": gemini,
    }
    with canned_upstream(answers) as upstream:
        for line in block_with("providers create azure-openai").strip().splitlines():
            create_provider(demo, line, upstream.url)
        outputs = [run_python(demo, block_with(program)) for program in ("AzureOpenAI(", "genai.Client(")]

    assert outputs == [f"{said}\n", f"{said}\n"]
    assert upstream.seen[0][1]["api-key"] == "sk-provider"
    assert upstream.seen[1][1]["x-goog-api-key"] == "sk-provider"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def background(command: list[str], folder: Path, environ: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A daemon for the length of the block; SIGTERM at its end must stop it well."""
    process = subprocess.Popen(command, cwd=folder, env=environ)
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(30) == 0


def wait_ready(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except (OSError, urllib.error.URLError):
            if time.monotonic() > deadline:
                raise


def test_operating_it_without_scripts_run(clone: Path, demo: Run, tmp_path: Path) -> None:
    ports = {name: free_port() for name in ("grpc", "admin", "credentiald", "http", "bridged")}
    at = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    environ = bare_environ(
        clone,
        PATH=f"{clone / '.venv/bin'}:{os.environ['PATH']}",
        CREDENTIALD_LISTEN=at["grpc"],
        CREDENTIALD_ADMIN_LISTEN=at["admin"],
        CREDENTIALD_METRICS_LISTEN=at["credentiald"],
        CREDENTIALD_ADMIN=at["admin"],
        BRIDGED_LISTEN=at["http"],
        BRIDGED_METRICS_LISTEN=at["bridged"],
        BRIDGED_CREDENTIALD=at["grpc"],
    )
    commands = [
        line.split() for part in ("credentiald init", "bridged config") for line in block_with(part).splitlines()
    ]
    said = []
    with ExitStack() as daemons:
        for command in commands:
            if command[1] == "serve":
                daemons.enter_context(
                    background([shutil.which(command[0], path=environ["PATH"]) or "", *command[1:]], tmp_path, environ)
                )
                wait_ready(ports[command[0]])
            else:
                done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
                assert done.returncode == 0, done.stderr
        for line in block_with("users create alice").splitlines():
            done = subprocess.run(line.split(), cwd=tmp_path, env=environ, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            said.append(done.stdout)

    assert commands[2:5:2] == [["credentiald", "serve"], ["bridged", "serve"]]
    assert said[1].startswith("dbu_")
    assert len(said[1].splitlines()) == 1


NAMES = {name for name in globals() if name.startswith("test_")} | {"test_scripts_run"}
