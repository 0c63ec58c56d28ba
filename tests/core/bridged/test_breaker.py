"""Breakers by their rules: a table of stories, and a machine of hypothesis against a plain model of one breaker."""

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bridged.breaker import Admission, BreakerRules, Breakers, Change, Failure, State, Stopped

RULES = BreakerRules(failure_threshold=3, interval_seconds=10.0, timeout_seconds=30.0, max_requests=2)
KEY = ("corp", "openai.chat_completions", "gpt")
URL = "https://up.example"


class Bench:
    """Breakers with a clock to turn, and what they told."""

    def __init__(self, rules: BreakerRules = RULES, *, most_breakers: int = 1024) -> None:
        self.now_seconds = 100.0
        self.changes: list[Change] = []
        self.breakers = Breakers(rules, self.changes.append, most_breakers=most_breakers)

    def admit(self, key: tuple[str, str, str] = KEY, *, url: str = URL, shared: bool = True) -> Admission | Stopped:
        return self.breakers.admit(key, url, self.now_seconds, is_shared=shared)

    def admitted(self, key: tuple[str, str, str] = KEY, *, url: str = URL, shared: bool = True) -> Admission:
        admission = self.admit(key, url=url, shared=shared)
        assert isinstance(admission, Admission)
        return admission

    def fail(
        self,
        admission: Admission | None = None,
        failure: Failure = Failure.UPSTREAM,
        *,
        key: tuple[str, str, str] = KEY,
    ) -> None:
        admission = self.admitted(key) if admission is None else admission
        self.breakers.failed(key, URL, admission, self.now_seconds, failure, "503")

    def succeed(self, admission: Admission | None = None) -> None:
        self.breakers.succeeded(KEY, self.admitted() if admission is None else admission, self.now_seconds)

    def open(self, failure: Failure = Failure.UPSTREAM) -> None:
        for _ in range(RULES.failure_threshold):
            self.fail(failure=failure)

    def states(self) -> list[State]:
        return [view.state for view in self.breakers.views(self.now_seconds)]

    def told(self) -> list[State]:
        return [change.after for change in self.changes]


def test_failures_in_a_row_open_it_and_the_wait_is_what_is_left_of_the_time_out() -> None:
    bench = Bench()
    bench.open()

    assert bench.admit() == Stopped(retry_after_seconds=30)
    bench.now_seconds += 29.5
    assert bench.admit() == Stopped(retry_after_seconds=1)
    assert bench.told() == [State.OPEN]
    assert (bench.changes[0].failures, bench.changes[0].last_error) == (3, "503")


def test_a_success_between_failures_keeps_it_closed() -> None:
    bench = Bench()
    for _ in range(5):
        bench.fail()
        bench.fail()
        bench.succeed()

    assert bench.states() == []
    assert isinstance(bench.admit(), Admission)


def test_failures_of_another_interval_do_not_count() -> None:
    bench = Bench()
    bench.fail()
    bench.fail()
    bench.now_seconds += RULES.interval_seconds
    bench.fail()

    assert [view.failures for view in bench.breakers.views(bench.now_seconds)] == [1]
    assert bench.told() == []


def test_without_an_interval_failures_are_never_forgotten() -> None:
    bench = Bench(BreakerRules(failure_threshold=3, interval_seconds=0))
    for _ in range(3):
        bench.now_seconds += 1_000_000
        bench.fail()

    assert bench.told() == [State.OPEN]


def test_a_request_that_takes_longer_than_an_interval_to_fail_counts() -> None:
    bench = Bench()
    slow = [bench.admitted() for _ in range(3)]
    bench.now_seconds += 600
    for admission in slow:
        bench.fail(admission)

    assert bench.told() == [State.OPEN]


