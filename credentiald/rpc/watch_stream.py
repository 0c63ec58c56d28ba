"""One stream on which a bridge is told what administrators change."""

import asyncio
import uuid
from collections import deque
from datetime import datetime
from typing import Any

from credentiald.bridge_instances import Instance
from credentiald.rpc.watch_codec import News


class WatchStream:
    """What it is to be told next. `serving` is the task that writes."""

    def __init__(self, instance: Instance, serving: "asyncio.Task[Any] | None") -> None:
        self.id = str(uuid.uuid4())
        self.instance = instance
        self.serving = serving
        # Up to here it was told everything, or will be by what waits; -1 before its first message.
        self.revision = -1
        # Up to here it was written to: nothing beyond can have been obeyed.
        self.written_revision = -1
        self.waiting: deque[tuple[News, bytes]] = deque()
        self.wake = asyncio.Event()
        self.is_overdue = False
        self.is_over = False
        # Whether its bridge holds no answer that it has not obeyed, and gets none any more.
        self.has_left = False
        # When what its bridge showed comes to its end though nothing changes.
        self.end_time: datetime | None = None

    def tell(self, news: News, message: bytes) -> None:
        """Put this on its way."""
        self.revision = news.revision
        self.waiting.append((news, message))
        self.wake.set()
