"""One row for each interception, whatever comes first."""

from itertools import permutations

import pytest

from credentiald.record_merge import join_thread, noted_again, opened, presumed_ended, reported
from credentiald.record_model import Decided, InterceptionDraft, Opening, Report, ThreadPlace
from tests.support.records import BOB, SECOND, START, a_report, an_end, an_id, an_opening, an_origin, some_facts

PRESUME = "presume"
OPENING = an_opening(1)
FACTS = a_report(1, facts=some_facts())
END = a_report(1, end=an_end(1, outcome="UPSTREAM_ERROR", error_category="OVERLOADED"))


def row_of(steps) -> InterceptionDraft | None:
    draft = None
    for step in steps:
        match step:
            case Opening():
                draft = opened(draft, step)
            case Report():
                draft = reported(draft, step)
            case _ if draft is not None:
                presumed_ended(draft, START + 5 * SECOND)
    return draft


def test_the_row_is_the_same_in_whatever_order_its_parts_come_and_however_often():
    usual = row_of([OPENING, FACTS, END])
    assert usual is not None
    assert (usual.outcome, usual.error_category, usual.http_status) == ("UPSTREAM_ERROR", "OVERLOADED", 200)
    assert (usual.client, usual.user_agent, usual.model) == ("Claude Code", "claude-cli/2.0", "claude-sonnet-4-5")
    for steps in permutations([OPENING, FACTS, END, PRESUME, END, OPENING]):
        assert row_of(steps) == usual, steps


def test_an_opening_that_was_lost_is_made_good_by_the_receipt():
    without = row_of([FACTS, END])
    assert without == row_of([OPENING, FACTS, END])


def test_a_presumed_end_counts_until_the_real_one_comes():
    presumed = row_of([OPENING, PRESUME])
    assert presumed is not None
    assert (presumed.outcome, presumed.end_time) == ("BRIDGE_VANISHED", START + 5 * SECOND)
    assert row_of([OPENING, PRESUME, FACTS, END]) == row_of([OPENING, FACTS, END])


def test_no_end_takes_the_place_of_a_real_one():
    other = a_report(1, end=an_end(9, outcome="CLIENT_GONE"))
    first = row_of([OPENING, FACTS, END, PRESUME])
    assert row_of([OPENING, FACTS, END, other, PRESUME]) == first


@pytest.mark.parametrize("changes", [{"user_id": BOB}, {"service_id": "service-2"}])
def test_an_id_that_is_somebody_elses_is_nobodys_way_to_the_row(changes):
    origin = an_origin(**changes)
    assert reported(row_of([OPENING]), a_report(1, origin=origin, end=an_end(1))) is None
    assert opened(row_of([OPENING]), an_opening(1, origin=origin)) is None


def test_after_a_failover_the_row_has_the_first_time_and_the_last_credential():
    second = an_opening(
        1,
        resolution_id=an_id(2_000_000),
        origin=an_origin(credential_id="credential-2"),
        start_micros=START + 9 * SECOND,
    )
    ending = a_report(
        1,
        resolution_id=second.resolution_id,
        origin=second.origin,
        start_micros=second.start_micros,
        facts=some_facts(),
        end=an_end(1),
    )
    rows = [row_of(steps) for steps in permutations([OPENING, second, ending])]
    assert all(row == rows[0] for row in rows)
    assert (rows[0].credential_id, rows[0].start_time) == ("credential-2", OPENING.start_micros)


@pytest.mark.parametrize(("first_model", "second_model"), [("mapped", ""), ("", "mapped"), ("one", "other")])
def test_a_row_is_of_the_fallback_provider_that_answered_in_whatever_order_it_is_told(first_model, second_model):
    first = an_opening(1, upstream_model=first_model)
    second = an_opening(
        1,
        resolution_id=an_id(2_000_000),
        origin=an_origin(
            provider_id="provider-2", provider_name="spare", provider_type="bedrock", credential_id="credential-2"
        ),
        upstream_model=second_model,
        start_micros=START + 9 * SECOND,
    )
    ending = a_report(
        1,
        resolution_id=second.resolution_id,
        origin=second.origin,
        start_micros=second.start_micros,
        facts=some_facts(upstream_model=second_model),
        end=an_end(1),
    )
    rows = [row_of(steps) for steps in permutations([first, second, ending])]
    assert all(row == rows[0] for row in rows)
    row = rows[0]
    assert (row.provider_id, row.provider_name, row.provider_type) == ("provider-2", "spare", "bedrock")
    assert (row.credential_id, row.upstream_model) == ("credential-2", second_model)
    assert row.start_time == first.start_micros


@pytest.mark.parametrize(
    ("client_session", "parent", "session", "parent_id", "root"),
    [
        ("", None, an_id(1), "", an_id(1)),
        ("s-1", None, "s-1", "", an_id(1)),
        ("", ThreadPlace(an_id(8), an_id(7), "s-9"), "s-9", an_id(8), an_id(7)),
        ("s-1", ThreadPlace(an_id(8), an_id(7), "s-9"), "s-1", an_id(8), an_id(7)),
        ("", ThreadPlace(an_id(8), "", ""), an_id(8), an_id(8), an_id(8)),
        ("", ThreadPlace(an_id(1), an_id(1), "s-9"), an_id(1), "", an_id(1)),
    ],
)
def test_the_session_is_the_clients_then_the_threads_then_its_own(client_session, parent, session, parent_id, root):
    draft = row_of([OPENING])
    join_thread(draft, client_session, parent)
    assert (draft.session_id, draft.thread_parent_id, draft.thread_root_id) == (session, parent_id, root)


def noted(resolution: int, seconds: int, **changes) -> tuple:
    decided = Decided(an_origin(**changes), "openai.responses", None, True)
    return (
        b"i",
        an_id(resolution).encode(),
        decided,
        f"model-{resolution}",
        "",
        f"bridge-{resolution}",
        b"mac",
        seconds,
    )


def test_one_opening_of_two_resolutions_is_the_same_in_either_order():
    first, last = noted(1, 10), noted(2, 30, credential_id="credential-2")
    expected = (b"i", last[1], last[2], "model-1", "", "bridge-1", b"", 10)
    assert noted_again(first, last) == noted_again(last, first) == noted_again(expected, last) == expected


def test_an_opening_of_an_id_that_is_somebody_elses_changes_nothing():
    first = noted(1, 10)
    assert noted_again(first, noted(2, 5, user_id=BOB)) is first
