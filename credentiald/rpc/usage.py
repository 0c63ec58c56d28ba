"""UsageService: what a user asks about its own traffic, and an administrator about everybody's."""

import asyncio
import json
from typing import Any

from drawbridge.v1 import usage_service_pb2 as pb
from drawbridge.v1.usage_service_pb2_grpc import UsageServiceServicer

from credentiald.errors import InterceptionNotFound, InvalidArgument
from credentiald.ids import canonical_uuid
from credentiald.plane import Plane
from credentiald.rpc import paging, usage_codec
from credentiald.rpc.guard import current_caller
from credentiald.store import record_queries, usage_queries
from credentiald.store.record_scan import Filter, Place
from credentiald.store.records import Records
from credentiald.store.usage_queries import UsagePlace
from credentiald.usage import own_id, user_id_of, usernames


class Usage(UsageServiceServicer):
    """Answers from the file of records; names of users come from the database."""

    def __init__(self, plane: Plane, records: Records, pages: paging.Pages) -> None:
        self._plane = plane
        self._records = records
        self._pages = pages

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Any) -> pb.ListSessionsResponse:
        wanted = await self._wanted(request.filter, "ListSessions")
        made_for = f"sessions/{wanted}"
        page = await self._records.read(
            record_queries.list_sessions,
            wanted,
            after=self._place(request.page_token, made_for),
            limit=paging.size_of(request.page_size, record_queries.MOST_OF_A_PAGE),
        )
        names = await usernames(self._plane, (one.user_id for one in page.items))
        return pb.ListSessionsResponse(
            sessions=[usage_codec.session(one, names) for one in page.items],
            next_page_token=self._token(page.next_place, made_for),
            user_id=wanted.user_id,
        )

    async def ListInterceptions(
        self, request: pb.ListInterceptionsRequest, context: Any
    ) -> pb.ListInterceptionsResponse:
        wanted = await self._wanted(request.filter, "ListInterceptions")
        made_for = f"interceptions/{wanted}"
        page = await self._records.read(
            record_queries.list_interceptions,
            wanted,
            after=self._place(request.page_token, made_for),
            limit=paging.size_of(request.page_size, record_queries.MOST_OF_A_PAGE),
        )
        names = await usernames(self._plane, (one.row.user_id for one in page.items))
        return pb.ListInterceptionsResponse(
            interceptions=[usage_codec.interception(one, names) for one in page.items],
            next_page_token=self._token(page.next_place, made_for),
            user_id=wanted.user_id,
        )

    async def GetInterception(self, request: pb.GetInterceptionRequest, context: Any) -> pb.GetInterceptionResponse:
        user_id = await user_id_of(self._plane, current_caller(), "", "GetInterception")
        interception_id = canonical_uuid(request.id)
        if interception_id is None:
            raise InterceptionNotFound(interception=request.id)
        found, thread = await self._records.read(record_queries.get_interception, interception_id, user_id=user_id)
        names = await usernames(self._plane, [found.row.user_id])
        # Thousands of records may be in it.
        return await asyncio.to_thread(usage_codec.with_thread, found, thread, names)

    async def QueryUsage(self, request: pb.QueryUsageRequest, context: Any) -> pb.QueryUsageResponse:
        wanted = await self._wanted(request.filter, "QueryUsage")
        dimensions = usage_codec.dimensions(request.group_by)
        for field in ("provider_type", "session_id"):
            if getattr(request.filter, field):
                # Sums of a day know nothing of it, and those of everything are no answer.
                raise InvalidArgument(field=f"filter.{field}", problem="is not possible for usage")
        made_for = f"sums/{dimensions}/{wanted}"
        page = await self._records.read(
            usage_queries.query_usage,
            wanted,
            group_by=dimensions,
            after=self._usage_place(request.page_token, made_for),
            limit=paging.size_of(request.page_size),
        )
        names = await usernames(self._plane, (one.user_id for one in page.rows))
        return pb.QueryUsageResponse(
            rows=[usage_codec.usage_row(one, names) for one in page.rows],
            next_page_token=self._usage_token(page.next_place, made_for),
            user_id=wanted.user_id,
        )

    async def _wanted(self, message: pb.UsageFilter, rpc: str) -> Filter:
        caller = current_caller()
        if message.mine:
            return usage_codec.wanted(message, own_id(caller, message.user))
        return usage_codec.wanted(message, await user_id_of(self._plane, caller, message.user, rpc))

    def _place(self, token: str, made_for: str) -> Place | None:
        after = self._pages.after(token, made_for)
        if not after:
            return None
        micros, number = after.split()
        return Place(int(micros), int(number))

    def _usage_place(self, token: str, made_for: str) -> UsagePlace | None:
        after = self._pages.after(token, made_for)
        return tuple(json.loads(after)) if after else None

    def _token(self, place: Place | None, made_for: str) -> str:
        return "" if place is None else self._pages.token(f"{place.micros} {place.number}", made_for)

    def _usage_token(self, place: UsagePlace | None, made_for: str) -> str:
        return "" if place is None else self._pages.token(json.dumps(place), made_for)
