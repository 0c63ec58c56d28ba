"""Recording, as interceptions meet it: what gathers for a record, what is reported at the end, what is told anew."""

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

from bridged.conversation import AnyConversation
from bridged.http1.framing import Request
from bridged.ids import smallest_id
from bridged.metrics import Metrics
from bridged.model import Refused, Resolution
from bridged.recorder import Recorder
from bridged.recording import End, Recording, TapMaker, new_recording
from bridged.records import Report
from bridged.report_messages import Row, item_of, opening
from bridged.routes import RouteMatch

if TYPE_CHECKING:
    from bridged.interception import Interception

log = logging.getLogger(__name__)

_Turn = tuple[Recording, AnyConversation | None, bytes]
_Ended = tuple[Recording, "Interception", Resolution, End]
# As much as is done in one turn of the loop: less than half a millisecond.
_OPENINGS_AT_ONCE = 32


class Reporting:
    """Of one bridge. `recorder` None: nothing is recorded. `under_way` are the bridge's requests as they are.

    `needs_records`: no turn of a conversation begins while records are not being kept.
    """

    def __init__(
        self,
        recorder: Recorder | None,
        metrics: Metrics,
        under_way: "Collection[Interception]",
        *,
        needs_records: bool,
        make_tap: TapMaker,
        max_body_bytes: int,
    ) -> None:
        self._recorder = recorder
        self._metrics = metrics
        self._under_way = under_way
        self._needs_records = needs_records
        self._make_tap = make_tap
        self._max_body_bytes = max_body_bytes
        self._untold: list[Interception] = []
        # What requests say of conversations is read first, because it goes into reports.
        self._turns: list[_Turn] = []
        self._ended: list[_Ended] = []
        if recorder is not None:
            self._turns = recorder.afterwards.pile(self._read_turns)
            self._ended = recorder.afterwards.pile(partial(self._report_ended, recorder))

    def recording_of(self, interception_id: str, match: RouteMatch, request: Request) -> Recording | None:
        """What gathers for the record of a turn; None for other requests. RECORDS_UNAVAILABLE."""
        if self._recorder is None or not match.intercepted:
            return None
        if self._needs_records and not self._recorder.is_keeping:
            raise Refused(
                "RECORDS_UNAVAILABLE",
                "what is asked cannot be recorded at the moment, and may not go on without: try again; "
                "the operator finds more in the logs of both daemons",
            )
        return new_recording(interception_id, match, request.headers, self._make_tap)

    def read_turn(self, recording: Recording, conversation: AnyConversation | None, body: bytes) -> None:
        """Have what a request says of its conversation read, in a moment."""
        if self._recorder is not None:
            self._turns.append((recording, conversation, body))
            self._recorder.afterwards.added(len(body))

    def record(self, interception: "Interception", now_seconds: float) -> None:
        """Have an interception that has ended reported; nothing where it was not resolved."""
        recording, resolution = interception.recording, interception.resolution
        if self._recorder is not None and recording is not None and resolution is not None:
            self._ended.append((recording, interception, resolution, (now_seconds, time.time())))
            self._recorder.afterwards.added(recording.held_bytes)

    def _read_turns(self, turns: Sequence[_Turn]) -> None:
        max_bytes = self._max_body_bytes
        for recording, conversation, body in turns:
            recording.read_turn(conversation, body, max_bytes)

    def _report_ended(self, recorder: Recorder, ended: Sequence[_Ended]) -> None:
        made: list[tuple[str, bytes | Row]] = []
        for recording, interception, resolution, end in ended:
            interception_id = interception.interception_id
            try:
                item = recording.usual_row(interception, resolution, end) or self._reported(
                    recording.report(interception, resolution, end)
                )
            except Exception:
                log.exception("a report could not be made", extra={"interception_id": interception_id})
                recorder.unreadable(interception_id)
            else:
                made.append((interception_id, item))
        recorder.add(made)

    def _reported(self, report: Report) -> bytes | Row:
        for trouble in report.answer.troubles:
            self._metrics.tap_troubled(trouble.value)
        return item_of(report)

    def tell_openings(self) -> None:
        """credentiald is there again: tell it what is under way, some at a time.

        What it had answered last and not stored yet died with it, and should this bridge die next, nobody would know.
        """
        if self._recorder is not None:
            self._recorder.afterwards.do_all()
            self._untold = list(self._under_way)
            self._tell_some(self._recorder)
            self._recorder.try_again()

    def _tell_some(self, recorder: Recorder) -> None:
        some, self._untold = self._untold[:_OPENINGS_AT_ONCE], self._untold[_OPENINGS_AT_ONCE:]
        for interception in some:
            recording, resolution = interception.recording, interception.resolution
            # Its report says it all, if it has ended meanwhile.
            if recording is None or resolution is None or interception not in self._under_way:
                continue
            try:
                recorder.add_opening(opening(recording.report_so_far(interception, resolution)))
            except Exception:
                log.exception("an opening could not be told", extra={"interception_id": interception.interception_id})
        if self._untold:
            asyncio.get_running_loop().call_soon(self._tell_some, recorder)

    def oldest_id(self) -> str:
        """The smallest id of an interception that is not over or not reported yet; a new one where there is none."""
        waiting = None if self._recorder is None else self._recorder.oldest_id()
        ids = [one.interception_id for one in self._under_way]
        return min(ids if waiting is None else [*ids, waiting], default=smallest_id())
