"""Reports that came while their openings waited: stored together with these, whatever else happens to them."""

import asyncio
from collections.abc import Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from credentiald.errors import StoreUnavailable
from credentiald.metrics import Metrics
from credentiald.record_book import RecordBook
from credentiald.record_model import DAY_MICROS, Decided, Noted, OpeningRow, Rejection
from credentiald.store.record_writing import Stored
from credentiald.usual_report import Matched, in_columns, usual_of
from credentiald.waiting_openings import opening_columns, opening_rows
from tests.store.test_records_log import open_in
from tests.store.test_records_usual import contents
from tests.support.records import (
    BOB,
    SECOND,
    START,
    a_prompt,
    a_report,
    a_usage,
    an_end,
    an_id,
    an_origin,
    fact_id,
    rows_of,
    some_facts,
)

NUMBERS = range(1, 6)


class Book(RecordBook):
    """Remembers what was stored."""

    all_stored: list[Stored]

    async def _tell(self, stored: Stored) -> None:
        self.all_stored.append(stored)


@asynccontextmanager
async def book_in(folder, *, now_seconds=9.0):
    """A book, and another connection to its file."""
    async with open_in(folder) as (records, other):
        now = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=START, seconds=now_seconds)
        book = Book(records, Metrics("test"), lambda: now)
        book.all_stored = []
        yield book, other


def a_noted(number: int, **changes: str) -> Noted:
    decided = Decided(an_origin(**changes), "anthropic.messages", None, True)
    texts = "claude-sonnet-4-5", "Claude Code", "bridge-1"
    return an_id(number).encode(), an_id(1_000_000 + number).encode(), decided, *texts, b"", START + number * SECOND


def whole(number: int, **facts: str):
    return a_report(
        number,
        facts=some_facts(**facts),
        token_usages=(a_usage(id=fact_id(number, 0)),),
        prompts=(a_prompt(f"prompt {number}", id=fact_id(number, 1)),),
        end=an_end(number),
    )


def matched(noted: Sequence[Noted], **facts: str) -> Matched:
    told = in_columns([usual_of(whole(int(one[0][-12:], 16), **facts)) for one in noted])
    return Matched(told, opening_columns(noted), list(noted))


@pytest.fixture
async def expected(tmp_path):
    """What is in the file where these are told of as messages."""
    folder = tmp_path / "expected"
    folder.mkdir()
    async with book_in(folder) as (book, other):
        book.note([a_noted(number) for number in NUMBERS])
        await asyncio.gather(book.append([whole(number) for number in NUMBERS]), book.flush())
        assert not book.waiting()
        return contents(other)


async def test_they_are_stored_by_the_short_way_and_nothing_waits_any_more(tmp_path, expected):
    async with book_in(tmp_path) as (book, other):
        noted = [a_noted(number) for number in NUMBERS]
        book.note(noted)
        calls = book.append([], [matched(noted[:2])]), book.append([], [matched(noted[2:])])
        assert (await asyncio.gather(*calls, book.flush()))[:2] == [{}, {}]
        assert contents(other) == expected
        [stored] = book.all_stored
        assert [len(group.places) for group in stored.usual.groups] == [5]
        assert (book.waiting(), stored.ended, stored.started) == (0, [], [])


async def test_openings_that_were_stored_meanwhile_are_completed(tmp_path, expected):
    async with book_in(tmp_path) as (book, other):
        noted = [a_noted(number) for number in NUMBERS]
        some = matched(noted)
        book.note(noted[:3])
        await book.flush()
        book.note(noted[3:])
        assert (await asyncio.gather(book.append([], [some]), book.flush()))[0] == {}
        assert contents(other) == expected


async def test_what_was_resolved_again_meanwhile_has_the_last_resolution(tmp_path):
    # The first has not waited long enough to be stored without its report.
    async with book_in(tmp_path, now_seconds=1.1) as (book, other):
        noted = [a_noted(number) for number in NUMBERS]
        book.note(noted)
        some = matched(noted)
        again = a_noted(3, credential_id="credential-2")
        book.note([(again[0], an_id(2_000_000).encode(), *again[2:])])
        call = book.append([], [some])
        assert (await asyncio.gather(call, book.flush(all_openings=False)))[0] == {}
        rows = {row["id"]: (row["resolution_id"], row["credential_id"]) for row in rows_of(other, "interceptions")}
        assert rows[an_id(3)] == (an_id(2_000_000), "credential-2")
        assert rows[an_id(4)] == (an_id(1_000_004), "credential-1")
        assert len(rows_of(other, "prompts")) == 5
        assert not book.waiting()


