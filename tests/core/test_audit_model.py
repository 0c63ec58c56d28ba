"""What the audit tells, as bytes: releases in blocks, acts in full, secrets as hashes only."""

import hashlib
import hmac
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentiald import audit_model, ids
from credentiald.audit_model import MOST_RELEASES, Act, Change, Kind, Refused, Revision, Told, Who
from credentiald.record_model import Decided, Origin
from tests.support.store import NOW

MICROS = 1_795_000_000_000_000


def decided(number: int) -> Decided:
    origin = Origin("s-1", f"u-{number}", "p-1", "corp", "anthropic", "CENTRAL_KEY", "c-1")
    return Decided(origin, "anthropic.messages", None, True, "bridge", "BRIDGE", f"user-{number}", f"t-{number}")


DECISIONS = [decided(number) for number in range(3)]
ID = ids.uuid7(NOW)
noted_one = st.builds(
    lambda one, resolution, interception, model, instance, micros: (
        interception.encode(),
        str(resolution).encode(),
        DECISIONS[one],
        model,
        "client",
        instance,
        b"mac",
        MICROS + micros,
    ),
    st.integers(0, 2),
    st.uuids(),
    st.one_of(st.just(""), st.uuids().map(str)),
    st.text(max_size=8),
    st.sampled_from(["b-1", "b-2", ""]),
    st.integers(0, 2**40),
)


@given(st.lists(noted_one, min_size=1, max_size=20))
def test_a_block_tells_each_release_as_it_was_noted(noted):
    draft = audit_model.block(noted)
    told = list(audit_model.releases(draft.body))
    assert draft.kind is Kind.RELEASE
    assert draft.from_micros == min(one[-1] for one in noted)
    for release, (interception, resolution, decision, model, _, instance, _, micros) in zip(told, noted, strict=True):
        assert release.micros == micros
        assert (release.resolution_id, release.interception_id) == (resolution.decode(), interception.decode())
        assert release.model == model
        assert release.decision.username == decision.username
        assert release.decision.token_id == decision.access_token_id
        assert release.decision.bridge_instance_id == instance
        assert release.decision.provider == "corp"


def test_a_release_among_many_takes_44_bytes():
    noted = [(ID.encode(), ID.encode(), DECISIONS[0], "claude", "", "b-1", b"", MICROS)] * MOST_RELEASES
    body = audit_model.block(noted).body
    assert (len(body) - body.index(b"\n") - 1) / MOST_RELEASES == 44
    assert len(audit_model.common(body)[0]) == 1


@given(st.lists(noted_one, min_size=1, max_size=4), st.data())
def test_a_block_that_was_cut_is_none(noted, data):
    body = audit_model.block(noted).body
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    with pytest.raises(ValueError):
        list(audit_model.releases(cut))


def test_acts_and_what_the_daemon_tells_are_read_as_they_are_written():
    act = Act(
        what="UpdateProvider",
        outcome="DONE",
        who=Who(role="ADMIN", username="root"),
        revisions=(Revision(7, "provider.updated", "provider", "p-1", "corp"),),
        changes=(Change("enabled", "true", None),),
        asked={"name": "corp"},
        secrets={"key": "hmac-sha256:00"},
        intent=3,
    )
    told = Told(database_id="d", refused=(Refused("ipv4:10.0.0.1", "ListUsers", "ACCESS_TOKEN_INVALID", "", 3),))
    assert audit_model.act_of(audit_model.body_of(act)) == act
    assert audit_model.told_of(audit_model.body_of(told)) == told
    for read in (audit_model.act_of, audit_model.told_of):
        with pytest.raises(ValueError):
            read(b"[]")


def test_a_change_is_what_differs_and_nothing_else():
    was = {"a": "1", "b": "2", "gone": "x"}
    now = {"a": "1", "b": "3", "new": "y"}
    assert audit_model.changes(was, now) == (Change("b", "2", "3"), Change("gone", "x", None), Change("new", None, "y"))


def test_neither_many_nor_long_fields_fill_the_file():
    fields = {f"field-{number:04}": "x" * 100_000 for number in range(1000)}
    assert sum(map(len, audit_model.cut(fields).values())) < 20_000
    found = audit_model.changes({}, fields)
    assert sum(len(one.new or "") for one in found) < 150_000
    assert found[-1].new == str(1000 - 64)


@given(st.binary(min_size=32, max_size=32), st.text(min_size=1))
def test_a_secret_is_told_as_its_hmac_under_the_key_without_white_space_around_it(key, secret):
    expected = hmac.new(key, secret.strip().encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
    assert audit_model.secret_hash(key, f" {secret}\n") == f"hmac-sha256:{expected}"


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:127.0.0.1:52345", "ipv4:127.0.0.1"),
        ("ipv6:%5B::1%5D:52345", "ipv6:%5B::1%5D"),
        ("unix:", "unix:"),
        ("unix:/run/x", "unix:/run/x"),
        ("", ""),
    ],
)
def test_a_peer_is_counted_by_its_host(peer, host):
    assert audit_model.host_of(peer) == host


def test_columns_are_stored_with_the_lowest_byte_first():
    noted = [(b"", ID.encode(), DECISIONS[place % 2], "m", "", "", b"", MICROS + place) for place in range(2)]
    body = audit_model.block(noted).body
    assert body[-24:] == struct.pack("<2H2H2Q", 0, 1, 0, 0, 0, 1)


TOKEN = "dbu_" + "a1B2" * 12 + "Z"


def test_of_a_long_field_is_told_where_it_changed():
    was = ",".join(f"spiffe://example.org/{number:04}" for number in range(500))
    [change] = audit_model.changes({"sans": was}, {"sans": was + ",spiffe://example.org/evil"})
    assert (change.old[-4:], change.new[-4:]) == ("0499", "evil")
    assert audit_model.changes({"token": "x"}, {"token": TOKEN}) == (Change("token", "x", "Secret(…)"),)
