from __future__ import annotations

from elemta.metrics.meters import Distribution, Distributions


def test_a_bucket_takes_what_is_as_large_as_its_bound() -> None:
    found = Distribution((1, 2, 4))
    for value in (0, 1, 1.5, 2, 3, 4, 4.001, 1e9):
        found.observe(value)
    assert found.counts == [2, 2, 2, 2]
    assert found.total == 0 + 1 + 1.5 + 2 + 3 + 4 + 4.001 + 1e9


def test_a_distribution_is_made_when_its_word_is_first_used() -> None:
    found = Distributions((1, 2))
    found["mx"].observe(1)
    found["mx"].observe(2)
    assert list(found) == ["mx"]
    assert found["mx"].counts == [1, 1, 0]


def test_distributions_are_added_up() -> None:
    one, two = Distribution((1, 2)), Distribution((1, 2))
    one.observe(1)
    two.observe(2)
    two.observe(3)
    one.add(two)
    assert (one.counts, one.total) == ([1, 1, 1], 6)
