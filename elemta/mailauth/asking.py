"""How libraries that block and ask the DNS themselves are given its answers.

They are run with the answers that are known. What they ask beyond these is asked of the resolver,
without a thread that waits for it, and then they are run again, from the beginning. So all DNS is
Trio's: one cache, one timeout, and whoever gives up waiting leaves nothing behind. It is also twice
as fast as calling back into Trio from the thread for each question.

They run in a thread, unless what they were given is so small that the way there would take longer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import outcome
import trio

from elemta.net.dns import (
    Absent,
    DnsTemporaryError,
    Failed,
    Found,
    Kind,
    NoRecordsError,
    NoSuchDomainError,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from elemta.net.dns import Records
    from elemta.threads import InThread

T = TypeVar("T")

#: A name in lower case without the final dot, and what is asked of it.
Question: TypeAlias = tuple[str, Kind]

#: Questions that one check may ask. SPF has the most: ten terms, each with ten exchangers.
QUESTIONS: Final = 200
#: How many of them may be asked before somebody needs them.
AHEAD: Final = 20
#: Runs that may be made before anybody else gets a turn.
AT_ONCE: Final = 4
#: Octets of a name in the DNS.
_LONGEST: Final = 253


class MissingError(Exception):
    """Something was asked of the DNS whose answer is not known yet."""


class TemporaryError(Exception):
    """The DNS cannot say just now."""


class TooManyQuestionsError(Exception):
    """A check asks more than anybody may make us ask."""


class Answers:
    """What the DNS has said so far, to one check."""

    def __init__(self) -> None:
        self._known: dict[Question, tuple[str, ...] | None] = {}
        self.missed: list[Question] = []

    def __contains__(self, question: Question) -> bool:
        return question in self._known

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, question: Question, records: tuple[str, ...] | None) -> None:
        """The records there are; None: nobody could say."""
        self._known[question] = records

    def records(self, name: str, kind: Kind) -> tuple[str, ...]:
        """All records of a kind in the text form of a zone file; there may be none.

        Raises:
            MissingError: it is not known yet, and will be the next time.
            TemporaryError: nobody could say.
        """
        question = (name.lower().removesuffix("."), kind)
        try:
            found = self._known[question]
        except KeyError:
            # Some libraries swallow every exception: so it is written down, too.
            self.missed.append(question)
            raise MissingError from None
        if found is None:
            raise TemporaryError(f"no answer about {question[0]}")
        return found

    def texts(self, name: str) -> list[bytes]:
        """The TXT records of a name. Raises the same."""
        return [text_of(record) for record in self.records(name, Kind.TXT)]

    def known(self, question: Question) -> tuple[str, ...]:
        """The records of what was asked; none if nobody could say."""
        return self._known[question] or ()

    def all(self) -> Iterable[tuple[Question, tuple[str, ...] | None]]:
        """What was asked, and what `learn` was told of it."""
        return self._known.items()


#: What will be asked next if a question has this answer.
Follow: TypeAlias = "Callable[[Question, tuple[str, ...]], Iterable[Question]]"


def nothing(_question: Question, _records: tuple[str, ...]) -> Iterable[Question]:
    """Nothing will be asked next."""
    return ()


async def here(call: Callable[[], T]) -> T:
    """For what is always light: see `replay`."""
    return call()


def never(_answers: Answers) -> bool:
    """Whatever is known, it may take long."""
    return False


def always(_answers: Answers) -> bool:
    """Whatever is known, it takes next to nothing."""
    return True


async def replay(
    call: Callable[[Answers], T],
    *,
    resolver: Records,
    in_thread: InThread = here,
    first: Iterable[Question] = (),
    follow: Follow = nothing,
    light: Callable[[Answers], bool] = never,
    seconds: float = math.inf,
    answers: Answers | None = None,
) -> T:
    """Run `call`, which blocks, until it has all the answers that it asks for.

    What is light and has its answers in the resolver's cache is over at once: no thread is woken,
    no deadline is set, and nobody else gets a turn. So it is with most mail.

    Args:
        call: pure but for what it asks; it may be run many times.
        resolver: asked what is not known.
        in_thread: where it runs if it is not light.
        first: what it is sure to ask.
        follow: see `Follow`; asked at once, so that there are fewer runs.
        light: whether with these answers it takes no longer than the way to a thread and back.
        seconds: for all of it.
        answers: is told what the DNS says; None: nobody else wants to know.

    Raises:
        TooManyQuestionsError: it does not come to an end.
        trio.TooSlowError: that was not time enough.
        Exception: whatever `call` raises.
    """
    known = Answers() if answers is None else answers

    def run() -> outcome.Value[T] | outcome.Error:
        return outcome.capture(call, known)

    asking = _Asking(known, resolver, follow)
    asking.want(first)
    for _ in range(AT_ONCE):
        if not (asking.recall() and light(known)):
            break
        made = run()
        if asking.done():
            return made.unwrap()
    with trio.fail_after(seconds):
        while True:
            await asking.fetch()
            if light(known):
                # Perhaps nobody had to be asked; then all others have waited for some runs by now.
                await trio.lowlevel.checkpoint()
                made = run()
            else:
                made = await in_thread(run)
            if asking.done():
                return made.unwrap()


class _Asking:
    """What one check wants to know, until it knows it.

    Args:
        answers: learn it.
        resolver: is asked.
        follow: see `Follow`.
    """

    def __init__(self, answers: Answers, resolver: Records, follow: Follow) -> None:
        self._answers = answers
        self._resolver = resolver
        self._follow = follow
        self._batch: list[Question] = []
        self._ahead = 0

    def want(self, questions: Iterable[Question]) -> None:
        """Somebody needs the answers to these."""
        self._batch = [each for each in dict.fromkeys(questions) if each not in self._answers]
        self._ahead = 0

    def recall(self) -> bool:
        """Learn what the resolver remembers, and what it does of all that follows.

        Returns:
            Whether nobody need be asked.
        """
        while self._batch:
            if [each for each in self._batch if not self._remembers(each)]:
                return False
            self._go_on()
        return True

    async def fetch(self) -> None:
        """Ask all that is wanted at once, and then what follows from it."""
        while not self.recall():
            batch = [each for each in self._batch if each not in self._answers]
            if len(batch) == 1:
                await self._ask(batch[0])
            else:
                async with trio.open_nursery() as nursery:
                    for each in batch:
                        nursery.start_soon(self._ask, each)

    def done(self) -> bool:
        """Whether the last run lacked no answer; else it is wanted now.

        Raises:
            TooManyQuestionsError: it wants too many.
        """
        answers, wanted = self._answers, self._answers.missed
        if not wanted:
            return True
        if len(answers) + len(wanted) > QUESTIONS:
            raise TooManyQuestionsError(f"more than {QUESTIONS} questions")
        answers.missed = []
        self.want(wanted)
        return False

    def _go_on(self) -> None:
        """All of the batch is known: to what follows from it."""
        answers = self._answers
        following = dict.fromkeys(
            after
            for each in self._batch
            for after in self._follow(each, answers.known(each))
            if after not in answers
        )
        self._batch = list(following)[: max(0, AHEAD - self._ahead)]
        self._ahead += len(self._batch)

    def _remembers(self, question: Question) -> bool:
        """Whether the answer is known, also by now."""
        if question in self._answers:
            return True
        name, kind = question
        if not name.isascii() or len(name) > _LONGEST or not name:
            self._answers.learn(question, ())  # no such name can be
            return True
        match self._resolver.recall(name, kind):
            case Found(records):
                self._answers.learn(question, records)
            case Absent():
                self._answers.learn(question, ())
            case Failed():
                self._answers.learn(question, None)
            case None:
                return False
        return True

    async def _ask(self, question: Question) -> None:
        try:
            self._answers.learn(question, await self._resolver.records(*question))
        except (NoSuchDomainError, NoRecordsError):
            self._answers.learn(question, ())
        except DnsTemporaryError:
            self._answers.learn(question, None)
