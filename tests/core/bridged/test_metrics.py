"""What a client or a peer says makes no series of its own."""

import pytest

from bridged.metrics import Metrics


def labels_of(metrics: Metrics, name: str) -> list[dict[str, str]]:
    """The labels of the series of a counter that have counted something."""
    return [
        sample.labels
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == name and sample.value
    ]


@pytest.mark.parametrize(
    ("said", "counted"),
    [("UPSTREAM_TIMEOUT", "UPSTREAM_TIMEOUT"), ("CLIENT_GONE", "CLIENT_GONE"), ("A_REASON_OF_TOMORROW", "OTHER")],
)
def test_reasons_that_are_not_known_share_one_value(said: str, counted: str) -> None:
    metrics = Metrics()
    metrics.failed(said)

    assert labels_of(metrics, "bridged_request_failures_total") == [{"reason": counted}]


@pytest.mark.parametrize(("said", "counted"), [("bedrock", "bedrock"), ("openai", "openai"), ("tomorrow", "other")])
def test_types_of_providers_that_are_not_known_share_one_value(said: str, counted: str) -> None:
    metrics = Metrics()
    metrics.upstream_answered(said, 503)

    assert labels_of(metrics, "bridged_upstream_responses_total") == [{"provider_type": counted, "status": "5xx"}]


def test_a_request_without_an_answer_of_an_upstream_is_in_no_time_to_first_byte() -> None:
    metrics = Metrics()
    metrics.ended("openai.models", 404, 0.2, None, 0, 0)
    metrics.ended("", None, 0.2, None, 0, 0)
    metrics.ended("openai.models", 200, 0.2, 0.1, 7, 70)
    value, labels = metrics.registry.get_sample_value, {"operation": "openai.models"}

    assert value("bridged_requests_total", labels | {"status": "2xx"}) == 1
    assert value("bridged_requests_total", {"operation": "none", "status": "aborted"}) == 1
    assert value("bridged_request_duration_seconds_count", labels) == 2
    assert value("bridged_request_duration_seconds_count", {"operation": "none"}) == 1
    assert value("bridged_time_to_first_byte_seconds_count", labels) == 1
    assert value("bridged_time_to_first_byte_seconds_sum", labels) == 0.1
    assert value("bridged_request_bytes_total", labels) == 7
    assert value("bridged_response_bytes_total", labels) == 70


def test_bytes_of_an_operation_are_not_told_before_there_was_a_body() -> None:
    metrics = Metrics()
    value, labels = metrics.registry.get_sample_value, {"operation": "openai.models"}
    metrics.ended("openai.models", 404, 0.2, None, 0, 0)

    assert value("bridged_time_to_first_byte_seconds_count", labels) == 0
    assert value("bridged_request_bytes_total", labels) is None
    assert value("bridged_response_bytes_total", labels) is None

    metrics.ended("openai.models", 204, 0.2, 0.1, 0, 0)
    metrics.ended("openai.models", 200, 0.2, 0.1, 7, 70)
    metrics.ended("openai.models", 500, 0.2, 0.1, 1, 5)

    assert value("bridged_request_bytes_total", labels) == 8
    assert value("bridged_response_bytes_total", labels) == 75


def test_requests_are_told_as_soon_as_they_have_ended_however_many_they_are() -> None:
    metrics = Metrics()
    value = metrics.registry.get_sample_value
    for ended in range(1, 1001):
        metrics.ended("openai.models", 200 if ended % 4 else 503, 0.3, 0.1 if ended % 2 else None, 3, 5)
        metrics.ended("", 404, 0.3, None, 0, 0)
        if ended % 99 in (0, 1):
            assert value("bridged_requests_total", {"operation": "none", "status": "4xx"}) == ended

    labels = {"operation": "openai.models"}
    assert value("bridged_requests_total", labels | {"status": "2xx"}) == 750
    assert value("bridged_requests_total", labels | {"status": "5xx"}) == 250
    assert value("bridged_request_duration_seconds_bucket", labels | {"le": "0.25"}) == 0
    assert value("bridged_request_duration_seconds_bucket", labels | {"le": "0.5"}) == 1000
    assert value("bridged_time_to_first_byte_seconds_bucket", labels | {"le": "0.1"}) == 500
    assert value("bridged_request_bytes_total", labels) == 3000
    # An answer that is no upstream's does not count.
    assert value("bridged_response_bytes_total", labels) == 2500
    assert value("bridged_request_duration_seconds_sum", {"operation": "none"}) == pytest.approx(300)
