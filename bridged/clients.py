"""Who is calling: the name of the client, and which of its conversations this is. From headers that clients send today.

Both are what the client says of itself, for records and never for a decision.
"""

from bridged.model import Headers, header_values

UNKNOWN = "Unknown"
CLAUDE_CODE = "Claude Code"
CODEX = "Codex"
COPILOT_CLI = "GitHub Copilot (CLI)"
COPILOT_VS_CODE = "GitHub Copilot (VS Code)"
KILO_CODE = "Kilo Code"
ROO_CODE = "Roo Code"
MUX = "Mux"
CODER_AGENTS = "Coder Agents"
OPENCODE = "OpenCode"

MAX_SESSION_CHARACTERS = 256

# What a lower-cased User-Agent begins with.
_BY_AGENT = (
    ("mux/", MUX),
    ("xum/", "Xum"),
    ("claude", CLAUDE_CODE),
    ("codex", CODEX),
    ("zed/", "Zed"),
    ("githubcopilotchat/", COPILOT_VS_CODE),
    ("copilot/", COPILOT_CLI),
    ("kilo-code/", KILO_CODE),
    ("roo-code/", ROO_CODE),
    ("coder-agents/", CODER_AGENTS),
    ("charm crush/", "Charm Crush"),
    ("charm-crush/", "Charm Crush"),
    ("opencode/", OPENCODE),
    ("junie:", "Junie"),
    ("geminicli", "Gemini CLI"),
)
_BY_ORIGINATOR = {"kilo-code": KILO_CODE, "roo-code": ROO_CODE}
# Headers that one client alone sends, for those that call with the User-Agent of a library.
_BY_HEADER = (
    ("x-cursor-client-version", "Cursor"),
    ("x-opencode-session", OPENCODE),
    ("x-interaction-type", COPILOT_CLI),
)
# The first of these that is not blank.
_SESSION_HEADERS = {
    CLAUDE_CODE: ("x-claude-code-session-id",),
    CODEX: ("session-id", "session_id"),
    MUX: ("x-mux-workspace-id",),
    COPILOT_VS_CODE: ("x-interaction-id",),
    COPILOT_CLI: ("x-client-session-id", "x-interaction-id"),
    KILO_CODE: ("x-kilocode-taskid",),
    CODER_AGENTS: ("x-coder-chat-id",),
    OPENCODE: ("x-opencode-session", "x-session-id", "x-session-affinity"),
}


def client_name(headers: Headers) -> str:
    """The client's name, `Unknown` where nothing tells. The User-Agent comes first."""
    agent = _first(headers, "user-agent").lower()
    for beginning, name in _BY_AGENT:
        if agent.startswith(beginning):
            return name
    named = _BY_ORIGINATOR.get(_first(headers, "originator").lower())
    if named is not None:
        return named
    return next((name for header, name in _BY_HEADER if header_values(headers, header)), UNKNOWN)


def session_id(client: str, headers: Headers, *, in_body: str = "") -> str | None:
    """The id of the client's conversation, None where it has none.

    `in_body` is what the body says (Turn.session_id), for clients that put it there as well.
    """
    for header in _SESSION_HEADERS.get(client, ()):
        value = _first(headers, header)
        if value:
            return _bounded(value)
    return _bounded(in_body) if client == CLAUDE_CODE and in_body else None


def _bounded(value: str) -> str | None:
    # Two conversations whose ids only begin alike are not one.
    return value if len(value) <= MAX_SESSION_CHARACTERS else None


def _first(headers: Headers, name: str) -> str:
    return next((value for raw in header_values(headers, name) if (value := raw.strip())), "")
