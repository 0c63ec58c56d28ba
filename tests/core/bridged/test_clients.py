"""Clients are known by what they send today."""

import pytest

from bridged.clients import HEADER_NAMES, MAX_SESSION_CHARACTERS, UNKNOWN, session_id
from bridged.model import HeaderNames, Headers, named_values
from bridged.recording import new_recording
from bridged.routes import match
from bridged.taps import answer_tap


def client_name(headers: Headers) -> str:
    """The client as an interception with these headers tells it."""
    return new_recording("i", match("POST", "/v1/messages", (), ""), headers, answer_tap).client


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("mux/1.0", "Mux"),
        ("xum/1.0", "Xum"),
        ("claude-cli/2.1.197 (external, sdk-cli)", "Claude Code"),
        ("claude-code/2.1", "Claude Code"),
        ("codex_exec/0.169.0 (Debian 12)", "Codex"),
        ("codex_cli_rs/0.50", "Codex"),
        ("Zed/0.200", "Zed"),
        ("GitHubCopilotChat/0.30", "GitHub Copilot (VS Code)"),
        ("copilot/1.0", "GitHub Copilot (CLI)"),
        ("Kilo-Code/4", "Kilo Code"),
        ("Roo-Code/3", "Roo Code"),
        ("RooCode/3.52.1", "Roo Code"),
        ("Cline/3.74.0", "Cline"),
        ("coder-agents/2", "Coder Agents"),
        ("Charm Crush/1", "Charm Crush"),
        ("charm-crush/1", "Charm Crush"),
        ("opencode/1.18.33", "OpenCode"),
        ("Junie:1", "Junie"),
        ("GeminiCLI/0.61.0/gemini-2.5-pro (linux; x64)", "Gemini CLI"),
        ("ccclaude-cli/1", UNKNOWN),
        ("OpenAI/Python 3.54.0", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_user_agents(agent: str, name: str) -> None:
    assert client_name((("User-Agent", agent),)) == name


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ((("Originator", "Kilo-Code"),), "Kilo Code"),
        ((("originator", "roo-code"),), "Roo Code"),
        ((("X-Cursor-Client-Version", "1"),), "Cursor"),
        ((("X-OpenCode-Session", "s"),), "OpenCode"),
        ((("User-Agent", "OpenAI/JS 6"), ("x-initiator", "user"), ("x-interaction-type", "conversation")),
         "GitHub Copilot (CLI)"),
        ((("User-Agent", "claude-cli/2"), ("X-Cursor-Client-Version", "1")), "Claude Code"),
        ((), UNKNOWN),
    ],
)  # fmt: skip
def test_other_headers(headers: Headers, name: str) -> None:
    assert client_name(headers) == name


@pytest.mark.parametrize(
    ("client", "headers", "expected"),
    [
        ("Claude Code", (("X-Claude-Code-Session-Id", " a "),), "a"),
        ("Claude Code", (("X-Claude-Code-Session-Id", "  "),), "from-body"),
        ("Claude Code", (), "from-body"),
        ("Codex", (("session-id", "a"), ("session_id", "b")), "a"),
        ("Codex", (("session_id", "b"),), "b"),
        ("Mux", (("X-Mux-Workspace-Id", "a"),), "a"),
        ("GitHub Copilot (VS Code)", (("X-Interaction-Id", "a"),), "a"),
        ("GitHub Copilot (CLI)", (("X-Client-Session-Id", "a"),), "a"),
        ("Kilo Code", (("X-KILOCODE-TASKID", "a"),), "a"),
        ("Coder Agents", (("X-Coder-Chat-Id", "a"),), "a"),
        ("OpenCode", (("X-OpenCode-Session", "a"), ("x-session-affinity", "b")), "a"),
        ("OpenCode", (("x-session-id", "a"), ("x-session-affinity", "b")), "a"),
        ("OpenCode", (("x-session-affinity", "b"),), "b"),
        ("Zed", (("session-id", "a"),), None),
        (UNKNOWN, (("X-Claude-Code-Session-Id", "a"),), None),
        ("Codex", (("session-id", "a" * (MAX_SESSION_CHARACTERS + 1)),), None),
    ],
)
def test_sessions(client: str, headers: Headers, expected: str | None) -> None:
    assert session_id(client, named_values(headers, HeaderNames(*HEADER_NAMES)), in_body="from-body") == expected
