"""Dashboard, alerts, runbook and the page of metrics, held to the metrics that both daemons have.

That these are what the daemons export is in tests/daemons/pair/test_metrics.py.
"""

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Set
from typing import Any

import pytest
import yaml
from drawbridge.v1 import record_pb2

import bridged.settings_table
import credentiald.settings_table
from bridged import metrics as bridged_metrics
from bridged.adapters import ADAPTERS
from bridged.adapters.bedrock import WIRE_TYPE as BEDROCK
from bridged.endings import CLIENT_GONE
from bridged.errors import REFUSALS as BRIDGED_REFUSALS
from bridged.limits.admission import Limit
from bridged.losses import REASONS
from bridged.recorder import Recorder
from bridged.records import ErrorCategory as BridgedCategory
from bridged.records import Trouble
from credentiald import metrics as credentiald_metrics
from credentiald.catalog import CATALOG
from credentiald.errors import REFUSALS
from credentiald.record_metrics import NO_ERROR
from credentiald.record_model import ErrorCategory, Outcome, Rejection
from credentiald.rpc.access import RPCS
from daemonkit.settings import rows
from scripts.described_metrics import described
from tests.support.clone import ROOT
from tests.support.promql import (
    TARGET_LABELS,
    UP,
    alternatives,
    labels_of,
    named_labels,
    parsed,
    quantile_bounds,
    selectors,
)

BOUNDS = {f"{one.name}_bucket": one.bounds for several in described().values() for one in several}
METRICS = {one.name: one for several in described().values() for one in several}
SERIES = {name: one.sample_labels for one in METRICS.values() for name in one.samples} | {UP: frozenset[str]()}
COUNTERS = {name for name, one in METRICS.items() if one.type == "counter"}
CLASSES = {f"{hundred}xx" for hundred in range(10)}
# What the labels that a rule or a panel looks at can be.
VALUES: dict[tuple[str, str], Set[str]] = {
    ("bridged_limit", "limit"): {one.value for one in Limit},
    ("bridged_requests_total", "status"): {*CLASSES, "aborted"},
    ("bridged_request_failures_total", "reason"): {*BRIDGED_REFUSALS, CLIENT_GONE, "OTHER"},
    ("bridged_resolves_total", "outcome"): {*BRIDGED_REFUSALS, "OK", "OTHER"},
    ("bridged_records_lost_total", "reason"): set(REASONS),
    ("bridged_tap_troubles_total", "trouble"): {one.value for one in Trouble},
    ("bridged_upstream_errors_total", "reason"): {"UPSTREAM_UNREACHABLE", "UPSTREAM_TIMEOUT", "UPSTREAM_KEY_REFUSED"},
    ("credentiald_answer_cache_total", "outcome"): {"hit", "miss"},
    ("credentiald_interceptions_ended_total", "outcome"): {one.value for one in Outcome},
    ("credentiald_interceptions_ended_total", "error_category"): {*ErrorCategory, NO_ERROR},
    ("credentiald_records_rejected_total", "reason"): {one.value for one in Rejection},
    ("credentiald_rpcs_total", "outcome"): {*REFUSALS, "OK", "CANCELLED", "INTERNAL"},
    ("credentiald_rpcs_total", "rpc"): RPCS,
    ("credentiald_tokens_total", "kind"): {"input", "output", "cache_read", "cache_write"},
}
JOBS = {"bridged", "credentiald"}


def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / "deploy" / "prometheus" / name).read_text())


