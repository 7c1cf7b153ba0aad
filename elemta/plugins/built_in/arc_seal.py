"""Seals what is passed on: what we have found out about it, for those who trust us (RFC 8617)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from msgspec import Meta
from typing_extensions import override

from elemta.config import ConfigError, Mistake, check
from elemta.mailauth import SealError, seal
from elemta.plugins import (
    CONTINUE,
    AddHeader,
    Content,
    Transaction,
    Verdict,
)
from elemta.plugins.built_in.arc import Settings as ArcSettings
from elemta.plugins.built_in.arc import arc_of
from elemta.plugins.built_in.authentication_results import stated
from elemta.plugins.built_in.dkim_sign import measured
from elemta.plugins.built_in.signing_keys import KeyEntry, Keys, WithKeys
from elemta.plugins.built_in.verifying import Sized, is_stranger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.plugins import Transaction


class Settings(Sized, frozen=True, kw_only=True):
    """The ``settings`` of ``arc-seal``."""

    #: Whose seal it is.
    domain: str
    #: By which others find its key, as for ``dkim-sign``.
    selector: str
    #: The file of the key: RSA, as others verify no other seals.
    key: Path
    #: Also what is relayed (``relay.domains``), not only what an address of ours leads on.
    relayed: bool = False
    #: Who says what was found out; empty: the name of this server.
    authserv_id: Annotated[str, Meta(max_length=255, pattern=r"^[!#-'*+.0-9A-Z^-~-]*\Z")] = ""
    #: Others than its owner may read the file of the key, too.
    insecure_keys: bool = False


class ArcSeal(WithKeys[Settings]):
    """Seals what is passed on: what we have found out about it, for those who trust us.

    Args:
        settings: its.
        keys: the one.
    """

    name = "arc-seal"

    def __init__(self, settings: Settings, keys: Keys) -> None:
        super().__init__(settings, keys)
        (self._signer,) = keys.signers

    @override
    @classmethod
    def configured(cls, settings: object, where: str) -> Self:
        found = check(settings, Settings, where)
        try:
            entry = KeyEntry(found.domain, found.selector, found.key)
        except ValueError as error:
            raise ConfigError(Mistake(where, str(error))) from None
        keys = Keys([entry], where, insecure=found.insecure_keys, alone=True)
        if keys.signers[0].key.kind != "rsa":
            problem = "an Ed25519 key: others verify seals of RSA alone"
            raise ConfigError(Mistake(f"{where}.key", problem))
        return cls(found, keys)

    @override
    async def on_inspect(self, transaction: Transaction, content: Content) -> Verdict:
        if is_stranger(transaction.session):
            await arc_of(transaction, content, self.tools, ArcSettings(size=self.settings.size))
        return CONTINUE

    @override
    async def on_sign(
        self, transaction: Transaction | None, content: Content
    ) -> Sequence[AddHeader]:
        if transaction is None or not self._passes_on(transaction):
            return ()
        # Verified as it came, before anybody has changed it.
        found = await arc_of(transaction, content, self.tools)
        if found.result == "temperror" or not found.looked:
            why = "temperror" if found.looked else "unverified"
            self.tools.meters.seals[why] += 1
            return ()
        chain = "fail" if found.result == "permerror" else found.result
        try:
            fields = seal(
                content.header.header,
                await measured(content),
                self._signer,
                chain=chain,
                stated=stated(transaction, self.settings.authserv_id or self.tools.hostname),
                now=self.tools.clock(),
            )
        except SealError as error:
            self.tools.meters.seals[error.why] += 1
            return ()
        self.tools.meters.seals[chain] += 1
        return [AddHeader(name, value, verbatim=True) for name, value in reversed(fields)]

    @override
    def foresee_signing(self, transaction: Transaction, author: str) -> str:
        if self._passes_on(transaction):
            return f"would seal by {self._signer.record}"
        return "would not seal: it is not mail of others that is passed on"

    def _passes_on(self, transaction: Transaction) -> bool:
        """Whether it goes to somebody elsewhere, and is not by one of our own people."""
        return is_stranger(transaction.session) and any(
            (self.settings.relayed or each.original is not None)
            and not self.tools.ours(each.address.domain.lower())
            for each in transaction.addressees.values()
        )
