"""Does with mail that is not of its author's domain what that domain wants (RFC 7489)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import trio
from msgspec import field
from msgspec.structs import replace
from typing_extensions import override

from elemta.config import Table
from elemta.mailauth import (
    Dmarc,
    Wish,
    applied,
    check_dmarc,
    load_suffixes,
    vouched_by,
)
from elemta.message import AuthorError, author_domains, hidden_author
from elemta.plugins import (
    CONTINUE,
    Continue,
    Defer,
    PluginWith,
    Quarantine,
    Reject,
    Transaction,
    Verdict,
)
from elemta.plugins.built_in.arc import arc_of
from elemta.plugins.built_in.dkim import dkim_of
from elemta.plugins.built_in.spf import spf_of
from elemta.plugins.built_in.verifying import is_stranger
from elemta.protocol import domain_to_ascii

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.plugins import Content

#: Seconds that all of it may take where no other plugin has asked before: less than a plugin has.
_SECONDS: Final = 25.0


class Settings(Table, frozen=True):
    """The ``settings`` of ``dmarc``."""

    #: Look, and say what would have been done, but do nothing.
    report_only: bool = False
    #: What is done with mail of a domain, and of those below it, that fails; whatever it says.
    overrides: dict[str, Wish] = field(default_factory=dict[str, Wish])
    #: Domains of those whose word is taken, if they seal (ARC) that a message passed with them.
    trusted_arc_sealers: tuple[str, ...] = ()
    #: What is done while the DNS cannot say whether mail fails that would then be refused.
    temperror: Literal["defer", "continue"] = "defer"
    #: What is done with mail that has not one From field, or of which nobody can say whose it is.
    malformed: Literal["reject", "quarantine", "continue"] = "reject"

    def __post_init__(self) -> None:
        for name in (*self.overrides, *self.trusted_arc_sealers):
            try:
                _plain(name)
            except ValueError:
                raise ValueError(f"expected a domain, not {name!r}") from None


class DmarcPlugin(PluginWith[Settings]):
    """Does with mail that is not of its author's domain what that domain wants (RFC 7489)."""

    name = "dmarc"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._local: dict[str, Wish] = {
            _plain(name): wish for name, wish in settings.overrides.items()
        }
        self._sealers = frozenset(_plain(name) for name in settings.trusted_arc_sealers)

    @override
    async def start(self) -> None:
        await self.tools.in_thread(load_suffixes)

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        if not is_stranger(transaction.session):
            return CONTINUE
        found, verdict = await self._judge(transaction, content)
        transaction.results.add(found, self.tools.name)
        self.tools.meters.authentication["dmarc", found.result] += 1
        return verdict

    async def _judge(self, transaction: Transaction, content: Content) -> tuple[Dmarc, Verdict]:
        authors = content.header.named(b"from")
        try:
            domains = author_domains(authors)
        except AuthorError as error:
            return self._without_author(str(error))
        unclear = "several From fields" if len(authors) > 1 else hidden_author(content.header)
        if unclear:
            return self._without_author(unclear)
        found = Dmarc("temperror", domains[0], "unknown", reason=f"no answer in {_SECONDS:g} s")
        with trio.move_on_after(_SECONDS):
            found = await self._checked(domains, transaction, content)
        match found.done:
            case "reject":
                text = f"the DMARC policy of {found.domain} does not let you send this message"
                return found, Reject((7, 1), text, str(found))
            case "quarantine":
                return found, Quarantine(f"the DMARC policy of {found.domain}", note=str(found))
            case "none":
                return found, Continue(note=str(found))
            case "":
                return self._undone(found)

    async def _checked(
        self, domains: Sequence[str], transaction: Transaction, content: Content
    ) -> Dmarc:
        """What the authors' policies make of it, and what is done about it."""
        spf = await spf_of(transaction, self.tools)
        signatures = await dkim_of(transaction, content, self.tools)
        found = await check_dmarc(
            domains, spf, signatures, resolver=self.tools.resolver, local=self._local
        )
        if found.result != "fail" or found.wish == "unknown":
            return found
        done = applied(found.wish, found.percent, self.tools.random())
        if done != "none" and self._sealers:
            chain = await arc_of(transaction, content, self.tools)
            sealer = vouched_by(found.domain, chain, self._sealers)
            if sealer:
                return replace(found, done="none", reason=f"it passed at {sealer}")
        if done != "none" and self.settings.report_only:
            return replace(found, done="none", reason="report only")
        return replace(found, done=done)

    def _undone(self, found: Dmarc) -> tuple[Dmarc, Verdict]:
        """What did not fail: only what might yet fail is put off."""
        if (
            found.result != "temperror"
            or found.wish == "none"
            or self.settings.temperror == "continue"
        ):
            return found, CONTINUE
        if self.settings.report_only:
            return replace(found, reason=f"{found.reason}, report only"), CONTINUE
        return found, Defer((4, 3), "the author's domain cannot be asked now", str(found))

    def _without_author(self, reason: str) -> tuple[Dmarc, Verdict]:
        found = Dmarc("permerror", reason=reason)
        if self.settings.report_only:
            return found, CONTINUE
        match self.settings.malformed:
            case "reject":
                return found, Reject(
                    (6, 0), "a message needs one From field, which says whose it is", reason
                )
            case "quarantine":
                return found, Quarantine(f"malformed: {reason}")
            case "continue":
                return found, CONTINUE


def _plain(domain: str) -> str:
    return domain_to_ascii(domain.removesuffix("."))
