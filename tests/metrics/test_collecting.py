from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from elemta.metrics.catalogue import CATALOGUE, together
from elemta.metrics.collecting import Reading, process_registry, registry_of
from elemta.metrics.meters import Distribution


def shown(*readings: Reading) -> list[str]:
    """What Prometheus would be told, without the lines of help."""
    text = generate_latest(registry_of(lambda: readings)).decode()
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_counters_and_gauges_show_their_labels() -> None:
    assert shown(
        Reading("elemta_queue_size", 3, ("hold",)),
        Reading("elemta_queue_size", 0, ("failed",)),
        Reading("elemta_connections_total", 7, ("mx",)),
    ) == [
        'elemta_connections_total{listener="mx"} 7.0',
        'elemta_queue_size{queue_type="hold"} 3.0',
        'elemta_queue_size{queue_type="failed"} 0.0',
    ]


def test_each_bucket_of_a_histogram_has_all_that_the_lower_ones_have() -> None:
    commits = Distribution((1, 2.5))
    for value in (0.5, 0.6, 2, 3):
        commits.observe(value)
    assert shown(Reading("elemta_commit_operations", commits)) == [
        'elemta_commit_operations_bucket{le="1.0"} 2.0',
        'elemta_commit_operations_bucket{le="2.5"} 3.0',
        'elemta_commit_operations_bucket{le="+Inf"} 4.0',
        "elemta_commit_operations_count 4.0",
        "elemta_commit_operations_sum 6.1",
    ]


def test_what_nobody_has_described_is_not_shown() -> None:
    with pytest.raises(AssertionError, match="each is described"):
        shown(Reading("elemta_surprise_total", 1))


def test_each_server_has_numbers_of_its_own() -> None:
    one, two = (
        registry_of(lambda count=count: [Reading("elemta_nodes", count)])  # type: ignore[misc]
        for count in (1, 2)
    )
    assert one.get_sample_value("elemta_nodes") == 1
    assert two.get_sample_value("elemta_nodes") == 2


def test_a_process_tells_of_its_memory_files_and_python() -> None:
    registry = process_registry()
    assert (registry.get_sample_value("process_resident_memory_bytes") or 0) > 2**20
    assert (registry.get_sample_value("process_open_fds") or 0) > 2
    assert isinstance(registry, CollectorRegistry)
    assert {each.name for each in registry.collect()} >= {"python_info", "python_gc_collections"}


def test_names_say_what_they_count() -> None:
    for each in CATALOGUE.values():
        assert each.name.startswith("elemta_")
        assert each.name.endswith("_total") == (each.kind == "counter")
        assert each.about.endswith(".")


def test_what_a_process_says_of_itself_is_told_apart() -> None:
    assert together("process_resident_memory_bytes") == "each"
    assert together("elemta_connections") == "sum"
    assert together("elemta_queue_oldest_age_seconds") == "max"
