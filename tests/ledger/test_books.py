from __future__ import annotations

from elemta.ledger import LONGEST, Book, Row, short


class Visit(Row, array_like=True):
    count: int = 1


def visits(most: int) -> Book[Visit]:
    return Book(Visit, most)


def test_of_too_many_rows_those_go_that_would_go_first() -> None:
    book = visits(1000)
    for number in range(500):
        book.put(b"kept %d" % number, Visit(1000.0))
    for number in range(20_000):
        book.put(b"%d" % number, Visit(float(number % 777)))
        assert len(book.rows) <= 1000
    assert sum(key.startswith(b"kept") for key in book.rows) == 500
    assert book.crowded == 20_500 - len(book.rows)
    assert len(book.changed) <= 2000, "what could not be written is bounded, too"
    book.resize(10)
    assert len(book.rows) <= 10


def test_equal_rows_do_not_all_go_at_once() -> None:
    book = visits(100)
    for number in range(101):
        book.put(b"%d" % number, Visit(1.0))
    assert len(book.rows) == 89


def test_a_key_is_bounded_whatever_a_client_calls_itself() -> None:
    assert short("192.0.2.0/24") == b"192.0.2.0/24"
    assert short("a", "b") == b"a\nb"
    assert len(short("x" * 10_000)) == 16
    assert len(short("x" * LONGEST)) == LONGEST
    assert short("x" * 99) != short("x" * 98)
