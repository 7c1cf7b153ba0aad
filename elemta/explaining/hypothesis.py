"""What would become of a message: from the first word of its client to the last host to call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from elemta.control.facts import Explanation, Step
from elemta.control.interface import RequestError
from elemta.explaining.arriving import Arrival, told
from elemta.explaining.leaving import Departure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.config import Config, Listener
    from elemta.control.facts import Hypothesis
    from elemta.delivery.worker import Delivery
    from elemta.listener.accept import Listeners
    from elemta.listener.reception import House
    from elemta.queue import Queue

#: Addressees whose way is told.
TOLD: Final = 10
#: What mail may have to wait for.
_WAITS: Final = ("route", "lane", "hosts")


async def explain(
    hypothesis: Hypothesis,
    *,
    config: Config,
    house: House,
    listeners: Listeners,
    delivery: Delivery,
    queue: Queue,
    now: float,
) -> Explanation:
    """Think a message through.

    Args:
        hypothesis: who sends what to whom.
        config: what runs.
        house: what sessions share that would begin now.
        listeners: where clients are.
        delivery: what goes out.
        queue: what is between.
        now: seconds since the epoch.

    Raises:
        RequestError: there is no such listener.
    """
    table = _table(config, hypothesis)
    arrival = Arrival(hypothesis, house, table, listeners)
    await arrival.run()
    if arrival.ended:
        last = arrival.steps[-1]
        return Explanation(
            summary=f"It would be refused ({last.question}): {last.reply}",
            steps=tuple(arrival.steps),
        )
    if arrival.fate is not None:
        doomed = arrival.fate
        return Explanation(
            summary=f"{_taken(arrival)}; then the plugin {doomed.plugin} {told(doomed)}",
            steps=tuple(arrival.steps),
        )
    departure = Departure(config, delivery, queue, now)
    ways = [
        await departure.steps(addressee, hypothesis.sender)
        for addressee in arrival.addressees[:TOLD]
    ]
    steps = [*arrival.steps, *(step for way in ways for step in way)]
    if (more := len(arrival.addressees) - TOLD) > 0:
        steps.append(Step(question="route", answer=f"and {more} more"))
    return Explanation(summary=_summary(arrival, ways), steps=tuple(steps))


def _table(config: Config, hypothesis: Hypothesis) -> Listener:
    """Where it comes in; somebody who has logged in comes where that can be done, if he can."""
    name = hypothesis.listener
    if name is None:
        able = [each for each in config.listeners if each.logins != "off"]
        return (able if able and hypothesis.login is not None else config.listeners)[0]
    found = next((each for each in config.listeners if each.name == name), None)
    if found is None:
        known = ", ".join(each.name for each in config.listeners)
        raise RequestError(f"there is no listener {name!r}; there are {known}", "listener")
    return found


def _taken(arrival: Arrival) -> str:
    unless = ", unless a plugin objects that is asked of real mail alone"
    return f"It would be taken{unless if arrival.unsure else ''}"


def _summary(arrival: Arrival, ways: Sequence[Sequence[Step]]) -> str:
    taken = _taken(arrival)
    ends = [each for way in ways for each in way if each.good is False]
    waits = [each for way in ways for each in way if each.good is None and each.question in _WAITS]
    if ends:
        whose = "" if len(ends) == len(ways) else "for some of its recipients "
        return f"{taken}; then its sender would {whose}be told of a failure: {ends[0].answer}"
    if waits:
        whose = "" if len(ways) == 1 else ", for some of its recipients"
        return f"{taken}; then it would wait{whose}: {waits[0].answer}"
    return f"{taken}, and tried at once"
