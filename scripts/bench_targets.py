"""What scripts/bench measures: nginx as the floor, the pair, the upstream behind both, and what their processes use."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# Kept out of the installed package, like everything of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.processes import bridged, commanded, credentiald

READY_SECONDS = 20.0
EVENTS_A_BURST = 200
# In user mode and the kernel, in lines that read_instructions reads.
_COUNTED = ("--event=instructions:uk", "--field-separator=|")
# The last comes from bench_paced.py, the others from nginx.
ANSWERS = ("json", "sse", "large", "paced")
# Everything that may be on and is off by default; the limits are above what any workload reaches.
_LIMITS_AND_BREAKERS = {
    "BRIDGED_MAX_CONCURRENCY": "1000",
    "BRIDGED_MAX_PROVIDER_CONCURRENCY": "1000",
    "BRIDGED_MAX_USER_CONCURRENCY": "1000",
    "BRIDGED_RATE_LIMIT": "1000000",
    "BRIDGED_CIRCUIT_BREAKER_ENABLED": "true",
}
# Both nginx are one worker without a log. Its folders are its own, so that it runs as any user.
_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit; {user}
events {{ worker_connections 8192; }}
http {{
    access_log off; server_tokens off; keepalive_timeout 600; keepalive_requests 1000000000;
    client_max_body_size 64m; client_body_buffer_size 2m;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {content}
}}
"""
# A large body is read to its end before the answer: the proxying to itself is what makes nginx do that. SSI is there
# for the chunked framing that real streams have.
_UPSTREAM = """
    default_type application/json;
    server {{
        listen 127.0.0.1:{port};
        location /json/ {{ return 200 '{answer}'; }}
        location /large/ {{
            proxy_pass http://127.0.0.1:{port}/json/; proxy_pass_request_body off; proxy_set_header Content-Length "";
        }}
        location /sse/ {{ error_page 418 =200 /burst; return 418; }}
        location = /burst {{
            internal; alias {folder}/burst; default_type text/event-stream; ssi on; ssi_types text/event-stream;
        }}
    }}
"""
_FLOOR = """
    upstream mock {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000; }}
    upstream paced {{ server 127.0.0.1:{paced}; keepalive 512; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Authorization "Bearer benchmark"; proxy_buffering off;
        }}
        location /paced/ {{
            proxy_pass http://paced; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Authorization "Bearer benchmark"; proxy_buffering off;
        }}
    }}
"""


class NotStarted(Exception):
    """A server did not come up; the message says which, for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Something that forwards to the upstream. `urls` has the URL of each kind of answer."""

    name: str
    pids: tuple[int, ...]
    urls: dict[str, str]
    headers: dict[str, str] = field(repr=False)

    def cpu_seconds(self) -> float:
        """CPU time of all threads of all processes so far."""
        spent = 0
        for pid in self._all_pids():
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
                    spent += int((task / "schedstat").read_text().split()[0])
        return spent / 1e9

    def pss_mib(self) -> float:
        """Memory of all processes, what they share with others counted in parts."""
        lines = [line for pid in self._all_pids() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().split("\n")]
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024

    def counting(self, result: Path) -> list[str]:
        """What to put before a command, so that `result` says how many instructions this target takes meanwhile."""
        pids = ",".join(map(str, self._all_pids()))
        return ["perf", "stat", *_COUNTED, f"--output={result}", f"--pid={pids}"]

    def _all_pids(self) -> list[int]:
        """The processes with all that descend from them."""
        found, waiting = [], list(self.pids)
        while waiting:
            found.append(pid := waiting.pop())
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        return found


