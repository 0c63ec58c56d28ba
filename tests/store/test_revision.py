"""The revision counts exactly the changes that were committed, whatever happens in between."""

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from credentiald import ids
from credentiald.errors import Refusal
from credentiald.store import access_tokens, models, providers, revision, services, sqlite, user_keys, users
from tests.support.store import (
    LATER,
    NOW,
    a_key,
    a_model,
    a_provider,
    a_service,
    a_token,
    a_user,
    changes_of,
    empty_store,
    sealed,
)

names = st.sampled_from(["a", "b", "c"])
versions = st.sampled_from([None, 1, 2, 7])


class Interrupted(Exception):
    """Stands for whatever goes wrong in the caller after the store function returned."""


class Store(RuleBasedStateMachine):
    """Random changes, refused ones and rolled back ones among them."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.opened = ExitStack()
        self.conn = self.opened.enter_context(empty_store(self.folder / "store.db"))
        self.committed = 0

    def teardown(self):
        self.opened.close()
        shutil.rmtree(self.folder)

    def change(self, query, *args, interrupted=False, **kwargs):
        """Run a store function in a transaction and count what it should have recorded."""
        try:
            with sqlite.transaction(self.conn, write=True):
                before = self.state()
                query(self.conn, *args, **kwargs)
                if interrupted:
                    raise Interrupted
                after = self.state()
        except (Refusal, Interrupted):
            return
        assert (before == after) == (revision.current(self.conn) == self.committed)
        self.committed = revision.current(self.conn)

    def state(self):
        """All that is kept but the change log."""
        tables = ("users", "tokens", "services", "providers", "central_keys", "user_keys", "models")
        return {t: [tuple(row) for row in self.conn.execute(f"SELECT * FROM {t}").fetchall()] for t in tables}

    @rule(name=names, interrupted=st.booleans())
    def create_user(self, name, interrupted):
        self.change(users.create, a_user(name), interrupted=interrupted)

    @rule(name=names, suspended=st.booleans(), interrupted=st.booleans())
    def suspend_user(self, name, suspended, interrupted):
        self.change(users.set_suspended, name, suspended, now=LATER, interrupted=interrupted)

    @rule(name=names, interrupted=st.booleans())
    def delete_user(self, name, interrupted):
        self.change(users.delete, name, now=LATER, interrupted=interrupted)

    @rule(name=names, token_hash=st.sampled_from([b"1", b"2", b"3"]))
    def create_token(self, name, token_hash):
        user = users.find(self.conn, name) or a_user(name)
        self.change(access_tokens.create, a_token(user), token_hash)

    @rule()
    def revoke_the_oldest_token(self):
        page = access_tokens.list_page(self.conn, user_id=None, after=None, limit=1)
        self.change(access_tokens.revoke, page[0].id if page else "none", now=LATER)

    @rule(name=names, token_hash=st.sampled_from([b"1", b"2"]))
    def create_service(self, name, token_hash):
        self.change(services.create, a_service(name), token_hash)

    @rule(name=names)
    def rotate_service(self, name):
        self.change(services.rotate, name, ids.uuid7(NOW).encode(), now=LATER)

    @rule(name=names)
    def delete_service(self, name):
        self.change(services.delete, name, now=LATER)

    @rule(name=names, keys=st.integers(0, 2), interrupted=st.booleans())
    def create_provider(self, name, keys, interrupted):
        provider = a_provider(name)
        self.change(providers.create, provider, [a_key() for _ in range(keys)], now=NOW, interrupted=interrupted)

    @rule(name=names, version=versions, keys=st.sampled_from([None, 0, 1]))
    def update_provider(self, name, version, keys):
        provider = providers.find(self.conn, name) or a_provider(name)
        stored = None if keys is None else [a_key() for _ in range(keys)]
        self.change(providers.update, provider, keys=stored, expected_version=version, now=LATER)

    @rule(name=names, version=versions)
    def delete_provider(self, name, version):
        self.change(providers.delete, name, expected_version=version, now=LATER)

    @rule(name=names, provider=names, interrupted=st.booleans())
    def create_model(self, name, provider, interrupted):
        owner = providers.find(self.conn, provider) or a_provider(provider, id=f"of-the-environment-{provider}")
        self.change(models.create, a_model(name, provider_id=owner.id), now=NOW, interrupted=interrupted)

    @rule(name=names, provider=names, version=versions, interrupted=st.booleans())
    def update_model(self, name, provider, version, interrupted):
        model = a_model(name, provider_id=f"of-the-environment-{provider}")
        self.change(models.update, model, expected_version=version, now=LATER, interrupted=interrupted)

    @rule(name=names, provider=names, version=versions)
    def delete_model(self, name, provider, version):
        model = a_model(name, provider_id=f"of-the-environment-{provider}")
        self.change(models.delete, model, expected_version=version, now=LATER)

    @rule(name=names, provider=names, interrupted=st.booleans())
    def put_user_key(self, name, provider, interrupted):
        user = users.find(self.conn, name) or a_user(name)
        self.change(
            user_keys.put,
            user_id=user.id,
            provider_id=provider,
            credential_id=ids.uuid7(NOW),
            sealed=sealed("mine"),
            now=NOW,
            interrupted=interrupted,
        )

    @rule(name=names, provider=names)
    def delete_user_key(self, name, provider):
        user = users.find(self.conn, name) or a_user(name)
        self.change(user_keys.delete, user_id=user.id, provider_id=provider, now=LATER)

    @invariant()
    def revisions_have_no_gap(self):
        revisions = [change[0] for change in changes_of(self.conn)]
        assert revisions == list(range(1, self.committed + 1))
        assert revision.current(self.conn) == self.committed


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


def test_a_new_database_is_at_revision_zero(conn):
    assert revision.current(conn) == 0


def test_a_record_returns_the_revision_that_it_makes(conn):
    for expected in (1, 2, 3):
        assert (
            revision.record(conn, kind="user.created", resource="user", resource_id="u", name="n", now=NOW) == expected
        )
