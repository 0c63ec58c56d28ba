"""Breakers at work: what of an upstream's answer counts as what, and a clock, a log and metrics around breaker.py.

A request is judged at the head of the answer: how long the rest takes is no concern of a breaker, so a long stream that
is a probe holds no place.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from bridged.breaker import Admission, BreakerRules, Breakers, BreakerView, Change, Failure, Key, State, Stopped
from bridged.metrics import Metrics
from bridged.model import Refused, Resolution, Source

log = logging.getLogger(__name__)

REFUSAL = "BREAKER_OPEN"
# 529 is Anthropic's, for overloaded_error; where others answer it, they mean the same.
_FAILURES = frozenset({503, 504, 529})
# What a credential brings on itself.
_OF_A_CREDENTIAL = frozenset({401, 403, 429})
_TOO_MANY_REQUESTS = 429
_OWN = frozenset({Source.USER_KEY, Source.PRESENTED_KEY})
# Names of models are the client's; longer ones share a breaker if they begin alike.
_MODEL_CHARACTERS = 128


class BreakerPass:
    """One request that a breaker let through, until it is known what became of it; then nothing more is heard of it."""

    __slots__ = ("_admission", "_breaking", "_model", "_operation", "_resolution")

    def __init__(
        self, breaking: "Breaking", resolution: Resolution, operation: str, model: str, admission: Admission
    ) -> None:
        self._breaking = breaking
        self._resolution = resolution
        self._operation = operation
        self._model = model
        self._admission: Admission | None = admission

    def answered(self, status: int) -> None:
        """The head of the upstream's answer is there."""
        resolution = self._resolution
        if status in _FAILURES:
            self._failed(Failure.UPSTREAM, str(status))
        elif status not in _OF_A_CREDENTIAL:
            self._succeeded()
        elif resolution.source in _OWN:
            # It says nothing of what others would be told.
            self.give_back()
        elif status != _TOO_MANY_REQUESTS:
            self._succeeded()
        elif resolution.pool_size > 1:
            # That is for the other keys.
            self.give_back()
        else:
            self._failed(Failure.SHARED_LIMIT, str(status))

    def unanswered(self, reason: str) -> None:
        """The upstream could not be reached, or said nothing in time."""
        self._failed(Failure.UPSTREAM, reason)

    def give_back(self) -> None:
        """It is over without a word about the upstream."""
        admission, self._admission = self._admission, None
        if admission is not None:
            self._breaking.breakers.given_back(admission)

    def _succeeded(self) -> None:
        admission, self._admission = self._admission, None
        if admission is not None and not self._breaking.breakers.are_none:
            self._breaking.breakers.succeeded(self._key(), admission, self._breaking.now())

    def _failed(self, failure: Failure, error: str) -> None:
        admission, self._admission = self._admission, None
        if admission is not None:
            now_seconds, base_url = self._breaking.now(), self._resolution.base_url
            self._breaking.breakers.failed(self._key(), base_url, admission, now_seconds, failure, error)

    def _key(self) -> Key:
        return _key_of(self._resolution, self._operation, self._model)


class Breaking:
    """The breakers of one process of the bridge."""

    def __init__(self, rules: BreakerRules, metrics: Metrics, *, now: Callable[[], float] = time.monotonic) -> None:
        self.breakers = Breakers(rules, self._changed)
        self.now = now
        self._metrics = metrics

    def admit(self, resolution: Resolution, operation: str, model: str) -> BreakerPass:
        """Let a request through; BREAKER_OPEN where its upstream is left alone. `model` is the one asked for."""
        breakers = self.breakers
        if breakers.are_none:
            return BreakerPass(self, resolution, operation, model, breakers.usual)
        key = _key_of(resolution, operation, model)
        admission = breakers.admit(key, resolution.base_url, self.now(), is_shared=resolution.source not in _OWN)
        if isinstance(admission, Stopped):
            raise Refused(
                REFUSAL,
                "the upstream failed too often and is left alone for a while: try again later",
                retry_after_seconds=admission.retry_after_seconds,
            )
        return BreakerPass(self, resolution, operation, model, admission)

    def views(self) -> Sequence[BreakerView]:
        """Those that are not closed. Times are of the wall clock: seconds since 1970."""
        now_seconds = self.now()
        epoch_seconds = time.time() - now_seconds
        return [
            replace(view, since_seconds=epoch_seconds + view.since_seconds)
            for view in self.breakers.views(now_seconds)
            if view.state is not State.CLOSED
        ]

    def _changed(self, change: Change) -> None:
        provider, operation, model = change.key
        self._metrics.breaker_changed(provider, change.before, change.after)
        log.log(
            logging.WARNING if change.after is State.OPEN else logging.INFO,
            "a breaker changed its state",
            extra={
                "provider": provider,
                "operation": operation,
                "model": model,
                "before": change.before.value,
                "after": change.after.value,
                "failures": change.failures,
                "last_error": change.last_error,
            },
        )


def _key_of(resolution: Resolution, operation: str, model: str) -> Key:
    return resolution.provider_name, operation, (resolution.upstream_model or model)[:_MODEL_CHARACTERS]
