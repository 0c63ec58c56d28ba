from dataclasses import replace

import pytest

from credentiald.errors import AlreadyExists, ServiceNotFound
from credentiald.model import Role
from credentiald.store import revision, services
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
