"""TLS files that change: what is taken, what is kept, and what is said of it. Real files, judged by OpenSSL."""

import logging
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from daemonkit.merged_metrics import families_of, merged
from daemonkit.tls import TlsFiles
from daemonkit.tls_metrics import TlsMetrics
from daemonkit.tls_reload import KeptTls, ServedTls
from tests.support.certificates import Authority


class Served:
    """A listener's TLS on files in a folder, read when a test says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = CollectorRegistry()
        self.authority = Authority()
        self.put(self.authority, days=3)
        files = TlsFiles(cert=str(folder / "cert"), key=str(folder / "key"), client_ca=str(folder / "ca"))
        self.tls = ServedTls(files, "main", TlsMetrics("x", self.registry))

    def put(self, authority: Authority, *, days: int = 1, **instead: bytes) -> None:
        cert, key = authority.issue("localhost", days=days)
        for name, content in {"cert": cert, "key": key, "ca": authority.pem, **instead}.items():
            (self.folder / name).write_bytes(content)

    def look(self) -> None:
        self.tls.kept.use(self.tls.kept.read())

    def value(self, name: str) -> float | None:
        return self.registry.get_sample_value(name, {"listener": "main"})


@pytest.fixture
def served(tmp_path):
    return Served(tmp_path)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [str(vars(one)["problem"]) for one in caplog.records if one.levelno == logging.WARNING]


def test_new_files_are_in_use_with_a_context_of_their_own(served):
    pem, context = served.tls.pem, served.tls.context.current
    served.look()
    assert (served.tls.pem, served.tls.context.current) == (pem, context)

    served.put(Authority())
    served.look()
    assert served.tls.pem != pem
    assert served.tls.context.current is not context
    assert served.value("x_tls_reload_success") == 1


@pytest.mark.parametrize(
    "broken",
    [
        {"key": b""},
        {"key": Authority().issue("x")[1]},
        {"cert": b"-----BEGIN CERTIFICATE-----\nAAAA"},
        {"ca": b"nothing"},
        {"cert": b"", "key": b"", "ca": b""},
    ],
    ids=["key empty", "key of another", "half a certificate", "no authority", "all empty"],
)
def test_broken_files_change_nothing_and_are_told_of_once(served, caplog, broken):
    pem, context = served.tls.pem, served.tls.context.current
    served.put(Authority(), **broken)
    served.look()
    served.look()

    assert (served.tls.pem, served.tls.context.current) == (pem, context)
    assert served.value("x_tls_reload_success") == 0
    assert len(warnings(caplog)) == 1


def test_files_that_are_gone_change_nothing_and_each_state_is_told_of_once(served, caplog):
    (served.folder / "key").unlink()
    served.look()
    served.look()
    served.put(Authority(), key=b"")
    served.look()
    served.look()
    first, second = warnings(caplog)
    assert "cannot read" in first
    assert "are not a certificate and its key" in second

    served.put(Authority())
    served.look()
    assert served.value("x_tls_reload_success") == 1


def test_going_back_to_what_is_in_use_is_a_success(served):
    before = {name: (served.folder / name).read_bytes() for name in ("cert", "key", "ca")}
    context = served.tls.context.current
    served.put(Authority(), key=b"")
    served.look()
    for name, content in before.items():
        (served.folder / name).write_bytes(content)
    served.look()

    assert served.value("x_tls_reload_success") == 1
    assert served.tls.context.current is context


def test_files_that_change_while_they_are_read_are_neither_taken_nor_told_of(caplog):
    # OpenSSL reads the files for itself, between two looks at their bytes.
    looks = iter(["old", "old", "new", "new", "newer", "newer", "newer", "newer"])
    taken: list[str] = []
    kept = KeptTls(
        "main",
        TlsMetrics("x", CollectorRegistry()),
        read_pem=lambda: next(looks),
        judge=lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        chain=lambda _: None,
        take=lambda pem, _: taken.append(pem),
    )
    kept.use(kept.read())
    assert taken == ["old"]

    kept.use(kept.read())
    assert taken == ["old", "newer"]
    assert next(looks, None) is None
    assert warnings(caplog) == []


def test_good_files_that_could_not_be_judged_at_first_are_taken_as_they_are(caplog):
    # For a moment there are no descriptors, or a file is empty because it is written once more.
    pem = ["old"]
    judgements = iter([None, ValueError("cannot read 'cert': Too many open files"), ValueError("the same"), None])
    taken: list[str] = []

    def judge() -> ssl.SSLContext:
        problem = next(judgements)
        if problem is not None:
            raise problem
        return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    kept = KeptTls(
        "main",
        TlsMetrics("x", registry := CollectorRegistry()),
        read_pem=lambda: pem[0],
        judge=judge,
        chain=lambda _: None,
        take=lambda found, _: taken.append(found),
    )
    pem[0] = "new"
    for _ in range(3):
        kept.use(kept.read())
    assert taken == ["old", "new"]
    assert len(warnings(caplog)) == 1
    assert registry.get_sample_value("x_tls_reload_success", {"listener": "main"}) == 1


def test_the_end_of_a_chain_is_that_of_its_first_certificate_to_end(served):
    now = datetime.now(UTC)
    assert served.value("x_tls_certificate_not_after_timestamp_seconds") == pytest.approx(
        (now + timedelta(days=3)).timestamp(), abs=60
    )
    cert, key = served.authority.issue("localhost", days=9)
    served.put(served.authority, cert=cert + served.authority.issue("other", days=2)[0], key=key)
    served.look()
    assert served.value("x_tls_certificate_not_after_timestamp_seconds") == pytest.approx(
        (now + timedelta(days=2)).timestamp(), abs=60
    )


def test_files_that_cannot_be_used_to_begin_with_are_refused(tmp_path):
    files = TlsFiles(cert=str(tmp_path / "cert"), key=str(tmp_path / "key"))
    with pytest.raises(ValueError, match="cannot read"):
        ServedTls(files, "main", TlsMetrics("x", CollectorRegistry()))


def test_of_several_workers_the_worst_counts():
    worker = 'x_tls_reload_success{{listener="main"}} {}\n# EOF'
    text = "# TYPE x_tls_reload_success gauge\n" + worker
    (family,) = merged([families_of(text.format(value)) for value in (1, 0, 1)])
    assert [sample.value for sample in family.samples] == [0]
