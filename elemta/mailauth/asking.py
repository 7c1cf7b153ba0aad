"""How libraries that block and ask the DNS themselves are given its answers.

They are run with the answers that are known. What they ask beyond these is asked of the resolver,
without a thread that waits for it, and then they are run again, from the beginning. So all DNS is
Trio's: one cache, one timeout, and whoever gives up waiting leaves nothing behind. It is also twice
as fast as calling back into Trio from the thread for each question.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import trio

from elemta.net.dns import DnsTemporaryError, Kind, NoRecordsError, NoSuchDomainError, text_of

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


#: What will be asked next if a question has this answer.
Follow: TypeAlias = "Callable[[Question, tuple[str, ...]], Iterable[Question]]"


def nothing(_question: Question, _records: tuple[str, ...]) -> Iterable[Question]:
    """Nothing will be asked next."""
    return ()


async def replay(
    call: Callable[[Answers], T],
    *,
    resolver: Records,
    in_thread: InThread,
    first: Iterable[Question] = (),
    follow: Follow = nothing,
) -> T:
    """Run `call`, which blocks, until it has all the answers that it asks for.

    Args:
        call: pure but for what it asks; it may be run many times.
        resolver: asked what is not known.
        in_thread: where it runs.
        first: what it is sure to ask.
        follow: see `Follow`; asked at once, so that there are fewer runs.

    Raises:
        TooManyQuestionsError: it does not come to an end.
        Exception: whatever `call` raises.
    """
    answers = Answers()
    wanted = list(first)
    while True:
        await _fetch(answers, wanted, resolver, follow)
        answers.missed = []
        try:
            found = await in_thread(partial(call, answers))
        except Exception:  # a library that lacks an answer may fail in any way
            if not answers.missed:
                raise
        else:
            if not answers.missed:
                return found
        wanted = answers.missed
        if len(answers) + len(wanted) > QUESTIONS:
            raise TooManyQuestionsError(f"more than {QUESTIONS} questions")


async def _fetch(
    answers: Answers, wanted: Iterable[Question], resolver: Records, follow: Follow
) -> None:
    """Ask all that is wanted at once, and then what follows from it."""
    batch = [each for each in dict.fromkeys(wanted) if each not in answers]
    ahead = 0
    while batch:
        if len(batch) == 1:
            await _ask(answers, batch[0], resolver)
        else:
            async with trio.open_nursery() as nursery:
                for each in batch:
                    nursery.start_soon(_ask, answers, each, resolver)
        following = [
            after
            for each in batch
            if (found := answers.records(*each) if _known(answers, each) else ())
            for after in follow(each, found)
            if after not in answers
        ]
        batch = list(dict.fromkeys(following))[: max(0, AHEAD - ahead)]
        ahead += len(batch)


def _known(answers: Answers, question: Question) -> bool:
    try:
        answers.records(*question)
    except TemporaryError:
        return False
    return True


async def _ask(answers: Answers, question: Question, resolver: Records) -> None:
    name, kind = question
    if not name.isascii() or len(name) > _LONGEST or not name:
        answers.learn(question, ())  # no such name can be
        return
    try:
        answers.learn(question, await resolver.records(name, kind))
    except (NoSuchDomainError, NoRecordsError):
        answers.learn(question, ())
    except DnsTemporaryError:
        answers.learn(question, None)
