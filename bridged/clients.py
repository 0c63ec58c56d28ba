"""Who is calling: the name of the client, and which of its conversations this is. From headers that clients send today.

Both are what the client says of itself, for records and never for a decision.
"""

from collections.abc import Mapping
from functools import lru_cache

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

_REMEMBERED_AGENTS = 512

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
# No more of an agent is looked at and remembered. It is too short for a token, which may stand anywhere where a client
# is configured by hand.
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


def client_name(named: Mapping[str, str]) -> str:
    """The client's name from its headers (HEADER_NAMES), `Unknown` where nothing tells. The User-Agent comes first."""
    agent = named.get("user-agent", "")
    name = _of_agent(agent[:_AGENT_CHARACTERS])
    if name:
        return name
    if agent and len(named) == 1:
        return UNKNOWN
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


@lru_cache(maxsize=_REMEMBERED_AGENTS)
def _of_agent(agent_beginning: str) -> str:
    agent_beginning = agent_beginning.lower()
    return next((name for beginning, name in _BY_AGENT if agent_beginning.startswith(beginning)), "")


def _bounded(value: str) -> str | None:
    # Two conversations whose ids only begin alike are not one.
    return value if len(value) <= MAX_SESSION_CHARACTERS else None
