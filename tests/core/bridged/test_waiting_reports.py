"""Which reports go next, and which one is to blame where a batch fails."""

from collections.abc import Callable, Sequence
from itertools import cycle
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.waiting_reports import (
    MAX_BATCH_ITEMS,
    MOST_IN_A_ROW,
    TRIES,
    TRIES_OF_A_SUSPECT,
    UNCONFIRMED,
    Next,
    Waiting,
    WaitingReports,
)

# Batches of others that it takes to give up a suspect: it has to fail once more.
ENOUGH = TRIES_OF_A_SUSPECT + 1

# Whether the peer fails at a batch of these.
Fails = Callable[[Sequence[str]], bool]


def waiting(*ids: str, since: float = 0.0) -> WaitingReports:
    reports = WaitingReports()
    add(reports, *ids, since=since)
    return reports


def add(reports: WaitingReports, *ids: str, since: float = 0.0) -> None:
    added: list[Waiting] = [(one, one.encode(), len(one), since) for one in ids]
    reports.add(added, reports.size_bytes + sum(map(len, ids)))


def ids_of(batch: Sequence[Waiting]) -> list[str]:
    return [one[0] for one in batch]


class Peer:
    """Takes what does not fail; remembers what was stored and given up, and every try."""

    def __init__(self, reports: WaitingReports) -> None:
        self._reports = reports
        self.stored: list[str] = []
        self.given_up: list[str] = []
        self.tries = 0
        self.waits = 0

    def take(self, fails: Fails, *, times: int = 100_000) -> None:
        """So many times, or until nothing waits but suspects that are tried in vain for want of others."""
        for _ in range(times):
            if not self._reports:
                return
            was_alone = self._reports.only_suspects
            self.tries += 1
            batch = self._reports.batch()
            is_control = self._reports.is_control(batch)
            if not fails(ids_of(batch)):
                self._reports.went_well(batch)
                if not is_control:
                    self._reports.take_out(batch)
                    self.stored += ids_of(batch)
                continue
            verdict = self._reports.failed(batch)
            self.waits += verdict is Next.WAIT
            if verdict is Next.GIVE_UP:
                self._reports.take_out(batch)
                self.given_up += ids_of(batch)
            elif verdict is Next.WAIT and was_alone and times == 100_000:
                return


def is_poison(ids: Sequence[str]) -> bool:
    return any(one.startswith("poison") for one in ids)


def give_others(reports: WaitingReports, peer: Peer, batches: int, fails: Fails = is_poison) -> None:
    """One report after the other, each of which goes by itself."""
    for number in range(batches):
        add(reports, f"other-{number}")
        peer.take(fails)


def put_aside(reports: WaitingReports, interception_id: str, *, since: float = 0.0) -> None:
    add(reports, interception_id, since=since)
    while not reports.only_suspects:
        reports.failed(reports.batch())


@pytest.mark.parametrize("place", [0, 1, 249, 250, 498, 499])
def test_the_one_at_which_the_peer_fails_is_found_and_the_others_arrive(place: int) -> None:
    ids = [f"id-{number:04}" for number in range(700)]
    ids[place] = "poison"
    reports = waiting(*ids)
    peer = Peer(reports)
    peer.take(is_poison)
    assert peer.stored == [one for one in ids if one != "poison"]
    # For the first batch, and when nothing is left but the one; for none in between.
    assert peer.waits == TRIES - 1 + 1
    assert peer.tries < 60
    give_others(reports, peer, ENOUGH)
    assert peer.given_up == ["poison"]
    assert (len(reports), reports.size_bytes) == (0, 0)


def test_a_suspect_is_given_up_when_it_has_failed_so_often_while_others_went_well() -> None:
    reports = waiting("poison")
    peer = Peer(reports)
    peer.take(is_poison, times=1000)
    give_others(reports, peer, ENOUGH - 1)
    assert (peer.given_up, reports.ids()) == ([], ["poison"])
    give_others(reports, peer, 1)
    assert (peer.given_up, len(peer.stored)) == (["poison"], ENOUGH)


def test_a_suspect_that_goes_well_in_the_end_is_kept() -> None:
    reports = waiting("odd")
    peer = Peer(reports)
    peer.take(lambda _: True, times=1000)
    give_others(reports, peer, ENOUGH - 1, lambda ids: "odd" in ids)
    give_others(reports, peer, 1)
    assert (peer.given_up, reports.ids()) == ([], [])
    assert "odd" in peer.stored


