"""What the JSON dialects have in common: `model` and `stream` at the top of the body. The body itself is kept as is."""

import re

import msgspec

from bridged.conversation import Conversation, ShortConversation
from bridged.model import Refused, RequestFacts

# Names of models are short; more would only travel to credentiald and into records.
MAX_MODEL_CHARACTERS = 512
# Of a body that is looked into at once. Longer ones are of agents, whose last message is hardly ever a plain text.
_SHORT_CHARACTERS = 8192

NO_FACTS = RequestFacts()


class _TopLevel(msgspec.Struct):
    """The two fields, null counting as absent. Other fields are skipped, whatever their type."""

    model: str | None = None
    stream: bool | None = None


_decoder = msgspec.json.Decoder(_TopLevel)
_conversations = msgspec.json.Decoder(Conversation)
_short_conversations = msgspec.json.Decoder(ShortConversation)
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


def read_top_level(body: bytes) -> RequestFacts:
    """Model and stream flag of a JSON object; of repeated keys the last one wins, as in most parsers.

    INVALID_BODY for what is not an object in UTF-8, or has one of the two fields with a wrong type. A missing field
    is the upstream's to judge.
    """
    try:
        # msgspec skips what it does not need without looking at its encoding.
        text = body.decode("utf-8")
        if len(text) <= _SHORT_CHARACTERS:
            try:
                short = _short_conversations.decode(text)
            except (msgspec.DecodeError, RecursionError):
                # What is odd deep inside of messages is no reason to refuse a request.
                pass
            else:
                return checked(RequestFacts(short.model or "", bool(short.stream), short))
        top_level = _decode(text)
    except UnicodeDecodeError:
        raise Refused("INVALID_BODY", "the body is not UTF-8") from None
    except msgspec.ValidationError as error:
        # Its words name a field and the types, never a value.
        raise Refused("INVALID_BODY", f"the body has a wrong type: {error}") from None
    except (msgspec.DecodeError, RecursionError):
        raise Refused("INVALID_BODY", "the body is not well-formed JSON") from None
    conversation = top_level if isinstance(top_level, Conversation) else None
    return checked(RequestFacts(top_level.model or "", bool(top_level.stream), conversation))


def _decode(text: str) -> Conversation | _TopLevel:
    try:
        try:
            return _conversations.decode(text)
        except msgspec.ValidationError:
            # Messages of a wrong type are the upstream's to judge.
            return _decoder.decode(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # Half an emoji, left where a client cut a text, is a lone surrogate. JSON's grammar allows it (RFC 8259, 8.2),
        # msgspec does not. Whether it is good enough is the upstream's to judge, so it is looked past.
        mended, count = _SURROGATE_ESCAPE.subn(r"\\ufffd", text)
        if not count:
            raise
        return _decode(mended)


def checked(facts: RequestFacts) -> RequestFacts:
    """The same facts, or INVALID_BODY for a model name that cannot be one."""
    if len(facts.model) > MAX_MODEL_CHARACTERS:
        raise Refused("INVALID_BODY", f"model: more than {MAX_MODEL_CHARACTERS} characters")
    return facts
