"""Whether credentiald is ready, for those who send it questions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from credentiald.errors import Refusal
from credentiald.store.database import Database

# How long the store may take to say that it is there.
_PING_SECONDS = 1.0


class Readiness:
    """Why credentiald is not ready: sealed, not listening yet or no more, or the store does not answer."""

    def __init__(self) -> None:
        self._db: Database | None = None
        # Why the sealing keys are not decrypted; empty where they are.
        self.sealed = ""

    @asynccontextmanager
    async def listening(self, db: Database) -> AsyncIterator[None]:
        """The time between the start of the last listener and the beginning of the drain."""
        self._db = db
        try:
            yield
        finally:
            self._db = None

    async def reasons(self) -> list[str]:
        """Nothing when ready; else what is missing, without details of ours."""
        if self.sealed:
            return [self.sealed]
        if self._db is None:
            return ["not listening"]
        try:
            async with asyncio.timeout(_PING_SECONDS):
                await self._db.ping()
        except (TimeoutError, Refusal):
            return ["the store does not answer"]
        return []
