"""Columns of usual interceptions as the messages that say the same."""

import json
from collections.abc import Sequence

from drawbridge.v1 import record_pb2
from drawbridge.v1 import record_service_pb2 as pb


def messages_of(usual: pb.UsualInterceptions, ids: Sequence[str] = ()) -> list[pb.InterceptionRecords]:
    """The messages that say the same; with the ids of the interceptions, their records have ids too."""
    messages = []
    for place, receipt in enumerate(usual.receipts):
        message = pb.InterceptionRecords(receipt=receipt, facts=usual.facts[usual.facts_indexes[place]])
        message.end.outcome = record_pb2.INTERCEPTION_OUTCOME_COMPLETED
        message.end.end_time.FromMicroseconds(usual.end_micros[place])
        message.end.http_status = usual.http_statuses[place]
        message.end.duration_micros = usual.duration_micros[place]
        if usual.first_byte_micros[place] >= 0:
            message.end.first_byte_micros = usual.first_byte_micros[place]
        message.end.upstream_request_id = usual.upstream_request_ids[place]
        if usual.input_tokens[place] >= 0:
            message.token_usages.add(
                response_id=usual.response_ids[place],
                input_tokens=usual.input_tokens[place],
                output_tokens=usual.output_tokens[place],
                cache_read_input_tokens=usual.cache_read_input_tokens[place],
                cache_write_input_tokens=usual.cache_write_input_tokens[place],
                metadata=json.loads(usual.token_metadata[place] or "{}"),
            )
        if usual.prompt_bytes[place] >= 0:
            message.prompts.add(
                response_id=usual.response_ids[place],
                text=usual.prompts[place],
                text_bytes=usual.prompt_bytes[place],
            )
        if ids:
            for records, tail in ((message.token_usages, "0000"), (message.prompts, "0001")):
                for record in records:
                    record.id = ids[place][:-4] + tail
        messages.append(message)
    return messages
