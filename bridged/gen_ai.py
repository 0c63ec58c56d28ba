"""What our facts are called in OpenTelemetry's semantic conventions for generative AI: the one place that knows.

Pure. The conventions are in development (github.com/open-telemetry/semantic-conventions-genai, read for 1.40); when
a name changes, it changes here. Names and numbers only: no prompt, no answer, no input of a tool, nobody's name.

Two choices. `gen_ai.usage.input_tokens` includes cached tokens in the conventions ("cache_read … SHOULD be included in
gen_ai.usage.input_tokens", likewise cache_creation), while our records keep the four counts apart: here they are added
up. `gen_ai.response.finish_reasons` is left out, because no tap reads it.
"""

import re

from bridged.model import RequestFacts
from bridged.records import AnswerRecords, TokenUsage
from daemonkit.secret import masked

Attributes = dict[str, str | int | bool]

CHAT, GENERATE, EMBEDDINGS = "chat", "generate_content", "embeddings"

# gen_ai.provider.name by provider type. A type that is not here is its own name, which the conventions admit; a service
# that is spoken to as OpenAI's is `openai` by their rule, and server.address tells it apart.
PROVIDER_NAMES = {
    "anthropic": "anthropic",
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "copilot": "github.copilot",
    "google": "gcp.gemini",
    "openai": "openai",
    "openai-compat": "openai",
    "openrouter": "openrouter",
    "vercel": "vercel",
}

# gen_ai.operation.name by operation; what is not here (lists of models, counting tokens) is plain HTTP to tracing.
OPERATIONS = {
    "anthropic.messages": CHAT,
    "azure.chat_completions": CHAT,
    "azure.embeddings": EMBEDDINGS,
    "azure.responses": CHAT,
    "bedrock.converse": CHAT,
    "bedrock.converse_stream": CHAT,
    "bedrock.invoke_model": CHAT,
    "bedrock.invoke_model_stream": CHAT,
    "copilot.chat_completions": CHAT,
    "copilot.responses": CHAT,
    "google.embed_content": EMBEDDINGS,
    "google.generate_content": GENERATE,
    "google.openai_chat_completions": CHAT,
    "google.openai_embeddings": EMBEDDINGS,
    "google.stream_generate_content": GENERATE,
    "openai.chat_completions": CHAT,
    "openai.embeddings": EMBEDDINGS,
    "openai.responses": CHAT,
}

# What taps call it, by API.
_REASONING = ("output_reasoning", "completion_reasoning")
# A client may write anything for a model, and an upstream for an id.
_LONGEST = 128
_KIND_OF_ERROR = re.compile(r"[A-Za-z0-9_.\-]{1,64}", re.ASCII)
OTHER_ERROR = "_OTHER"


def span_name(operation: str, model: str) -> str:
    """`{gen_ai.operation.name} {gen_ai.request.model}`; empty for what is none of generative AI."""
    name = OPERATIONS.get(operation)
    return "" if name is None else f"{name} {bounded(model)}".rstrip()


def request_attributes(operation: str, provider_type: str, facts: RequestFacts) -> Attributes:
    """What is known before the upstream answers; nothing for what is none of generative AI."""
    name = OPERATIONS.get(operation)
    if name is None:
        return {}
    attributes: Attributes = {
        "gen_ai.operation.name": name,
        "gen_ai.provider.name": PROVIDER_NAMES.get(provider_type, provider_type),
    }
    if facts.model:
        attributes["gen_ai.request.model"] = bounded(facts.model)
    if facts.stream:
        attributes["gen_ai.request.stream"] = True
    return attributes


def response_attributes(records: AnswerRecords) -> Attributes:
    """What the upstream said of its answer."""
    attributes: Attributes = {}
    if records.model:
        attributes["gen_ai.response.model"] = bounded(records.model)
    if records.msg_id:
        attributes["gen_ai.response.id"] = bounded(records.msg_id)
    if records.usage is not None:
        attributes.update(_usage_attributes(records.usage))
    return attributes


def error_kind(text: str) -> str:
    """`error.type` for an upstream's own word for an error; `_OTHER` for what is no word."""
    return text if _KIND_OF_ERROR.fullmatch(text) else OTHER_ERROR


def bounded(text: str) -> str:
    """Text of somebody else's as it may stand in a span: of one line, not long, without a token of ours."""
    shown = text[:_LONGEST]
    return masked(shown if shown.isprintable() else "".join(one if one.isprintable() else "?" for one in shown))


def _usage_attributes(usage: TokenUsage) -> Attributes:
    read, written = usage.cache_read_input_tokens, usage.cache_write_input_tokens
    attributes: Attributes = {
        "gen_ai.usage.input_tokens": usage.input_tokens + read + written,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": read,
        "gen_ai.usage.cache_creation.input_tokens": written,
    }
    for name in _REASONING:
        if name in usage.metadata:
            attributes["gen_ai.usage.reasoning.output_tokens"] = usage.metadata[name]
    return attributes
