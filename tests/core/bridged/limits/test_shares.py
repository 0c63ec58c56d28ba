"""Slots that are shared: how many there are, for whom the last ones are, and what that comes to under load."""

import random
from collections import Counter
from heapq import heappop, heappush

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridged.limits.shares import STRANGERS, Shares

PEOPLE = ["ada", "bob", "eve", STRANGERS]


def asked(shares: Shares, principal: str, now: float = 0.0) -> bool:
    """Whether it got a slot."""
    if not shares.room_for(principal, now):
        return False
    shares.take(principal)
    return True


def taken(shares: Shares, principal: str, now: float = 0.0, *, tries: int = 1000) -> int:
    """How many slots it gets when it takes all that it can."""
    return sum(asked(shares, principal, now) for _ in range(tries))


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 64, 400])
def test_who_is_alone_may_have_all_of_them(limit: int) -> None:
    shares = Shares(limit)

    assert taken(shares, "ada") == limit
    assert shares.in_use == shares.held_by("ada") == limit


def test_without_a_limit_slots_are_counted_and_nobody_is_refused() -> None:
    shares = Shares(0)

    assert taken(shares, "ada", tries=5000) == 5000
    assert taken(shares, STRANGERS, tries=5000) == 5000
    assert shares.held_by("ada") == 5000


@pytest.mark.parametrize(("limit", "left"), [(1, 0), (2, 1), (3, 1), (10, 1), (20, 2), (64, 5), (400, 20)])
def test_who_has_the_most_leaves_the_last_slots_to_the_others(limit: int, left: int) -> None:
    shares = Shares(limit)
    shares.room_for("bob", 0.0)

    assert taken(shares, "ada") == limit - left
    # All of them, but for the last where by then the newcomer has many, too.
    assert taken(shares, "bob") in (left, left - (left > 5))


def test_who_was_refused_gets_the_next_slot_before_who_has_them_all() -> None:
    shares = Shares(10)
    assert taken(shares, "ada") == 10
    assert not asked(shares, "bob", 1.0)
    shares.give_back("ada")

    assert not asked(shares, "ada", 2.0)
    assert asked(shares, "bob", 3.0)


def test_slots_are_kept_for_nobody_who_does_not_come_back() -> None:
    shares = Shares(10)
    shares.room_for("bob", 0.0)

    assert taken(shares, "ada", 29.0) == 9
    assert taken(shares, "ada", 31.0) == 1


def test_strangers_leave_a_quarter_even_where_nobody_else_is() -> None:
    shares = Shares(64)

    assert taken(shares, STRANGERS) == 48
    assert taken(shares, "ada") in (15, 16)


def test_a_slot_that_turns_out_to_be_somebodys_counts_as_theirs() -> None:
    shares = Shares(4)
    asked(shares, STRANGERS)
    shares.move(STRANGERS, "ada", 0.0)

    assert (shares.in_use, shares.held_by("ada"), shares.held_by(STRANGERS)) == (1, 1, 0)


def test_who_was_a_stranger_at_first_is_not_somebody_else() -> None:
    shares = Shares(10)
    asked(shares, STRANGERS)
    shares.move(STRANGERS, "ada", 0.0)

    assert taken(shares, "ada") == 9


def test_a_stranger_that_was_refused_gets_the_next_slot_before_who_has_them_all() -> None:
    shares = Shares(10)
    assert taken(shares, "ada") == 10
    assert not asked(shares, STRANGERS, 1.0)
    shares.give_back("ada")

    assert not asked(shares, "ada", 2.0)
    assert asked(shares, STRANGERS, 3.0)


@pytest.mark.parametrize("seed", range(4))
def test_the_last_slots_are_measured_by_who_has_the_most_at_the_time(seed: int) -> None:
    chance = random.Random(seed)
    shares, held = Shares(40), Counter[str]()
    users = PEOPLE[:-1]
    for user in users:
        shares.room_for(user, 0.0)
    for _ in range(3000):
        user = chance.choice(users)
        if chance.random() < 0.6:
            free = 40 - held.total()
            expected = free > 5 or (free > 0 and held[user] * 6 <= max(held.values()) * free)
            assert asked(shares, user) is expected
            held[user] += expected
        elif held[user]:
            shares.give_back(user)
            held[user] -= 1


