"""DNS as tests write it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elemta.net.dns import MX, DnsTemporaryError, NoRecordsError, NoSuchDomainError

if TYPE_CHECKING:
    from collections.abc import Callable


class Zone:
    """A Resolver (see `elemta.net.dns`) that knows what it was told, and counts its questions.

    `mx` and `hosts` map names to what they have; a name that is in neither does not exist.
    `failing` names get no answer: SERVFAIL.
    """

    def __init__(self) -> None:
        self.mx_records: dict[str, list[tuple[int, str]]] = {}
        self.hosts: dict[str, list[str]] = {}
        self.failing: set[str] = set()
        self.asked: list[str] = []
        self.on_question: Callable[[], None] = lambda: None

    async def mx(self, domain: str) -> list[MX]:
        self._ask(domain)
        if records := self.mx_records.get(domain):
            return [MX(preference, host) for preference, host in records]
        raise self._nothing(domain)

    async def addresses(self, host: str) -> list[str]:
        self._ask(host)
        if addresses := self.hosts.get(host):
            return list(addresses)
        raise self._nothing(host)

    def _ask(self, name: str) -> None:
        self.asked.append(name)
        self.on_question()
        if name in self.failing:
            raise DnsTemporaryError(f"SERVFAIL for {name}")

    def _nothing(self, name: str) -> NoRecordsError | NoSuchDomainError:
        if name in self.mx_records or name in self.hosts:
            return NoRecordsError(name)
        return NoSuchDomainError(name)
