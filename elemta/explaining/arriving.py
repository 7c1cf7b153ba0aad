"""What a client would hear that brings a message: step by step, as a session asks."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from elemta import plugins
from elemta.control.facts import Step
from elemta.explaining.words import counted
from elemta.listener import replies
from elemta.listener.expansion import NO_SUCH_MAILBOX
from elemta.listener.reception import Reception
from elemta.net.limits import network
from elemta.plugins import Defer, Discard, Known, Quarantine, Reject, Transaction
from elemta.protocol import (
    Hello,
    Mail,
    MailParams,
    Rcpt,
    Refused,
    Reply,
    ServerConnection,
    Wait,
    domain_to_ascii,
)
from elemta.units import Octets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from elemta.config import Listener
    from elemta.control.facts import Hypothesis
    from elemta.listener.accept import Listeners
    from elemta.listener.reception import House
    from elemta.plugins import Chain, Doomed, Loaded, Verdict
    from elemta.protocol import Event
    from elemta.queue import Addressee

#: Stands for the id of a session, and of a message, in what a plugin logs.
ID: Final = "explain"
#: Addressees of an alias, and steps that lead to them, that are named.
NAMED: Final = 20
_PLUGINS: Final = "plugins, "


class Arrival:
    """A client that may come, and the message that it may bring.

    Args:
        hypothesis: who and what.
        house: as sessions have it.
        table: the listener.
        listeners: count the clients that are there.

    Attributes:
        steps: what is decided, in order; where one is not good, it ends there.
        addressees: who gets it; none until all went well.
    """

    def __init__(
        self, hypothesis: Hypothesis, house: House, table: Listener, listeners: Listeners
    ) -> None:
        self.steps: list[Step] = []
        self.addressees: tuple[Addressee, ...] = ()
        self._asked = hypothesis
        self._house = house
        self._table = table
        self._listeners = listeners
        self._chain = house.plugins.at(table.name)
        self._plugins = house.plugins.dry().at(table.name)
        reception = Reception.of(house, table, listeners.clients(table.name))
        self._ownership = reception.ownership
        self._smtp = ServerConnection(reception.limits, reception.offer, lmtp=reception.lmtp)
        self._smtp.send(reception.greeting)
        self._session = plugins.Session(
            id=ID,
            address=hypothesis.client,
            port=0,
            listener=table.name,
            submission=table.submission,
            trusted=house.recipients.trusts(hypothesis.client) or hypothesis.login is not None,
            login=hypothesis.login,
        )
        self._transaction: Transaction | None = None

    @property
    def fate(self) -> Doomed | None:
        """What plugins would do with the message that they let in: hold it, or throw it away."""
        message = self._transaction
        if message is None:
            return None
        return message.fate() or message.fate(self._asked.recipient)

    @property
    def ended(self) -> bool:
        """Whether somebody said no."""
        return any(each.good is False for each in self.steps)

    @property
    def unsure(self) -> bool:
        """Whether plugins may object that were not asked."""
        return any(each.good is None and each.question.startswith(_PLUGINS) for each in self.steps)

    async def run(self) -> None:
        """Ask all who would be asked, until one says no."""
        with self._house.plugins.users:
            for ask in (
                *(self._connect, self._greet, self._hello, self._log_in),
                *(self._mail, self._room, self._rcpt, self._ask_of_content),
            ):
                await ask()
                if self.ended:
                    return

    def _say(self, line: str) -> Event:
        """What the engine makes of a line of the client's."""
        self._smtp.receive_data(f"{line}\r\n".encode())
        event = self._smtp.next_event()
        assert not isinstance(event, Wait), "a whole line is an event"
        return event

    # Before a word is said.

    async def _connect(self) -> None:
        table, roster, client = self._table, self._house.roster, self._asked.client
        clients = self._listeners.clients(table.name)
        held = clients.count(network(client))
        goodbye = None
        if roster.draining:
            goodbye = replies.SHUTTING_DOWN
        elif held >= clients.per_key:
            goodbye = replies.TOO_MANY_OF_YOURS
        elif roster.full:
            goodbye = replies.TOO_MANY_CONNECTIONS
        self.steps.append(
            Step(
                question="listener",
                answer=f"{table.name} ({table.kind}) {'takes' if goodbye is None else 'sheds'} "
                "the connection",
                good=goodbye is None,
                reply=str(goodbye or ""),
                details=(
                    f"{held} of {clients.per_key} connections of {network(client)}, "
                    f"{len(roster)} of {roster.places} in all",
                    f"messages up to {Octets(table.message_size).written}, "
                    f"for up to {counted(table.recipients, 'recipient')}",
                    *self._encryption(),
                ),
            )
        )

    def _encryption(self) -> Iterator[str]:
        """What is taken for granted: whether it encrypts, nobody has said."""
        if not self._house.certificates or self._table.tls == "off":
            return
        yield {
            "offered": "it may encrypt, by STARTTLS",
            "required": "it must encrypt first, by STARTTLS; so it does, here",
            "implicit": "it must encrypt from its first octet on; so it does, here",
        }[self._table.tls]

    async def _greet(self) -> None:
        asked, found = self._asked, self._house.recipients.network(self._asked.client)
        trusted = f"is in {found} of relay.networks, and may send to any domain"
        stranger = "is in none of relay.networks"
        details = (f"logged in as {asked.login}",) if asked.login is not None else ()
        answer = f"{asked.client} {stranger if found is None else trusted}"
        self.steps.append(Step(question="client", answer=answer, details=details))
        chain = self._chain.connect
        await self._ask("on_connect", chain, lambda dry: dry.on_connect(self._session))

    async def _hello(self) -> None:
        name = self._asked.helo
        event = self._say(f"{'LHLO' if self._table.kind == 'lmtp' else 'EHLO'} {name}")
        if isinstance(event, Refused):
            self._refuse("hello", f"{name!r} is no name", event.reply)
            return
        assert isinstance(event, Hello), "nothing else was said"
        self.steps.append(Step(question="hello", answer=f"{event.name} is taken as it is"))
        chain = self._chain.hello
        await self._ask("on_hello", chain, lambda dry: dry.on_hello(self._session, event.name))
        self._session.helo, self._session.extended = event.name, True
        self._smtp.send(self._smtp.hello_reply(self._house.config.hostname))

    # Who it is.

    async def _log_in(self) -> None:
        """Say who somebody is who would have logged in, as far as that is told without proof."""
        login, table, session = self._asked.login, self._table, self._session
        if login is None:
            if table.submission:
                answer = "nobody is logged in, and before that nothing is taken here"
                self._refuse("login", answer, replies.NOT_LOGGED_IN)
            return
        details: tuple[str, ...] = ()
        if table.logins == "off":
            details = (f"nobody can log in at {table.name}: its `auth` is off",)
        # It is asked for no less than it is by a client that has proved nothing yet (SCRAM).
        found = await self._chain.on_verifier(session, login) if self._chain.verifier else None
        answer = f"no plugin says without a password who {login} is, and what is granted"
        match found:
            case Known() as known:
                granted = known.granted
                session.login, session.addresses = granted.login, granted.addresses
                answer = f"{login} is {granted.login}"
            case Reject():
                self._refuse("login", f"{login} is let in by nobody", replies.LOGIN_REFUSED)
                return
            case Defer():
                answer = f"nobody can say just now who {login} is"
            case None:
                if self._chain.verifier:
                    names = ", ".join(each.name for each in self._chain.verifier)
                    answer = f"{login} is unknown to {names}, or has no verifier there"
        self.steps.append(Step(question="login", answer=answer, details=(*details, *self._owned())))

    def _owned(self) -> tuple[str, ...]:
        """As whom somebody may send who has logged in."""
        if self._ownership is None:
            return ("may send as anybody: `senders` is any",)
        patterns = self._ownership.patterns(self._session)
        if "*" in patterns:
            return ("may send as anybody: * is granted",)
        return (f"may send as {', '.join(shortened(patterns))}, and as what leads to these alone",)

    # The envelope.

    async def _mail(self) -> None:
        asked, table = self._asked, self._table
        path = "" if asked.sender is None else str(asked.sender)
        addresses = [asked.recipient, *filter(None, [asked.sender])]
        utf8 = "" if all(each.is_ascii for each in addresses) else " SMTPUTF8"
        size = f" SIZE={asked.size}" if asked.size else ""
        event = self._say(f"MAIL FROM:<{path}>{size}{utf8}")
        if isinstance(event, Refused):
            self._refuse("sender", f"MAIL FROM:<{path}>{size}{utf8} is refused", event.reply)
            return
        assert isinstance(event, Mail), "nothing else was said"
        self._smtp.send(replies.SENDER_OK)
        most = Octets(table.message_size).written
        if asked.size > table.message_size:
            answer = f"{counted(asked.size, 'octet')} are more than {most}"
            self._refuse("size", answer, replies.TOO_BIG)
            return
        if asked.size:
            answer = f"{counted(asked.size, 'octet')} of at most {most}"
            self.steps.append(Step(question="size", answer=answer, good=True))
        if self._ownership is not None:
            refusal = await self._ownership.judge_sender(self._session, asked.sender)
            if refusal is not None:
                self._refuse("sender", refusal.lines[0], refusal, self._owned())
                return
        told = Step(question="sender", answer=f"<{path}> is taken", good=True)
        self.steps.append(told)

    async def _room(self) -> None:
        queue = self._house.queue
        if not queue.healthy:
            self._refuse("queue", "it cannot be written just now", replies.NO_ROOM)
        elif not queue.room():
            self._refuse("queue", "its disk is nearly full", replies.NO_ROOM)
        else:
            self.steps.append(Step(question="queue", answer="mail is taken", good=True))
            message = self._message
            await self._ask("on_mail", self._chain.mail, lambda dry: dry.on_mail(message))

    async def _rcpt(self) -> None:
        asked = self._asked
        event = self._say(f"RCPT TO:<{asked.recipient}>")
        if isinstance(event, Refused):
            self._refuse("recipient", f"RCPT TO:<{asked.recipient}> is refused", event.reply)
            return
        assert isinstance(event, Rcpt), "nothing else was said"
        recipients = self._house.recipients
        ours = recipients.is_ours(event.path)
        if not ours:
            self._permit(event)
        way: list[str] = []
        found = await recipients.find(
            event.path, client=asked.client, login=asked.login, tell=way.append
        )
        if isinstance(found, Reply):
            if found is NO_SUCH_MAILBOX:
                chain, message = self._chain, self._message
                await self._ask(
                    "on_unknown", chain.unknown, lambda dry: dry.on_unknown(message, event.path)
                )
                if self.ended:
                    return
            if ours:
                self._refuse("recipient", f"{event.path} gets no mail here", found, shortened(way))
            else:
                last = self.steps.pop()
                answer = last.answer
                if found.code < 500:
                    answer = (
                        f"{event.path.domain} is not ours, and nobody can say who may send there"
                    )
                self._refuse(last.question, answer, found, (*last.details, *shortened(way)))
            return
        if not ours and way:  # by a map
            last = self.steps.pop()
            why = f"{event.path.domain} is not ours, and relay.domain_map has it"
            self.steps.append(msgspec.structs.replace(last, answer=why, details=shortened(way)))
            way.clear()
        self.steps.append(_led(event, found, way, ours=ours))
        chain, message = self._chain, self._message
        before = message.before
        await self._ask("on_rcpt", chain.rcpt, lambda dry: dry.on_rcpt(message, event.path))
        if chain.greylist and not (self.ended or self._session.trusted):
            await self._ask(
                "on_greylist", chain.greylist, lambda dry: dry.on_greylist(message, event.path)
            )
        message.add(event.path, found, before)

    def _permit(self, event: Rcpt) -> None:
        """Say why this client may send to a domain that is not ours, or may not."""
        asked, recipients = self._asked, self._house.recipients
        domain = event.path.domain
        match recipients.permission(event.path, client=asked.client, login=asked.login):
            case "login":
                why = f"{domain} is not ours, and {asked.login} has logged in"
            case "relay.networks":
                found = recipients.network(asked.client)
                why = f"{domain} is not ours, and {asked.client} is in {found} of relay.networks"
            case "relay.domains":
                pattern = recipients.relayed(domain)
                why = f"{domain} is not ours, and anybody may send to {pattern} of relay.domains"
            case _:
                why = f"{domain} is not ours, and nothing lets {asked.client} send there"
                if recipients.relayed(domain) is not None:
                    why = f"{event.path.local_part} may be a route, which is never relayed"
        self.steps.append(Step(question="relay permission", answer=why, good=True))

    # What plugins say.

    async def _ask_of_content(self) -> None:
        chain, message = self._chain, self._message
        await self._ask("on_data", chain.data, lambda dry: dry.on_data(message))
        if self.ended:
            return
        self.addressees = tuple(message.addressees.values())
        for hook, asked in (
            ("on_header", chain.header),
            ("on_body", chain.body),
            ("on_inspect", chain.inspect),
            ("on_message", chain.message),
        ):
            if asked:
                # Even of those that may be asked: there is no message to show.
                names = tuple(f"{each.name} would be asked" for each in asked)
                answer = "what they say of the content nobody knows before it is here"
                self.steps.append(Step(question=f"{_PLUGINS}{hook}", answer=answer, details=names))
        self._foresee_signing()

    def _foresee_signing(self) -> None:
        """Say which keys would sign, if From has the domain of the sender."""
        if not self._chain.sign:
            return
        sender = self._message.sender
        author = "" if sender is None else sender.domain.lower()
        with suppress(ValueError):
            author = domain_to_ascii(author) if author else ""
        details: list[str] = []
        for each in self._chain.sign:
            told = ""
            with suppress(Exception):  # a third party's
                told = each.plugin.foresee_signing(self._message, author)
            details.append(f"{each.name} {told or 'would be asked'}")
        answer = f"if From is of {author}" if author else "of a message from the null sender"
        self.steps.append(Step(question="signing", answer=answer, details=tuple(details)))

    async def _ask(
        self, hook: str, asked: Sequence[Loaded], ask: Callable[[Chain], Awaitable[Verdict]]
    ) -> None:
        """Ask those plugins that may be asked for no reason; name the others."""
        if not asked:
            return
        before = self.fate
        objection = (await ask(self._plugins)).reply
        names = tuple(
            f"{each.name} {'was asked' if each.plugin.dry else 'would be asked'}" for each in asked
        )
        question = f"{_PLUGINS}{hook}"
        if objection is not None:
            self._refuse(question, "one of them objects", objection, names)
            return
        known = all(each.plugin.dry for each in asked)
        answer = "none objects" if known else "none objects of those that may be asked"
        if (fate := self.fate) is not before and fate is not None:
            answer = f"{fate.plugin} lets it in, and {told(fate)}"
        step = Step(question=question, answer=answer, good=True if known else None, details=names)
        self.steps.append(step)

    @property
    def _message(self) -> Transaction:
        """The message, once it has a sender."""
        if self._transaction is None:
            asked = self._asked
            self._transaction = Transaction(
                session=self._session,
                id=ID,
                sender=asked.sender,
                params=MailParams(size=asked.size or None),
            )
        return self._transaction

    def _refuse(
        self, question: str, answer: str, reply: Reply, details: tuple[str, ...] = ()
    ) -> None:
        self.steps.append(
            Step(question=question, answer=answer, good=False, reply=str(reply), details=details)
        )


def told(doomed: Doomed) -> str:
    """What a plugin does with a message that it lets in."""
    match doomed.fate:
        case Quarantine(reason=reason):
            return f"holds it: {reason}"
        case Discard(note=note):
            return f"gives it to nobody: {note}"


def _led(event: Rcpt, found: Sequence[Addressee], way: Sequence[str], *, ours: bool) -> Step:
    """Whom a recipient leads to, and by which way."""
    details = shortened(way)
    if all(each.original is None for each in found):
        (one,) = found
        answer = f"{one.address} is a mailbox here" if ours else f"{one.address} is passed on"
    else:
        many = counted(len(found), "address", "addresses")
        answer = f"{event.path} leads to {many}"
        details = (*shortened([str(each.address) for each in found]), *details)
    return Step(
        question="recipient",
        answer=answer,
        good=True,
        reply=str(replies.RECIPIENT_OK),
        details=details,
    )


def shortened(lines: Sequence[str]) -> tuple[str, ...]:
    """The first of many lines."""
    more = [f"and {len(lines) - NAMED} more"] if len(lines) > NAMED else []
    return (*lines[:NAMED], *more)
