"""Logs: both shapes, and that neither clients nor secrets can spoil them."""

import copy
import json
import logging
import os
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from daemonkit.log_metrics import LogMetrics
from daemonkit.logs import (
    escaped,
    human_line,
    json_line,
    log_errors,
    log_target_problem,
    masked,
    parse_log_target,
    running_logs,
)
from daemonkit.secret import MASK, Secret
from daemonkit.settings import ConfigErrors

TOKEN = "dbu_" + "aZ9" * 16 + "b"
log = logging.getLogger("test.logs")


def record(msg: object = "resolved", *args: object, error: BaseException | None = None, **facts: object):
    info = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord("credentiald.resolve", logging.INFO, __file__, 1, msg, args, info)
    made.__dict__.update(facts)
    made.created = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC).timestamp()
    return made


def caught(text: str) -> Exception:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_json_lines_begin_with_the_four_fields_and_then_the_facts():
    line = json.loads(json_line(record(provider="corp", tokens=7)))
    assert list(line) == ["time", "level", "msg", "logger", "provider", "tokens"]
    assert line == {
        "time": "2026-11-21T12:00:00.123Z",
        "level": "info",
        "msg": "resolved",
        "logger": "credentiald.resolve",
        "provider": "corp",
        "tokens": 7,
    }


def test_human_lines_have_the_facts_as_words():
    line = human_line(record(provider="corp", why="no key", empty="", ok=True, none=None, many=["a"]))
    assert line == (
        "2026-11-21T12:00:00.123Z info    credentiald.resolve resolved "
        'provider=corp why="no key" empty="" ok=true none=null many=["a"]'
    )


@given(st.text(), st.text())
def test_no_text_makes_a_second_line_or_moves_the_cursor(message, value):
    for line in (human_line(record("%s", message, fact=value)), json_line(record("%s", message, fact=value))):
        assert line.isprintable()
        assert line.splitlines() == [line]


@given(st.text(), st.text())
def test_json_lines_bring_back_what_was_logged(message, value):
    line = json.loads(json_line(record("%s", message, fact=value)))
    assert (line["msg"], line["fact"]) == (masked(message), masked(value))


def test_the_lines_of_a_traceback_are_marked_so_that_none_can_be_forged():
    line = human_line(record(error=caught("first\n2026-11-21T12:00:00.123Z info forged\x1b[2J")))
    head, *rest = line.split("\n")
    assert head.endswith("resolved")
    assert rest
    assert all(part.startswith("    | ") for part in rest)
    assert "\x1b" not in line


def test_an_exception_is_one_field_in_json():
    line = json.loads(json_line(record(error=caught("wrong"))))
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: wrong")


@pytest.mark.parametrize("render", [human_line, json_line])
@pytest.mark.parametrize(
    "made",
    [
        record(TOKEN),
        record("token %s", TOKEN),
        record(fact=TOKEN),
        record(fact={"deep": [TOKEN]}),
        record(fact=(TOKEN, {TOKEN})),
        record(error=caught(f"refused {TOKEN}")),
        record(fact=TOKEN.replace("dbu_", "dbs_")),
        record(fact=TOKEN[:30]),
        record(fact=f"x\n{TOKEN}"),
        record(**{TOKEN: 1}),
    ],
)
def test_what_looks_like_a_token_of_ours_is_masked_wherever_it_stands(render, made):
    line = render(copy.copy(made))
    assert MASK in line
    assert "aZ9aZ9" not in line


@pytest.mark.parametrize("render", [human_line, json_line])
def test_a_secret_prints_as_its_mask_wherever_it_stands(render):
    secret = Secret("canary")
    line = render(record("%s", secret, fact=secret, deep={"a": [secret]}, error=caught(f"{secret}")))
    assert "canary" not in line
    assert line.count("Secret(") == 4


