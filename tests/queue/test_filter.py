from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import pytest
import trio

from elemta.queue import (
    Addressee,
    Delete,
    Envelope,
    Filter,
    Hold,
    Holder,
    Message,
    Priority,
    Recipient,
    Result,
    State,
    StoreReader,
    View,
)
from elemta.queue.filter import Condition
from elemta.queue.ids import IdSource, key_of
from elemta.queue.schema import open_database
from elemta.queue.search import _SOURCES, _WALK, LOOK, SCAN
from tests.queue.mail import (
    CONTENT,
    EPOCH,
    REPLIES,
    address,
    attempts,
    by_domain,
    envelope,
    fill,
    found,
    hold,
    now,
    settle_next,
    virtual_queue,
)

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from elemta.queue import Queue

NEW_ID: Final = IdSource(lambda: EPOCH)
HELD: Final = Holder(owner="plugin:scan", since=EPOCH)
#: One recipient of each kind; all that matters is told by the tests' filters.
RECIPIENTS: Final = [
    Recipient(number=0, address=address("Ann@x.example"), due=EPOCH),
    Recipient(
        number=1,
        address=address("bob@mail.x.example"),
        state=State.DEFERRED,
        due=EPOCH + 100,
        last=REPLIES[Result.DEFERRED],
    ),
    Recipient(number=2, address=address("cy@y"), state=State.HELD, holder=HELD),
    Recipient(number=3, address=address("di@y"), state=State.DELIVERED),
    Recipient(number=4, address=address("ed@y"), state=State.FAILED, last=REPLIES[Result.FAILED]),
    Recipient(number=5, address=address("flo@y"), state=State.EXPIRED),
    Recipient(number=6, address=address("gus@y"), state=State.DELETED),
    Recipient(
        number=7,
        address=address("hal@x.example"),
        original=address("First@old"),
        state=State.DEFERRED,
        due=EPOCH,
    ),
]
MESSAGE: Final = Message(
    id=NEW_ID(),
    sender=address("News@List.example"),
    recipients=RECIPIENTS,
    received_at=EPOCH,
    expires_at=EPOCH + 1000,
    size=500,
    priority=Priority.LOW,
    tags=("bulk", "weekly"),
)
REPORT: Final = msgspec.structs.replace(MESSAGE, id=NEW_ID(), sender=None)


def meant(wanted: Filter, message: Message = MESSAGE, at: float = EPOCH + 10) -> list[int]:
    condition = Condition(wanted, at, by_domain)
    return [each.number for each in condition.selects(message, key_of(message.id))]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (Filter(), [0, 1, 2, 7]),
        (Filter(views=(View.ACTIVE,)), [0, 7]),
        (Filter(views=(View.DEFERRED,)), [1]),
        (Filter(views=(View.HOLD, View.DELIVERED)), [2, 3]),
        (Filter(views=(View.FAILED,)), [4, 5, 6]),
        (Filter(domain="X.example"), [0, 7]),
        (Filter(domain="*.x.example"), [1]),
        (Filter(domain="*.example"), [0, 1, 7]),
        (Filter(domain="*x.example"), []),
        (Filter(recipient="ann@X.EXAMPLE"), [0]),
        (Filter(error="LATER"), [1]),
        (Filter(error="451 4.3.0"), [1]),
        (Filter(error="never"), []),
        (Filter(error="never", views=(View.FAILED,)), [4]),
        (Filter(owner="plugin:scan"), [2]),
        (Filter(owner="plugin"), []),
        (Filter(destination="mx:y"), [2]),
        (Filter(domain="y", views=tuple(View)), [2, 3, 4, 5, 6]),
        (Filter(text="ANN@x"), [0]),
        (Filter(text="x.Example"), [0, 1, 7]),
        (Filter(text="4.3.0 LATER"), [1]),
        (Filter(text="first@old"), [7]),
        (Filter(text="never"), []),
        (Filter(text="never", views=(View.FAILED,)), [4]),
        (Filter(text="y", domain="x.example"), [0, 7]),  # a tag has one: all are meant
        (Filter(text="nowhere"), []),
    ],
)
def test_conditions_on_recipients(wanted: Filter, numbers: list[int]) -> None:
    assert meant(wanted) == numbers


