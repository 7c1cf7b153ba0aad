"""How the configuration writes where mail goes."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct
from typing_extensions import override

from elemta.config.addresses import SMTP_PORT, HostPort, host_port
from elemta.config.masking import without_userinfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LMTP_PORT: Final = 24
#: Submission in TLS from the first octet (RFC 8314 §7.3).
SMTPS_PORT: Final = 465

#: What an argument of a `Pipe` may stand in for.
PLACEHOLDERS: Final = ("sender", "recipient", "local_part", "domain", "id")
#: Octets of the path of a Unix socket: what `sockaddr_un` has room for.
MAX_SOCKET_PATH: Final = 107

#: In a map, the domain's own mail exchangers.
OF_MX: Final = "mx"

#: What is wrong with targets that do not stand together.
ALONE: Final = (
    "expected several smtp:// and smtps://, or several lmtp://: any other target stands alone"
)

#: What is spoken to hosts, by how targets begin, and on which port if none is given.
_PROTOCOLS: Final = {"smtp": "smtp", "smtps": "smtp", "lmtp": "lmtp"}
_PORTS: Final = {"smtp": SMTP_PORT, "smtps": SMTPS_PORT, "lmtp": LMTP_PORT}

_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")


class TargetError(ValueError):
    """One of several targets is wrong.

    Attributes:
        index: which, from 0.
    """

    def __init__(self, index: int, text: str) -> None:
        super().__init__(text)
        self.index = index


class Maildir(Struct, frozen=True):
    """Delivery into a Maildir under the data directory."""

    @override
    def __str__(self) -> str:
        """As the configuration writes it."""
        return "maildir"


class Discard(Struct, frozen=True):
    """Delivery to nobody: the mail is taken, and gone."""

    @override
    def __str__(self) -> str:
        """As the configuration writes it."""
        return "discard"


class Smarthost(Struct, frozen=True):
    """Delivery by SMTP to a host that is named, without asking for its MX.

    Attributes:
        implicit: in TLS from the first octet, not by STARTTLS (RFC 8314 §3).
    """

    host: str
    port: int
    implicit: bool = False

    @override
    def __str__(self) -> str:
        """As the configuration writes it."""
        return f"smtp{'s' if self.implicit else ''}://{HostPort(self.host, self.port)}"


class LmtpHost(Struct, frozen=True):
    """Delivery by LMTP (RFC 2033) over TCP to a host that is named."""

    host: str
    port: int

    @override
    def __str__(self) -> str:
        """As the configuration writes it."""
        return f"lmtp://{HostPort(self.host, self.port)}"


class LmtpSocket(Struct, frozen=True):
    """Delivery by LMTP over a Unix socket of this machine.

    Attributes:
        path: absolute.
    """

    path: str

    @override
    def __str__(self) -> str:
        """As the configuration writes it."""
        return f"lmtp://{self.path}"


class Pipe(Struct, frozen=True):
    """Delivery to a program: one run for each recipient.

    Attributes:
        command: the program, an absolute path, and its arguments, with placeholders in braces.
    """

    command: tuple[str, ...]

    def arguments(self, values: Mapping[str, str]) -> list[str]:
        """The program and its arguments, each placeholder replaced by its value.

        Args:
            values: one for each of `PLACEHOLDERS`.

        Raises:
            ValueError: an argument that begins with a placeholder would become an option.
        """
        words: list[str] = []
        for word in self.command:
            whole = _PLACEHOLDER.sub(lambda found: values[found[1]], word)
            if whole.startswith("-") and not word.startswith("-"):
                raise ValueError(f"{whole!r} would be taken for an option")
            words.append(whole)
        return words

    @override
    def __str__(self) -> str:
        """As the configuration writes it."""
        return f"pipe:{shlex.join(self.command)}"


class Storage(Struct, frozen=True):
    """Delivery into the mailbox back end that a plugin is.

    Attributes:
        plugin: what the configuration calls it.
    """

    plugin: str

    @override
    def __str__(self) -> str:
        """As the configuration writes it."""
        return f"plugin:{self.plugin}"


#: Where a route or a domain leads.
Target: TypeAlias = Maildir | Smarthost | LmtpHost | LmtpSocket | Pipe | Storage | Discard


def target(text: str) -> Target:
    """Read where mail goes; docs/delivery.md has the forms.

    Raises:
        ValueError: it is none of these.
    """
    if text == "maildir":
        return Maildir()
    if text == "discard":
        return Discard()
    scheme, mark, rest = text.partition("://")
    if scheme == "lmtp" and rest.startswith("/"):
        return LmtpSocket(_socket_path(rest))
    if mark and scheme in _PORTS:
        found = host_port(rest.removesuffix("/"), _PORTS[scheme])
        if found.host and found.port:
            if scheme == "lmtp":
                return LmtpHost(found.host, found.port)
            return Smarthost(found.host, found.port, scheme == "smtps")
    if text.startswith("pipe:"):
        return Pipe(_command(text.removeprefix("pipe:")))
    if text.startswith("plugin:") and (name := text.removeprefix("plugin:").strip()):
        return Storage(name)
    raise ValueError(
        "expected maildir, smtp://HOST:PORT, smtps://HOST:PORT, lmtp://HOST:PORT, "
        "lmtp:///path/to/socket, pipe:/path/to/program ARGUMENT…, plugin:NAME or discard, "
        f"not {without_userinfo(text)!r}"
    )


def strangers(targets: Sequence[str]) -> Iterator[int]:
    """Which of these may not stand beside the first: hosts of one protocol alone may."""
    for index, text in enumerate(targets):
        kind = _PROTOCOLS.get(text.partition("://")[0])
        first = _PROTOCOLS.get(targets[0].partition("://")[0])
        if index and (kind is None or kind != first):
            yield index


def chosen_targets(texts: Sequence[str], *, discard: bool = False) -> tuple[Target, ...]:
    """Read where one recipient's mail is to go, as an operator or a plugin says.

    That is to hosts, or into its Maildir. Which programs run is for the configuration alone to say,
    and who wants mail to be gone deletes it.

    Args:
        texts: one, or several hosts.
        discard: a plugin's verdict, which may be that nobody gets it.

    Raises:
        TargetError: one of them is wrong.
    """
    found: list[Target] = []
    for index, text in enumerate(texts):
        try:
            found.append(target(text))
        except ValueError as error:
            raise TargetError(index, str(error)) from None
        if isinstance(found[-1], (Pipe, Storage)) or (
            isinstance(found[-1], Discard) and not discard
        ):
            raise TargetError(
                index, "expected smtp://, smtps://, lmtp:// or maildir: no other can be chosen"
            )
    for index in strangers(texts):
        raise TargetError(index, ALONE)
    return tuple(found)


def _socket_path(path: str) -> str:
    if len(path.encode()) > MAX_SOCKET_PATH or "\0" in path:
        raise ValueError(f"expected the path of a socket, at most {MAX_SOCKET_PATH} octets")
    return path


def _command(text: str) -> tuple[str, ...]:
    """Words as a shell cuts them; nothing else of a shell is understood."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{error}: {text!r}") from None
    if not words or not words[0].startswith("/"):
        raise ValueError(f"expected pipe:/path/to/program ARGUMENT…, not {text!r}")
    for place, word in enumerate(words):
        for name in _PLACEHOLDER.findall(word):
            if name not in PLACEHOLDERS or place == 0:
                known = ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)
                raise ValueError(f"expected one of {known} in an argument, not {{{name}}}")
    return tuple(words)