def test_after_a_batch_that_went_well_each_suspect_is_tried_once() -> None:
    reports = WaitingReports()
    peer = Peer(reports)
    put_aside(reports, "odd")
    put_aside(reports, "poison")
    add(reports, "a")
    peer.take(is_poison, times=1)
    add(reports, "b")
    peer.take(is_poison, times=2)
    assert peer.stored == ["a", "odd"]
    # What went well last, once more, and then the others.
    batch = reports.batch()
    assert (ids_of(batch), reports.is_control(batch)) == (["odd"], True)
    reports.went_well(batch)
    batch = reports.batch()
    assert (ids_of(batch), reports.is_control(batch)) == (["b"], False)


@pytest.mark.parametrize("meets", ["failed", "not_taken", "refused_for_good"])
def test_suspects_that_fail_where_others_would_have_failed_as_well_are_kept(meets: str) -> None:
    reports = WaitingReports()
    peer = Peer(reports)
    put_aside(reports, "good-0")
    put_aside(reports, "good-1")
    for number in range(10 * TRIES_OF_A_SUSPECT):
        add(reports, f"id-{number}")
        # One goes well, and then nothing any more.
        peer.take(is_poison, times=1)
        for _ in range(2):
            assert reports.failed(reports.batch()) is Next.AT_ONCE
        batch = reports.batch()
        assert (ids_of(batch), reports.is_control(batch)) == ([f"id-{number}"], True)
        assert getattr(reports, meets)(batch) is Next.WAIT
        assert not reports.is_control(reports.batch())
    assert sorted(reports.ids()) == ["good-0", "good-1"]
    assert len(peer.stored) == 10 * TRIES_OF_A_SUSPECT


def test_a_suspect_that_is_refused_for_good_leaves_the_others_their_one_try() -> None:
    reports = WaitingReports()
    for one in ("poison-0", "poison-1"):
        put_aside(reports, one)
    add(reports, "a")
    Peer(reports).take(is_poison, times=1)
    add(reports, "b")
    assert reports.failed(reports.batch()) is Next.AT_ONCE
    batch = reports.batch()
    assert reports.refused_for_good(batch) is Next.GIVE_UP
    reports.take_out(batch)
    reports.went_well(reports.batch())
    assert ids_of(reports.batch()) == ["b"]


def test_others_have_their_turn_before_many_suspects_were_tried() -> None:
    reports = WaitingReports()
    for number in range(1000):
        put_aside(reports, f"odd-{number}")
    peer = Peer(reports)
    add(reports, "a")
    peer.take(is_poison, times=1)
    add(reports, "b")
    # Whether suspects go well or not.
    for fails in (lambda _: False, lambda ids: ids[0].startswith("odd")):
        tries = peer.tries
        name = "b" if "b" not in peer.stored else "c"
        while name not in peer.stored:
            peer.take(fails, times=1)
        assert peer.tries - tries <= 160
        add(reports, "c")


def test_a_suspect_that_is_rejected_leaves_the_others_their_one_try_too() -> None:
    reports = WaitingReports()
    for one in ("poison-0", "poison-1", "poison-2"):
        put_aside(reports, one)
    add(reports, "a")
    Peer(reports).take(is_poison, times=1)
    add(reports, "b")
    reports.failed(reports.batch())
    # Rejected: taken out, and nothing went well.
    reports.take_out(reports.batch())
    reports.failed(reports.batch())
    assert reports.is_control(reports.batch())


@pytest.mark.parametrize("failed_since", [0, 1, 2])
def test_at_the_end_others_go_before_suspects_and_the_control(failed_since: int) -> None:
    reports = WaitingReports()
    put_aside(reports, "poison-0")
    put_aside(reports, "poison-1")
    add(reports, *(f"id-{number}" for number in range(2 * MAX_BATCH_ITEMS)))
    Peer(reports).take(is_poison, times=1)
    for _ in range(failed_since):
        reports.failed(reports.batch())
    before = ids_of(reports.batch())
    reports.is_ending = True
    assert (len(before), len(reports.batch())) == (1, MAX_BATCH_ITEMS)


def test_whether_others_still_go_well_is_seen_before_many_have_failed() -> None:
    reports = WaitingReports()
    for number in range(3 * UNCONFIRMED):
        put_aside(reports, f"poison-{number}")
    add(reports, "id")
    reports.went_well(batch := reports.batch())
    reports.take_out(batch)
    tried: list[str] = []
    while not reports.is_control(batch := reports.batch()):
        tried += ids_of(batch)
        reports.failed(batch)
    assert len(tried) == UNCONFIRMED
    # If not, no more are tried for now.
    reports.failed(batch)
    add(reports, "other")
    assert ids_of(reports.batch()) == ["other"]