@pytest.mark.parametrize("form", ["matched", "in one", "as messages"])
async def test_what_is_told_twice_is_stored_once(tmp_path, expected, form):
    async with book_in(tmp_path) as (book, other):
        noted = [a_noted(number) for number in NUMBERS]
        book.note(noted)
        match form:
            case "matched":
                calls = [book.append([], [matched(noted)]), book.append([], [matched(noted[1:3])])]
            case "in one":
                calls = [book.append([], [matched([*noted, noted[2]])])]
            case _:
                calls = [book.append([whole(2)], [matched(noted)])]
        *rejected, _ = await asyncio.gather(*calls, book.flush())
        assert rejected == [{}] * len(calls)
        assert contents(other) == expected
        assert not book.waiting()


async def test_what_answers_a_tool_call_has_what_its_opening_says(tmp_path):
    async with book_in(tmp_path) as (book, other):
        noted = [a_noted(number) for number in NUMBERS]
        book.note(noted)
        answers = matched(noted[2:], client="", model="", operation="", correlating_tool_call_id="toolu_1")
        await asyncio.gather(book.append([], [matched(noted[:2]), answers]), book.flush())
        rows = {(row["client"], row["model"], row["operation"]) for row in rows_of(other, "interceptions")}
        assert rows == {("Claude Code", "claude-sonnet-4-5", "anthropic.messages")}
        tool_calls = {row["id"]: row["correlating_tool_call_id"] for row in rows_of(other, "interceptions")}
        assert [tool_calls[an_id(number)] for number in NUMBERS] == ["", "", "toolu_1", "toolu_1", "toolu_1"]


async def test_each_counts_for_its_own_day(tmp_path):
    async with book_in(tmp_path) as (book, other):
        noted = [a_noted(number) for number in (1, 2, 86_401, 3)]
        book.note(noted)
        await asyncio.gather(book.append([], [matched(noted)]), book.flush())
        days = [(row["start_day"], row["interceptions"]) for row in rows_of(other, "usage_days") if row["user_id"]]
        first = START // DAY_MICROS
        assert sorted(days) == [(first, 3), (first + 1, 1)]


async def test_a_client_may_have_called_its_session_like_one_of_them(tmp_path):
    found = {}
    for form in ("matched", "as messages"):
        (tmp_path / form).mkdir()
        async with book_in(tmp_path / form) as (book, other):
            await asyncio.gather(book.append([whole(9, client_session_id=an_id(2))]), book.flush())
            noted = [a_noted(number) for number in NUMBERS]
            book.note(noted)
            if form == "matched":
                call = book.append([], [matched(noted)])
            else:
                # In two pieces, so by the long way.
                told = [whole(number) for number in NUMBERS]
                call = book.append([piece for one in told for piece in (one._replace(end=None), one)])
            await asyncio.gather(call, book.flush())
            found[form] = contents(other)
    assert found["matched"] == found["as messages"]


async def test_openings_that_are_due_are_stored_beside_them(tmp_path, expected):
    async with book_in(tmp_path) as (book, other):
        noted = [a_noted(number) for number in NUMBERS]
        book.note(noted)
        await asyncio.gather(book.append([], [matched(noted[1:4])]), book.flush())
        rows = {row["id"]: row["outcome"] for row in rows_of(other, "interceptions")}
        assert [rows[an_id(number)] for number in NUMBERS] == ["", "COMPLETED", "COMPLETED", "COMPLETED", ""]
        [stored] = book.all_stored
        assert list(stored.usual.opened) == [an_id(1), an_id(5)]


async def test_at_the_end_all_openings_are_stored_however_many_are_matched(tmp_path, monkeypatch):
    monkeypatch.setattr("credentiald.waiting_openings.OPENINGS_AT_ONCE", 5)
    async with book_in(tmp_path) as (book, other):
        noted = [a_noted(number) for number in range(1, 10)]
        book.note(noted)
        await asyncio.gather(book.append([], [matched(noted[:3])]), book.flush())
        assert len(rows_of(other, "interceptions")) == 9


