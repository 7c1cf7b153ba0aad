"""Keys that sign, as settings name them.

They are read when the settings are: so a mistake is told with its place, before anything runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from typing_extensions import override

from elemta.config import ConfigError, Mistake, Table
from elemta.log import logger
from elemta.mailauth import (
    GOOD_BITS,
    KeyFileError,
    Signer,
    is_selector,
    parse_private_key,
    read_key_file,
)
from elemta.plugins import PluginWith
from elemta.protocol import domain_to_ascii

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logger(__name__)

S = TypeVar("S", bound=Table)


class KeyEntry(Table, frozen=True):
    """A key, and where others find what belongs to it."""

    #: Whose it is.
    domain: str
    #: By which others find it: its record is that of ``SELECTOR._domainkey.DOMAIN``.
    selector: str
    #: The file of the key.
    key: Path

    def __post_init__(self) -> None:
        try:
            domain_to_ascii(self.domain.removesuffix("."))
        except ValueError as error:
            raise ValueError(f"expected a domain, not {self.domain!r}: {error}") from None
        if not is_selector(self.selector):
            problem = f"expected a selector of letters, digits and dashes, not {self.selector!r}"
            raise ValueError(problem)
        if not self.key.is_absolute():
            raise ValueError(f"expected a whole path, as in /etc/elemta/dkim/{self.key}")


class Keys:
    """Keys that sign, by domain.

    Args:
        entries: of the settings.
        insecure: others than their owner may read the files, too.
        where: the place of the settings in the file.
        alone: the settings are the one entry; else entries are those of ``keys``.

    Raises:
        ConfigError: a file is no key that could sign, or there are two of one name.
    """

    def __init__(
        self,
        entries: Sequence[KeyEntry],
        where: str,
        *,
        insecure: bool = False,
        alone: bool = False,
    ) -> None:
        self._signers: dict[str, tuple[Signer, ...]] = {}
        self._insecure = insecure
        self._files: dict[Path, bytes] = {}
        mistakes: list[Mistake] = []
        names: set[str] = set()
        for place, entry in enumerate(entries):
            at = where if alone else f"{where}.keys[{place}]"
            try:
                self._files[entry.key] = read_key_file(entry.key, insecure=insecure)
                key = parse_private_key(self._files[entry.key])
            except KeyFileError as error:
                mistakes.append(Mistake(f"{at}.key", f"{entry.key}: {error}"))
                continue
            domain = domain_to_ascii(entry.domain.removesuffix("."))
            signer = Signer(domain, entry.selector.lower(), key)
            if signer.record in names:
                problem = f"there is another key of the name {signer.record}"
                mistakes.append(Mistake(f"{at}.selector", problem))
            names.add(signer.record)
            self._signers[domain] = (*self._signers.get(domain, ()), signer)
        if mistakes:
            raise ConfigError(*mistakes)

    @property
    def signers(self) -> tuple[Signer, ...]:
        """All of them."""
        return tuple(each for signers in self._signers.values() for each in signers)

    def of(self, domain: str, *, above: bool) -> tuple[Signer, ...]:
        """The keys of a domain.

        Args:
            domain: A-labels in lower case.
            above: else those of the nearest domain above it.
        """
        found = self._signers.get(domain, ())
        while not found and above and "." in domain:
            domain = domain.partition(".")[2]
            found = self._signers.get(domain, ())
        return found

    def warn(self, plugin: str) -> None:
        """Say in the log which keys should be replaced."""
        for each in self.signers:
            if each.key.kind == "rsa" and each.key.bits < GOOD_BITS:
                log.warning("dkim.weak_key", plugin=plugin, key=each.record, bits=each.key.bits)

    def outdated(self) -> bool:
        """Whether the files have something else by now."""
        for path, octets in self._files.items():
            try:
                if read_key_file(path, insecure=self._insecure) != octets:
                    return True
            except KeyFileError:
                return True
        return False


class WithKeys(PluginWith[S]):
    """A plugin that has keys: a reload makes it anew when one of their files is another.

    Args:
        settings: its.
        keys: those that they name, read already.
    """

    def __init__(self, settings: S, keys: Keys) -> None:
        super().__init__(settings)
        self._keys = keys

    @override
    def outdated(self) -> bool:
        return self._keys.outdated()

    @override
    async def start(self) -> None:
        self._keys.warn(self.tools.name)
