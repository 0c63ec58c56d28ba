from dataclasses import replace
from datetime import timedelta

import pytest

from credentiald.errors import AlreadyExists, InvalidArgument, ServiceNotFound
from credentiald.model import Role
from credentiald.store import administrators, revision, services
from tests.support.store import LATER, NOW, a_service, last_change


@pytest.mark.parametrize("role", [Role.BRIDGE, Role.INTERNAL, Role.ADMIN])
@pytest.mark.parametrize("grants", [{}, {"may_act_for_users": True, "act_for_providers": ("a", "b-1")}])
def test_a_service_is_found_by_name_and_by_the_hash_of_its_token(conn, role, grants):
    service = services.create(conn, a_service(role=role, **grants), b"hash")
    assert service == a_service(role=role, **grants, id=service.id)
    assert services.get(conn, service.name) == services.by_hash(conn, b"hash") == service
    assert services.by_hash(conn, b"other") is None
    assert last_change(conn) == ("service.created", service.id, service.name)


def test_a_taken_name_id_or_hash_already_exists(conn):
    service = services.create(conn, a_service("one"), b"hash")
    for again, token_hash in (
        (a_service("one"), b"other"),
        (a_service("two", id=service.id), b"other"),
        (a_service("two"), b"hash"),
    ):
        with pytest.raises(AlreadyExists):
            services.create(conn, again, token_hash)
    assert revision.current(conn) == 1


def test_a_rotation_replaces_the_token(conn):
    service = services.create(conn, a_service(), b"old")
    rotated = services.rotate(conn, service.name, b"new", now=LATER)
    assert rotated == replace(service, rotate_time=LATER)
    assert services.by_hash(conn, b"old") is None
    assert services.by_hash(conn, b"new") == rotated
    assert last_change(conn) == ("service.rotated", service.id, service.name)


def test_a_rotation_may_keep_the_old_token_for_a_while(conn):
    until = LATER + timedelta(minutes=10)
    services.create(conn, a_service("one"), b"old")
    rotated = services.rotate(conn, "one", b"new", now=LATER, old_until=until)

    assert rotated.old_token_expire_time == until
    assert services.by_old_hash(conn, b"old", now=until - timedelta(microseconds=1)) == rotated
    assert services.by_old_hash(conn, b"old", now=until) is None
    assert services.by_hash(conn, b"old") is None


@pytest.mark.parametrize(
    "then",
    [
        lambda conn: services.rotate(conn, "one", b"newest", now=LATER),
        lambda conn: services.revoke_old_token(conn, "one", now=LATER),
        lambda conn: services.delete(conn, "one", now=LATER),
    ],
    ids=["rotated", "revoked", "deleted"],
)
def test_an_old_token_ends_early_when_it_is_revoked_or_another_takes_its_place(conn, then):
    services.create(conn, a_service("one"), b"old")
    services.rotate(conn, "one", b"new", now=LATER, old_until=LATER + timedelta(hours=1))
    then(conn)
    assert services.by_old_hash(conn, b"old", now=LATER) is None


def test_while_an_old_token_is_kept_no_second_one_is(conn):
    services.create(conn, a_service("one"), b"old")
    until = LATER + timedelta(hours=1)
    services.rotate(conn, "one", b"new", now=LATER, old_until=until)
    with pytest.raises(InvalidArgument, match="still kept"):
        services.rotate(conn, "one", b"newest", now=LATER, old_until=until)
    assert services.by_old_hash(conn, b"old", now=LATER) == services.by_hash(conn, b"new")
    services.rotate(conn, "one", b"newest", now=until, old_until=until + timedelta(hours=1))
    assert services.by_old_hash(conn, b"new", now=until) == services.by_hash(conn, b"newest")


def test_revoking_an_old_token_that_is_not_there_changes_nothing(conn):
    services.create(conn, a_service("one"), b"hash")
    before = revision.current(conn)
    assert services.revoke_old_token(conn, "one", now=LATER) == services.get(conn, "one")
    assert revision.current(conn) == before