class AnyOrder(RuleBasedStateMachine):
    """Slots taken, moved and given back in any order, held to a plain count of them."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = 12
        self.shares = Shares(self.limit)
        self.held: Counter[str] = Counter()
        self.now = 0.0

    @rule(principal=st.sampled_from(PEOPLE), pause=st.sampled_from([0.0, 1.0, 40.0]))
    def ask(self, principal: str, pause: float) -> None:
        self.now += pause
        in_use, own = self.held.total(), self.held[principal]
        others_most = max((count for one, count in self.held.items() if one != principal), default=0)
        got = asked(self.shares, principal, self.now)
        if got:
            assert in_use < self.limit
            # The last slot is for who has no more than half of what somebody else has, or for who is alone.
            assert in_use < self.limit - 1 or 2 * own <= others_most or own == in_use
        elif principal != STRANGERS:
            assert in_use == self.limit or (in_use == self.limit - 1 and 2 * own > others_most)
        self.held[principal] += got

    @precondition(lambda self: self.held.total())
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        principal = data.draw(st.sampled_from(sorted(self.held.elements())))
        self.shares.give_back(principal)
        self.held[principal] -= 1

    @precondition(lambda self: self.held[STRANGERS])
    @rule(user=st.sampled_from(PEOPLE[:-1]))
    def move(self, user: str) -> None:
        self.shares.move(STRANGERS, user, self.now)
        self.held[STRANGERS] -= 1
        self.held[user] += 1

    @invariant()
    def counts_agree(self) -> None:
        assert self.shares.in_use == self.held.total() <= self.limit
        assert {one: self.shares.held_by(one) for one in PEOPLE} == {one: self.held[one] for one in PEOPLE}


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestAnyOrder = AnyOrder.TestCase


def carried(limit: int, wanted: dict[str, float], *, seconds: int, seed: int) -> dict[str, float]:
    """What each gets a second where a request takes about a second and each asks so often a second, at random times.

    The first quarter of the time is not counted.
    """
    chance, shares, got = random.Random(seed), Shares(limit), Counter[str]()
    asks = sorted((chance.uniform(0, seconds), who) for who, rate in wanted.items() for _ in range(int(rate * seconds)))
    ends = list[tuple[float, str]]()
    for time, who in asks:
        while ends and ends[0][0] <= time:
            shares.give_back(heappop(ends)[1])
        if asked(shares, who, time):
            heappush(ends, (time + chance.uniform(0.5, 1.5), who))
            got[who] += time >= seconds / 4
    return {who: got[who] / (seconds * 3 / 4) for who in wanted}


@settings(max_examples=25, deadline=None)
@given(
    limit=st.integers(20, 100),
    modest=st.lists(st.floats(0.05, 0.6), min_size=1, max_size=5),
    greed=st.floats(3, 10),
    seed=st.integers(0, 1 << 32),
)
def test_who_wants_less_than_its_share_gets_nearly_all_of_it_beside_a_greedy_one(
    limit: int, modest: list[float], greed: float, seed: int
) -> None:
    share = limit / (len(modest) + 1)
    wanted = {f"user {place}": share * part for place, part in enumerate(modest)} | {"greedy": greed * limit}
    got = carried(limit, wanted, seconds=60, seed=seed)

    for who, rate in wanted.items():
        if who != "greedy":
            assert got[who] >= 0.75 * rate - 1
    # Nothing is left idle but the last slots, and what falls between two requests.
    assert sum(got.values()) >= 0.82 * limit


@settings(max_examples=25, deadline=None)
@given(
    limit=st.integers(20, 100),
    greeds=st.lists(st.floats(1.5, 10), min_size=2, max_size=5),
    seed=st.integers(0, 1 << 32),
)
def test_those_who_want_more_than_their_share_get_about_the_same(limit: int, greeds: list[float], seed: int) -> None:
    share = limit / len(greeds)
    wanted = {f"user {place}": share * greed for place, greed in enumerate(greeds)}
    got = carried(limit, wanted, seconds=60, seed=seed)

    # Who has a third less than the others comes before them, so that nobody stays much below; and what one does not
    # ask for is the others'.
    assert min(got.values()) >= 0.6 * share - 1
    assert max(got.values()) <= 1.6 * share + 2
    assert sum(got.values()) >= 0.82 * limit
