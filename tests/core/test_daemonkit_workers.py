"""What several workers need of daemonkit: metrics as those of one, shared addresses, the line to the supervisor."""

import json
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from daemonkit.binding import AddressTaken, bound_sockets
from daemonkit.listen import parse_address, shared_errors
from daemonkit.merged_metrics import families_of, lasting, merged, registry_of
from daemonkit.parsers import parse_workers
from daemonkit.worker import SERVING, Handover, Worker


def counted(counts, seconds=()):
    """The text of a process that has counted so."""
    registry = CollectorRegistry()
    counter = Counter("x_requests_total", "Requests.", ["operation"], registry=registry)
    for operation, count in counts.items():
        counter.labels(operation).inc(count)
    histogram = Histogram("x_seconds", "Times.", buckets=(0.1, 1.0), registry=registry)
    for one in seconds:
        histogram.observe(one)
    Gauge("x_in_flight", "Now.", registry=registry).set(2)
    Gauge("x_build_info", "One.", ["version"], registry=registry).labels("1").set(1)
    return generate_latest(registry).decode()


def samples(families):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


COUNTS = st.dictionaries(st.sampled_from(["a", "b", 'c"\\\n']), st.integers(0, 1000))


@given(st.lists(COUNTS, min_size=1, max_size=4))
def test_counters_add_up_whatever_labels_a_process_has(all_counts):
    found = samples(merged(families_of(counted(counts)) for counts in all_counts))

    for operation in {name for counts in all_counts for name in counts}:
        expected = sum(counts.get(operation, 0) for counts in all_counts)
        assert found["x_requests_total", operation] == expected


def test_histograms_and_gauges_add_up_and_build_info_stays_one():
    found = samples(merged([families_of(counted({}, [0.05, 0.5])), families_of(counted({}, [0.5, 5]))]))

    assert [found["x_seconds_bucket", edge] for edge in ("0.1", "1.0", "+Inf")] == [1, 3, 4]
    assert (found["x_seconds_count",], found["x_seconds_sum",]) == (4, 6.05)
    assert found["x_in_flight",] == 4
    assert found["x_build_info", "1"] == 1


def test_of_times_the_first_counts_and_of_outages_any():
    def told(moment, outage):
        registry = CollectorRegistry()
        Gauge("x_expiry_timestamp_seconds", "When.", registry=registry).set(moment)
        Gauge("x_outage", "Whether.", registry=registry).set(outage)
        return families_of(generate_latest(registry).decode())

    found = samples(merged([told(2e9, 1), told(1e9, 1), told(3e9, 0)]))

    assert (found["x_expiry_timestamp_seconds",], found["x_outage",]) == (1e9, 1)


def test_of_what_all_processes_share_the_greatest_counts_and_ready_are_all_or_none():
    def told(**gauges):
        registry = CollectorRegistry()
        for name, value in gauges.items():
            Gauge(f"x_{name}", "What.", registry=registry).set(value)
        return families_of(generate_latest(registry).decode())

    one = told(store_bytes=7, waiting_age_seconds=3, bridges_heard=2, ready=1, last_success_timestamp_seconds=5)
    other = told(store_bytes=7, waiting_age_seconds=9, bridges_heard=2, ready=0, last_success_timestamp_seconds=4)
    found = samples(merged([one, other]))

    assert found["x_store_bytes",] == 7
    assert found["x_waiting_age_seconds",] == 9
    assert found["x_bridges_heard",] == 2
    assert found["x_ready",] == 0
    assert found["x_last_success_timestamp_seconds",] == 5


def test_what_is_merged_reads_like_the_answer_of_one_process():
    text = counted({"a": 3}, [0.5])

    assert generate_latest(registry_of(merged([families_of(text)]))).decode() == text


def test_of_a_dead_process_only_what_was_counted_lasts():
    names = {family.name for family in lasting(families_of(counted({"a": 1})))}

    assert names == {"x_requests", "x_seconds"}


@pytest.mark.parametrize(("text", "count"), [("1", 1), (" 8 ", 8), ("256", 256)])
def test_a_number_of_workers_is_read(text, count):
    assert parse_workers(text) == count


@pytest.mark.parametrize("text", ["", "0", "257", "-1", "1.5", "two", "٣", "9999"])
def test_what_is_no_number_of_workers_is_refused(text):
    with pytest.raises(ValueError, match="workers"):
        parse_workers(text)


def test_only_several_workers_refuse_unix_sockets():
    listeners = {"listen": [parse_address("unix:/run/x.sock"), parse_address("127.0.0.1:1")], "metrics_listen": []}

    assert shared_errors(listeners, workers=1) == []
    [error] = shared_errors(listeners, workers=2)
    assert error.startswith("listen: unix:/run/x.sock ")


@pytest.mark.parametrize("reuse_port", [False, True])
def test_a_bound_address_has_its_real_port_and_a_listener_there_is_an_error(reuse_port):
    sockets, address = bound_sockets(parse_address("127.0.0.1:0"), setting_name="listen", reuse_port=reuse_port)
    with sockets[0], socket.socket() as other:
        assert address.port == sockets[0].getsockname()[1] != 0
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if reuse_port:
            other.bind(("127.0.0.1", address.port))
            other.listen()
            with pytest.raises(AddressTaken, match=f"listen: cannot listen on 127.0.0.1:{address.port}"):
                bound_sockets(address, setting_name="listen", reuse_port=True)
        else:
            with pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", address.port))


async def test_a_worker_learns_its_listeners_and_drains_at_the_end_of_the_line():
    supervisor, line = socket.socketpair()
    bound = socket.create_server(("127.0.0.1", 0))
    handover = Handover(
        flags={"listen": "127.0.0.1:0", "grace": None},
        addresses={"listen": "127.0.0.1:5000,[::1]:5001"},
        sockets={"listen": [bound.detach()]},
        metrics_path="/tmp/0.sock",
    )
    with supervisor:
        supervisor.sendall(handover.to_bytes())
        worker = Worker(line.detach())
        asked = worker.stop_requested()
        worker.serving()

        assert worker.flags == {"listen": "127.0.0.1:0", "grace": None}
        assert [str(one) for one in worker.addresses("listen")] == ["127.0.0.1:5000", "[::1]:5001"]
        assert [str(one) for one in worker.metrics_listen] == ["unix:/tmp/0.sock"]
        [shared] = worker.sockets("listen")
        with shared:
            assert shared.getsockname()[0] == "127.0.0.1"
        assert supervisor.recv(10) == SERVING
        assert not asked.done()
        supervisor.shutdown(socket.SHUT_WR)
        await asked
    worker.close()


def test_a_line_that_ends_early_is_an_error():
    for sent in (b"", b"\0\0", struct.pack(">I", 100) + json.dumps({}).encode()):
        supervisor, line = socket.socketpair()
        supervisor.sendall(sent)
        supervisor.close()
        with pytest.raises(ValueError, match="handed over"):
            Worker(line.detach())
