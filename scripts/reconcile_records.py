"""What UsageService says at the end of scripts/reconcile, read page by page and interception by interception."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
from drawbridge.v1 import record_pb2
from drawbridge.v1 import usage_service_pb2 as pb
from drawbridge.v1.usage_service_pb2_grpc import UsageServiceStub

PAGE_SIZE = 500
DEADLINE_SECONDS = 30.0
COLUMNS = ("input", "output", "cache_read", "cache_write")
ENDLESS = "UNSPECIFIED"
VANISHED = "BRIDGE_VANISHED"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One interception as it is shown, in the words of the upstream's account. Prompts are texts."""

    id: str
    provider: str
    model: str
    agent: str
    outcome: str
    category: str
    status: int
    upstream_request_id: str
    streaming: bool
    tokens: dict[str, int]
    usages: list[dict[str, int]]
    partial: list[bool]
    tools: list[list[str]]
    thoughts: list[list[str]]
    prompts: list[str]


@dataclass(frozen=True, kw_only=True)
class Sum:
    """One row of QueryUsage."""

    provider: str
    model: str
    token_usages: int
    tokens: dict[str, int]


def read(address: str, token: str, providers: Collection[str] | None = None) -> tuple[list[Row], list[Sum]]:
    """All interceptions with their records, and the sums by provider and model.

    Where `providers` are named, interceptions of others come as they are listed, without records: each of those is a
    question of its own.
    """
    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        asking = _Asking(UsageServiceStub(channel), token)
        with ThreadPoolExecutor(8) as pool:
            rows = list(pool.map(lambda one: asking.row(one, providers), asking.interceptions()))
        return rows, list(asking.sums())


def open_ids(address: str, token: str) -> set[str]:
    """The interceptions that have no end yet."""
    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        asking = _Asking(UsageServiceStub(channel), token)
        return {one.id for one in asking.interceptions() if not one.HasField("end_time")}


class _Asking:
    def __init__(self, stub: UsageServiceStub, token: str) -> None:
        self._stub = stub
        self._metadata = (("authorization", f"Bearer {token}"),)

    def interceptions(self) -> Iterator[pb.Interception]:
        request = pb.ListInterceptionsRequest(page_size=PAGE_SIZE)
        while True:
            page = self._stub.ListInterceptions(request, metadata=self._metadata, timeout=DEADLINE_SECONDS)
            yield from page.interceptions
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def sums(self) -> Iterator[Sum]:
        dimensions = (pb.USAGE_DIMENSION_PROVIDER, pb.USAGE_DIMENSION_MODEL)
        request = pb.QueryUsageRequest(group_by=dimensions, page_size=PAGE_SIZE)
        while True:
            page = self._stub.QueryUsage(request, metadata=self._metadata, timeout=DEADLINE_SECONDS)
            for one in page.rows:
                yield Sum(
                    provider=one.provider, model=one.model, token_usages=one.token_usages, tokens=_totals(one.tokens)
                )
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def row(self, one: pb.Interception, providers: Collection[str] | None) -> Row:
        detail = pb.InterceptionDetail()
        if providers is None or one.provider in providers:
            request = pb.GetInterceptionRequest(id=one.id)
            answer = self._stub.GetInterception(request, metadata=self._metadata, timeout=DEADLINE_SECONDS)
            [detail] = [each for each in answer.thread if each.interception.id == one.id]
        return Row(
            id=one.id,
            provider=one.provider,
            model=one.model,
            agent=one.user_agent,
            outcome=record_pb2.InterceptionOutcome.Name(one.outcome).removeprefix("INTERCEPTION_OUTCOME_"),
            category=record_pb2.UpstreamErrorCategory.Name(one.error_category).removeprefix("UPSTREAM_ERROR_CATEGORY_"),
            status=one.http_status,
            upstream_request_id=one.upstream_request_id,
            streaming=one.streaming,
            tokens=_totals(one.tokens),
            usages=[_usage(each) for each in detail.token_usages],
            partial=[each.partial for each in detail.token_usages],
            tools=[[each.tool_call_id, each.tool, each.input] for each in detail.tool_calls],
            thoughts=[[each.source, each.content] for each in detail.model_thoughts],
            prompts=[each.text for each in detail.prompts],
        )


def _totals(tokens: pb.TokenTotals) -> dict[str, int]:
    counts = (
        tokens.input_tokens, tokens.output_tokens, tokens.cache_read_input_tokens, tokens.cache_write_input_tokens,
    )  # fmt: skip
    return dict(zip(COLUMNS, counts, strict=True))


def _usage(usage: record_pb2.TokenUsage) -> dict[str, int]:
    counts = (usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens, usage.cache_write_input_tokens)
    return {**dict(zip(COLUMNS, counts, strict=True)), **usage.metadata}
