"""Signs mail of our own domains (RFC 6376, RFC 8463), as it will be sent."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Final, Self

import trio
from msgspec import Meta, Struct
from typing_extensions import override

from elemta.config import Table, check
from elemta.mailauth import (
    OVERSIGNED,
    SIGNED,
    Measuring,
    Selection,
    Signing,
)
from elemta.message import AuthorError, author_domains, hidden_author
from elemta.plugins import AddHeader, Content, Transaction
from elemta.plugins.built_in.signing_keys import KeyEntry, Keys, WithKeys
from elemta.units import Seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.mailauth import Signer

#: Octets that are hashed before others get their turn: a millisecond or less.
_SLICE: Final = 64 * 1024
_NAME: Final = "DKIM-Signature"
#: Fields that every server on the way adds or changes, so that no signature would outlive them
#: (RFC 6376 §5.4.1); Bcc goes on the way, and the signature cannot sign itself.
_CHANGING: Final = {"return-path", "received", "bcc", "comments", "keywords", "dkim-signature"}


class Settings(Table, frozen=True):
    """The ``settings`` of ``dkim-sign``."""

    #: What signs. Several keys of one domain sign all at once.
    keys: Annotated[tuple[KeyEntry, ...], Meta(min_length=1)]
    #: Mail of a domain without keys is signed by those of the nearest domain above it.
    subdomains: bool = False
    #: Fields that are signed, as often as they are there.
    headers: tuple[Annotated[str, Meta(pattern=r"^[!-9;-~]{1,77}\Z")], ...] = SIGNED
    #: Those of them that are signed once more than they are there: nobody can add one.
    oversigned: tuple[Annotated[str, Meta(pattern=r"^[!-9;-~]{1,77}\Z")], ...] = OVERSIGNED
    #: For how long signatures are good; 0: for ever.
    expires: Seconds = Seconds(0)
    #: Others than their owner may read the files of the keys, too.
    insecure_keys: bool = False

    def __post_init__(self) -> None:
        names = [each.lower() for each in self.headers]
        if "from" not in names:
            raise ValueError("`headers` must have From (RFC 6376 §5.4)")
        for each in self.headers:
            if each.lower() in _CHANGING:
                raise ValueError(f"{each} must not be signed: others change it on the way")
        if unsigned := [each for each in self.oversigned if each.lower() not in names]:
            raise ValueError(f"`oversigned` has {unsigned[0]}, which `headers` has not")
        if 0 < self.expires < 3600:
            raise ValueError("`expires` must be 1 h at least: mail may wait on its way")


class Unsigned(Struct, frozen=True):
    """Why a message of our own people goes without a signature."""

    why: str

    @override
    def __str__(self) -> str:
        """For the timeline."""
        return f"not signed: {self.why}"


class DkimSign(WithKeys[Settings]):
    """Signs mail of our own domains, as it will be sent (RFC 6376).

    What somebody sends is signed whom we let send to any domain, as he has logged in or stands in
    ``relay.networks``; and reports of our own. Nobody else's word is vouched for, whatever his From
    says.

    Args:
        settings: its.
        keys: read already.
    """

    name = "dkim-sign"

    def __init__(self, settings: Settings, keys: Keys) -> None:
        super().__init__(settings, keys)
        self._selection = Selection(settings.headers, settings.oversigned)

    @override
    @classmethod
    def configured(cls, settings: object, where: str) -> Self:
        found = check(settings, Settings, where)
        return cls(found, Keys(found.keys, where, insecure=found.insecure_keys))

    @property
    def signers(self) -> tuple[Signer, ...]:
        """All keys."""
        return self._keys.signers

    @override
    async def on_sign(
        self, transaction: Transaction | None, content: Content
    ) -> Sequence[AddHeader]:
        if transaction is not None and not transaction.session.trusted:
            return ()
        signers, result, why = self._signers(content, report=transaction is None)
        self.tools.meters.signatures[result] += 1
        if not signers:
            if transaction is not None:
                transaction.results.add(Unsigned(why), self.tools.name)
            return ()
        signing = Signing(content.header.header, self._selection)
        body = await measured(content)
        now = self.tools.clock()
        expires = now + self.settings.expires if self.settings.expires else None

        def fields() -> list[AddHeader]:
            return [
                AddHeader(_NAME, signing.field(each, body, now=now, expires=expires), verbatim=True)
                for each in reversed(signers)  # the first one ends up above
            ]

        # Not the usual ones: the way to a thread and back takes 0.2 ms, half of what they do.
        if any(each.key.slow for each in signers):
            return await self.tools.briefly(fields)
        return fields()

    @override
    def foresee_signing(self, transaction: Transaction, author: str) -> str:
        if not transaction.session.trusted:
            return "would not sign: the client is none that we vouch for"
        signers = self._keys.of(author, above=self.settings.subdomains)
        if not signers:
            return f"would not sign: there is no key for {author or 'the null sender'}"
        return "would sign by " + " and ".join(
            f"{each.record} ({each.key.kind}, {each.key.bits} bits)" for each in signers
        )

    def _signers(self, content: Content, *, report: bool) -> tuple[tuple[Signer, ...], str, str]:
        """Who signs, how that is counted, and why nobody does.

        Our own reports are of a host: where that has no key, a domain above it vouches for it.
        """
        authors = content.header.named(b"from")
        unclear = f"{len(authors)} From fields" if len(authors) > 1 else ""
        if unclear := unclear or hidden_author(content.header):
            return (), "author", unclear
        try:
            domains = author_domains(authors)
        except AuthorError as error:
            return (), "author", str(error)
        above = report or self.settings.subdomains
        # With several authors the first who is ours vouches for the message.
        for domain in domains:
            if signers := self._keys.of(domain, above=above):
                return signers, "signed", ""
        return (), "no_key", f"there is no key for {' or '.join(domains)}"


async def measured(content: Content) -> bytes:
    """The digest of a message's body in its relaxed form; it need not be in memory."""
    before = len(content.header.header) + len(b"\r\n")
    measuring = Measuring(b"relaxed")
    if content.size <= _SLICE:  # as nearly always: then it is in memory, and one piece
        measuring.feed((await content.read())[before:])
        return measuring.measure().digest
    async with aclosing(content.pieces()) as pieces:
        async for piece in pieces:
            for start in range(before, len(piece), _SLICE):
                if start > before:
                    await trio.lowlevel.checkpoint()
                measuring.feed(piece[start : start + _SLICE])
            before = max(0, before - len(piece))
    return measuring.measure().digest
