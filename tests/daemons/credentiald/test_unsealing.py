"""Sealing keys that AWS KMS or Vault encrypts: a start that finds them out of reach waits for them, sealed (G5, G8)."""

import json
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing, contextmanager

import boto3
import grpc
import pytest
from drawbridge.v1 import admin_service_pb2 as admin
from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import provider_pb2
from drawbridge.v1.admin_service_pb2_grpc import AdminServiceStub
from drawbridge.v1.credential_service_pb2_grpc import CredentialServiceStub
from grpc_health.v1 import health_pb2, health_pb2_grpc
from moto.server import ThreadedMotoServer

from tests.fakes.vault import FakeVault
from tests.fakes.vault import serving as serving_vault
from tests.support import ports
from tests.support.credentiald import bearer, reason_of
from tests.support.processes import clean_environment, command, commanded, credentiald

WAIT_SECONDS = 20.0
REGION = "eu-central-1"
AWS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret-of-aws", "AWS_REGION": REGION}


@contextmanager
def moto(port=0):
    """A KMS that somebody else wrote."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


@contextmanager
def kept_port():
    """A port where nobody listens yet, and that nobody else is given."""
    with closing(ports.keep("127.0.0.1:0")) as one:
        yield one.getsockname()[1]


def new_key_at(url):
    client = boto3.client("kms", region_name=REGION, endpoint_url=url, aws_access_key_id="x", aws_secret_access_key="x")
    return client, client.create_key()["KeyMetadata"]["Arn"]


def kms(url, arn):
    return {**AWS, "AWS_ENDPOINT_URL_KMS": url, "CREDENTIALD_SEALING_KEY_SOURCE": f"aws-kms:{arn}"}


def vault_settings(folder, vault, **more):
    (folder / "vault-token").write_text(f"{vault.token}\n")
    return {
        "CREDENTIALD_SEALING_KEY_SOURCE": f"vault:{vault.address}/{vault.mount}/drawbridge",
        "CREDENTIALD_VAULT_TOKEN_FILE": str(folder / "vault-token"),
        **more,
    }


def readiness(daemon):
    try:
        with urllib.request.urlopen(f"http://{daemon.addresses['metrics']}/readyz") as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def metrics_of(daemon):
    with urllib.request.urlopen(f"http://{daemon.addresses['metrics']}/metrics") as answer:
        return answer.read().decode()


def until(what):
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def until_ready(daemon):
    until(lambda: readiness(daemon)[0] == 200)


def reason_when_sealed(daemon, word):
    """The reason that /readyz gives, once it has this word."""
    return until(lambda: next((one for one in readiness(daemon)[1]["reasons"] if word in one), ""))


def refused_with(daemon, folder):
    """What a bridge is told."""
    token = (folder / "credentiald.bridge-token").read_text().strip() if folder else "dbs_any"
    with grpc.insecure_channel(daemon.addresses["main"]) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            CredentialServiceStub(channel).Ping(pb.PingRequest(), metadata=bearer(token), timeout=5)
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    return refused.value.code(), reason_of(refused.value), health.status


SEALED = (grpc.StatusCode.UNAVAILABLE, "SEALED", health_pb2.HealthCheckResponse.NOT_SERVING)


def wrapped_keys(folder):
    with closing(sqlite3.connect(folder / "credentiald.db")) as conn:
        return conn.execute("SELECT id, source, wrapped FROM sealing_keys").fetchall()


@contextmanager
def administering(folder, daemon):
    """Calls of AdminService by their names."""
    metadata = bearer((folder / "credentiald.admin-token").read_text().strip())
    with grpc.insecure_channel(daemon.addresses["admin"]) as channel:
        stub = AdminServiceStub(channel)
        yield lambda name, request: getattr(stub, name)(request, metadata=metadata, timeout=10)


def put_key(folder, daemon):
    request = admin.CreateProviderRequest(provider=provider_pb2.Provider(name="corp", type="openai"))
    request.central_key.api_key = "sk-central-canary"
    with administering(folder, daemon) as call:
        call("CreateProvider", request)


def check_key(folder, daemon):
    """That the central key opens."""
    with administering(folder, daemon) as call:
        checked = call("CheckProvider", admin.CheckProviderRequest(name="corp"))
    assert checked.reason == 0, checked


def rotate(folder, daemon):
    """The status when everything is sealed anew."""
    with administering(folder, daemon) as call:
        call("RotateSealingKey", admin.RotateSealingKeyRequest())

        def ended():
            status = call("GetSealingStatus", admin.GetSealingStatusRequest())
            return None if status.secrets_remaining else status

        return until(ended)


def test_a_database_whose_keys_kms_encrypts_is_made_opened_again_and_of_no_use_to_another(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with moto() as url:
        _, arn = new_key_at(url)
        for folder in (one, two):
            with credentiald(folder, kms(url, arn)) as daemon:
                until_ready(daemon)
                put_key(folder, daemon)
                check_key(folder, daemon)
                assert {"credentiald_sealed 0.0", "credentiald_ready 1.0"} <= set(metrics_of(daemon).splitlines())
                assert 'credentiald_sealing_unseal_attempts_total{outcome="ok"} 1.0' in metrics_of(daemon)
                assert len([line for line in daemon.lines if line["msg"] == "listening"]) == len(daemon.addresses)
                assert "secret-of-aws" not in daemon.output
            [(_, source, wrapped)] = wrapped_keys(folder)
            assert source == f"aws-kms:{arn}"
            assert len(wrapped) > 32
            assert not (folder / "credentiald.sealing").exists()
        # What was encrypted for one database does not open as that of another.
        [(_, _, wrapped)] = wrapped_keys(two)
        with closing(sqlite3.connect(one / "credentiald.db")) as conn, conn:
            conn.execute("UPDATE sealing_keys SET wrapped = ?", (wrapped,))
        with credentiald(one, kms(url, arn)) as daemon:
            assert "InvalidCiphertextException" in reason_when_sealed(daemon, "was not encrypted like this")
            assert refused_with(daemon, one) == SEALED


def test_kms_out_of_reach_starts_sealed_and_opens_by_itself_on_the_same_ports(tmp_path):
    with moto() as url:
        port = int(url.rpartition(":")[2])
        _, arn = new_key_at(url)
        with credentiald(tmp_path, kms(url, arn)) as daemon:
            until_ready(daemon)
            put_key(tmp_path, daemon)
    with ports.keeping(f"127.0.0.1:{port}"), credentiald(tmp_path, kms(url, arn)) as daemon:
        assert reason_when_sealed(daemon, "no connection").startswith(f"sealed: aws-kms:{arn}: ")
        assert readiness(daemon)[0] == 503
        assert refused_with(daemon, tmp_path) == SEALED
        assert {"credentiald_sealed 1.0", "credentiald_ready 0.0"} <= set(metrics_of(daemon).splitlines())
        refused = command(tmp_path, daemon, "users", "list")
        assert (refused.returncode, "SEALED" in refused.stderr) == (1, True)
        addresses = dict(daemon.addresses)
        with moto(port) as again:
            assert again == url
            until_ready(daemon)
            check_key(tmp_path, daemon)
            assert daemon.addresses == addresses
        # It is gone again, and nobody needs it.
        check_key(tmp_path, daemon)
        assert 'credentiald_sealing_unseal_attempts_total{outcome="unreachable"}' in metrics_of(daemon)
        assert daemon.stop() == 0


def test_a_first_start_waits_for_kms_too_and_makes_nothing_before(tmp_path):
    arn = f"arn:aws:kms:{REGION}:123456789012:key/none"
    with kept_port() as port:
        with credentiald(tmp_path, kms(f"http://127.0.0.1:{port}", arn)) as daemon:
            reason_when_sealed(daemon, "no connection")
            assert refused_with(daemon, None) == SEALED
            assert not (tmp_path / "credentiald.db").exists()
            with moto(port):
                assert "NotFoundException" in reason_when_sealed(daemon, "there is no such key")
        made = subprocess.run(
            [sys.executable, "-m", "credentiald", "init", "--sealing-key-source", f"aws-kms:{arn}"],
            cwd=tmp_path, env=clean_environment(**AWS, AWS_ENDPOINT_URL_KMS=f"http://127.0.0.1:{port}"),
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert (made.returncode, "no connection" in made.stderr) == (1, True)


def test_two_workers_open_one_database_with_kms(tmp_path):
    with moto() as url:
        _, arn = new_key_at(url)
        with credentiald(tmp_path, kms(url, arn), "--workers", "2") as daemon:
            until_ready(daemon)
            put_key(tmp_path, daemon)
            rotate(tmp_path, daemon)
            for _ in range(6):
                check_key(tmp_path, daemon)
            assert len(wrapped_keys(tmp_path)) == 2


def test_from_the_file_to_kms_and_back(tmp_path):
    file = tmp_path / "credentiald.sealing"
    with moto() as url:
        _, arn = new_key_at(url)
        with credentiald(tmp_path) as daemon:
            put_key(tmp_path, daemon)
        [old] = [line.partition(":")[0] for line in file.read_text().split()]
        with credentiald(tmp_path, kms(url, arn)) as daemon:
            until_ready(daemon)
            rotated = json.loads(commanded(tmp_path, daemon, "sealing", "rotate", "--json"))
            new = rotated["active_key_id"]
            assert {key["id"]: key["kept_in"] for key in rotated["keys"]} == {
                new: f"aws-kms:{arn}",
                old: f"the file {file}",
            }
            commanded(tmp_path, daemon, "sealing", "retire", old)
            assert not file.exists()
            check_key(tmp_path, daemon)
        with credentiald(tmp_path, kms(url, arn)) as daemon:
            until_ready(daemon)
            check_key(tmp_path, daemon)
        # Back: KMS is still asked for what it encrypted, new keys are made here.
        back = {**kms(url, arn), "CREDENTIALD_SEALING_KEY_SOURCE": "local"}
        with credentiald(tmp_path, back) as daemon:
            reason_when_sealed(daemon, "the database names it and no setting does")
        back["CREDENTIALD_SEALING_KEY_SOURCES_BEFORE"] = f"aws-kms:{arn}"
        with credentiald(tmp_path, back) as daemon:
            until_ready(daemon)
            rotate(tmp_path, daemon)
            with administering(tmp_path, daemon) as call:
                call("RetireSealingKey", admin.RetireSealingKeyRequest(id=new))
    with credentiald(tmp_path) as daemon:
        until_ready(daemon)
        check_key(tmp_path, daemon)
        assert file.stat().st_mode & 0o777 == 0o600


def test_vault_that_is_sealed_or_denies_is_told_and_asked_again(tmp_path):
    with serving_vault(FakeVault()) as vault:
        environ = vault_settings(tmp_path, vault)
        with credentiald(tmp_path, environ) as daemon:
            until_ready(daemon)
            put_key(tmp_path, daemon)
        vault.sealed = True
        with credentiald(tmp_path, environ) as daemon:
            assert reason_when_sealed(daemon, "Vault is sealed").endswith("(503)")
            vault.sealed, vault.token = False, "hvs.rotated"
            assert reason_when_sealed(daemon, "denied").endswith("(403)")
            assert 'credentiald_sealing_unseal_attempts_total{outcome="refused"}' in metrics_of(daemon)
            # The file has the new one: no restart is needed.
            (tmp_path / "vault-token").write_text("hvs.rotated")
            until_ready(daemon)
            check_key(tmp_path, daemon)