def can_count() -> bool:
    """Whether there is `perf`, and it may count what the kernel does as well (kernel.perf_event_paranoid)."""
    if shutil.which("perf") is None:
        return False
    done = subprocess.run(["perf", "stat", *_COUNTED, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.returncode == 0 and not math.isnan(read_instructions(done.stderr))


def read_instructions(output: str) -> float:
    """How many `perf stat` counted, in fields between bars; NaN where it could not."""
    counts = [line.split("|")[0] for line in output.splitlines() if "|instructions:uk|" in line]
    return float(counts[0]) if counts and counts[0].isdigit() else math.nan


@contextlib.contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """Whatever is started in this block runs on `cores` only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def upstream(nginx: str, folder: Path) -> Iterator[dict[str, int]]:
    """The port for each kind of answer: JSON of 1 KB, a stream of 200 events in one piece, or event by event."""
    folder.mkdir()
    (folder / "burst").write_text(burst())
    port, paced_port = free_port(), free_port()
    command = [sys.executable, str(Path(__file__).with_name("bench_paced.py")), str(paced_port), str(folder / "burst")]
    with _running_nginx(nginx, folder, _UPSTREAM.format(port=port, folder=folder, answer=json_answer()), port):
        paced = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            _wait_for_port(paced_port, "the paced upstream", paced)
            yield dict.fromkeys(ANSWERS, port) | {"paced": paced_port}
        finally:
            paced.terminate()
            paced.wait()


@contextlib.contextmanager
def floor(nginx: str, folder: Path, upstreams: dict[str, int]) -> Iterator[Target]:
    """nginx as a reverse proxy that asks nobody."""
    folder.mkdir()
    port = free_port()
    content = _FLOOR.format(port=port, upstream=upstreams["json"], paced=upstreams["paced"])
    with _running_nginx(nginx, folder, content, port) as pid:
        urls = {kind: f"http://127.0.0.1:{port}/{kind}/v1/chat/completions" for kind in ANSWERS}
        yield Target(name="nginx", pids=(pid,), urls=urls, headers={})


@contextlib.contextmanager
def pair(
    folder: Path,
    upstreams: dict[str, int],
    *,
    name: str = "drawbridge",
    prefix: str = "",
    flags: Sequence[str] = (),
    everything: bool = False,
) -> Iterator[Target]:
    """Both daemons with a database, a user and a token of their own.

    `prefix`: those of scripts/bench_plain_*.py. `flags` are for credentiald. `everything`: with pools of keys, fallback
    providers, breakers and limits.
    """
    folder.mkdir()
    environ = _providers(upstreams, everything=everything)
    if everything:
        environ |= _LIMITS_AND_BREAKERS
    if prefix:
        path = os.pathsep.join([str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")])
        environ["PYTHONPATH"] = path
    with (
        # Their memory is looked up in a file of /proc.
        credentiald(folder, environ, "--debuggable", *flags, module=f"{prefix}credentiald") as plane,
        bridged(folder, plane.addresses["main"], environ, "--debuggable", module=f"{prefix}bridged") as bridge,
    ):
        commanded(folder, plane, "users", "create", "bench")
        token = commanded(folder, plane, "tokens", "create", "--user", "bench").strip()
        _wait(f"http://{bridge.addresses['metrics']}/readyz", "bridged")
        base_url = f"http://{bridge.addresses['http']}/api/v2/aibridge"
        yield Target(
            name=name,
            pids=(plane.process.pid, bridge.process.pid),
            urls={kind: f"{base_url}/{kind}/v1/chat/completions" for kind in ANSWERS},
            headers={"Authorization": f"Bearer {token}"},
        )


def _providers(upstreams: dict[str, int], *, everything: bool) -> dict[str, str]:
    """As settings of credentiald's. `everything`: each has a second key, and the next one as its fallback."""
    environ: dict[str, str] = {}
    for number, (kind, next_kind) in enumerate(zip(ANSWERS, (*ANSWERS[1:], ANSWERS[0]), strict=True)):
        settings = {"TYPE": "openai", "NAME": kind, "BASE_URL": f"http://127.0.0.1:{upstreams[kind]}/{kind}/v1"}
        if everything:
            settings |= {"KEYS": "benchmark,benchmark-two", "FALLBACK_PROVIDER": next_kind}
        else:
            settings |= {"KEY": "benchmark"}
        environ |= {f"CODER_AIBRIDGE_PROVIDER_{number}_{name}": value for name, value in settings.items()}
    return environ


def question(size_bytes: int, *, stream: bool = False) -> str:
    """The body of a Chat Completions request, exactly so long."""
    body = {"model": "gpt-5-mini", "stream": stream, "messages": [{"role": "user", "content": ""}]}
    body["messages"] = [{"role": "user", "content": "x" * (size_bytes - len(json.dumps(body)))}]
    return json.dumps(body)


def json_answer() -> str:
    """A Chat Completions answer of about 1 KB."""
    usage = {"prompt_tokens": 250, "completion_tokens": 200, "total_tokens": 450}
    message = {"role": "assistant", "content": "word " * 150}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice], "usage": usage})


def burst() -> str:
    """A Chat Completions stream."""
    choice = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
    event = json.dumps({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]})
    return f"data: {event}\n\n" * EVENTS_A_BURST + "data: [DONE]\n\n"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextlib.contextmanager
def _running_nginx(nginx: str, folder: Path, content: str, port: int) -> Iterator[int]:
    # Started by root its worker would be somebody who may not read the folder.
    user = "user root;" if os.geteuid() == 0 else ""
    settings = folder / "nginx.conf"
    settings.write_text(_NGINX.format(folder=folder, user=user, content=content))
    process = subprocess.Popen([nginx, "-e", "stderr", "-c", str(settings)], stdin=subprocess.DEVNULL)
    try:
        _wait(f"http://127.0.0.1:{port}/json/", "nginx", process)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _wait_for_port(port: int, name: str, process: subprocess.Popen[bytes]) -> None:
    """Until something listens there."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
        except OSError as problem:
            if time.monotonic() > deadline or process.poll() is not None:
                raise NotStarted(f"{name} does not listen: {problem}") from None
            time.sleep(0.02)
        else:
            return


def _wait(url: str, name: str, process: subprocess.Popen[bytes] | None = None) -> None:
    """Until `url` answers with 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            with opener.open(url, timeout=2):
                return
        except OSError as problem:
            if time.monotonic() > deadline or (process is not None and process.poll() is not None):
                raise NotStarted(f"{name} does not answer: {problem}") from None
        time.sleep(0.02)
