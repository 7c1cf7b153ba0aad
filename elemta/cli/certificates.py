"""Looks at certificates: those in files, and those that servers show."""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import trio
from msgspec import Struct

from elemta.cli import codes
from elemta.cli.sending import Unavailable, own_name, reach
from elemta.cli.terminal import clock, say, say_json
from elemta.config import is_address
from elemta.net.certificates import (
    Certificate,
    CertificateError,
    described,
    described_as_sent,
    examine,
    misplaced,
)
from elemta.net.tls import TlsError, start_tls, unverified_client
from elemta.protocol import ClientConnection, Greeting, HelloAnswer, StartTlsAnswer, Wait

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elemta.config import Config, HostPort
    from elemta.control.plain import Value
    from elemta.net.tls import TlsTransport
    from elemta.net.transport import Transport
    from elemta.protocol import Answer

#: Seconds for all that a server is asked.
PATIENCE: Final = 30.0


class Pair(Struct, frozen=True):
    """A certificate and its key, and where the configuration names them."""

    place: str
    certificate: Path
    key: Path


class Seen(Struct, frozen=True):
    """What a server shows.

    Attributes:
        trusted: by this machine, for the name that it was asked for.
        problem: why it is not.
    """

    version: str
    cipher: str
    certificate: Certificate
    trusted: bool
    problem: str


def show(config: Config, *, as_json: bool) -> int:
    """Print what the certificates of the configuration are; returns the exit code."""
    found: list[tuple[Pair, Certificate]] = []
    code = 0
    for pair in _pairs(config):
        try:
            found.append((pair, described(pair.certificate)))
        except CertificateError as error:
            click.echo(f"{pair.place}: {error}", err=True)
            code = codes.UNREADABLE
    now = time.time()
    if as_json:
        say_json([{"place": pair.place, **_plain(each, now)} for pair, each in found])
        return code
    if not found and not code:
        say("the configuration names no certificates")
    for pair, each in found:
        say(f"{pair.place}: {each.file}")
        for line in _lines(each, now):
            say(line)
    return code


def check_own(config: Config, *, as_json: bool) -> int:
    """Print what is wrong with the certificates of the configuration; returns the exit code."""
    now = time.time()
    complaints = [
        (pair, complaint) for pair in _pairs(config) for complaint in _complaints(pair, now)
    ]
    pairs = [pair for pair in _pairs(config) if pair.place.startswith("tls.")]
    complaints += _unseen(pairs)
    if pairs and not _covered(config.hostname, pairs):
        complaints.append((pairs[0], f"none of them is for {config.hostname}, the hostname"))
    if as_json:
        say_json([{"place": pair.place, "problem": problem} for pair, problem in complaints])
    else:
        for pair, problem in complaints:
            say(f"{pair.place}: {problem}")
        if not complaints:
            number = len(_pairs(config))
            say(f"all is well with {number} of them" if number else "there are none")
    return codes.DAMAGED if complaints else 0


def check_server(place: HostPort, name: str, *, implicit: bool, as_json: bool) -> int:
    """Print what a server shows, and what is wrong with that; returns the exit code.

    Args:
        place: where it is.
        name: whom it is asked for.
        implicit: TLS comes first; else by STARTTLS.
        as_json: print it for programs.
    """
    try:
        seen = trio.run(_look, place, name, implicit)
    except Unavailable as error:
        click.echo(f"{place}: {error}", err=True)
        return codes.UNAVAILABLE
    found = [seen, *_others(place, name, seen, implicit=implicit)]
    now = time.time()
    problems = [problem for each in found for problem in _problems(each, now)]
    if as_json:
        told = _told(seen, now)
        told["others"] = [_told(each, now) for each in found[1:]]
        say_json(told)
    else:
        for each in found:
            say(f"{place}: {each.version} {each.cipher}")
            for line in _lines(each.certificate, now):
                say(line)
            say("  trusted    " + ("yes" if each.trusted else f"no: {each.problem}"))
            for problem in _problems(each, now)[not each.trusted :]:
                say(f"  problem    {problem}")
    return codes.DAMAGED if problems else 0


def _others(place: HostPort, name: str, seen: Seen, *, implicit: bool) -> Iterator[Seen]:
    """What the server shows to clients that can check another kind of key alone."""
    for kind in ("ECDSA", "RSA"):
        if kind != seen.certificate.kind:
            try:
                other = trio.run(_look, place, name, implicit, f"ECDHE-{kind}-AES128-GCM-SHA256")
            except Unavailable:  # as most servers have one
                continue
            if other.certificate.kind == kind:
                yield other


def _problems(seen: Seen, now: float) -> list[str]:
    problems = [] if seen.trusted else [f"not trusted by this machine: {seen.problem}"]
    if (complaint := seen.certificate.complaint(now)) is not None:
        problems.append(f"it {complaint}")
    return problems


def _told(seen: Seen, now: float) -> dict[str, Value]:
    told: dict[str, Value] = {
        "version": seen.version,
        "cipher": seen.cipher,
        "trusted": seen.trusted,
        "problems": [*_problems(seen, now)],
        **_plain(seen.certificate, now),
    }
    del told["file"], told["issuers"]
    return told


def _pairs(config: Config) -> list[Pair]:
    """All that the configuration names."""
    found = [
        Pair(f"tls.certificates[{index}]", each.certificate, each.key)
        for index, each in enumerate(config.tls.certificates)
    ]
    api = config.api
    if api is not None and api.certificate is not None and api.key is not None:
        found.append(Pair("api", api.certificate, api.key))
    return found