def test_half_open_lets_so_many_probes_through_and_closes_when_all_went_well() -> None:
    bench = Bench()
    bench.open()
    bench.now_seconds += RULES.timeout_seconds
    probes = [bench.admitted(), bench.admitted()]

    assert bench.admit() == Stopped(retry_after_seconds=1)
    bench.succeed(probes[0])
    assert bench.states() == [State.HALF_OPEN]
    bench.succeed(probes[1])
    assert bench.states() == []
    assert bench.told() == [State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_one_failed_probe_opens_it_again_for_a_whole_time_out() -> None:
    bench = Bench()
    bench.open()
    bench.now_seconds += RULES.timeout_seconds
    first, second = bench.admitted(), bench.admitted()
    bench.succeed(first)
    bench.fail(second)

    assert bench.admit() == Stopped(retry_after_seconds=30)
    assert bench.told() == [State.OPEN, State.HALF_OPEN, State.OPEN]


def test_a_probe_that_ends_without_a_word_gives_its_place_back() -> None:
    bench = Bench()
    bench.open()
    bench.now_seconds += RULES.timeout_seconds
    probes = [bench.admitted(), bench.admitted()]
    bench.breakers.given_back(probes[0])

    assert isinstance(bench.admit(), Admission)
    assert bench.admit() == Stopped(retry_after_seconds=1)


def test_what_began_before_it_opened_neither_closes_it_nor_opens_it_again() -> None:
    bench = Bench()
    old = [bench.admitted() for _ in range(10)]
    bench.open()
    bench.now_seconds += RULES.timeout_seconds
    probes = [bench.admitted(), bench.admitted()]
    bench.succeed(old.pop())
    bench.fail(old.pop())
    assert bench.states() == [State.HALF_OPEN]
    for probe in probes:
        bench.succeed(probe)
    for admission in old:
        bench.fail(admission)

    assert bench.told() == [State.OPEN, State.HALF_OPEN, State.CLOSED]
    assert bench.states() == []


def test_what_went_well_of_before_it_opened_forgets_no_failure_of_after() -> None:
    bench = Bench()
    old = bench.admitted()
    bench.open()
    bench.now_seconds += RULES.timeout_seconds
    for probe in [bench.admitted(), bench.admitted()]:
        bench.succeed(probe)
    bench.fail()
    bench.fail()
    bench.succeed(old)
    bench.fail()

    assert bench.told()[-1] is State.OPEN


def test_a_place_is_not_given_back_to_another_half_open_time() -> None:
    bench = Bench()
    bench.open()
    bench.now_seconds += RULES.timeout_seconds
    slow, failing = bench.admitted(), bench.admitted()
    bench.fail(failing)
    bench.now_seconds += RULES.timeout_seconds
    bench.admitted()
    bench.breakers.given_back(slow)
    bench.admitted()

    assert bench.admit() == Stopped(retry_after_seconds=1)


def test_successes_of_another_half_open_time_do_not_count() -> None:
    bench = Bench()
    bench.open()
    bench.now_seconds += RULES.timeout_seconds
    well, badly = bench.admitted(), bench.admitted()
    bench.succeed(well)
    bench.fail(badly)
    bench.now_seconds += RULES.timeout_seconds
    bench.succeed()

    assert bench.states() == [State.HALF_OPEN]


def test_a_row_that_was_interrupted_says_nothing_of_whose_failures_come_next() -> None:
    bench = Bench()
    bench.fail()
    bench.succeed()
    bench.open(Failure.SHARED_LIMIT)

    assert isinstance(bench.admit(shared=True), Stopped)
    assert isinstance(bench.admit(shared=False), Admission)


def test_the_limits_of_the_shared_credential_do_not_stop_who_has_one_of_their_own() -> None:
    bench = Bench()
    bench.open(Failure.SHARED_LIMIT)

    assert isinstance(bench.admit(), Stopped)
    own = bench.admitted(shared=False)
    bench.fail(own)
    assert bench.told() == [State.OPEN]


def test_one_failure_of_the_upstream_among_those_of_the_limits_stops_everybody() -> None:
    bench = Bench()
    bench.fail(failure=Failure.SHARED_LIMIT)
    bench.fail()
    bench.fail(failure=Failure.SHARED_LIMIT)

    assert isinstance(bench.admit(shared=False), Stopped)


def test_a_probe_that_meets_the_limits_shows_that_the_upstream_answers() -> None:
    bench = Bench()
    bench.open()
    bench.now_seconds += RULES.timeout_seconds
    bench.fail(failure=Failure.SHARED_LIMIT)

    assert isinstance(bench.admit(shared=True), Stopped)
    assert isinstance(bench.admit(shared=False), Admission)


def test_another_base_url_is_another_upstream() -> None:
    bench = Bench()
    old = bench.admitted()
    bench.open()

    assert isinstance(bench.admit(url="https://new.example"), Admission)
    assert bench.told() == [State.OPEN, State.CLOSED]
    bench.fail(old)
    assert isinstance(bench.admit(url="https://new.example"), Admission)


def test_failures_of_a_former_base_url_do_not_count_against_another() -> None:
    bench = Bench()
    new = "https://new.example"
    old = [bench.admitted() for _ in range(5)]
    bench.breakers.failed(KEY, new, bench.admitted(url=new), bench.now_seconds, Failure.UPSTREAM, "503")
    for admission in old:
        bench.fail(admission)

    assert isinstance(bench.admit(url=new), Admission)
    assert bench.told() == []


def test_breakers_of_other_models_operations_and_providers_know_nothing_of_it() -> None:
    bench = Bench()
    bench.open()

    for key in [("lab", KEY[1], KEY[2]), (KEY[0], "openai.responses", KEY[2]), (KEY[0], KEY[1], "gpt-mini")]:
        assert isinstance(bench.admit(key), Admission)


def test_models_that_are_made_up_do_not_push_out_what_is_open() -> None:
    bench = Bench(most_breakers=8)
    bench.open()
    for number in range(100):
        bench.fail(key=(KEY[0], KEY[1], f"made-up-{number}"))

    assert len(bench.states()) == 8
    assert isinstance(bench.admit(), Stopped)


def test_there_are_never_more_than_the_bound_also_where_all_are_open() -> None:
    bench = Bench(BreakerRules(failure_threshold=1), most_breakers=4)
    for number in range(50):
        bench.fail(key=(KEY[0], KEY[1], str(number)))

    assert bench.states() == [State.OPEN] * 4


@pytest.mark.parametrize("after_seconds", [0.0, 29.0, 30.0, 1000.0])
def test_what_is_told_says_half_open_as_soon_as_the_time_out_is_over(after_seconds: float) -> None:
    bench = Bench()
    bench.open()
    bench.now_seconds += after_seconds
    view = next(bench.breakers.views(bench.now_seconds))

    assert view.state is (State.OPEN if after_seconds < 30 else State.HALF_OPEN)
    assert view.since_seconds == (100.0 if after_seconds < 30 else 130.0)


@dataclass
class Request:
    """One under way: what it was admitted with, and in which life of the model's state."""

    admission: Admission
    life: int
    is_probe: bool


class OneBreaker(RuleBasedStateMachine):
    """Against a model in which every state has a number and each request remembers the one it began in."""

    @initialize(
        threshold=st.integers(1, 4),
        interval_seconds=st.sampled_from([0.0, 5.0]),
        max_requests=st.integers(1, 3),
    )
    def begin(self, threshold: int, interval_seconds: float, max_requests: int) -> None:
        self.rules = BreakerRules(
            failure_threshold=threshold,
            interval_seconds=interval_seconds,
            timeout_seconds=7.0,
            max_requests=max_requests,
        )
        self.bench = Bench(self.rules)
        self.state, self.life = State.CLOSED, 0
        self.since_seconds: float | None = None
        self.failures = self.successes = 0
        self.under_way: list[Request] = []

    def become(self, state: State) -> None:
        self.state, self.life, self.since_seconds = state, self.life + 1, self.bench.now_seconds
        self.successes = 0

    def probes(self) -> int:
        return sum(each.is_probe and each.life == self.life for each in self.under_way)

    @rule(seconds=st.sampled_from([0.5, 3.0, 7.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.bench.now_seconds += seconds

    @rule()
    def a_request_comes(self) -> None:
        since = self.since_seconds
        if self.state is State.OPEN and since is not None and self.bench.now_seconds >= since + 7.0:
            self.become(State.HALF_OPEN)
        goes = self.state is State.CLOSED or (
            self.state is State.HALF_OPEN and self.probes() + self.successes < self.rules.max_requests
        )
        outcome = self.bench.admit()
        assert isinstance(outcome, Admission) is goes
        if isinstance(outcome, Admission):
            self.under_way.append(Request(outcome, self.life, self.state is State.HALF_OPEN))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def one_fails(self, data: st.DataObject) -> None:
        request = self.take(data)
        self.bench.fail(request.admission)
        if request.life != self.life:
            return
        if self.state is State.HALF_OPEN:
            self.become(State.OPEN)
        elif self.state is State.CLOSED:
            now, interval = self.bench.now_seconds, self.rules.interval_seconds
            if self.since_seconds is None:
                self.since_seconds = now
            if interval and now >= self.since_seconds + interval:
                self.since_seconds, self.failures = now, 0
            self.failures += 1
            if self.failures >= self.rules.failure_threshold:
                self.failures = 0
                self.become(State.OPEN)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def one_goes_well(self, data: st.DataObject) -> None:
        request = self.take(data)
        self.bench.succeed(request.admission)
        if request.life != self.life:
            return
        if self.state is State.CLOSED:
            self.failures = 0
        elif self.state is State.HALF_OPEN:
            self.successes += 1
            if self.successes >= self.rules.max_requests:
                self.become(State.CLOSED)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def one_ends_without_a_word(self, data: st.DataObject) -> None:
        self.bench.breakers.given_back(self.take(data).admission)

    def take(self, data: st.DataObject) -> Request:
        return self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))

    @invariant()
    def it_tells_its_state(self) -> None:
        if not hasattr(self, "rules"):
            return
        told = self.bench.states()
        shown = self.state
        since = self.since_seconds
        if shown is State.OPEN and since is not None and self.bench.now_seconds >= since + 7.0:
            shown = State.HALF_OPEN
        if shown is State.CLOSED:
            assert told in ([], [State.CLOSED])
        else:
            assert told == [shown]


OneBreaker.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestOneBreaker = OneBreaker.TestCase
