"""Whether this bridge should be sent requests: a decision over what the pings brought, the time given from outside."""

from dataclasses import dataclass

# interfaces.md: credentiald has answered its Ping within the last 3 s.
ANSWER_LASTS_SECONDS = 3.0


@dataclass(slots=True)
class Readiness:
    """Ready while the last ping's answer is fresh and nothing is being drained.

    `now` is always seconds on one monotonic clock. A refusal by credentiald (of our token, or because it is sealed)
    counts at once; a missing answer, also for trouble with its store, counts when the last good one is too old.
    """

    draining: bool = False
    refusal: str | None = None
    _answer_time: float | None = None

    def answered(self, now: float) -> None:
        """credentiald would answer this bridge."""
        self._answer_time = now
        self.refusal = None

    def refused(self, reason: str) -> None:
        """credentiald answered, and its answer was a refusal."""
        self._answer_time = None
        self.refusal = reason

    def reasons(self, now: float) -> list[str]:
        """Why not, in words for an operator; empty when ready."""
        why = []
        if self.draining:
            why.append("draining: this bridge is stopping")
        if self.refusal is not None:
            why.append(f"credentiald refused this bridge: {self.refusal}")
        elif self._answer_time is None:
            why.append("credentiald has not answered yet")
        elif now - self._answer_time > ANSWER_LASTS_SECONDS:
            why.append(f"credentiald has not answered for {now - self._answer_time:.0f} s")
        return why