async def test_each_is_rejected_in_its_place_where_the_interception_is_somebody_elses(tmp_path):
    async with book_in(tmp_path) as (book, other):
        book.note([a_noted(number, user_id=BOB) for number in (2, 9)])
        await book.flush()
        noted = [a_noted(number) for number in NUMBERS]
        book.note(noted)
        call = book.append([whole(9), whole(8)], [matched(noted[:1]), matched(noted[1:])])
        rejected, _ = await asyncio.gather(call, book.flush())
        # Two messages, then the first that is matched.
        assert rejected == {0: Rejection.INTERCEPTION_TAKEN, 3: Rejection.INTERCEPTION_TAKEN}
        assert len(rows_of(other, "prompts")) == 5


async def test_one_that_cannot_be_stored_is_no_trouble_of_the_others(tmp_path):
    async with book_in(tmp_path) as (book, other):
        other.execute(
            "CREATE TRIGGER no BEFORE INSERT ON usual_prompts WHEN NEW.text = 'prompt 4'"
            " BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        noted = [a_noted(number) for number in NUMBERS]
        book.note(noted)
        call = book.append([whole(8)], [matched(noted[:2]), matched(noted[2:])])
        rejected, _ = await asyncio.gather(call, book.flush())
        assert rejected == {4: Rejection.RECORD_INVALID}
        assert {row["text"] for row in rows_of(other, "prompts")} == {f"prompt {number}" for number in (1, 2, 3, 5, 8)}
        assert not book.waiting()


async def test_an_opening_that_cannot_be_put_into_a_row_costs_no_report_and_no_other_opening(tmp_path, monkeypatch):
    def rows_or_bug(noted: Sequence[Noted]) -> list[OpeningRow]:
        if a_noted(6) in noted:
            raise RuntimeError("a bug")
        return opening_rows(noted)

    for module in ("record_book", "storing_apart"):
        monkeypatch.setattr(f"credentiald.{module}.opening_rows", rows_or_bug)
    async with book_in(tmp_path) as (book, other):
        book.note([a_noted(6), a_noted(7)])
        async with asyncio.timeout(5):
            rejected, _ = await asyncio.gather(book.append([whole(8)]), book.flush())
        assert rejected == {}
        assert {row["id"] for row in rows_of(other, "interceptions")} == {an_id(7), an_id(8)}
        assert not book.waiting()


async def test_as_many_wait_as_others_may(tmp_path, monkeypatch):
    monkeypatch.setattr("credentiald.waiting_reports.MOST_REPORTS", 6)
    async with book_in(tmp_path) as (book, _):
        noted = [a_noted(number) for number in NUMBERS]
        book.note(noted)
        waiting = asyncio.ensure_future(book.append([whole(8)], [matched(noted)]))
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable):
            await book.append([whole(9)])
        assert book.waiting() == 11
        await book.flush()
        assert await waiting == {}
        assert book.waiting() == 0


class Besieged(Book):
    """To which more is reported as soon as something was stored, for so many times."""

    left: int
    brought: list[asyncio.Task[object]]

    async def _tell(self, stored: Stored) -> None:
        await super()._tell(stored)
        if self.left:
            self.left -= 1
            report = usual_of(whole(100 + self.left))
            self.brought.append(asyncio.create_task(self.append([report])))
            # It waits now, so that this transaction is not the last.
            await asyncio.sleep(0)


async def test_ends_of_vanished_bridges_do_not_wait_until_others_report_no_more(tmp_path):
    async with book_in(tmp_path) as (made, _):
        book = Besieged(made._records, Metrics("test"), made._clock)
        book.all_stored, book.brought, book.left = [], [], 0
        book.note([a_noted(1)])
        await book.flush()
        book.left = 20
        first = asyncio.create_task(book.append([usual_of(whole(2))]))
        await asyncio.sleep(0)
        await asyncio.gather(book.flush(), book.end_presumed([(an_id(1), START + 5 * SECOND)]))
        ends = [[one.id for one in stored.unfolded().ended] for stored in book.all_stored]
        assert [an_id(1)] in ends[:4]
        await asyncio.gather(first, *book.brought)
        await book.close()