@pytest.mark.parametrize(
    ("wanted", "is_meant"),
    [
        (Filter(sender="news@list.example"), True),
        (Filter(sender="@LIST.example"), True),
        (Filter(sender="@*.example"), True),
        (Filter(sender="@example"), False),
        (Filter(sender="<>"), False),
        (Filter(sender="list.example"), False),
        (Filter(tag="weekly"), True),
        (Filter(tag="week"), False),
        (Filter(older_than=9.9), True),
        (Filter(older_than=10.1), False),
        (Filter(younger_than=10.1), True),
        (Filter(younger_than=9.9), False),
        (Filter(larger_than=499), True),
        (Filter(larger_than=500), False),
        (Filter(smaller_than=501), True),
        (Filter(smaller_than=500), False),
        (Filter(priority=Priority.LOW), True),
        (Filter(priority=Priority.HIGH), False),
        (Filter(ids=(MESSAGE.id.lower(),)), True),
        (Filter(ids=(REPORT.id,)), False),
        (Filter(ids=("nonsense",)), False),
        (Filter(text=MESSAGE.id[5:20].lower()), True),
        (Filter(text="NEWS@list"), True),
        (Filter(text="WEEK"), True),
        (Filter(text="<>"), False),
    ],
)
def test_conditions_on_messages(wanted: Filter, is_meant: bool) -> None:
    assert meant(wanted) == ([0, 1, 2, 7] if is_meant else [])


def test_reports_are_found_by_their_empty_sender() -> None:
    assert meant(Filter(sender="<>"), REPORT) == [0, 1, 2, 7]
    assert meant(Filter(text="<>"), REPORT) == [0, 1, 2, 7]
    assert meant(Filter(sender="@list.example"), REPORT) == []


def test_only_who_has_routes_can_ask_for_a_destination() -> None:
    with pytest.raises(ValueError, match="only the running server"):
        Condition(Filter(destination="mx:y"), EPOCH, None)


def test_a_filter_can_be_written_down() -> None:
    wanted = Filter(views=(View.HOLD,), priority=Priority.HIGH)
    assert msgspec.json.encode(wanted) == b'{"views":["hold"],"priority":3}'
    assert msgspec.json.decode(msgspec.json.encode(wanted), type=Filter) == wanted
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode(b'{"domian":"x"}', type=Filter)


async def one_in_each(queue: Queue) -> dict[View, list[str]]:
    """Messages in each view."""
    ids: dict[View, list[str]] = {view: [] for view in View}
    for result, expired in (
        (Result.DELIVERED, False),
        (Result.FAILED, False),
        (Result.DEFERRED, True),
    ):
        view = View.DELIVERED if result is Result.DELIVERED else View.FAILED
        ids[view].append(await queue.accept(envelope("a@x"), CONTENT))
        await settle_next(queue, result, expired=expired)
    ids[View.FAILED].append(await queue.accept(envelope("d@x"), CONTENT))
    await queue.act(Delete(), Filter(recipient="d@x"), who="operator:root")
    ids[View.DEFERRED].append(await queue.accept(envelope("e@x"), CONTENT))
    await settle_next(queue, Result.DEFERRED)
    ids[View.HOLD].append(await queue.accept(envelope("f@x"), CONTENT))
    await hold(queue, ids[View.HOLD][0])
    ids[View.ACTIVE].append(await queue.accept(envelope("g@x", "h@x"), CONTENT))
    # Of some, part is settled and part is not: they are in both views.
    for view, result in ((View.DELIVERED, Result.DELIVERED), (View.FAILED, Result.FAILED)):
        mixed = Envelope(
            sender=None,
            recipients=(Addressee(address=address("i@y")), Addressee(address=address("j@z"))),
            priority=Priority.CRITICAL,
        )
        ids[view].append(await queue.accept(mixed, CONTENT))
        await queue.act(Hold(), Filter(recipient="j@z"), who="operator:root")
        ids[View.HOLD].append(ids[view][-1])
        with await queue.claim() as one, await queue.claim() as other:
            for claim in (one, other):
                if claim.lane == "mx:y":
                    with claim.take() or pytest.fail("nothing to do") as work:
                        await queue.settle(work, attempts(work, result), durable=True)
    return ids