def test_any_value_can_be_logged():
    class Stubborn:
        def __str__(self) -> str:
            raise RuntimeError("no")

    values = {
        "a": b"\xff",
        "b": timedelta(seconds=1),
        "c": {1: 2},
        "d": float("nan"),
        "e": datetime(2026, 1, 1, tzinfo=UTC),
    }
    assert json.loads(json_line(record(**values)))["e"] == "2026-01-01T00:00:00+00:00"
    assert "e=" in human_line(record(**values))
    assert "its arguments do not fit" in human_line(record("%d", "x"))
    lines = logged_lines(lambda: log.info("x", extra={"fact": Stubborn()}))
    assert json.loads(lines[0])["msg"] == "a log record cannot be shown"


def test_facts_cannot_take_the_place_of_a_field():
    line = json.loads(json_line(record(level="forged", time="forged", logger="forged")))
    assert (line["level"], line["logger"]) == ("info", "credentiald.resolve")
    assert line["fact_level"] == line["fact_time"] == line["fact_logger"] == "forged"


@pytest.mark.parametrize(("text", "shown"), [("plain é", "plain é"), ("a\x00b", "a\\x00b"), ("\u202e", "\\u202e")])
def test_only_what_does_not_show_is_escaped(text, shown):
    assert escaped(text) == shown


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("", ""),
        ("none", ""),
        ("stderr", "stderr"),
        ("/dev/stderr", "stderr"),
        ("-", "-"),
        ("/dev/stdout", "-"),
        ("x", "x"),
    ],
)
def test_targets_are_streams_files_or_nowhere(text, target):
    assert parse_log_target(text) == target


def logged_lines(act, *, level: int = logging.INFO) -> list[str]:
    """What `act` logs as JSON, through a real file."""
    reading, writing = os.pipe()
    with running_logs(human="", json=f"/dev/fd/{writing}", level=level):
        act()
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        return pipe.read().splitlines()


def test_both_logs_may_be_on_and_are_complete_when_the_block_ends(tmp_path: Path):
    human, machine = tmp_path / "human.log", tmp_path / "json.log"
    with running_logs(human=str(human), json=str(machine), level=logging.INFO):
        for number in range(500):
            log.info("line", extra={"number": number})
        log.debug("not wanted")
    assert [json.loads(line)["number"] for line in machine.read_text().splitlines()] == list(range(500))
    assert len(human.read_text().splitlines()) == 500


def test_a_log_file_is_appended_to_and_logging_ends_with_the_block(tmp_path: Path):
    path = tmp_path / "json.log"
    before = logging.getLogger().handlers[:]
    for _ in range(2):
        with running_logs(human="", json=str(path), level=logging.INFO):
            log.info("once")
        assert logging.getLogger().handlers == before
    assert len(path.read_text().splitlines()) == 2


def test_a_log_file_that_cannot_be_written_is_a_configuration_error(tmp_path: Path):
    with (
        pytest.raises(ConfigErrors, match=r"log_json: cannot write .*: Is a directory"),
        running_logs(human="", json=str(tmp_path), level=logging.INFO),
    ):
        pytest.fail("there is no log")


def test_a_log_that_cannot_be_written_is_found_out_before_it_is_opened(tmp_path: Path):
    assert log_target_problem(str(tmp_path / "new.log")) is None
    assert not (tmp_path / "new.log").exists()
    assert [log_target_problem(target) for target in ("", "-", "stderr")] == [None] * 3
    errors = log_errors(str(tmp_path), str(tmp_path / "away" / "x"), log_target_problem)
    assert [error.rsplit(": ")[-1] for error in errors] == ["it is a folder", "there is no such folder"]


def test_a_reader_that_has_stalled_holds_nobody_up_and_the_loss_is_said():
    reading, writing = os.pipe()
    lines: list[str] = []

    def read_all() -> None:
        with os.fdopen(reading, encoding="utf-8") as pipe:
            lines.extend(pipe.read().splitlines())

    reader = threading.Thread(target=read_all)
    with running_logs(human="", json=f"/dev/fd/{writing}", level=logging.INFO):
        os.close(writing)
        for _ in range(12_000):
            log.info("x" * 100)
        reader.start()
    reader.join(10)
    shown = [json.loads(line) for line in lines]
    lost = [line["lines"] for line in shown if line["msg"].startswith("log lines were lost")]
    assert sum(lost) + len(shown) - len(lost) == 12_000
    assert sum(lost) > 0


