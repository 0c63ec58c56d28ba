"""Replies that are put together from bytes are the messages that protobuf would have made."""

from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import provider_pb2, user_pb2
from google.protobuf.internal.encoder import _VarintBytes
from hypothesis import given
from hypothesis import strategies as st

from credentiald.errors import KeyPoolExhausted, ProviderNotFound
from credentiald.rpc import reply_bytes, status
from daemonkit.varint import varint

ID = "0190e2f4-1111-7abc-8def-0123456789ab"


def response(api_key: str, username: str) -> pb.ResolveProviderResponse:
    return pb.ResolveProviderResponse(
        provider=provider_pb2.Provider(id=ID, name="corp", type="openai", wire_type="openai"),
        user=user_pb2.User(id=ID, username=username),
        source=provider_pb2.CREDENTIAL_SOURCE_USER_KEY,
        credential=pb.Credential(credential_id=ID, api_key=pb.ApiKey(value=api_key)),
        revision=42,
    )


TEXTS = st.text(max_size=300)
ITEMS = st.one_of(
    st.tuples(st.text(max_size=20_000), TEXTS, TEXTS, st.binary(max_size=20_000)), st.sampled_from(["refusal"])
)


@given(st.lists(ITEMS, max_size=6))
def test_a_reply_reads_as_the_message_with_the_same_fields(items):
    expected, parts = pb.ResolveProviderStreamResponse(), []
    for item in items:
        if isinstance(item, str):
            refusal = status.item_of(ProviderNotFound(provider="x"))
            expected.results.add(refusal=refusal)
            parts.append(reply_bytes.refused(refusal))
            continue
        api_key, username, model, receipt = item
        unchanged = response(api_key, username).SerializeToString()
        parts.append(reply_bytes.answered(unchanged, resolution_id=ID.encode(), upstream_model=model, receipt=receipt))
        whole = response(api_key, username)
        whole.resolution_id, whole.upstream_model, whole.receipt = ID, model, receipt
        expected.results.add(response=whole)

    assert pb.ResolveProviderStreamResponse.FromString(b"".join(parts)) == expected


@given(st.integers(min_value=0, max_value=2**35))
def test_a_length_is_written_as_protobuf_writes_it(number):
    assert varint(number) == _VarintBytes(number)


def test_a_refusal_in_a_batch_carries_what_its_status_would():
    item = status.item_of(KeyPoolExhausted(provider="corp", retry_after_seconds="60"))

    assert (item.code, item.reason, item.domain) == (8, "KEY_POOL_EXHAUSTED", "drawbridge")
    assert dict(item.metadata) == {"provider": "corp", "retry_after_seconds": "60"}
    assert item.retry_delay.seconds == 60
    assert "corp" in item.message
    assert not status.item_of(ProviderNotFound(provider="x")).HasField("retry_delay")
