import re

from msgspec import Struct
from typing_extensions import override

from elemta.config import Table
from elemta.net.dns import Kind, NoRecordsError, NoSuchDomainError
from elemta.plugins import CONTINUE, Content, PluginWith, Reject, Transaction, Verdict

_LINK = re.compile(rb"https?://([a-z0-9.-]{4,253})", re.IGNORECASE)


class Settings(Table, frozen=True):
    #: A list of domains in the DNS.
    zone: str
    #: So many links of a message are looked up.
    most: int = 10


class Linked(Struct, frozen=True):
    """A message has a link to a name that is listed."""

    name: str
    zone: str

    @override
    def __str__(self) -> str:
        return f"{self.name} is listed by {self.zone}"


class LinkedNames(PluginWith[Settings]):
    """Looks up where links of a message lead, and refuses those to bad places."""

    name = "linked-names"

    @override
    async def on_inspect(self, transaction: Transaction, content: Content) -> Verdict:
        zone, octets = self.settings.zone, await content.read()
        names = {each.decode().lower().strip(".") for each in _LINK.findall(octets)}
        for name in sorted(names)[: self.settings.most]:
            try:
                await self.tools.resolver.records(f"{name}.{zone}", Kind.A)
            except (NoSuchDomainError, NoRecordsError):
                continue
            transaction.results.add(Linked(name, zone), self.tools.name)
        return CONTINUE

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        linked = transaction.results.first(Linked)
        if linked is None or transaction.exempt:
            return CONTINUE
        return Reject((7, 1), "it has a link that is not safe", note=str(linked))
