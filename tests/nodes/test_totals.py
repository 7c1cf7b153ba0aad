from __future__ import annotations

from typing import TYPE_CHECKING

from elemta.control.facts import Metric, Sample
from elemta.nodes.totals import STARTED, Totals

if TYPE_CHECKING:
    from elemta.metrics.catalogue import Together


def counter(name: str, **values: float) -> Metric:
    """One with a label."""
    samples = tuple(Sample(f"{name}_total", value, {"to": to}) for to, value in values.items())
    return Metric(name=name, kind="counter", about="", samples=samples)


def gauge(name: str, value: float, together: Together = "sum") -> Metric:
    return Metric(
        name=name, kind="gauge", about="", samples=(Sample(name, value),), together=together
    )


def histogram(*counts: float, total: float) -> Metric:
    bounds = [*(str(float(each)) for each in range(1, len(counts))), "+Inf"]
    samples = [
        Sample("h_bucket", count, {"le": bound})
        for count, bound in zip(counts, bounds, strict=True)
    ]
    samples += [Sample("h_count", counts[-1]), Sample("h_sum", total)]
    return Metric(name="h", kind="histogram", about="", samples=tuple(samples))


def node(*metrics: Metric, started: float = 100.0) -> list[Metric]:
    return [gauge(STARTED, started, "each"), *metrics]


def values(metrics: list[Metric], name: str) -> dict[str, float]:
    return {
        ",".join(each.labels.values()) or each.name: each.value
        for metric in metrics
        if metric.name == name
        for each in metric.samples
    }


def test_counters_and_sizes_are_added_up() -> None:
    found = Totals().together(
        [
            node(counter("c", a=1, b=2), gauge("size", 3)),
            node(counter("c", b=10, c=20), gauge("size", 30)),
        ]
    )
    assert values(found, "c") == {"a": 1, "b": 12, "c": 20}
    assert values(found, "size") == {"size": 33}


def test_histograms_are_added_up_bucket_by_bucket() -> None:
    found = Totals().together(
        [node(histogram(1, 2, 4, total=9.5)), node(histogram(0, 1, 1, total=1.5))]
    )
    assert values(found, "h") == {"1.0": 1, "2.0": 3, "+Inf": 5, "h_count": 5, "h_sum": 11}
    (one,) = [each for each in found if each.name == "h"]
    assert (one.kind, [each.labels.get("le") for each in one.samples][:3]) == (
        "histogram", ["1.0", "2.0", "+Inf"],
    )  # fmt: skip


def test_the_worst_of_all_counts_where_a_sum_would_say_nothing() -> None:
    found = Totals().together(
        [
            node(gauge("age", 5, "max"), gauge("healthy", 1, "min")),
            node(gauge("age", 7, "max"), gauge("healthy", 0, "min")),
            node(gauge("age", 6, "max"), gauge("healthy", 1, "min")),
        ]
    )
    assert values(found, "age") == {"age": 7}
    assert values(found, "healthy") == {"healthy": 0}


def test_what_a_process_says_of_itself_is_told_apart_by_its_number() -> None:
    found = Totals().together([node(gauge("memory", 5, "each")), node(gauge("memory", 7, "each"))])
    assert values(found, "memory") == {"0": 5, "1": 7}


def test_what_a_node_has_counted_stays_while_it_cannot_be_reached() -> None:
    totals = Totals()
    totals.together([node(counter("c", a=5), gauge("size", 1)), node(counter("c", a=7))])
    found = totals.together([None, node(counter("c", a=8))])
    assert values(found, "c") == {"a": 13}
    assert values(found, "size") == {}, "nobody knows what it has now"
    found = totals.together([None, None])
    assert values(found, "c") == {"a": 13}


def test_a_node_that_was_started_again_goes_on_counting_from_where_it_was() -> None:
    totals = Totals()
    totals.together([node(counter("c", a=5, b=1)), node(counter("c", a=7))])
    for seconds in (0, 1):  # it is a new start once, not each time it is seen
        found = totals.together(
            [node(counter("c", a=2 + seconds), started=200), node(counter("c", a=7))]
        )
        assert values(found, "c") == {"a": 14 + seconds, "b": 1}
    found = totals.together([node(counter("c", a=9), started=300), node(counter("c", a=7))])
    assert values(found, "c") == {"a": 5 + 3 + 9 + 7, "b": 1}


def test_an_answer_that_was_overtaken_by_a_later_one_changes_nothing() -> None:
    totals = Totals()
    totals.together([node(counter("c", a=5))])
    assert values(totals.together([node(counter("c", a=4))]), "c") == {"a": 5}
    totals.together([node(counter("c", a=1), started=200)])
    assert values(totals.together([node(counter("c", a=5))]), "c") == {"a": 6}