ALERTS: list[dict[str, Any]] = [rule for group in read_yaml("alerts.yaml")["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "drawbridge.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    for rule in ALERTS:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]


def patterns(value: str, *, is_pattern: bool) -> list[re.Pattern[str]]:
    """What a matcher looks for, each by itself."""
    return alternatives(value) if is_pattern else [re.compile(re.escape(value))]


@pytest.mark.parametrize(("place", "expression"), list(expressions()))
def test_an_expression_asks_for_series_and_labels_that_exist(place: str, expression: str) -> None:
    tree = parsed(expression)
    found = list(selectors(tree))

    assert found
    for selector in found:
        assert set(selector.names) <= SERIES.keys()
        for name in selector.names:
            for label, is_pattern, value in selector.matchers:
                assert label in SERIES[name] | TARGET_LABELS, f"{name} has no {label}"
                if label in TARGET_LABELS:
                    assert value == ".*" or {value} <= JOBS
                    continue
                known = VALUES[name, label]
                for one in patterns(value, is_pattern=is_pattern):
                    assert any(one.fullmatch(each) for each in known), f"{label} of {name} is never {one.pattern}"
    for label, names in named_labels(tree):
        for name in names:
            assert label in SERIES[name] | TARGET_LABELS, f"{name} has no {label}"


async def fresh() -> dict[str, list[dict[str, str]]]:
    """The labels of the series that daemons export before anything has happened, by name."""
    bridge, plane = bridged_metrics.Metrics(), credentiald_metrics.Metrics("")
    # Each of these is there when its daemon serves.
    Recorder(nobody, bridge, bound_bytes=0)
    plane.know_rpcs(RPCS)
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for registry in (bridge.registry, plane.registry):
        for family in registry.collect():
            for sample in family.samples:
                found[sample.name].append(sample.labels)
    return found


async def nobody(parts: object) -> Any:
    raise AssertionError(f"there is nothing to report: {parts}")


def looked_for(rule: str, name: str) -> Iterator[tuple[str, set[str]]]:
    """Labels of a series with the values that a rule counts: those that it names, else all where it tells by them."""
    matchers = [one for selector in selectors(parsed(rule)) if name in selector.names for one in selector.matchers]
    for label, is_pattern, value in matchers:
        wanted = patterns(value, is_pattern=is_pattern)
        yield label, {known for known in VALUES[name, label] if any(one.fullmatch(known) for one in wanted)}
    named = {label for label, *_ in matchers}
    for label, names in named_labels(parsed(rule)):
        if name in names and label not in named:
            yield label, set(VALUES.get((name, label), ()))


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
async def test_what_a_rule_counts_is_there_as_nothing_before_it_happens(rule: dict[str, Any]) -> None:
    exported = await fresh()
    for name in {name for one in selectors(parsed(rule["expr"])) for name in one.names} & COUNTERS:
        assert exported[name], f"{name} is not there before it counts"
        for label, values in looked_for(rule["expr"], name):
            assert values <= {labels.get(label) for labels in exported[name]}, f"{name} by {label}"


def test_what_quantiles_are_compared_with_is_a_bound_of_a_bucket() -> None:
    found = [one for rule in ALERTS for one in quantile_bounds(parsed(rule["expr"]))]

    assert len(found) == sum("histogram_quantile" in rule["expr"] for rule in ALERTS)
    # Between two bounds a quantile is a guess.
    assert [(name, bound) for name, bound in found if bound not in BOUNDS[name]] == []


def test_the_cases_of_alerts_have_series_that_daemons_export() -> None:
    cases = read_yaml("alerts_test.yaml")["tests"]
    for written in {one["series"] for case in cases for one in case["input_series"]}:
        [selector] = selectors(parsed(written))
        [name] = selector.names
        for label, _, value in selector.matchers:
            assert label in SERIES[name] | TARGET_LABELS, written
            if label == "le":
                assert float(value) in BOUNDS[name], written
            elif (name, label) in VALUES:
                assert value in VALUES[name, label], written


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_means_and_where_to_read_on(rule: dict[str, Any]) -> None:
    annotations = rule["annotations"]
    texts = annotations["summary"] + annotations["description"]

    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert annotations["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
    assert set(re.findall(r"\$labels\.(\w+)", texts)) <= labels_of(parsed(rule["expr"]), SERIES)


def test_the_runbook_has_a_section_for_each_alert_and_for_nothing_else() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]

    assert [section.partition("\n")[0] for section in sections] == [rule["alert"] for rule in ALERTS]
    for section in sections:
        assert re.findall(r"^\*\*(.+):\*\*", section, re.MULTILINE) == ["Means", "Look at", "Do"], section


def test_each_metric_that_the_runbook_names_exists() -> None:
    named = set(re.findall(r"`((?:bridged|credentiald)_[a-z_]+)`", (ROOT / "docs" / "runbook.md").read_text()))

    assert named
    assert named <= SERIES.keys() | METRICS.keys()


def test_each_option_that_is_named_for_operators_exists() -> None:
    texts = (ROOT / "docs" / "runbook.md").read_text() + json.dumps(DASHBOARD)
    known = (ROOT / "docs" / "settings.md").read_text() + (ROOT / "docs" / "cli.md").read_text()
    named = set(re.findall(r"--[a-z][a-z-]+", texts))

    assert named
    assert [one for one in sorted(named) if not re.search(rf"{one}\b(?!-)", known)] == []


def test_each_alert_has_a_case_in_which_it_fires() -> None:
    cases = json.dumps(read_yaml("alerts_test.yaml"))

    assert [rule["alert"] for rule in ALERTS if f'alertname=\\"{rule["alert"]}\\"' not in cases] == []


def test_legends_name_labels_that_come_out() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert named <= labels_of(parsed(target["expr"]), SERIES), panel["title"]


def test_every_panel_can_be_narrowed_and_has_its_place() -> None:
    variables = {one["name"] for one in DASHBOARD["templating"]["list"]}
    taken = set()
    for panel in PANELS:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["description"]
        for target in panel["targets"]:
            tree = parsed(target["expr"])
            assert all({"job", "instance"} <= {label for label, *_ in one.matchers} for one in selectors(tree))
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + across, place["y"] + down) for across in range(place["w"]) for down in range(place["h"])}
        assert max(across for across, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells

    assert variables == {"datasource", "job", "instance"}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_metric_is_in_a_panel_or_an_alert() -> None:
    used = {name for _, expression in expressions() for one in selectors(parsed(expression)) for name in one.names}

    assert [one.name for one in METRICS.values() if not used & set(one.samples)] == []


@pytest.mark.parametrize(
    ("command", "page"),
    [("gen_metrics_doc", "docs/metrics.md"), ("gen_dashboard", "deploy/grafana/drawbridge.json")],
)
def test_what_is_made_is_up_to_date(command: str, page: str) -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / command], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / page).read_text()


