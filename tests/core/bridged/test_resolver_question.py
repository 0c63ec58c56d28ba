"""Questions that are put together from bytes are the messages that protobuf would have made."""

from typing import Any

import pytest
from drawbridge.v1 import credential_service_pb2 as pb
from google.protobuf.internal.encoder import _VarintBytes  # type: ignore[attr-defined]
from hypothesis import given
from hypothesis import strategies as st

from bridged import resolver_question
from bridged.resolver_question import Question
from daemonkit.secret import Secret
from daemonkit.varint import varint

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300) | st.sampled_from(["x" * 1023, "é" * 9000])
REVISIONS = st.integers(min_value=0, max_value=2**63 - 1)


@given(
    st.lists(st.tuples(TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, st.booleans(), TEXTS, REVISIONS, TEXTS), max_size=4)
)
def test_a_batch_reads_as_the_message_with_the_same_questions(questions: list[tuple[Any, ...]]) -> None:
    expected, items = pb.ResolveProviderStreamRequest(), []
    for provider, token, operation, model, interception_id, client, presented_key, bridge, revision, trace in questions:
        message = expected.items.add(
            provider=provider,
            access_token=token,
            operation=operation,
            model=model,
            interception_id=interception_id,
            client=client,
            presented_key=presented_key,
            bridge_instance_id=bridge,
            min_revision=revision,
            trace_parent=trace,
        )
        question = Question(
            provider=provider,
            access_token=Secret(token),
            operation=operation,
            model=model,
            interception_id=interception_id,
            client=client,
            presented_key=presented_key,
            trace_parent=trace,
        )
        item = resolver_question.item(question, resolver_question.of_this_bridge(bridge, revision))
        assert resolver_question.message_of(item) == message
        items.append(item)

    assert pb.ResolveProviderStreamRequest.FromString(b"".join(items)) == expected


def test_half_of_a_surrogate_pair_is_refused() -> None:
    question = Question(
        provider="p", access_token=Secret("t"), operation="o", model="\ud800", interception_id="", presented_key=False
    )
    with pytest.raises(UnicodeEncodeError):
        resolver_question.item(question, b"")


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_a_number_is_written_as_protobuf_writes_it(number: int) -> None:
    assert varint(number) == _VarintBytes(number)
