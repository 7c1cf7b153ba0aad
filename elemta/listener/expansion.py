"""Whom an address of ours leads to: mailboxes, aliases, sub-addresses, catch-all; step by step.

The rules of this file:

- It waits for nothing: whoever expands is told which map to ask for what (`Question`), and goes on
  with the answer. So a server without maps never waits, and `elemta explain` sees each step.
- The name in full comes before the one without its tag, what is named before ``"*"``, and all of
  it before the catch-all.
- An alias is followed once. Met again, it is the mailbox of its name, if there is one.
- How far an alias leads, and to how many, is bounded; what is beyond is our own mistake, and the
  mail waits with its sender until it is mended.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from msgspec import Struct

from elemta.config import Maildir, Smarthost
from elemta.log import logger
from elemta.protocol import Mailbox, Reply, comparable_domain, parse_mailbox, reply
from elemta.queue import Addressee

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from elemta.config import Domain

log = logger(__name__)

#: How many aliases may lead from one to the next, and how many recipients one may stand for.
MAX_DEPTH: Final = 100
MAX_EXPANSION: Final = 1000

#: Left to themselves, other servers take these for routes (RFC 5321 appendix F.2).
_ROUTING: Final = ("%", "!", "@")

#: Of those whom an alias stands for, how many are named to people.
NAMED: Final = 20

NO_SUCH_MAILBOX: Final = reply(550, 1, 1, "no such mailbox")
#: Our own mistake: the mail waits with its sender until it is mended.
ALIAS_LOOP: Final = reply(451, 4, 6, "an alias leads back to itself")
ALIAS_TOO_LARGE: Final = reply(451, 4, 6, "an alias leads too far")
ALIAS_BROKEN: Final = reply(451, 3, 5, "an alias leads nowhere")

T = TypeVar("T")


class Question(Struct, frozen=True):
    """What a map is to be asked for."""

    map: str
    key: str


#: Asks maps, one after the other, and comes to something. None is sent where a key is not there.
Asks: TypeAlias = Generator[Question, "tuple[str, ...] | None", T]
#: Hears what leads where.
Tell: TypeAlias = Callable[[str], None]


class OwnDomain:
    """A domain of ours, as it is asked: lower case, aliases parsed.

    Attributes:
        name: lower case, A-labels.
        aliases: the recipients of each alias.
        catch_all: who gets what is for nobody; mostly nobody.
        delimiter: what stands before a tag; empty: there are no tags.
        alias_map: has more aliases; empty: none has.
        mailbox_map: has more mailboxes; empty: none has.
        any: each local part is a mailbox.
        keeps_tags: who is given the mail wants the address with its tag.
        passes_on: its mail may go to another mail server, which may relay for us.
        listed: the list of mailboxes and the aliases are all that there is to look at.
    """

    def __init__(self, domain: Domain) -> None:
        self.name = comparable_domain(domain.name)
        self.aliases = {
            alias.lower(): tuple(_recipient(text, domain.name) for text in recipients)
            for alias, recipients in domain.aliases.items()
        }
        self.catch_all = tuple(_recipient(text, domain.name) for text in domain.catch_all)
        self.delimiter = domain.delimiter
        self.alias_map = domain.alias_map or ""
        self.mailbox_map = domain.mailbox_map or ""
        self.any = "*" in domain.mailboxes
        # A Maildir is that of the mailbox; others may sort by the tag, as Dovecot does.
        self.keeps_tags = not isinstance(domain.target, Maildir)
        # A map may name any target.
        self.passes_on = isinstance(domain.target, Smarthost) or domain.deliver_map is not None
        self.listed = not (self.catch_all or self.delimiter or self.alias_map or self.mailbox_map)
        self._mailboxes = {"postmaster", *(name.lower() for name in domain.mailboxes)}

    def names(self, local_part: str) -> bool:
        """Whether a mailbox (lower case) is named in the list."""
        return local_part in self._mailboxes

    def has(self, local_part: str) -> bool:
        """Whether there is such a mailbox (lower case), by the list alone."""
        return local_part in self._mailboxes or (self.any and not self.leads_on(local_part))

    def leads_on(self, local_part: str) -> bool:
        """Whether the next server may take a local part for a route to somewhere else.

        It may relay for us, and would then for whoever writes such an address to us. So nobody is
        called so whom nobody has named.
        """
        return self.passes_on and is_route(local_part)

    def forms(self, local_part: str) -> Iterator[str]:
        """The local part in full, and without its tag if it has one: ``bob+tag``, ``bob``."""
        yield local_part
        if self.delimiter:
            bare, delimiter, _ = local_part.partition(self.delimiter)
            if bare and delimiter:
                yield bare


class Led(Struct, frozen=True):
    """One whom an address leads to.

    Attributes:
        address: where the mail is to be delivered.
        owner: the mailbox of ours that this is, lower case and without a tag; None: it is abroad.
    """

    address: Mailbox
    owner: Mailbox | None = None


class Expansion:
    """What an address of ours comes to.

    Args:
        find: gives the domain of ours of this name, in whatever form; None: it is not ours.
        tell: hears each step, for people; None: nobody wants to know.
    """

    def __init__(self, find: Callable[[str], OwnDomain | None], tell: Tell | None = None) -> None:
        self._find = find
        self._tell = tell
        #: Aliases that were followed: domain and name; ``@`` is the catch-all.
        self._followed: set[tuple[str, str]] = set()

    def expand(self, start: Mailbox) -> Asks[tuple[Led, ...] | Reply]:
        """Follow the aliases from one address, breadth first; each recipient is told once."""
        found: dict[Mailbox, Led] = {}
        level = [start]
        for _ in range(MAX_DEPTH):
            ahead: list[Mailbox] = []
            for mailbox in level:
                own = self._find(mailbox.domain)
                if own is None:
                    found[mailbox] = Led(mailbox)
                    continue
                what = yield from self._look(own, mailbox)
                if isinstance(what, Reply):
                    return what
                if isinstance(what, Led):
                    found[what.address] = what
                elif what is not None:
                    ahead += what
                elif mailbox is start:
                    return NO_SUCH_MAILBOX
                else:
                    log.error("alias.broken", alias=str(start), target=str(mailbox))
                    return ALIAS_BROKEN
                if len(found) + len(ahead) > MAX_EXPANSION:
                    log.error("alias.too_large", alias=str(start), most=MAX_EXPANSION)
                    return ALIAS_TOO_LARGE
            if not ahead:
                break
            level = ahead
        else:
            log.error("alias.too_deep", alias=str(start), most=MAX_DEPTH)
            return ALIAS_TOO_LARGE
        if not found:
            log.error("alias.loop", alias=str(start))
            return ALIAS_LOOP
        return tuple(found.values())

    def _look(
        self, own: OwnDomain, mailbox: Mailbox
    ) -> Asks[Led | Sequence[Mailbox] | Reply | None]:
        """What one address of ours is: a mailbox, or others; none of them, if that is a loop.

        Returns:
            None: it is nothing. A reply: what it is cannot be read.
        """
        local_part = mailbox.local_part.lower()
        loops, bare = False, local_part
        for bare in own.forms(local_part):
            if (own.name, bare) in self._followed:
                loops = True
            elif (others := own.aliases.get(bare)) is not None:
                return self._follow(own, bare, mailbox, others, "is an alias")
            elif own.alias_map and (values := (yield from self._ask(own.alias_map, own, bare))):
                others = self._read(own, values)
                if others is None:
                    return ALIAS_BROKEN
                return self._follow(own, bare, mailbox, others, f"is an alias of {own.alias_map}")
            if bare != local_part and own.leads_on(local_part):
                continue
            if own.names(bare) or (
                own.mailbox_map and (yield from self._ask(own.mailbox_map, own, bare)) is not None
            ):
                # Also `bob: [bob, carol]`: a copy to carol, and the mailbox behind the alias.
                return self._mailbox(own, mailbox, bare)
        if own.any and not own.leads_on(local_part):
            return self._mailbox(own, mailbox, bare)
        if loops or (own.name, "@") in self._followed:
            return ()
        if own.alias_map and (values := (yield from self._ask(own.alias_map, own, ""))):
            others = self._read(own, values)
            if others is None:
                return ALIAS_BROKEN
            return self._follow(own, "@", mailbox, others, f"is caught by {own.alias_map}")
        if own.catch_all:
            return self._follow(own, "@", mailbox, own.catch_all, "is caught by catch_all")
        return None

    def _ask(self, name: str, own: OwnDomain, local_part: str) -> Asks[tuple[str, ...] | None]:
        """What a map has for an address of ours; an empty local part is the whole domain."""
        key = str(Mailbox(local_part, own.name)) if local_part else f"@{own.name}"
        found = yield Question(name, key)
        if self._tell is not None:
            values = "is not there" if found is None else _some(found) or "is there"
            self._tell(f"the map {name} is asked for {key}: {values}")
        return found

    def _read(self, own: OwnDomain, values: Sequence[str]) -> tuple[Mailbox, ...] | None:
        """The addresses that a map has; None: it has something that is none."""
        try:
            # One more than there may be tells that there are too many: none is read beyond that.
            return tuple(_recipient(text, own.name) for text in values[: MAX_EXPANSION + 1])
        except ValueError as error:
            problem = str(error)
        log.error("alias.unreadable", domain=own.name, map=own.alias_map, problem=problem)
        return None

    def _follow(
        self,
        own: OwnDomain,
        name: str,
        mailbox: Mailbox,
        others: Sequence[Mailbox],
        why: str,
    ) -> Sequence[Mailbox]:
        self._followed.add((own.name, name))
        if self._tell is not None:
            self._tell(f"{mailbox} {why}: {_some([str(each) for each in others])}")
        return others

    def _mailbox(self, own: OwnDomain, mailbox: Mailbox, bare: str) -> Led:
        """The mailbox `bare`, in lower case, which is `mailbox` without its tag if it has one."""
        owner = Mailbox(bare, own.name)
        tagged = len(bare) < len(mailbox.local_part)
        if tagged and self._tell is not None:
            self._tell(f"{mailbox} is a sub-address of {owner}")
        if not tagged or own.keeps_tags:
            return Led(mailbox, owner)
        return Led(Mailbox(mailbox.local_part[: len(bare)], mailbox.domain), owner)


def addressees(led: Sequence[Led], start: Mailbox) -> tuple[Addressee, ...]:
    """The recipients that an address led to; they remember it, unless it is their own."""
    if len(led) == 1 and led[0].address == start:
        return (Addressee(address=start),)
    return tuple(Addressee(address=each.address, original=start) for each in led)


def is_route(local_part: str) -> bool:
    """Whether other servers may take a local part for one."""
    return any(mark in local_part for mark in _ROUTING)


def _some(values: Sequence[str]) -> str:
    """The first of many values."""
    more = f" and {len(values) - NAMED} more" if len(values) > NAMED else ""
    return ", ".join(values[:NAMED]) + more


def _recipient(text: str, domain: str) -> Mailbox:
    return parse_mailbox(text if "@" in text else f"{text}@{domain}")
