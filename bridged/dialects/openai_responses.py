"""OpenAI Responses. Errors before a stream are OpenAI's usual ones; in a stream they are an event of type `error`."""

import msgspec

from bridged.dialects.facts import read_top_level as read_request
from bridged.dialects.openai_chat import error_body, error_object
from bridged.errors import status_of

__all__ = ["error_body", "read_request", "stream_error_event"]


def stream_error_event(reason: str, message: str, interception_id: str) -> bytes:
    """The `error` event of the API reference, with the error object that SDKs look for beside the documented fields.

    `sequence_number` is left out: the bridge does not count the upstream's events.
    """
    del interception_id
    error = error_object(status_of(reason), reason, message)
    event = {"type": "error", "code": error["code"], "message": message, "param": None, "error": error}
    return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"
