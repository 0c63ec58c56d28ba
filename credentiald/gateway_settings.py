"""The settings that begin with CODER_AIBRIDGE_ and are credentiald's, but for the indexed providers.

Names and defaults are those of the product that this one is compatible with, so that its configuration can be moved
over as it is. Flags begin with `--aibridge-`, YAML keys stand in the block `aibridge`.
"""

# ruff: noqa: RUF009 - `setting` is a field specifier like dataclasses.field

from dataclasses import dataclass
from datetime import timedelta

from daemonkit.durations import parse_duration
from daemonkit.parsers import parse_boolean, parse_secret, parse_text
from daemonkit.secret import Secret
from daemonkit.settings import Section, setting

PREFIX = "CODER_AIBRIDGE_"
BLOCK = "aibridge"

# What Claude clients are mapped to when they reach Bedrock through a provider of type anthropic.
DEFAULT_BEDROCK_MODEL = "global.anthropic.claude-sonnet-4-5-20250929-v1:0"
DEFAULT_BEDROCK_SMALL_FAST_MODEL = "global.anthropic.claude-haiku-4-5-20251001-v1:0"

_IN_PROCESS_LIST = " Other users of the machine see flags: prefer the variable or its _FILE twin."

# What is kept until a time before the year 1 could never be removed.
_LONGEST_RETENTION = timedelta(days=36_500)


def _parse_injected_tools(text: str) -> bool:
    if parse_boolean(text):
        raise ValueError("injecting MCP tools is not supported: remove it, or set it to false")
    return False


def _parse_retention(text: str) -> timedelta:
    retention = parse_duration(text)
    if retention > _LONGEST_RETENTION:
        raise ValueError(f"{text!r} is more than a hundred years: write 0 to keep records for ever")
    return retention


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """Switches of the gateway and the legacy providers, one of OpenAI and one of Anthropic or Bedrock."""

    enabled: bool = setting(
        "true", "Whether the gateway answers at all.", parse_boolean, bare="true", metavar="true|false"
    )
    retention: timedelta = setting(
        "60d", "How long records are kept; 0 is for ever.", _parse_retention, metavar="DURATION"
    )
    structured_logging: bool = setting(
        "false", "Write a log line for every record.", parse_boolean, bare="true", metavar="true|false"
    )
    send_actor_headers: bool = setting(
        "false", "Tell upstreams who the user is, in headers.", parse_boolean, bare="true", metavar="true|false"
    )
    allow_byok: bool = setting(
        "true",
        "Whether requests may carry a user's own provider key.",
        parse_boolean,
        bare="true",
        metavar="true|false",
    )
    inject_coder_mcp_tools: bool = setting(
        "false", "Not supported: only false is accepted.", _parse_injected_tools, bare="true", metavar="false"
    )
    openai_key: Secret | None = setting(
        "",
        "Key of the provider named openai; without it there is none." + _IN_PROCESS_LIST,
        parse_secret,
        secret=True,
        flag=True,
        metavar="KEY",
    )
    openai_base_url: str = setting(
        "", "Base URL of the provider named openai; empty is https://api.openai.com/v1/.", parse_text, metavar="URL"
    )
    anthropic_key: Secret | None = setting(
        "",
        "Key of the provider named anthropic; not together with Bedrock's settings." + _IN_PROCESS_LIST,
        parse_secret,
        secret=True,
        flag=True,
        metavar="KEY",
    )
    anthropic_base_url: str = setting(
        "", "Base URL of the provider named anthropic; empty is https://api.anthropic.com/.", parse_text, metavar="URL"
    )
    bedrock_region: str = setting(
        "", "AWS region; makes the provider named anthropic one that reaches AWS Bedrock.", parse_text, metavar="REGION"
    )
    bedrock_base_url: str = setting(
        "", "Endpoint of Bedrock, where it does not follow from the region.", parse_text, metavar="URL"
    )
    bedrock_access_key: Secret | None = setting(
        "",
        "AWS access key id; without the pair, AWS's own chain is asked." + _IN_PROCESS_LIST,
        parse_secret,
        secret=True,
        flag=True,
        metavar="KEY",
    )
    bedrock_access_key_secret: Secret | None = setting(
        "",
        "AWS secret access key, the other half of the pair." + _IN_PROCESS_LIST,
        parse_secret,
        secret=True,
        flag=True,
        metavar="KEY",
    )
    bedrock_model: str = setting(
        DEFAULT_BEDROCK_MODEL, "What a client's model becomes at Bedrock.", parse_text, metavar="MODEL"
    )
    bedrock_small_fast_model: str = setting(
        DEFAULT_BEDROCK_SMALL_FAST_MODEL,
        "What a client's small, fast model becomes at Bedrock.",
        parse_text,
        metavar="MODEL",
    )


SECTION = Section(table=GatewaySettings, env_prefix=PREFIX, block=BLOCK)