def test_several_at_which_it_fails_are_found() -> None:
    ids = [f"poison-{number}" if number in (0, 1, 7, 90) else f"id-{number:03}" for number in range(100)]
    reports = waiting(*ids)
    peer = Peer(reports)
    peer.take(is_poison)
    give_others(reports, peer, ENOUGH)
    assert sorted(peer.given_up) == ["poison-0", "poison-1", "poison-7", "poison-90"]
    assert len(peer.stored) == 96 + ENOUGH


@pytest.mark.parametrize("good_each", [1, 2, 9, 100])
@pytest.mark.parametrize("together", [1, 30])
def test_suspects_do_not_pile_up_however_often_one_comes(good_each: int, together: int) -> None:
    reports = WaitingReports()
    peer = Peer(reports)
    most = 0
    for number in range(200):
        add(reports, *(f"poison-{number}-{one}" for one in range(together)))
        peer.take(is_poison)
        give_others(reports, peer, good_each)
        assert reports.oldest_seconds is None
        most = max(most, len(reports))
    # Of many, an eighth is tried after each batch of others.
    assert most <= together * ENOUGH * 8
    assert len(peer.stored) == 200 * good_each
    assert len(peer.given_up) + len(reports) == 200 * together


def test_nothing_is_given_up_by_a_peer_that_fails_at_everything_for_a_while() -> None:
    ids = [f"id-{number:02}" for number in range(40)]
    reports = waiting(*ids)
    peer = Peer(reports)
    peer.take(lambda _: True, times=1000)
    assert (peer.given_up, len(reports)) == ([], 40)
    peer.take(lambda _: False)
    assert (peer.given_up, sorted(peer.stored)) == ([], ids)


@given(seed=st.integers(0, 1 << 30), share=st.sampled_from([0.1, 0.3, 0.5]), each=st.sampled_from([1, 3, 40, 300]))
def test_a_peer_that_fails_at_random_gets_nearly_all(seed: int, share: float, each: int) -> None:
    random = Random(seed)
    reports = WaitingReports()
    peer = Peer(reports)
    for turn in range(20):
        add(reports, *(f"{turn}-{one}" for one in range(each)))
        peer.take(lambda _: random.random() < share)
    peer.take(lambda _: False)
    assert len(peer.given_up) <= 1
    assert len(set(peer.stored)) + len(peer.given_up) == 20 * each


def test_of_two_peers_that_take_turns_one_may_fail_at_everything() -> None:
    reports = waiting("a")
    peer = Peer(reports)
    # For a while there is only that one.
    peer.take(lambda _: True, times=10)
    add(reports, "b", "c")
    turns = cycle([True, False])
    peer.take(lambda _: next(turns))
    peer.take(lambda _: False)
    assert (sorted(peer.stored), peer.given_up) == (["a", "b", "c"], [])


def test_a_batch_that_fails_a_time_or_two_is_not_taken_apart() -> None:
    reports = waiting("a", "b", "c")
    for _ in range(TRIES - 1):
        assert reports.failed(reports.batch()) is Next.WAIT
        assert ids_of(reports.batch()) == ["a", "b", "c"]
    assert reports.failed(reports.batch()) is Next.AT_ONCE
    assert ids_of(reports.batch()) == ["a"]


def test_who_fails_at_all_that_goes_alone_is_not_asked_without_a_pause() -> None:
    reports = waiting(*(f"id-{number}" for number in range(40)))
    verdicts = [reports.failed(reports.batch()) for _ in range(TRIES + 40)]
    at_once = verdicts.count(Next.AT_ONCE)
    # To halve the batch, and for the first ones that are put aside; none after that.
    assert at_once <= 6 + MOST_IN_A_ROW
    assert set(verdicts[at_once + TRIES :]) == {Next.WAIT}


def test_neighbours_of_a_few_bad_ones_need_not_wait() -> None:
    reports = waiting(*(f"poison-{number}" for number in range(MOST_IN_A_ROW)), "good")
    peer = Peer(reports)
    peer.take(is_poison)
    # For the whole batch, and at the end for those that are left.
    assert (peer.stored, peer.waits) == (["good"], TRIES - 1 + 1)


def test_a_peer_that_is_away_changes_nothing_however_long() -> None:
    reports = waiting("a", "b")
    for _ in range(100):
        assert reports.not_taken(reports.batch()) is Next.WAIT
    assert ids_of(reports.batch()) == ["a", "b"]


