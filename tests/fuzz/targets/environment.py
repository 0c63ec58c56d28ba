"""The environment of credentiald and bridged: settings, or errors that name what is wrong and quote no secret.

An input is lines of NAME=VALUE. A name without a prefix of ours gets that of the providers.
"""

import re
from collections.abc import Callable

from bridged import settings as bridged_settings
from credentiald import settings as credentiald_settings
from daemonkit.settings import ConfigErrors

WORDS = [
    b"CODER_AIBRIDGE_PROVIDER_0_",
    b"CODER_AIBRIDGE_PROVIDER_1_",
    b"TYPE=",
    b"openai",
    b"anthropic",
    b"bedrock",
    b"\n",
    b"NAME=",
    b"KEY=",
    b"BASE_URL=",
    b"BEDROCK_REGION=",
    b"https://",
    b"CREDENTIALD_LISTEN=",
    b"BRIDGED_LISTEN=",
    b"CREDENTIALD_",
    b"BRIDGED_",
    b"_FILE=",
    b"true",
    b"60d",
    b"\xff",
    b"127.0.0.1:0",
    b"CODER_AIBRIDGE_",
    b"007",
    b"=",
    b"unix:",
    b"FALLBACK_PROVIDER=",
    b"CENTRAL_KEY=",
    b"4KiB",
    b"on,lab=off",
]
SEEDS = [
    b"CODER_AIBRIDGE_PROVIDER_0_TYPE=openai\nCODER_AIBRIDGE_PROVIDER_0_NAME=a\nCODER_AIBRIDGE_PROVIDER_0_KEY=canary-canary",
    b"CODER_AIBRIDGE_PROVIDER_0_TYPE=bedrock\nCODER_AIBRIDGE_PROVIDER_0_BEDROCK_REGION=us-east-1",
    b"CODER_AIBRIDGE_OPENAI_KEY=canary-canary\nCODER_AIBRIDGE_OPENAI_BASE_URL=https://a/v1",
    b"CREDENTIALD_LISTEN=127.0.0.1:0\nCREDENTIALD_RECORD_PROMPTS=on,lab=off\nCREDENTIALD_GRACE=5s",
    b"BRIDGED_LISTEN=[::1]:0,unix:/x\nBRIDGED_MAX_BODY=32MiB\nBRIDGED_RATE_LIMIT=7\nCODER_AIBRIDGE_MAX_CONCURRENCY=3",
]
_OURS = ("CREDENTIALD_", "BRIDGED_", "CODER_")
_SECRET = re.compile(r"(?<!CENTRAL)_(KEY|SECRET|TOKEN|KEYS)$")


def one_input(data: bytes) -> None:
    environ = {}
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        name, equals, value = line.partition("=")
        # What no process can have.
        if not equals or not name or "\0" in line:
            continue
        environ[name if name.startswith(_OURS) else f"CODER_AIBRIDGE_PROVIDER_{name}"] = value
    for module in (credentiald_settings, bridged_settings):
        told = _errors(lambda module=module: module.load({}, environ, read_file=_no_file))
        for name, value in environ.items():
            assert len(value) < 12 or not _SECRET.search(name) or value not in told or value in name, (name, told)


def _errors(load: Callable[[], object]) -> str:
    try:
        load()
    except ConfigErrors as errors:
        return "\n".join(errors.errors) or "errors without a word"
    return ""


def _no_file(path: str) -> str:
    raise FileNotFoundError(2, "No such file or directory")
