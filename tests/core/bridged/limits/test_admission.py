"""What is admitted, in the order of the limits: which refusal it is, what strangers are told, how slots come back."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bridged.limits.admission import Admission, AdmissionLimits, Limit, Over, Slot

ADA, ADAS_OTHER, BOB, NOBODYS = 1, 2, 3, 4
USERS = {ADA: "ada", ADAS_OTHER: "ada", BOB: "bob"}


def entered(admission: Admission, token: int, provider: str = "corp", now: float = 0.0) -> Slot:
    slot = admission.enter(token, provider, now)
    assert isinstance(slot, Slot)
    return slot


def running(admission: Admission, token: int, provider: str = "corp", now: float = 0.0) -> Slot:
    """The slot of a request that is being carried."""
    slot = entered(admission, token, provider, now)
    assert admission.resolved(slot, provider, USERS[token], now) is None
    return slot


def met(admission: Admission) -> None:
    """Every token that there is has been resolved once."""
    for token in USERS:
        admission.leave(running(admission, token))


def over(outcome: Slot | Over | None) -> Limit | None:
    return outcome.limit if isinstance(outcome, Over) else None


def test_each_limit_refuses_before_credentiald_is_asked_once_the_token_is_known() -> None:
    for limits, limit in [
        (AdmissionLimits(rate_per_second=4), Limit.RATE),
        (AdmissionLimits(user=3), Limit.USER),
        (AdmissionLimits(provider=3), Limit.PROVIDER),
        (AdmissionLimits(bridge=3), Limit.BRIDGE),
    ]:
        admission = Admission(limits)
        met(admission)
        for _ in range(3):
            running(admission, ADA, now=40.0)
        if limit is Limit.RATE:
            running(admission, ADA, now=40.0)
        assert over(admission.enter(ADA, "corp", 40.0)) is limit


def test_two_tokens_of_a_user_are_one_user() -> None:
    admission = Admission(AdmissionLimits(user=2))
    met(admission)
    running(admission, ADA)
    running(admission, ADAS_OTHER)

    assert over(admission.enter(ADA, "corp", 0.0)) is Limit.USER
    assert over(admission.enter(ADAS_OTHER, "corp", 0.0)) is Limit.USER
    running(admission, BOB)


def test_a_token_that_is_not_known_yet_is_held_to_its_users_limit_when_it_is() -> None:
    admission = Admission(AdmissionLimits(user=1))
    first, second = entered(admission, ADA), entered(admission, ADAS_OTHER)

    assert admission.resolved(first, "corp", "ada", 0.0) is None
    assert over(admission.resolved(second, "corp", "ada", 0.0)) is Limit.USER
    admission.leave(second)
    admission.leave(first)
    running(admission, ADAS_OTHER)


def test_strangers_are_told_nothing_of_a_provider() -> None:
    admission = Admission(AdmissionLimits(provider=1))
    running(admission, ADA)

    assert over(admission.enter(NOBODYS, "corp", 0.0)) is None


def test_a_limit_of_a_provider_is_nothing_to_others() -> None:
    admission = Admission(AdmissionLimits(provider=1))
    met(admission)
    running(admission, ADA, "corp")

    assert over(admission.enter(BOB, "corp", 0.0)) is Limit.PROVIDER
    running(admission, BOB, "lab")


def test_a_request_that_goes_on_at_another_provider_holds_one_slot_of_that_one() -> None:
    admission = Admission(AdmissionLimits(provider=1))
    met(admission)
    slot = running(admission, ADA, "corp")
    assert admission.resolved(slot, "corp", "ada", 0.0) is None
    assert admission.resolved(slot, "lab", "ada", 0.0) is None

    assert over(admission.enter(BOB, "lab", 0.0)) is Limit.PROVIDER
    running(admission, BOB, "corp")
    admission.leave(slot)
    running(admission, BOB, "lab")


def test_made_up_tokens_do_not_keep_a_known_user_out() -> None:
    admission = Admission(AdmissionLimits(bridge=8))
    met(admission)
    while over(admission.enter(NOBODYS, "corp", 0.0)) is None:
        pass

    running(admission, ADA)
    running(admission, BOB)


def test_a_hundred_thousand_made_up_tokens_push_no_known_one_out() -> None:
    admission = Admission(AdmissionLimits(user=1, rate_per_second=100))
    running(admission, ADA)
    for token in range(1000, 101_000):
        admission.leave(entered(admission, token, now=token / 10_000))

    assert over(admission.enter(ADA, "corp", 11.0)) is Limit.USER


def test_workers_divide_each_limit_and_round_up() -> None:
    limits = AdmissionLimits(bridge=100, provider=9, user=1, rate_per_second=0)

    assert limits.of_worker(8) == AdmissionLimits(bridge=13, provider=2, user=1, rate_per_second=0)
    assert limits.of_worker(1) == limits
    assert not limits.are_none
    assert AdmissionLimits().are_none


class AnyOrder(RuleBasedStateMachine):
    """Requests of anybody in any order: no limit is ever passed, and at the end nothing is held."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = AdmissionLimits(bridge=8, provider=5, user=4)
        self.admission = Admission(self.limits)
        self.slots: list[tuple[Slot, int]] = []
        self.carried: list[tuple[Slot, str, str]] = []

    @rule(token=st.sampled_from([*USERS, NOBODYS]), provider=st.sampled_from(["corp", "lab"]))
    def enter(self, token: int, provider: str) -> None:
        slot = self.admission.enter(token, provider, 0.0)
        if isinstance(slot, Slot):
            self.slots.append((slot, token))

    @rule(data=st.data(), provider=st.sampled_from(["corp", "lab"]))
    def resolve(self, data: st.DataObject, provider: str) -> None:
        known = [each for each in self.slots if each[1] in USERS]
        if not known:
            return
        slot, token = each = data.draw(st.sampled_from(known))
        self.slots.remove(each)
        if self.admission.resolved(slot, provider, USERS[token], 0.0) is None:
            self.carried.append((slot, USERS[token], provider))
        else:
            self.admission.leave(slot)

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if self.slots:
            self.admission.leave(self.slots.pop(data.draw(st.integers(0, len(self.slots) - 1)))[0])
        if self.carried:
            self.admission.leave(self.carried.pop(data.draw(st.integers(0, len(self.carried) - 1)))[0])

    @invariant()
    def no_limit_is_passed(self) -> None:
        assert self.admission.in_use == len(self.slots) + len(self.carried) <= self.limits.bridge
        for user in set(USERS.values()):
            assert sum(one == user for _, one, _ in self.carried) <= self.limits.user
        for provider in ("corp", "lab"):
            assert sum(one == provider for _, _, one in self.carried) <= self.limits.provider

    def teardown(self) -> None:
        for slot in [each[0] for each in self.slots] + [each[0] for each in self.carried]:
            self.admission.leave(slot)
        assert self.admission.in_use == 0
        running(self.admission, ADA, "corp")
        running(self.admission, BOB, "lab")


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestAnyOrder = AnyOrder.TestCase