def test_a_suspect_that_is_not_taken_lets_the_others_go_first() -> None:
    reports = waiting("poison", "b")
    peer = Peer(reports)
    # Halved at the third try, put aside at the fourth; then "b" goes well.
    peer.take(is_poison, times=TRIES + 2)
    assert (peer.stored, ids_of(reports.batch())) == (["b"], ["poison"])
    add(reports, "c")
    for _ in range(100):
        reports.not_taken(reports.batch())
        assert ids_of(reports.batch()) == ["c"]


# -- what is overdue -------------------------------------------------------------------------------------------------


def put_many_aside(reports: WaitingReports, count: int, *, since: float) -> None:
    for number in range(count):
        put_aside(reports, f"poison-{since}-{number}", since=since)


def test_a_few_suspects_are_not_overdue() -> None:
    reports = WaitingReports()
    add(reports, "poison", since=5.0)
    overdue = [reports.oldest_seconds]
    put_many_aside(reports, MOST_IN_A_ROW - 1, since=6.0)
    assert [*overdue, reports.oldest_seconds] == [5.0, None]
    assert len(reports) == MOST_IN_A_ROW


@pytest.mark.parametrize("count", [MOST_IN_A_ROW + 1, 10 * MOST_IN_A_ROW])
def test_many_in_a_row_are_until_many_were_tried_in_vain_once_more(count: int) -> None:
    reports = WaitingReports()
    put_many_aside(reports, count, since=6.0)
    for _ in range(MOST_IN_A_ROW):
        assert reports.oldest_seconds == 6.0
        assert reports.failed(reports.batch()) is Next.WAIT
    reports.failed(reports.batch())
    # Others may come, and if these fail as well it is so again.
    assert reports.oldest_seconds is None
    put_many_aside(reports, 1, since=7.0)
    assert reports.oldest_seconds == 6.0


def test_what_suspects_weigh_counts_until_each_was_tried_in_vain_once_more() -> None:
    reports = WaitingReports()
    put_aside(reports, "poison-0")
    put_aside(reports, "poison-1")
    add(reports, "id")
    assert reports.pressing_bytes == reports.size_bytes == 18
    reports.take_out(reports.batch())
    for _ in range(2):
        assert reports.pressing_bytes == 16
        reports.failed(reports.batch())
    assert (reports.pressing_bytes, reports.size_bytes) == (0, 16)
    put_aside(reports, "poison-2")
    assert reports.pressing_bytes == 24
    give_others(reports, Peer(reports), 1)
    assert (reports.pressing_bytes, reports.size_bytes) == (0, 24)
    give_others(reports, Peer(reports), ENOUGH)
    assert (reports.pressing_bytes, reports.size_bytes) == (0, 0)


def test_many_are_not_overdue_once_another_went_well() -> None:
    reports = WaitingReports()
    put_many_aside(reports, MOST_IN_A_ROW + 1, since=6.0)
    give_others(reports, Peer(reports), 1)
    assert reports.oldest_seconds is None
    put_many_aside(reports, MOST_IN_A_ROW, since=7.0)
    assert reports.oldest_seconds is None


def test_many_that_are_given_up_for_good_are_not_overdue() -> None:
    reports = WaitingReports()
    put_many_aside(reports, MOST_IN_A_ROW + 1, since=6.0)
    while reports:
        batch = reports.batch()
        assert reports.refused_for_good(batch) is Next.GIVE_UP
        reports.take_out(batch)
    assert reports.oldest_seconds is None


# -- sizes -----------------------------------------------------------------------------------------------------------


def test_what_is_refused_for_good_is_halved_at_once_and_given_up_alone() -> None:
    reports = waiting("a", "b", "c", "d")
    sizes = []
    while (verdict := reports.refused_for_good(batch := reports.batch())) is Next.AT_ONCE:
        sizes.append(len(batch))
    assert (sizes, verdict, ids_of(batch)) == ([4, 2], Next.GIVE_UP, ["a"])


def test_after_trouble_batches_become_whole_again() -> None:
    reports = waiting(*(f"id-{number:04}" for number in range(3 * MAX_BATCH_ITEMS)))
    for _ in range(TRIES):
        reports.failed(reports.batch())
    sizes = []
    while reports:
        batch = reports.batch()
        sizes.append(len(batch))
        reports.went_well(batch)
        reports.take_out(batch)
    assert sizes[:3] == [250, 500, 500]


def test_a_suspect_waits_for_no_others_and_a_batch_that_is_not_full_does() -> None:
    reports = WaitingReports()
    put_many_aside(reports, 1, since=1.0)
    is_full = [reports.has_a_batch]
    add(reports, "a")
    is_full.append(reports.has_a_batch)
    add(reports, *(f"id-{number}" for number in range(MAX_BATCH_ITEMS)))
    assert [*is_full, reports.has_a_batch] == [True, False, True]
