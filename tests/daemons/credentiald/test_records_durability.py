"""kill -9 of credentiald under reports: each interception is there once, whole, with what its upstream counted.

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
from drawbridge.v1 import credential_service_pb2 as credentials
from drawbridge.v1 import record_pb2
from drawbridge.v1 import record_service_pb2 as pb
from drawbridge.v1.credential_service_pb2_grpc import CredentialServiceStub
from drawbridge.v1.record_service_pb2_grpc import RecordServiceStub

from tests.support.credentiald import bearer
from tests.support.processes import Daemon, commanded, credentiald
from tests.support.reports import INSTANCE, whole

KILLS = int(os.environ.get("DRAWBRIDGE_KILLS", "4"))
LONGEST_LIFE_SECONDS = 1.5
DEADLINE_SECONDS = 30


class Bridges:
    """Threads that resolve and report as bridges do: what was not acknowledged is kept, and sent again.

    `first` is set with the first answer.
    """

    def __init__(self, bridge_token: str, access_token: str) -> None:
        self.answered: set[str] = set()
        self.acknowledged: set[str] = set()
        self.output_tokens = 0
        self._metadata = bearer(bridge_token)
        self._access_token = access_token
        self._unsent: list[tuple[str, pb.InterceptionRecords]] = []
        self._lock = threading.Lock()
        self.first = threading.Event()

    def work(self, running: Daemon, stopping: threading.Event) -> None:
        """Ask and report until told to stop."""
        with grpc.insecure_channel(running.addresses["main"]) as channel:
            ask, report = CredentialServiceStub(channel), RecordServiceStub(channel)
            while not stopping.is_set():
                try:
                    self._ask(ask)
                    self._report(report)
                except grpc.RpcError:
                    continue

    def finish(self, running: Daemon) -> None:
        """Send what is left."""
        with grpc.insecure_channel(running.addresses["main"]) as channel:
            while self._unsent:
                self._report(RecordServiceStub(channel))

    def _ask(self, stub: CredentialServiceStub) -> None:
        interception_id = str(uuid4())
        answer = stub.ResolveProvider(
            credentials.ResolveProviderRequest(
                provider="corp",
                access_token=self._access_token,
                interception_id=interception_id,
                operation="openai.responses",
                bridge_instance_id=INSTANCE,
            ),
            metadata=self._metadata,
            timeout=5,
        )
        usage = record_pb2.TokenUsage(id=str(uuid4()), output_tokens=random.randrange(1000))
        with self._lock:
            self.answered.add(interception_id)
            self.output_tokens += usage.output_tokens
            self._unsent.append((interception_id, whole(answer.receipt, token_usages=[usage])))
        self.first.set()

    def _report(self, stub: RecordServiceStub) -> None:
        with self._lock:
            sent, self._unsent = self._unsent[:50], self._unsent[50:]
        if not sent:
            return
        request = pb.AppendRecordsRequest(bridge_instance_id=INSTANCE, interceptions=[each for _, each in sent])
        try:
            answer = stub.AppendRecords(request, metadata=self._metadata, timeout=5)
        except grpc.RpcError:
            with self._lock:
                self._unsent += sent
            raise
        assert not answer.rejected
        with self._lock:
            self.acknowledged |= {interception_id for interception_id, _ in sent}


def test_after_kills_at_random_points_the_records_are_what_the_upstream_counted(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    with credentiald(tmp_path) as running:
        commanded(tmp_path, running, "users", "create", "ann")
        access_token = commanded(tmp_path, running, "tokens", "create", "--user", "ann").strip()
        commanded(
            tmp_path, running, "providers", "create", "corp", "--type", "openai", "--key-stdin", key="sk-1234567890"
        )
    bridges = Bridges((tmp_path / "credentiald.bridge-token").read_text().strip(), access_token)
    for life in range(KILLS):
        with credentiald(tmp_path) as running:
            stopping = threading.Event()
            threads = [threading.Thread(target=bridges.work, args=(running, stopping)) for _ in range(4)]
            for thread in threads:
                thread.start()
            if not life:
                # However slow the machine, something is answered.
                bridges.first.wait(DEADLINE_SECONDS)
            # How long it may live is the random point of the kill, not a wait for something.
            time.sleep(dice.uniform(0, LONGEST_LIFE_SECONDS))
            running.stop(signal.SIGKILL)
            stopping.set()
            for thread in threads:
                thread.join()
        with closing(sqlite3.connect(f"file:{tmp_path / 'credentiald.records.db'}?mode=ro", uri=True)) as conn:
            ended = {row[0] for row in conn.execute("SELECT id FROM interceptions WHERE outcome = 'COMPLETED'")}
        assert bridges.acknowledged <= ended
    with credentiald(tmp_path) as running:
        bridges.finish(running)
        printed = json.loads(commanded(tmp_path, running, "records", "usage", "--by", "user", "--json"))
        limit = str(2 * len(bridges.answered) + 10)
        rows = json.loads(commanded(tmp_path, running, "records", "interceptions", "--limit", limit, "--json"))
    [total] = printed
    print(
        f"seed {seed}: {KILLS} kills, {len(bridges.answered)} answered and known to their bridge, {len(rows)} recorded"
    )
    assert bridges.answered
    complete = {row["id"] for row in rows if row["outcome"] == "COMPLETED"}
    assert complete == bridges.answered
    # What is open besides was answered by a credentiald that died before the bridge had heard it.
    assert {row["outcome"] for row in rows if row["id"] not in complete} <= {None}
    assert total["tokens"]["output_tokens"] == bridges.output_tokens
    assert (total["interceptions"], total["token_usages"]) == (len(complete), len(complete))
    with closing(sqlite3.connect(f"file:{tmp_path / 'credentiald.records.db'}?mode=ro", uri=True)) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