def test_a_service_is_found_by_the_names_of_its_certificates_and_needs_no_token(conn):
    made = services.create(conn, a_service("one", rotate_time=None, certificate_sans=("b.example", "urn:a")), None)
    services.create(conn, a_service("two", certificate_sans=("c.example",)), b"hash")

    assert made.certificate_sans == ("b.example", "urn:a")
    assert made.rotate_time is None
    assert services.by_sans(conn, ["x.example", "urn:a"]) == [made]
    assert [one.name for one in services.by_sans(conn, ["c.example", "b.example", "urn:a"])] == ["one", "two"]
    assert services.by_sans(conn, []) == []


def test_a_first_token_has_no_old_one_beside_it(conn):
    services.create(conn, a_service("one", rotate_time=None, certificate_sans=("urn:a",)), None)
    rotated = services.rotate(conn, "one", b"new", now=LATER, old_until=LATER + timedelta(hours=1))
    assert rotated.rotate_time == LATER
    assert rotated.old_token_expire_time is None


def test_names_of_certificates_are_replaced_as_a_whole_and_belong_to_one_service(conn):
    one = services.create(conn, a_service("one", certificate_sans=("a.example", "b.example")), b"1")
    changed = services.set_sans(conn, "one", ["b.example", "c.example"], now=LATER)
    assert changed == replace(one, certificate_sans=("b.example", "c.example"))
    assert last_change(conn) == ("service.certificates_set", one.id, "one")

    services.create(conn, a_service("two"), b"2")
    with pytest.raises(AlreadyExists):
        services.set_sans(conn, "two", ["c.example"], now=LATER)
    with pytest.raises(AlreadyExists):
        services.create(conn, a_service("three", certificate_sans=("b.example",)), b"3")


def test_the_names_of_a_deleted_service_are_free_again(conn):
    services.create(conn, a_service("one", certificate_sans=("a.example",)), b"1")
    services.delete(conn, "one", now=LATER)
    assert services.by_sans(conn, ["a.example"]) == []
    services.create(conn, a_service("two", certificate_sans=("a.example",)), b"2")


def test_a_service_that_nobody_can_be_is_no_administrator(conn):
    services.create(conn, a_service("boss", role=Role.ADMIN, rotate_time=None, certificate_sans=("urn:boss",)), None)
    administrators.refuse_if_none(conn, field="service")
    services.set_sans(conn, "boss", [], now=LATER)
    with pytest.raises(InvalidArgument):
        administrators.refuse_if_none(conn, field="service")
    services.rotate(conn, "boss", b"hash", now=LATER)
    administrators.refuse_if_none(conn, field="service")


def test_a_deleted_service_is_gone_with_its_token(conn):
    service = services.create(conn, a_service(), b"hash")
    services.delete(conn, service.name, now=LATER)
    assert services.by_hash(conn, b"hash") is None
    assert last_change(conn) == ("service.deleted", service.id, service.name)


def test_an_unknown_service_is_not_found(conn):
    for ask in (
        lambda: services.get(conn, "nobody"),
        lambda: services.rotate(conn, "nobody", b"hash", now=NOW),
        lambda: services.delete(conn, "nobody", now=NOW),
        lambda: services.revoke_old_token(conn, "nobody", now=NOW),
        lambda: services.set_sans(conn, "nobody", ["a.example"], now=NOW),
    ):
        with pytest.raises(ServiceNotFound):
            ask()
    assert revision.current(conn) == 0


def test_pages_follow_each_other_by_name(conn):
    names = ["c", "a", "b", "a-1", "z"]
    for name in names:
        services.create(conn, a_service(name), name.encode())
    seen, after = [], None
    while page := services.list_page(conn, after=after, limit=2):
        seen += [service.name for service in page]
        after = page[-1].name
    assert seen == sorted(names)