def lines_read(pipe: int) -> list[bytes]:
    """What is written to the pipe until all who write to it have closed it."""
    with os.fdopen(pipe, "rb") as reader:
        return reader.read().splitlines()


def test_what_waits_for_a_reader_is_bounded_in_bytes_and_the_loss_is_counted():
    reading, writing = os.pipe()
    lines: list[bytes] = []
    reader = threading.Thread(target=lambda: lines.extend(lines_read(reading)))
    registry = CollectorRegistry()
    LogMetrics("bridged", registry)
    with running_logs(human="", json=f"/dev/fd/{writing}", level=logging.INFO):
        os.close(writing)
        for _ in range(80):
            log.info("line", extra={"prompt": "x" * 1024 * 1024})
        counted = registry.get_sample_value("bridged_log_lines_lost_total")
        reader.start()
    reader.join(10)
    shown = [json.loads(line) for line in lines]
    lost = sum(line["lines"] for line in shown if line["msg"].startswith("log lines were lost"))
    # One may be on its way beside those that wait.
    assert 80 - 64 <= lost <= 80 - 63
    assert counted == lost
    assert sum(line["msg"] == "line" for line in shown) == 80 - lost


WRITES = """
import logging
from daemonkit.logs import running_logs
with running_logs(human="stderr", json="-", level=logging.INFO, shared=True):
    for number in range(60):
        said, size = "é" * 3000 if number % 3 == 0 else "line", 200_000 if number % 6 == 1 else 9
        logging.info(said, extra={"prompt": "x" * size})
"""


@pytest.mark.parametrize("blocking", [True, False])
def test_processes_that_write_to_one_pipe_do_not_tear_each_others_lines(blocking):
    reading, writing = os.pipe()
    os.set_blocking(writing, blocking)
    writers = [subprocess.Popen([sys.executable, "-c", WRITES], stdout=writing, stderr=writing) for _ in range(3)]
    os.close(writing)
    lines = lines_read(reading)
    assert [one.wait(10) for one in writers] == [0, 0, 0]
    assert len(lines) == 3 * 60 * 2
    human = [line for line in lines if not line.startswith(b"{")]
    assert len(human) == 3 * 60
    assert {bool(re.fullmatch(r"\S+ info    root (é{3000}|line) prompt=x+", line.decode())) for line in human} == {True}
    told = [json.loads(line) for line in lines if line.startswith(b"{")]
    assert {one["msg"] for one in told} == {"é" * 3000, "line"}
    assert {len(one["prompt"]) for one in told} == {9, 200_000}


FULL = """
import logging, resource, sys
from daemonkit.logs import lost_lines, running_logs
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
with running_logs(human="", json=sys.argv[1], level=logging.INFO):
    logging.info("before")
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, most))
    logging.info("x" * 3000)
    while not lost_lines():
        pass
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    logging.info("after")
"""


def test_after_a_line_that_a_full_disk_cut_the_next_one_begins_on_its_own(tmp_path):
    path = tmp_path / "json.log"
    subprocess.run([sys.executable, "-c", FULL, str(path)], check=True, timeout=30)
    before, cut, loss, after = path.read_bytes().splitlines()
    assert b"xxx" in cut
    assert [json.loads(line)["msg"] for line in (before, after)] == ["before", "after"]
    assert json.loads(loss)["lines"] == 1


def test_a_stream_that_is_closed_is_no_log(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with (
        pytest.raises(ConfigErrors, match="log_human: cannot write 'stderr': Bad file descriptor"),
        running_logs(human="stderr", json="", level=logging.INFO),
    ):
        pytest.fail("there is no log")
