"""Does with mail that is not of its author's domain what that domain wants (RFC 7489)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import field
from msgspec.structs import replace
from typing_extensions import override

from elemta.config import Table
from elemta.mailauth import (
    AuthorError,
    Dmarc,
    Wish,
    applied,
    author_domains,
    check_dmarc,
    load_suffixes,
    vouched_by,
)
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

if TYPE_CHECKING:
    from elemta.plugins import Content


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
        session = transaction.session
        if session.trusted or not session.address:
            return CONTINUE  # our own people are known by other means
        found, verdict = await self._judge(transaction, content)
        transaction.results.add(found, self.tools.name)
        self.tools.meters.authentication["dmarc", found.result] += 1
        return verdict

    async def _judge(self, transaction: Transaction, content: Content) -> tuple[Dmarc, Verdict]:
        authors = [value for name, value in content.header.fields if name == b"from"]
        try:
            if len(authors) > 1:
                raise AuthorError("several From fields")  # noqa: TRY301 # handled like the others
            domains = author_domains(authors)
        except AuthorError as error:
            return self._without_author(str(error))
        found = await check_dmarc(
            domains,
            await spf_of(transaction, self.tools),
            await dkim_of(transaction, content, self.tools),
            resolver=self.tools.resolver,
            local=self._local,
        )
        match found.result:
            case "fail":
                return await self._failed(found, transaction, content)
            case "temperror" if found.wish != "none" and self.settings.temperror == "defer":
                if self.settings.report_only:
                    return replace(found, reason=f"{found.reason}, report only"), CONTINUE
                return found, Defer((4, 3), "the author's domain cannot be asked now", str(found))
            case _:
                return found, CONTINUE

    async def _failed(
        self, found: Dmarc, transaction: Transaction, content: Content
    ) -> tuple[Dmarc, Verdict]:
        assert found.wish != "unknown", "what is unknown cannot fail"
        done = applied(found.wish, found.percent, self.tools.random())
        reason = ""
        if done != "none" and self._sealers:
            chain = await arc_of(transaction, content, self.tools)
            sealer = vouched_by(found.domain, chain, self._sealers)
            if sealer:
                done, reason = "none", f"it passed at {sealer}"
        if done != "none" and self.settings.report_only:
            done, reason = "none", "report only"
        found = replace(found, done=done, reason=reason)
        match done:
            case "reject":
                text = f"the DMARC policy of {found.domain} does not let you send this message"
                return found, Reject((7, 1), text, str(found))
            case "quarantine":
                return found, Quarantine(f"the DMARC policy of {found.domain}", note=str(found))
            case "none":
                return found, Continue(note=str(found))

    def _without_author(self, reason: str) -> tuple[Dmarc, Verdict]:
        found = Dmarc("permerror", reason=reason)
        if self.settings.report_only:
            return found, CONTINUE
        match self.settings.malformed:
            case "reject":
                return found, Reject((6, 0), "a message needs one From field", reason)
            case "quarantine":
                return found, Quarantine(f"malformed: {reason}")
            case "continue":
                return found, CONTINUE


def _plain(domain: str) -> str:
    return domain.lower().removesuffix(".")
