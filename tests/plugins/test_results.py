"""What plugins find out, and keep."""

from __future__ import annotations

from msgspec import Struct
from typing_extensions import override

from elemta.plugins import Allowed, Results, Store
from elemta.plugins.tools import WORDS
from elemta.testing import a_session, a_transaction, some_tools


class Weight(Struct, frozen=True):
    grams: int

    @override
    def __str__(self) -> str:
        return f"{self.grams} g"


class Silent(Struct, frozen=True):
    pass


class Seen(Struct):
    count: int = 0


def test_results_are_found_by_what_they_are_in_the_order_in_which_they_came() -> None:
    results = Results()
    assert results.first(Weight) is None
    assert results.of(Weight) == ()
    for grams in (3, 1):
        results.add(Weight(grams), "scales")
    results.add(Silent(), "scales")
    assert results.first(Weight) == Weight(3)
    assert results.of(Weight) == (Weight(3), Weight(1))
    assert results.told() == [("scales", "3 g"), ("scales", "1 g")]


def test_those_of_a_client_are_those_of_each_of_its_messages() -> None:
    session = a_session()
    first, second = a_transaction(session), a_transaction(session)
    first.results.add(Weight(1), "a")
    session.results.add(Weight(2), "b")
    assert first.results.of(Weight) == (Weight(2), Weight(1))
    assert first.results.first(Weight) == Weight(2)
    assert second.results.of(Weight) == (Weight(2),)
    assert session.results.of(Weight) == (Weight(2),)
    assert first.results.told() == [("b", "2 g"), ("a", "1 g")]


def test_who_is_trusted_or_vouched_for_is_exempt() -> None:
    session = a_session()
    assert not session.exempt
    session.results.add(Allowed("a list"), "allow-deny")
    assert session.exempt
    assert str(session.results.first(Allowed)) == "allowed by a list"
    assert a_session(trusted=True).exempt


def test_a_plugin_keeps_one_of_each_type() -> None:
    store = Store()
    store.of(Seen).count += 1
    assert store.of(Seen) is store.of(Seen)
    assert (store.of(Seen).count, Store().of(Seen).count) == (1, 0)
    transaction = a_transaction()
    assert transaction.kept is not transaction.session.kept


def test_a_plugin_counts_some_words_and_no_more() -> None:
    tools = some_tools()
    for number in range(WORDS + 5):
        tools.count(f"word {number}")
    tools.count("word 0")
    assert tools.counts["word 0"] == 2
    assert tools.counts["other"] == 5
    assert len(tools.counts) == WORDS + 1