def test_names_have_their_units_and_no_label_is_about_a_person() -> None:
    allowed = {
        "error_category", "file", "kind", "limit", "listener", "model", "operation", "outcome", "provider",
        "provider_type", "reason", "rpc", "source", "state", "status", "trouble", "version",
    }  # fmt: skip
    for one in METRICS.values():
        assert set(one.labels) <= allowed, one.name
        assert one.name.endswith("_total") == (one.type == "counter"), one.name
        assert not re.search(r"_(ms|millis|micros|kb|kib|mb|minutes)(_|$)", one.name), one.name


def test_the_configuration_scrapes_where_the_daemons_listen() -> None:
    configured = {one["job_name"]: one["static_configs"][0]["targets"] for one in
                  read_yaml("prometheus.yaml")["scrape_configs"]}  # fmt: skip
    defaults = {
        name: [row.declaration.default for row in rows(section) if row.flag == "--metrics-listen"]
        for name, section in (
            ("bridged", bridged.settings_table.SECTION),
            ("credentiald", credentiald.settings_table.SECTION),
        )
    }

    assert configured == defaults
    assert set(configured) == JOBS


def test_both_daemons_and_the_contract_know_the_same_kinds_of_errors() -> None:
    values = record_pb2.UpstreamErrorCategory.DESCRIPTOR.values
    told = {one.name.removeprefix("UPSTREAM_ERROR_CATEGORY_") for one in values}

    assert {*BridgedCategory} == told
    assert {*ErrorCategory} == told - {"UNSPECIFIED"}


def test_both_daemons_know_the_same_types_of_providers() -> None:
    assert {*ADAPTERS, BEDROCK} == set(CATALOG)
