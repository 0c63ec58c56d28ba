"""An upstream's answer in another shape than the client's: between the call to the upstream and the AnswerRelay.

The translator is the receiver of the call; the relay, and with it everything that reads along, hears of the client's
answer only. Answers that pass as they come have no translator, and pay nothing for those that have.
"""

from typing import TYPE_CHECKING

from bridged.answer_relay import AnswerRelay
from bridged.bedrock.answers import Answer, Gathered
from bridged.http1.response_head import BodyFraming
from bridged.http1.upstream import UpstreamError
from bridged.metrics import Metrics
from bridged.model import Headers

if TYPE_CHECKING:
    from bridged.interception import Interception


class AnswerTranslator:
    """Feeds one answer through its translation. Once it has failed or is complete, nothing more of it comes."""

    __slots__ = ("_answer", "_framing", "_has_begun", "_interception", "_metrics", "_relay", "_status")

    def __init__(self, interception: "Interception", relay: AnswerRelay, answer: Answer, metrics: Metrics) -> None:
        self._interception = interception
        self._relay = relay
        self._answer = answer
        self._metrics = metrics
        self._status = 0
        self._framing = BodyFraming.NONE
        self._has_begun = False

    def response_head(self, status: int, headers: Headers, body: BodyFraming, *, more: bool) -> None:
        """Status and headers of the upstream."""
        del more
        self._status, self._framing = status, body
        # The client's answer may begin much later.
        self._interception.upstream_answered(status)
        try:
            self._answer.head(status, headers)
        except Exception as failure:
            self._interception.fail(failure)
            return
        self._pass_on(b"")

    def response_data(self, data: bytes, *, more: bool) -> None:
        """Some of the upstream's body."""
        # It may become nothing: then the client must not wait for what was held back for it.
        del more
        try:
            translated = self._answer.feed(data)
        except Exception as failure:
            self._interception.fail(failure)
            return
        self._pass_on(translated)

    def response_end(self) -> None:
        """The upstream's answer is complete."""
        try:
            self._answer.end()
        except Exception as failure:
            self._interception.fail(failure)
            return
        if self._pass_on(b""):
            self._relay.response_end()

    def response_failed(self, error: UpstreamError) -> None:
        """There is no answer, or no rest of it; a client that has all of its own does not hear of that."""
        if self._answer.complete and self._has_begun:
            self._relay.response_end()
        else:
            self._relay.response_failed(error)

    def pause_body(self) -> None:
        """The upstream reads slowly."""
        self._relay.pause_body()

    def resume_body(self) -> None:
        """The upstream reads again."""
        self._relay.resume_body()

    def _pass_on(self, data: bytes) -> bool:
        """Send what the client's answer has become so far; whether it goes on."""
        answer, relay = self._answer, self._relay
        if answer.headers is not None and not self._has_begun:
            self._has_begun = True
            relay.response_head(self._status, answer.headers, self._framing, more=bool(data))
        if data:
            relay.response_data(data, more=False)
        if answer.failure is not None:
            self._metrics.upstream_failed(answer.failure.reason)
            self._interception.fail(answer.failure)
        elif answer.whole is not None:
            self._send_whole(answer.whole)
        else:
            return True
        return False

    def _send_whole(self, whole: Gathered) -> None:
        relay = self._relay
        relay.response_head(whole.status, whole.headers, BodyFraming.LENGTH, more=True)
        relay.response_data(whole.body, more=True)
        relay.response_end()
