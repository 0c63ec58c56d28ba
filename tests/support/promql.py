"""What expressions of Prometheus ask for: which series, by which labels, and which labels come out."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import promql_parser as promql

# Given to every series by who scrapes it.
TARGET_LABELS = frozenset({"job", "instance"})
# Of Prometheus itself.
UP = "up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """One selector. `names` are of series; `matchers` are label, whether it is a pattern, value."""

    names: tuple[str, ...]
    matchers: tuple[tuple[str, bool, str], ...]


def parsed(expression: str) -> Any:
    """The tree; ValueError for what is no expression. Variables of Grafana stand for what they may be."""
    return promql.parse(expression.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*"))


def selectors(node: Any) -> Iterator[Selector]:
    """All selectors of a tree."""
    if isinstance(node, promql.MatrixSelector):
        node = node.vector_selector
    if isinstance(node, promql.VectorSelector):
        found = [(one.name, one.op in (promql.MatchOp.Re, promql.MatchOp.NotRe), one.value) for one in all_of(node)]
        names = [value.split("|") for name, _, value in found if name == "__name__"]
        yield Selector(
            names=tuple(names[0]) if names else (node.name,),
            matchers=tuple(one for one in found if one[0] != "__name__"),
        )
    for below in children(node):
        yield from selectors(below)


def all_of(selector: Any) -> list[Any]:
    assert not selector.matchers.or_matchers
    return list(selector.matchers.matchers)


def children(node: Any) -> list[Any]:
    if isinstance(node, promql.BinaryExpr):
        return [node.lhs, node.rhs]
    if isinstance(node, promql.Call):
        return list(node.args)
    return [node.expr] if hasattr(node, "expr") else []


def named_labels(node: Any) -> Iterator[tuple[str, frozenset[str]]]:
    """Labels that are grouped or joined by, each with the series that stand below."""
    modifier = getattr(node, "modifier", None)
    lists = [modifier] if isinstance(node, promql.AggregateExpr) else []
    if isinstance(node, promql.BinaryExpr) and modifier is not None:
        lists.append(modifier.matching)
        assert not modifier.group_labels
    below = frozenset(name for one in selectors(node) for name in one.names)
    for one in lists:
        for label in one.labels if one is not None else ():
            yield label, below
    for child in children(node):
        yield from named_labels(child)


def labels_of(node: Any, labels: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The labels of what comes out, from those of the series."""
    if isinstance(node, promql.MatrixSelector):
        node = node.vector_selector
    if isinstance(node, promql.VectorSelector):
        [selector] = selectors(node)
        return frozenset.intersection(*(labels[name] for name in selector.names)) | TARGET_LABELS
    if isinstance(node, promql.AggregateExpr):
        return frozenset(node.modifier.labels) if node.modifier is not None else frozenset()
    if isinstance(node, promql.BinaryExpr):
        left, right = labels_of(node.lhs, labels), labels_of(node.rhs, labels)
        if str(node.op) == "or":
            return left & right
        return left or right
    found = frozenset().union(*(labels_of(child, labels) for child in children(node)))
    is_quantile = isinstance(node, promql.Call) and node.func.name == "histogram_quantile"
    return found - {"le"} if is_quantile else found


def quantile_bounds(node: Any) -> Iterator[tuple[str, float]]:
    """What quantiles of histograms are compared with, each with the series of buckets."""
    is_compared = isinstance(node, promql.BinaryExpr) and isinstance(node.rhs, promql.NumberLiteral)
    if is_compared and isinstance(node.lhs, promql.Call) and node.lhs.func.name == "histogram_quantile":
        yield from ((name, node.rhs.val) for one in selectors(node.lhs) for name in one.names)
    for child in children(node):
        yield from quantile_bounds(child)


def alternatives(value: str) -> list[re.Pattern[str]]:
    """The alternatives of a pattern that has them at its top only."""
    return [re.compile(one) for one in value.split("|")]
