"""Which reports go next, and which one is to blame where a batch fails."""

from collections.abc import Callable, Sequence
from itertools import cycle

import pytest

from bridged.waiting_reports import MAX_BATCH_ITEMS, MOST_SUSPECTS, Next, Waiting, WaitingReports

Fails = Callable[[str], bool]


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

    def take(self, fails: Fails, *, times: int = 10_000) -> None:
        while self._reports and times:
            times -= 1
            self.tries += 1
            batch = self._reports.batch()
            if not any(map(fails, ids_of(batch))):
                self._reports.went_well()
                self._reports.take_out(batch)
                self.stored += ids_of(batch)
                continue
            verdict = self._reports.failed(batch)
            self.waits += verdict is Next.WAIT
            if verdict is Next.GIVE_UP:
                self._reports.take_out(batch)
                self.given_up += ids_of(batch)


def is_poison(interception_id: str) -> bool:
    return interception_id.startswith("poison")


@pytest.mark.parametrize("place", [0, 1, 249, 250, 498, 499])
def test_the_one_at_which_the_peer_fails_is_found_and_the_others_arrive(place: int) -> None:
    ids = [f"id-{number:04}" for number in range(700)]
    ids[place] = "poison"
    reports = waiting(*ids)
    peer = Peer(reports)
    peer.take(is_poison)
    assert peer.given_up == ["poison"]
    assert peer.stored == [one for one in ids if one != "poison"]
    assert (len(reports), reports.size_bytes) == (0, 0)
    # For the first batch, for the report alone, and for that again; for none in between.
    assert peer.waits == 2 + 3 + 2
    assert peer.tries < 60


def test_several_at_which_it_fails_are_found() -> None:
    ids = [f"poison-{number}" if number in (0, 1, 7, 90) else f"id-{number:03}" for number in range(100)]
    peer = Peer(waiting(*ids))
    peer.take(is_poison)
    assert sorted(peer.given_up) == ["poison-0", "poison-1", "poison-7", "poison-90"]
    assert len(peer.stored) == 96


def test_nothing_is_given_up_by_a_peer_that_fails_at_everything_for_a_while() -> None:
    ids = [f"id-{number:02}" for number in range(40)]
    reports = waiting(*ids)
    peer = Peer(reports)
    peer.take(lambda _: True, times=1000)
    assert (peer.given_up, len(reports)) == ([], 40)
    peer.take(lambda _: False)
    assert (peer.given_up, sorted(peer.stored)) == ([], ids)


def test_one_that_waits_alone_is_given_up_when_another_goes_well() -> None:
    reports = waiting("poison")
    peer = Peer(reports)
    peer.take(is_poison, times=100)
    assert peer.given_up == []
    add(reports, "id-1")
    peer.take(is_poison)
    assert (peer.stored, peer.given_up) == (["id-1"], ["poison"])


def test_of_two_peers_that_take_turns_one_may_fail_at_everything() -> None:
    reports = waiting("a")
    peer = Peer(reports)
    # For a while there is only that one.
    peer.take(lambda _: True, times=10)
    add(reports, "b", "c")
    turns = cycle([True, False])
    peer.take(lambda _: next(turns))
    assert (sorted(peer.stored), peer.given_up) == (["a", "b", "c"], [])


def test_a_batch_that_fails_a_time_or_two_is_not_taken_apart() -> None:
    reports = waiting("a", "b", "c")
    for _ in range(2):
        assert reports.failed(reports.batch()) is Next.WAIT
        assert ids_of(reports.batch()) == ["a", "b", "c"]
    assert reports.failed(reports.batch()) is Next.AT_ONCE
    assert ids_of(reports.batch()) == ["a"]


def test_a_peer_that_is_away_changes_nothing_however_long() -> None:
    reports = waiting("a", "b")
    for _ in range(100):
        assert reports.not_taken(reports.batch()) is Next.WAIT
    assert ids_of(reports.batch()) == ["a", "b"]


def test_a_suspect_that_is_not_taken_for_another_reason_goes_with_the_others_again() -> None:
    reports = waiting("poison", "b")
    peer = Peer(reports)
    # Halved at the third try, put aside after three more; then "b" goes well.
    peer.take(is_poison, times=7)
    assert (peer.stored, ids_of(reports.batch())) == (["b"], ["poison"])
    add(reports, "c")
    reports.not_taken(reports.batch())
    assert ids_of(reports.batch()) == ["poison", "c"]


def test_a_few_suspects_are_not_overdue_and_many_are() -> None:
    reports = waiting("poison-0", since=5.0)
    peer = Peer(reports)
    assert reports.oldest_seconds == 5.0
    peer.take(is_poison, times=3)
    assert reports.oldest_seconds is None
    assert len(reports) == 1
    for number in range(1, MOST_SUSPECTS + 1):
        add(reports, f"poison-{number}", since=6.0)
        peer.take(is_poison, times=3)
    assert reports.oldest_seconds is not None
    assert reports.ids() == [f"poison-{number}" for number in range(MOST_SUSPECTS + 1)]


def test_what_is_refused_for_good_is_halved_at_once_and_given_up_alone() -> None:
    reports = waiting("a", "b", "c", "d")
    sizes = []
    while (verdict := reports.refused_for_good(batch := reports.batch())) is Next.AT_ONCE:
        sizes.append(len(batch))
    assert (sizes, verdict, ids_of(batch)) == ([4, 2], Next.GIVE_UP, ["a"])


def test_after_trouble_batches_become_whole_again() -> None:
    reports = waiting(*(f"id-{number:04}" for number in range(3 * MAX_BATCH_ITEMS)))
    for _ in range(3):
        reports.failed(reports.batch())
    sizes = []
    while reports:
        batch = reports.batch()
        sizes.append(len(batch))
        reports.went_well()
        reports.take_out(batch)
    assert sizes[:3] == [250, 500, 500]