def _complaints(pair: Pair, now: float) -> Iterator[str]:
    try:
        found = examine(pair.certificate, pair.key)
        order = misplaced(pair.certificate)
    except CertificateError as error:
        yield str(error)
        return
    if order is not None:
        yield order
    yield from found.doubts(now)


def _unseen(pairs: list[Pair]) -> Iterator[tuple[Pair, str]]:
    """Those that no client is shown, as others come before them."""
    taken: dict[tuple[str, str], Pair] = {}
    for pair in pairs:
        try:
            found = described(pair.certificate)
        except CertificateError:  # that is complained of elsewhere
            continue
        before = [taken.get((name, found.kind)) for name in found.names]
        first = before[0] if before else None
        if first is not None and None not in before:
            why = f"{first.place} is for the same, and has the same kind of key"
            yield pair, f"nobody is shown it: {why}"
        for name in found.names:
            taken.setdefault((name, found.kind), pair)


def _covered(host: str, pairs: list[Pair]) -> bool:
    for pair in pairs:
        try:
            if described(pair.certificate).covers(host):
                return True
        except CertificateError:  # that is complained of elsewhere
            continue
    return False


def _plain(certificate: Certificate, now: float) -> dict[str, Value]:
    return {
        "file": str(certificate.file),
        "subject": certificate.subject,
        "names": [*certificate.names],
        "issuer": certificate.issuer,
        "not_before": certificate.begins,
        "not_after": certificate.ends,
        "days_left": certificate.days(now),
        "key": certificate.key,
        "issuers": certificate.issuers,
    }


def _lines(certificate: Certificate, now: float) -> Iterator[str]:
    yield f"  subject    {certificate.subject}"
    yield f"  names      {' '.join(certificate.names) or '-'}"
    yield f"  issuer     {certificate.issuer}"
    days = certificate.days(now)
    left = f"{days} days left" if days >= 0 else "it has run out"
    yield f"  not after  {clock(certificate.ends)}, {left}"
    yield f"  key        {certificate.key}"


async def _look(place: HostPort, name: str, implicit: bool, cipher: str = "") -> Seen:
    """Connect twice at most: the `ssl` module does not show what it does not trust.

    Raises:
        Unavailable: it cannot be reached, or does not encrypt.
    """
    problem = ""
    trusting, any_one = ssl.create_default_context(), unverified_client()
    if cipher:
        any_one = ssl.create_default_context()
        any_one.check_hostname, any_one.verify_mode = False, ssl.CERT_NONE
        for each in (trusting, any_one):
            each.maximum_version = ssl.TLSVersion.TLSv1_2
            each.set_ciphers(cipher)
    try:
        with trio.fail_after(PATIENCE):
            try:
                encrypted = await _encrypted(place, name, trusting, implicit=implicit)
            except TlsError as error:
                cause = error.__cause__
                if not isinstance(cause, ssl.SSLCertVerificationError):
                    raise
                problem = cause.verify_message
                encrypted = await _encrypted(place, name, any_one, implicit=implicit)
    except TlsError as error:
        raise Unavailable(f"the handshake failed: {error}") from error
    except trio.TooSlowError:
        raise Unavailable(f"no answer within {PATIENCE:.0f} s") from None
    except trio.BrokenResourceError:
        raise Unavailable("the connection broke") from None
    try:
        shown = encrypted.tls.getpeercert(binary_form=True)
        if shown is None:
            raise Unavailable("it shows no certificate")
        try:
            certificate = described_as_sent(shown)
        except ValueError as error:
            raise Unavailable(f"what it shows is no certificate: {error}") from error
        return Seen(encrypted.version, encrypted.cipher, certificate, not problem, problem)
    finally:
        encrypted.close()


async def _encrypted(
    place: HostPort, name: str, context: ssl.SSLContext, *, implicit: bool
) -> TlsTransport:
    transport = await reach(place.host, place.port)
    try:
        if not implicit:
            await _start(transport)
        # A name is asked for, an address is not (RFC 6066 §3); but either is looked for.
        if context.check_hostname or not is_address(name):
            return await start_tls(transport, context, server_name=name)
        return await start_tls(transport, context)
    except BaseException:
        transport.close()
        raise


async def _start(transport: Transport) -> None:
    """Say STARTTLS, and hear that it may begin.

    Raises:
        Unavailable: it may not.
    """
    smtp = ClientConnection()
    greeting = await _answer(transport, smtp)
    if not isinstance(greeting, Greeting) or greeting.reply.code >= 400:
        raise Unavailable("it does not greet")
    await transport.send_all(smtp.hello(own_name()))
    hello = await _answer(transport, smtp)
    if not isinstance(hello, HelloAnswer) or not smtp.extensions.starttls:
        raise Unavailable("it does not offer STARTTLS")
    await transport.send_all(smtp.starttls())
    answer = await _answer(transport, smtp)
    if not isinstance(answer, StartTlsAnswer) or answer.reply.code >= 300:
        raise Unavailable("it refuses STARTTLS")


async def _answer(transport: Transport, smtp: ClientConnection) -> Answer:
    while (answer := smtp.next_event()) is Wait.FOR_DATA:
        if octets := await transport.receive():
            smtp.receive_data(octets)
        else:
            smtp.receive_eof()
    assert not isinstance(answer, Wait), "a client waits for data alone"
    return answer
