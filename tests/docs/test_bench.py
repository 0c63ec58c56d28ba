"""scripts/bench: what it reads from the load tool, what it makes of it, and what it says without its tools."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.bench_figures import (
    BadRun,
    Figures,
    Load,
    compared,
    comparisons,
    median,
    percentile,
    ratios,
    read_load,
    table,
)
from scripts.bench_targets import EVENTS_A_BURST, burst, json_answer, question, read_instructions
from tests.support.clone import ROOT

# As h2load 1.52 writes them.
OUTPUT = """\
starting benchmark...
Application protocol: http/1.1
finished in 2.00s, 2.50 req/s, 300.12KB/s
requests: 5 total, 5 started, 5 done, 5 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 5 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 5.86KB (6000) total, 900B (900) headers (space savings 0.00%), 4.88KB (5000) data
"""
LOG = "".join(
    f"176000000000{number}\t200\t{microseconds}\n" for number, microseconds in enumerate((30, 10, 50, 20, 40))
)
NGINX = Figures(cpu_us=10.0, kinstructions=40.0, p50_us=100.0, p99_us=200.0, requests_per_second=1000.0, pss_mib=5.0)
OURS = Figures(cpu_us=25.0, kinstructions=60.0, p50_us=300.0, p99_us=800.0, requests_per_second=500.0, pss_mib=100.0)


def test_rate_and_latency_are_read_from_the_load_tool() -> None:
    assert read_load(OUTPUT, LOG) == Load(requests=5, requests_per_second=2.5, p50_us=30, p99_us=50)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("0 failed", "1 failed"),
        ("0 errored", "1 errored"),
        ("0 timeout", "1 timeout"),
        ("0 3xx", "1 3xx"),
        ("0 4xx", "1 4xx"),
        ("0 5xx", "1 5xx"),
    ],
)
def test_a_run_with_a_request_that_went_wrong_has_no_figures(before: str, after: str) -> None:
    with pytest.raises(BadRun, match="not every request was answered well"):
        read_load(OUTPUT.replace(before, after), LOG)


def test_a_run_without_an_answer_has_no_figures() -> None:
    with pytest.raises(BadRun, match="no request was answered"):
        read_load(OUTPUT, "")


def test_output_of_another_form_is_shown() -> None:
    with pytest.raises(BadRun, match="could not resolve"):
        read_load("could not resolve", LOG)


@given(st.lists(st.integers(min_value=0), min_size=1), st.integers(min_value=1, max_value=100))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values: list[int], percent: int) -> None:
    found = percentile(sorted(values), percent)

    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


def test_each_figure_has_its_own_median() -> None:
    middle = Figures(
        cpu_us=12.0, kinstructions=70.0, p50_us=900.0, p99_us=100.0, requests_per_second=700.0, pss_mib=6.0
    )

    assert median([OURS, NGINX, middle]) == Figures(
        cpu_us=12.0, kinstructions=60.0, p50_us=300.0, p99_us=200.0, requests_per_second=700.0, pss_mib=6.0
    )


def test_ratios_are_multiples_of_the_floor() -> None:
    expected = {
        "cpu_us": 2.5,
        "kinstructions": 1.5,
        "p50_us": 3.0,
        "p99_us": 4.0,
        "requests_per_second": 0.5,
        "pss_mib": 20.0,
    }

    assert ratios(OURS, NGINX) == expected


def test_the_table_has_the_ratios_below_the_figures() -> None:
    heading, floor, ours, times = table({"json": {"nginx": [NGINX], "drawbridge": [OURS]}}, "nginx").splitlines()

    assert heading.split()[:4] == ["workload", "target", "CPU", "µs"]
    assert floor.split() == ["json", "nginx", "10.0", "40.0", "100.0", "200.0", "1000.0", "5.0"]
    assert ours.split() == ["json", "drawbridge", "25.0", "60.0", "300.0", "800.0", "500.0", "100.0"]
    assert times.split() == ["×", "nginx", "2.50", "1.50", "3.00", "4.00", "0.50", "20.00"]


def test_instructions_are_read_from_the_counter() -> None:
    counted = "# started on Sun Nov 22 16:55:09 2026\n\n2200000000||instructions:uk|4001339182|100.00||\n"

    assert read_instructions(counted) == 2_200_000_000
    assert math.isnan(read_instructions(counted.replace("2200000000", "<not supported>")))
    assert math.isnan(read_instructions("Error: no access"))


def test_targets_are_compared_round_by_round_with_an_interval_that_is_as_wide_as_the_rounds_are_few() -> None:
    ratios_of_rounds = [1.1, 1.2, 1.3, 1.0, 1.25, 1.28]

    assert compared(ratios_of_rounds[:5]) == "1.200 (too few rounds)"
    assert compared(ratios_of_rounds) == "1.225 (1.000 to 1.300)"
    # Of nine the second and the last but one.
    assert compared([float(number) for number in range(1, 10)], "+.1f") == "+5.0 (+2.0 to +8.0)"


def test_what_is_compared_is_ours_with_each_target_beside_the_floor() -> None:
    slower = replace(OURS, cpu_us=20.0, kinstructions=80.0)
    seen = {"json": {"nginx": [NGINX], "drawbridge": [OURS], "plain": [slower]}}

    assert list(comparisons(seen, "drawbridge", "nginx")) == [
        "json: drawbridge took of plain: CPU 1.250 (too few rounds), instructions 0.750 (too few rounds)",
        "json: more than plain: CPU +5.0 (too few rounds) µs, in CPU of nginx +0.50 (too few rounds),"
        " k instr -20.0 (too few rounds)",
    ]


@pytest.mark.parametrize("size_bytes", [1024, 1 << 20])
def test_a_question_is_json_of_the_size_that_was_asked_for(size_bytes: int) -> None:
    body = question(size_bytes, stream=True)

    assert len(body) == size_bytes
    assert json.loads(body)["stream"] is True


def test_the_answers_fit_into_the_configuration_of_nginx() -> None:
    # In a string of nginx, `'` and `$` would mean something, and a parameter ends at 4096 bytes.
    assert not {"'", "$"} & set(json_answer())
    assert 900 < len(json_answer()) < 1200
    assert burst().count("data: ") == EVENTS_A_BURST + 1


def test_without_its_tools_it_says_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/bench"], cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )

    assert done.returncode == 2
    assert "h2load not found: apt-get install --no-install-recommends" in done.stderr
    assert "nghttp2-client" in done.stderr
