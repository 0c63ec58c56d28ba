"""kill -9 of credentiald under concurrent writes: what was acknowledged is there afterwards.

`DRAWBRIDGE_KILLS` says how often (scripts/chaos --kills says it); CI runs the short form.
"""

import json
import os
import random
import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import grpc
from drawbridge.v1 import admin_service_pb2 as admin
from drawbridge.v1 import user_pb2
from drawbridge.v1.admin_service_pb2_grpc import AdminServiceStub

from credentiald import audit_model
from credentiald.store import audit
from tests.support.credentiald import bearer
from tests.support.processes import command, commanded, credentiald

KILLS = int(os.environ.get("DRAWBRIDGE_KILLS", "4"))
LONGEST_LIFE_SECONDS = 1.5
DEADLINE_SECONDS = 30


class Writers:
    """Threads that create users until told to stop, by command line and by gRPC; `acknowledged` is what succeeded.

    `first` is set with the first of them.
    """

    def __init__(self, folder: Path, running) -> None:
        self.acknowledged: set[str] = set()
        self._running = running
        self._folder = folder
        self.first, self._stopping = threading.Event(), threading.Event()
        works = [self._by_command, self._by_command, self._by_rpc, self._by_rpc]
        self._threads = [threading.Thread(target=work) for work in works]
        for thread in self._threads:
            thread.start()

    def _by_command(self) -> None:
        while not self._stopping.is_set():
            name = f"cli-{uuid4().hex}"
            if command(self._folder, self._running, "users", "create", name).returncode == 0:
                self._note(name)

    def _by_rpc(self) -> None:
        token = (self._folder / "credentiald.admin-token").read_text().strip()
        with grpc.insecure_channel(self._running.addresses["admin"]) as channel:
            stub = AdminServiceStub(channel)
            while not self._stopping.is_set():
                name = f"rpc-{uuid4().hex}"
                try:
                    stub.CreateUser(
                        admin.CreateUserRequest(user=user_pb2.User(username=name)),
                        metadata=bearer(token),
                        timeout=5,
                    )
                except grpc.RpcError:
                    continue
                self._note(name)

    def _note(self, name: str) -> None:
        self.acknowledged.add(name)
        self.first.set()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


def test_every_acknowledged_write_survives_kills_at_random_points(tmp_path):
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    acknowledged: set[str] = set()
    by_command = 0
    for life in range(KILLS):
        with credentiald(tmp_path) as running:
            writers = Writers(tmp_path, running)
            if not life:
                # However slow the machine, something is acknowledged.
                writers.first.wait(DEADLINE_SECONDS)
            # How long it may live is the random point of the kill, not a wait for something.
            time.sleep(dice.uniform(0, LONGEST_LIFE_SECONDS))
            running.stop(signal.SIGKILL)
            writers.stop()
            acknowledged |= writers.acknowledged
            by_command += sum(name.startswith("cli-") for name in writers.acknowledged)
    with credentiald(tmp_path) as running:
        listed = {user["username"] for user in json.loads(commanded(tmp_path, running, "users", "list", "--json"))}

    print(f"seed {seed}: {KILLS} kills, {len(acknowledged)} acknowledged ({by_command} by command), {len(listed)} kept")
    assert acknowledged
    assert acknowledged <= listed
    with closing(sqlite3.connect(f"file:{tmp_path / 'credentiald.db'}?mode=ro", uri=True)) as conn:
        revisions = [row[0] for row in conn.execute("SELECT revision FROM change_log ORDER BY revision")]
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert revisions == list(range(1, len(revisions) + 1))

    path = audit.audit_path(tmp_path / "credentiald.db")
    verdict = audit.verify(path, expected=None, database_id=None)
    assert verdict.damage is None
    # It has stopped: the database knows where the audit ends.
    with closing(sqlite3.connect(f"file:{tmp_path / 'credentiald.db'}?mode=ro", uri=True)) as conn:
        assert conn.execute("SELECT sequence, hash FROM audit_head").fetchone() == tuple(verdict.head)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as conn:
        rows = conn.execute("SELECT kind, body FROM entries WHERE kind IN ('act', 'unattributed')").fetchall()
    told = {
        revision.name
        for kind, body in rows
        for revision in (audit_model.act_of if kind == "act" else audit_model.told_of)(body).revisions
    }
    by_name = {audit_model.act_of(body).user for kind, body in rows if kind == "act"}
    # Each that was acknowledged, with who did it; and of those that were not, that they were done.
    assert acknowledged <= by_name
    assert listed <= told
