"""The prices as they are now, at hand for who stores records: read again only when the database has changed."""

from credentiald.errors import StoreUnavailable
from credentiald.prices import PriceTable
from credentiald.store import models
from credentiald.store.database import Database, State


class PriceList:
    """The prices of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._table: PriceTable | None = None
        self._state: State | None = None

    async def current(self) -> PriceTable:
        """All prices. StoreUnavailable only where none could ever be read.

        A database that does not answer now cannot be changed now either, as far as anybody here knows: what was read
        last stands in for it, so that records are stored.
        """
        try:
            # Taken before the reading: what is committed in between is read the next time.
            state = self._db.state()
            if self._table is None or state != self._state:
                self._table = await self._db.read(models.prices)
                self._state = state
        except StoreUnavailable:
            if self._table is None:
                raise
        return self._table
