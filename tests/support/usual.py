"""Usual interceptions in other forms: columns as messages, and openings and reports as columns."""

import json
from collections.abc import Sequence
from operator import itemgetter

from drawbridge.v1 import record_pb2
from drawbridge.v1 import record_service_pb2 as pb

from credentiald.record_model import Opening, Report
from credentiald.store.record_writing import Batch
from credentiald.usual_report import NONE_MATCHED, Matched, Told, in_columns


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


def matched_batch(openings: list[Opening], told: list[Told]) -> tuple[Batch, list[int]]:
    """These in one batch, what can be matched of them as columns; and the places that the reports had."""
    opened_ids, told_ids = [one[0] for one in openings], [one[0] for one in told]
    opened = {one[0]: one for one in openings}
    matched = [
        place
        for place, one in enumerate(told)
        if not isinstance(one, Report)
        and told_ids.count(one[0]) == opened_ids.count(one[0]) == 1
        and one[1:4] == itemgetter(1, 2, 8)(opened[one[0]])
    ]
    others = [place for place in range(len(told)) if place not in matched]
    ids = [told_ids[place] for place in matched]
    batch = Batch(
        openings=[one for one in openings if one[0] not in ids],
        reports=[told[place] for place in others],
        matched=Matched(
            in_columns([told[place] for place in matched]),
            Opening._make(zip(*(opened[one] for one in ids), strict=True)),
            [],
        )
        if matched
        else NONE_MATCHED,
    )
    return batch, others + matched
