"""What a bridge reports, for tests of credentiald: questions that open interceptions, and messages about them."""

from typing import Any
from uuid import uuid4

from drawbridge.v1 import credential_service_pb2 as credentials
from drawbridge.v1 import record_pb2
from drawbridge.v1 import record_service_pb2 as pb

from tests.support.credentiald import Running, bearer

INSTANCE = "11111111-2222-4333-8444-555555555555"
COMPLETED = record_pb2.INTERCEPTION_OUTCOME_COMPLETED


class Bridge:
    """One bridge that asks and reports by single calls."""

    def __init__(self, one: Running, token: str = "", instance: str = INSTANCE) -> None:
        self._one = one
        self.metadata = bearer(token or one.bridge_token)
        self.instance = instance

    async def resolve(
        self, access_token: str, provider: str = "corp", interception_id: str = "", **fields: Any
    ) -> tuple[str, bytes]:
        """The id of an interception that begins now, and its receipt."""
        interception_id = interception_id or str(uuid4())
        asked = credentials.ResolveProviderRequest(
            provider=provider,
            access_token=access_token,
            interception_id=interception_id,
            bridge_instance_id=self.instance,
            **{"operation": "openai.chat_completions", "model": "gpt-5", "client": "Codex"} | fields,
        )
        answer = await self._one.credentials.ResolveProvider(asked, metadata=self.metadata)
        return interception_id, answer.receipt

    async def report(self, *interceptions: pb.InterceptionRecords) -> dict[int, str]:
        """What was rejected: place and why."""
        request = pb.AppendRecordsRequest(bridge_instance_id=self.instance, interceptions=interceptions)
        answer = await self._one.records.AppendRecords(request, metadata=self.metadata)
        prefix = "RECORD_REJECTION_"
        return {one.index: pb.RecordRejection.Name(one.rejection).removeprefix(prefix) for one in answer.rejected}


def whole(receipt: bytes, **changes: Any) -> pb.InterceptionRecords:
    """Everything about an interception that went well."""
    values: dict[str, Any] = {
        "facts": pb.InterceptionFacts(client="Codex", user_agent="codex_cli_rs/1.0", client_session_id="s-1"),
        "token_usages": [
            record_pb2.TokenUsage(
                id=str(uuid4()),
                response_id="resp_1",
                input_tokens=10,
                output_tokens=20,
                cache_read_input_tokens=30,
                cache_write_input_tokens=0,
                metadata={"output_reasoning": 7},
            )
        ],
        "prompts": [record_pb2.Prompt(id=str(uuid4()), response_id="resp_1", text="list the files")],
        "tool_calls": [
            record_pb2.ToolCall(id=str(uuid4()), response_id="resp_1", tool_call_id="call_1", tool="shell", input="{}")
        ],
        "model_thoughts": [
            record_pb2.ModelThought(id=str(uuid4()), content="they want a list", source="reasoning_summary")
        ],
        "end": pb.InterceptionEnd(outcome=COMPLETED, http_status=200, duration_micros=1234, first_byte_micros=99),
    }
    return pb.InterceptionRecords(receipt=receipt, **values | changes)
