"""Makes keys that sign, and shows and checks their records; the server need not run."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import click
import trio

from elemta.cli import codes
from elemta.cli.options import misconfigured
from elemta.cli.terminal import say, say_json
from elemta.config import ConfigError
from elemta.files import like_folder, make_file
from elemta.mailauth import (
    GOOD_BITS,
    KeyFileError,
    Published,
    Signer,
    check_published,
    generate_key,
    is_selector,
    key_record,
    read_private_key,
    zone_entry,
)
from elemta.net.dns import DnsResolver
from elemta.plugins.built_in.dkim_sign import DkimSign
from elemta.protocol import domain_to_ascii

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from elemta.config import Config
    from elemta.control.plain import Value

#: What stands first in the selector of a key, by its kind.
_SHORT: Final = {"rsa": "rsa", "ed25519": "ed"}


def generate(
    domain: str, selector: str | None, kind: str, bits: int, directory: Path, *, as_json: bool
) -> int:
    """Make a key; returns the exit code.

    Args:
        domain: whose.
        selector: None: of its kind and the month.
        kind: ``rsa`` or ``ed25519``.
        bits: of an RSA key.
        directory: where its file is written.
        as_json: answer for programs.
    """
    domain = _domain(domain)
    selector = _selector(selector or f"{_SHORT[kind]}{time.strftime('%Y%m', time.gmtime())}")
    key = generate_key("ed25519" if kind == "ed25519" else "rsa", bits)
    path = directory / f"{domain}.{selector}.pem"
    try:
        _write(path, key.pem)
    except FileExistsError:
        say(f"elemta: {path} is there, and may sign: choose another selector", err=True)
        return codes.UNREADABLE
    except OSError as error:
        say(f"elemta: {path} cannot be written: {error.strerror}", err=True)
        return codes.FORBIDDEN if isinstance(error, PermissionError) else codes.UNREADABLE
    signer = Signer(domain, selector, key)
    if as_json:
        say_json({**_plain(signer), "file": str(path)})
        return 0
    _say_record(signer)
    say(f"The key is in {path}. For `keys` of dkim-sign:", err=True)
    say(f"  - {{domain: {domain}, selector: {selector}, key: {path.absolute()}}}", err=True)
    return 0


def record(
    config: Config, domain: str | None, path: Path | None, selector: str | None, *, as_json: bool
) -> int:
    """Print the records of keys; returns the exit code.

    Args:
        config: which keys there are.
        domain: of these alone.
        path: of the file of a key; None: of those of the configuration.
        selector: of these alone.
        as_json: answer for programs.
    """
    if path is None:
        found = _found(config, domain, selector)
    elif domain is None or selector is None:
        raise click.UsageError("--key needs DOMAIN and --selector: a file does not say whose it is")
    else:
        try:
            key = read_private_key(path, insecure=True)
        except KeyFileError as error:
            say(f"elemta: {path}: {error}", err=True)
            return codes.UNREADABLE
        found = [Signer(_domain(domain), _selector(selector), key)]
    if as_json:
        say_json([_plain(each) for each in found])
    for each in found if not as_json else ():
        _say_record(each)
    return 0 if found else _none(domain)


def check(config: Config, domain: str | None, *, as_json: bool) -> int:
    """Ask the DNS for the records of keys; returns the exit code.

    Args:
        config: which keys there are, and who is asked.
        domain: of these alone.
        as_json: answer for programs.
    """
    signers = _found(config, domain, None)
    try:
        resolver = DnsResolver(config.dns.nameservers, timeout=config.dns.timeout)
    except ValueError as error:
        say(f"elemta: {error}", err=True)
        return codes.TRY_LATER
    found = trio.run(_ask, signers, resolver)
    if as_json:
        say_json([_told(each) for each in found])
    for each in found if not as_json else ():
        say(f"{each.signer.record}  {_words(each)}")
    if not found:
        return _none(domain)
    results = {each.result for each in found}
    if results & {"missing", "wrong"}:
        return codes.NOT_FOUND
    return codes.TRY_LATER if "temperror" in results else 0


async def _ask(signers: Sequence[Signer], resolver: DnsResolver) -> list[Published]:
    found: dict[str, Published] = {}

    async def ask(signer: Signer) -> None:
        found[signer.record] = await check_published(signer, resolver=resolver)

    async with trio.open_nursery() as nursery:
        for each in signers:
            nursery.start_soon(ask, each)
    return [found[each.record] for each in signers]


def _say_record(signer: Signer) -> None:
    for line in zone_entry(signer.record, key_record(signer.key)).split("\n"):
        say(line)


def _words(published: Published) -> str:
    key = published.signer.key
    told = f"{key.kind}, {key.bits} bits: "
    told += "good" if published.result == "good" else f"{published.result}: {published.reason}"
    if published.testing:
        told += "; but only tried (t=y), so that some do not heed it"
    if key.kind == "rsa" and key.bits < GOOD_BITS:
        told += f"; fewer than {GOOD_BITS} bits are weak"
    return told


def _found(config: Config, domain: str | None, selector: str | None) -> list[Signer]:
    """The keys of the configuration; none twice."""
    found: dict[str, Signer] = {}
    try:
        for place, entry in enumerate(config.plugins):
            if entry.name == DkimSign.name:
                plugin = DkimSign.configured(entry.settings, f"plugins[{place}].settings")
                found |= {each.record: each for each in plugin.signers}
    except ConfigError as error:
        misconfigured(error)
    wanted = None if domain is None else _domain(domain)
    return [
        each
        for each in found.values()
        if wanted in (None, each.domain) and selector in (None, each.selector)
    ]


def _none(domain: str | None) -> int:
    whose = "" if domain is None else f" for {domain}"
    say(f"elemta: the configuration has no key{whose}", err=True)
    return codes.NOT_FOUND


def _domain(text: str) -> str:
    try:
        return domain_to_ascii(text.removesuffix("."))
    except ValueError as error:
        raise click.UsageError(f"expected a domain, not {text!r}: {error}") from None


def _selector(text: str) -> str:
    if not is_selector(text):
        raise click.UsageError(f"expected a selector of letters, digits and dashes, not {text!r}")
    return text.lower()


def _plain(signer: Signer) -> dict[str, Value]:
    key = signer.key
    text = key_record(key)
    return {
        "domain": signer.domain,
        "selector": signer.selector,
        "kind": key.kind,
        "bits": key.bits,
        "name": signer.record,
        "record": text,
    }


def _told(published: Published) -> dict[str, Value]:
    return {
        **_plain(published.signer),
        "result": published.result,
        "reason": published.reason,
        "testing": published.testing,
    }


def _write(path: Path, octets: bytes) -> None:
    """Write a file that only we may read, all of it or none.

    Raises:
        OSError: it cannot be written; `FileExistsError`: there is one.
    """
    with suppress(FileExistsError):  # what is there but no folder is told when it is opened
        path.parent.mkdir(mode=0o700, parents=True)
    make_file(path, octets, like_folder(path.parent))  # root makes it, and the server must read it
