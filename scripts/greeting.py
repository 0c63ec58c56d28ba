"""What scripts/run tells a person when all is up. No I/O."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

# Per provider type: path, model and further header of the curl line.
CALLS = {
    "anthropic": ("/v1/messages", "claude-opus-4-6", " -H 'anthropic-version: 2023-06-01'"),
    "openai": ("/v1/chat/completions", "gpt-5-mini", ""),
}
VERSION_IN_BASE_URL = {"openai", "openai-compat", "openrouter", "vercel"}


def url_of(address: str, *, secure: bool) -> str:
    """The URL under which this machine reaches a listener; wildcard addresses become loopback."""
    host, _, port = address.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
    return f"{'https' if secure else 'http'}://{host}:{port}"


def how_to_use(
    base_url: str, providers: list[dict[str, object]], token_file: Path, usage: str, *, is_demo: bool
) -> str:
    """What a person sees when all is up."""
    lines = ["", "Drawbridge is up; Ctrl-C stops it.", ""]
    if is_demo:
        lines += ["No provider key was found, so a built-in demo upstream answers.", ""]
    lines += [f"base URL     {client_url(base_url, each)}   ({each['type']})" for each in providers]
    lines += [f"your token   {token_file}", f"usage        {usage}", ""]
    usable = [each for each in providers if each["type"] in CALLS and each["central_key_set"] and each["enabled"]]
    if usable:
        lines += ["Try it:", "", curl_line(base_url, usable[0], token_file), ""]
    else:
        lines += ["No provider has a key for everybody: see 'credentiald providers' and README.md.", ""]
    return "\n".join(lines)


def client_url(base_url: str, provider: dict[str, object]) -> str:
    """What a client of this provider is told as its base URL: those of OpenAI's API want the version in it."""
    path = "/v1" if provider["type"] in VERSION_IN_BASE_URL else ""
    return f"{base_url}/api/v2/aibridge/{provider['name']}{path}"


def usage_line(credentiald: Path, database: Path, admin: str) -> str:
    """A command that shows what requests have taken so far, from whatever folder it is run."""
    settings = {"CREDENTIALD_DATABASE": f"sqlite:///{database}", "CREDENTIALD_ADMIN": admin}
    words = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    return " ".join([*words, shlex.quote(str(credentiald)), "records usage --by day,provider,model"])


def curl_line(base_url: str, provider: dict[str, object], token_file: Path) -> str:
    """A command that streams an answer. The token goes through a pipe: an argument would show in `ps`."""
    path, model, header = CALLS[str(provider["type"])]
    body: dict[str, object] = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Say hello."}]}
    if path == "/v1/messages":
        body["max_tokens"] = 200
    token = f"sed 's/^/Authorization: Bearer /' {shlex.quote(str(token_file))}"
    url = f"{base_url}/api/v2/aibridge/{provider['name']}{path}"
    call = f"curl -N -H @- -H 'Content-Type: application/json'{header} '{url}'"
    return f"{token} | {call} -d '{json.dumps(body)}'"
