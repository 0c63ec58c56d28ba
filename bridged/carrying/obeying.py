"""Administrators have changed something, or the bridge stops: what is under way ends, or is decided anew."""

from typing import TYPE_CHECKING

from bridged.carrying import deciding
from bridged.watch import Taken

if TYPE_CHECKING:
    from bridged.interception import Interception


def obey(interception: "Interception", revision: int, taken: Taken) -> None:
    """End the request, or decide it anew, where it contradicts what was taken away.

    What was decided at `revision` or later is not concerned. What was sent goes on unless it runs on what was
    taken away.
    """
    try:
        match, client = interception.match, interception.client
        resolution, call = interception.resolution, interception.call
        if interception.is_over or match is None or client is None:
            return
        if resolution is None or resolution.revision >= revision or not taken.concerns(resolution):
            return
        if call is not None and call.is_waiting:
            pieces = call.take_back()
            if not match.reads_body:
                interception.early = pieces
            deciding.ask_anew(interception, match, client)
            return
        if interception.question is not None:
            # About another key, or another provider: what runs is this question, and its answer says it.
            return
        refused = taken.why(resolution)
        if refused is None:
            if call is not None:
                call.is_final = True
        else:
            interception.bridge.metrics.revoked(refused.reason)
            interception.refuse(refused)
    except Exception as failure:
        interception.fail(failure)
