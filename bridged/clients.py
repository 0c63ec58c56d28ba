"""Who is calling: the name of the client, and which of its conversations this is. From headers that clients send today.

Both are what the client says of itself, for records and never for a decision.
"""

from collections.abc import Mapping

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
    ("roocode/", ROO_CODE),
    ("cline/", "Cline"),
    ("coder-agents/", CODER_AGENTS),
    ("charm crush/", "Charm Crush"),
    ("charm-crush/", "Charm Crush"),
    ("opencode/", OPENCODE),
    ("junie:", "Junie"),
    ("geminicli", "Gemini CLI"),
)
# No more of an agent is looked at.
_AGENT_CHARACTERS = max(len(beginning) for beginning, _ in _BY_AGENT)
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
CLIENTS_WITH_SESSIONS = frozenset(_SESSION_HEADERS)
# The headers that are read here.
HEADER_NAMES = (
    "user-agent",
    "originator",
    *(header for header, _ in _BY_HEADER),
    *(header for headers in _SESSION_HEADERS.values() for header in headers),
)


def client_of_agent(agent: str) -> str:
    """The name of the client that calls with this User-Agent; empty where that does not tell."""
    beginning = agent[:_AGENT_CHARACTERS].lower()
    return next((name for known, name in _BY_AGENT if beginning.startswith(known)), "")


def client_of_headers(named: Mapping[str, str]) -> str:
    """That of one whose User-Agent does not tell, from its other headers (HEADER_NAMES); `Unknown` if they do not."""
    originator = named.get("originator")
    if originator is not None and originator.lower() in _BY_ORIGINATOR:
        return _BY_ORIGINATOR[originator.lower()]
    for header, name in _BY_HEADER:
        if header in named:
            return name
    return UNKNOWN


def session_id(client: str, named: Mapping[str, str], *, in_body: str = "") -> str | None:
    """The id of the client's conversation, None where it has none.

    `in_body` is what the body says (Turn.session_id), for clients that put it there as well.
    """
    for header in _SESSION_HEADERS.get(client, ()):
        value = named.get(header)
        if value:
            return _bounded(value)
    return _bounded(in_body) if client == CLAUDE_CODE and in_body else None


def _bounded(value: str) -> str | None:
    # Two conversations whose ids only begin alike are not one.
    return value if len(value) <= MAX_SESSION_CHARACTERS else None
