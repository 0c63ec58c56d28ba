"""What a worker thread is doing, for whoever asks meanwhile: the steps so far, the one that runs included."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from credentiald.aws.failures import words_of
from credentiald.aws.steps import Outcome, Step
from credentiald.model import AwsKeyPairMaterial


@dataclass(slots=True)
class Report:
    """How a step says its outcome; without a word it has given nothing."""

    outcome: Outcome = Outcome.NOTHING
    detail: str = ""

    def answered(self) -> None:
        """The step gave a credential."""
        self.outcome = Outcome.ANSWERED


class Progress:
    """The steps of one attempt. Written by its thread, read by any, and stopped when nobody wants its answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done: list[Step] = []
        self._running: tuple[str, float] | None = None
        self._stop: Callable[[], None] | None = None
        self._stopped = False

    @contextmanager
    def step(self, name: str) -> Iterator[Report]:
        """The time of one step. An exception is told in our words, and goes on."""
        report = Report()
        started = time.monotonic()
        with self._lock:
            self._running = (name, started)
        try:
            yield report
        except Exception as error:
            report.outcome, report.detail = Outcome.FAILED, words_of(error, name)
            raise
        finally:
            seconds = time.monotonic() - started
            with self._lock:
                self._running = None
                self._done.append(Step(name=name, outcome=report.outcome, detail=report.detail, seconds=seconds))

    @contextmanager
    def stoppable(self, stop: Callable[[], None]) -> Iterator[None]:
        """A block that `stop`, called from another thread, brings to an end."""
        with self._lock:
            self._stop, stopped = stop, self._stopped
        if stopped:
            stop()
        try:
            yield
        finally:
            with self._lock:
                self._stop = None

    def stop(self) -> None:
        """Nobody wants the answer any more: what can be ended is ended."""
        with self._lock:
            self._stopped = True
            if self._stop is not None:
                self._stop()

    def add(self, step: Step) -> None:
        """A step that took no time worth telling."""
        with self._lock:
            self._done.append(step)

    def steps(self) -> tuple[Step, ...]:
        """All steps so far."""
        with self._lock:
            done, running = tuple(self._done), self._running
        if running is None:
            return done
        name, started = running
        seconds = time.monotonic() - started
        return (*done, Step(name=name, outcome=Outcome.RUNNING, detail="no answer yet", seconds=seconds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """How an attempt ended that gave no credential. `may_pass`: it may work by itself later."""

    cause: str
    may_pass: bool


class AttemptFailed(Exception):
    """An attempt gave no credential. Carries no other error, whose text may hold a secret."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.cause)
        self.failed = failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What an attempt gave. `expire_time` is None for a credential that does not end."""

    material: AwsKeyPairMaterial
    expire_time: datetime | None = None