@pytest.mark.parametrize("down", [False, True])
async def test_each_view_is_found_in_the_store(
    tmp_path: Path, autojump_clock: MockClock, down: bool
) -> None:
    folder = tmp_path / "queue"
    async with virtual_queue(folder) as queue:
        ids = await one_in_each(queue)
        if not down:
            for view in View:
                assert found(folder, Filter(views=(view,)), now()) == sorted(ids[view])
    if down:
        for view in View:
            assert found(folder, Filter(views=(view,)), now()) == sorted(ids[view])
        live = {*ids[View.ACTIVE], *ids[View.DEFERRED], *ids[View.HOLD]}
        assert found(folder, Filter(), now()) == sorted(live)
        assert found(folder, Filter(), now() + 1000) == sorted(live)
        due = sorted(ids[View.ACTIVE] + ids[View.DEFERRED])
        assert found(folder, Filter(views=(View.ACTIVE,)), now() + 1000) == due
        every = {each for some in ids.values() for each in some}
        assert found(folder, Filter(views=tuple(View)), now()) == sorted(every)


async def test_a_search_goes_on_where_the_last_ended(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    folder = tmp_path / "queue"
    async with virtual_queue(folder) as queue:
        ids = [await queue.accept(envelope(f"u{n}@x"), CONTENT) for n in range(LOOK + 10)]
        await queue.act(Hold(), Filter(recipient="u3@x"), who="operator:root")
    with StoreReader(folder) as reader:
        first = reader.search(Filter(), now=EPOCH, limit=LOOK + 5)
        assert [each.id for each in first] == ids[: LOOK + 5]
        rest = reader.search(Filter(), now=EPOCH, after=first[-1].id)
        assert [each.id for each in rest] == ids[LOOK + 5 :]
        (last,) = reader.search(Filter(recipient=f"u{LOOK + 9}@x"), now=EPOCH)
        assert last.id == ids[-1]
        by_id = Filter(ids=(ids[7].lower(), ids[3], ids[5][:13] + "0" * 13))
        assert [each.id for each in reader.search(by_id, now=EPOCH)] == [ids[3], ids[7]]
        (there,) = reader.search(Filter(destination="mx:x"), now=EPOCH, lane=by_domain, limit=1)
        assert there.id == ids[0]


async def test_ages_are_found_by_key(tmp_path: Path, autojump_clock: MockClock) -> None:
    folder = tmp_path / "queue"
    async with virtual_queue(folder) as queue:
        ids: list[str] = []
        for _ in range(3):
            ids.append(await queue.accept(envelope(), CONTENT))
            await trio.sleep(60)
        at = now()
    assert found(folder, Filter(older_than=60), at) == ids[:2]
    assert found(folder, Filter(younger_than=150), at) == ids[1:]
    assert found(folder, Filter(older_than=60, younger_than=150), at) == [ids[1]]
    assert found(folder, Filter(older_than=1000), at) == []


async def test_a_domain_is_found_among_many_others(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Most records are not even read, and those that are need not be what is meant."""
    others = [(f"x@d{number % 7}.example",) for number in range(SCAN)]
    few = [("ann@far.example", "bob@near.example"), ("far.example@elsewhere.example",)]
    ids = fill(tmp_path / "queue", *others, *few, *others[:10], ("cy@far.example",))
    with StoreReader(tmp_path / "queue") as reader:

        def search(**what: str) -> list[str]:
            return [each.id for each in reader.search(Filter(**what), limit=SCAN, now=EPOCH)]

        assert search(domain="far.example") == [ids[SCAN], ids[-1]]
        assert search(domain="Far.Example") == [ids[SCAN], ids[-1]]
        assert search(domain="*.example", recipient="bob@near.example") == [ids[SCAN]]
        assert search(domain="nobody.example") == []
        assert search(sender="@home.example", recipient="cy@far.example") == [ids[-1]]
        assert search(domain="d3.example") == [*ids[3:SCAN:7], ids[SCAN + 2 + 3]]
        assert len(search(sender="sender@home.example")) == SCAN


async def test_no_domain_is_found_where_nothing_is(tmp_path: Path) -> None:
    fill(tmp_path / "queue")
    with StoreReader(tmp_path / "queue") as reader:
        assert reader.search(Filter(domain="far.example"), now=EPOCH) == []


#: Something of each kind of search: by view, by a domain that SQLite looks for, by id, by age, by
#: what only a whole record tells.
SEARCHES: Final = (
    Filter(),
    Filter(views=tuple(View)),
    Filter(domain="even.example"),
    Filter(text="even"),
    Filter(older_than=5.0),
    Filter(younger_than=9.5, recipient="u@odd.example"),
    Filter(views=(View.HOLD, View.FAILED)),
)


@pytest.mark.parametrize("wanted", SEARCHES)
@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_pages_are_the_whole_from_either_end(
    tmp_path: Path, autojump_clock: MockClock, wanted: Filter, limit: int
) -> None:
    folder = tmp_path / "queue"
    async with virtual_queue(folder) as queue:
        for number in range(12):
            domain = "odd.example" if number % 2 else "even.example"
            await queue.accept(envelope(f"u@{domain}"), CONTENT)
            await trio.sleep(1)
        keys = found(folder)
        await queue.act(Hold(), Filter(ids=tuple(keys[2:5])), who="operator:root")
        await queue.act(Delete(), Filter(ids=tuple(keys[4:7])), who="operator:root")
        at = now()
    whole = found(folder, wanted, at)
    assert whole
    with StoreReader(folder) as reader:
        for newest in (False, True):
            paged: list[str] = []
            after: str | None = None
            while page := reader.search(wanted, now=at, limit=limit, after=after, newest=newest):
                assert len(page) <= limit
                paged += [each.id for each in page]
                after = paged[-1]
            assert paged == (whole[::-1] if newest else whole)


async def test_a_page_begins_behind_a_message_that_is_gone_or_is_in_another_queue(
    tmp_path: Path,
) -> None:
    first, last = fill(tmp_path / "queue", ("a@x",), ("b@x",))
    with StoreReader(tmp_path / "queue") as reader:

        def search(after: str, *, newest: bool) -> list[str]:
            page = reader.search(Filter(), now=EPOCH, after=after, newest=newest)
            return [each.id for each in page]

        # The same key, and another tail, as one of another node may have.
        lower, higher = first[:13] + "0" * 13, first[:13] + "Z" * 13
        assert search(lower, newest=False) == [first, last]
        assert search(higher, newest=False) == [last]
        assert search(higher, newest=True) == [first]
        assert search(lower, newest=True) == []
        assert search("0" * 26, newest=False) == [first, last]
        assert search("7" + "Z" * 25, newest=True) == [last, first]


async def test_the_newest_of_a_domain_are_found_among_many_others(tmp_path: Path) -> None:
    others = [(f"x@d{number % 7}.example",) for number in range(SCAN)]
    ids = fill(tmp_path / "queue", ("ann@far.example",), *others, ("bob@far.example",))
    with StoreReader(tmp_path / "queue") as reader:

        def search(domain: str) -> list[str]:
            page = reader.search(Filter(domain=domain), limit=SCAN, now=EPOCH, newest=True)
            return [each.id for each in page]

        assert search("far.example") == [ids[-1], ids[0]]
        assert search("d3.example") == [*ids[4 : SCAN + 1 : 7]][::-1]
        by_id = Filter(ids=(ids[1], ids[5], ids[-1]))
        page = reader.search(by_id, limit=2, now=EPOCH, newest=True)
        assert [each.id for each in page] == [ids[-1], ids[5]]


@pytest.mark.parametrize("view", View)
@pytest.mark.parametrize("order", ["ASC", "DESC"])
def test_the_store_walks_its_indexes_in_either_direction_and_sorts_nothing(
    tmp_path: Path, view: View, order: str
) -> None:
    connection = open_database(tmp_path / "queue.db")
    for source in _SOURCES[view]:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN " + _WALK % (source, order), {"low": 1, "high": 9, "limit": 5}
        ).fetchall()
        assert not [told for *_, told in plan if "TEMP B-TREE" in told]
    connection.close()
