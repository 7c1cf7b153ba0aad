"""Certificates that servers show: how they are read, chosen by name, and read again.

What is shown is a value: whoever has it goes on showing it. New files make a new one (`renewed`),
so no session is dropped when they change, and none is half new; and a certificate that is wrong
never becomes one.
"""

from __future__ import annotations

import hashlib
import math
import ssl
import stat
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio
from msgspec import Struct
from typing_extensions import override

from elemta.config import Change, ConfigError, Mistake, Tls
from elemta.files import stamps_of
from elemta.log import logger
from elemta.net.tls import Encryption

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from cryptography import x509

    from elemta.config import ClientCertificates
    from elemta.files import Stamps

log = logger(__name__)

#: Seconds between two looks whether there are new files.
LOOK: Final = 60.0

#: Days before its end from which on a certificate is complained of.
SOON: Final = 14
_DAY: Final = 86400

#: Of TLS 1.2: forward secrecy, and encryption that authenticates (RFC 9325 §4.2). TLS 1.3 has
#: nothing else.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_NONE: Final[Mapping[ClientCertificates, ShownCertificates]] = {}
#: As people call them (FIPS 186).
_CURVES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_MINIMUM: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_DEMANDS: Final[dict[ClientCertificates, ssl.VerifyMode]] = {
    "off": ssl.CERT_NONE,
    "asked": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


class CertificateError(Exception):
    """A certificate or its key is of no use.

    Attributes:
        of_key: it is the key.
    """

    def __init__(self, problem: str, *, of_key: bool = False) -> None:
        super().__init__(problem)
        self.of_key = of_key


class Certificate(Struct, frozen=True, kw_only=True):
    """What is known of one certificate.

    Attributes:
        file: where it is from.
        subject, issuer: as RFC 4514 writes them.
        names: host names in small letters, ``*.example.org`` for all just below one.
        begins, ends: when it is good, seconds since the epoch.
        key: what kind it has, e.g. ``ECDSA P-256``.
        issuers: how many certificates stand behind it in its file.
        end_point: see `Encryption.server_end_point`.
        open_key: everybody on this machine may read its key.
    """

    file: Path
    subject: str
    issuer: str
    names: tuple[str, ...]
    begins: float
    ends: float
    key: str
    issuers: int
    end_point: bytes
    open_key: bool = False

    @property
    def name(self) -> str:
        """What people call it: its first name."""
        return self.names[0] if self.names else self.subject

    @override
    def __str__(self) -> str:
        """What it is for, and for how long."""
        end = time.strftime("%Y-%m-%d %H:%M", time.gmtime(self.ends))
        return f"{self.name} until {end}"

    def is_good(self, now: float) -> bool:
        """Whether it is good at a time."""
        return self.begins <= now < self.ends

    def days(self, now: float) -> int:
        """Whole days that are left; below 0: it has run out."""
        return int((self.ends - now) // _DAY)

    def covers(self, host: str) -> bool:
        """Whether it is for a host (RFC 9525 §6.3)."""
        host = host.lower().rstrip(".")
        return host in self.names or f"*.{host.partition('.')[2]}" in self.names

    def complaint(self, now: float) -> str | None:
        """What is wrong with it, or will be soon; None: nothing."""
        if now < self.begins:
            return "is not good yet"
        days = self.days(now)
        if days < 0:
            return "has run out"
        return f"runs out in {days} days" if days < SOON else None

    def doubts(self, now: float) -> Iterator[str]:
        """What is no mistake, but hardly what anybody wants."""
        if (complaint := self.complaint(now)) is not None:
            yield f"it {complaint}"
        if not self.names:
            yield "it is for no name, and clients look for one among subject alternative names"
        if self.open_key:
            yield "everybody on this machine may read its key"


class Certificates:
    """What clients of listeners are shown. Made by `read`.

    Args:
        table: what was asked for.
        known: in the order of the table.
        stamps: what its files were.
        shown: them, by what is demanded of clients.

    Attributes:
        refused: why what lies there by now is not shown in their place; empty: it is they.
    """

    def __init__(
        self,
        table: Tls,
        known: tuple[Certificate, ...] = (),
        stamps: Stamps = (),
        shown: Mapping[ClientCertificates, ShownCertificates] = _NONE,
    ) -> None:
        self.table = table
        self.known = known
        self.refused = ""
        self._stamps = stamps
        self._shown = shown

    @classmethod
    def read(cls, table: Tls) -> Certificates:
        """Read the files; blocks.

        Raises:
            ConfigError: one of them cannot be read, is something else, or they do not fit together.
        """
        # Before the files themselves: what changes meanwhile is then read again.
        stamps, known = stamps_of(table.files), list[Certificate]()
        mistakes: list[Mistake] = []
        for index, each in enumerate(table.certificates):
            place = f"tls.certificates[{index}]"
            try:
                known.append(examine(each.certificate, each.key))
            except CertificateError as error:
                key = "key" if error.of_key else "certificate"
                mistakes.append(Mistake(f"{place}.{key}", str(error)))
        if (authorities := table.client_authorities) is not None:
            try:
                _trust(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), authorities)
            except CertificateError as error:
                mistakes.append(Mistake("tls.client_authorities", str(error)))
        if mistakes:
            raise ConfigError(*mistakes)
        demands: tuple[ClientCertificates, ...] = ("off", "asked", "required")
        # For all, since the keys may be out of reach once we are nobody.
        shown: dict[ClientCertificates, ShownCertificates] = {
            demand: ShownCertificates(table, known, demand)
            for demand in (demands if authorities else demands[:1])
            if known
        }
        return cls(table, tuple(known), stamps, shown)

    def anew(self, table: Tls) -> Certificates:
        """Those that a table asks for by now; blocks.

        Where the table is the same and its files cannot be read, these go on being shown: as
        nobody we may not read them, and that must not keep a configuration from its reload.

        Raises:
            ConfigError: as `read`, for another table.
        """
        if table != self.table:
            return Certificates.read(table)
        return self.newest()

    def newest(self) -> Certificates:
        """Those that the same files have by now: these, if they are the same or no good; blocks.

        What is wrong with them the log has, once for each time that they change.
        """
        stamps = stamps_of(self.table.files)
        if stamps == self._stamps:
            return self
        try:
            found = Certificates.read(self.table)
        except ConfigError as error:
            self._stamps = stamps
            self.refused = str(error)
            log.warning("tls.certificate_refused", error=self.refused)
            return self
        log.info("tls.certificate_renewed", names=" ".join(each.name for each in found.known))
        return found

    def since(self, before: Certificates) -> Iterator[Change]:
        """Which of the same files have other certificates than before."""
        if self.table == before.table:
            for place, (old, new) in enumerate(zip(before.known, self.known, strict=True)):
                if old != new:
                    yield Change(f"tls.certificates[{place}]", str(old), str(new))

    def complain(self, now: float) -> None:
        """Say in the log which of them are no good, or will not be soon.

        Args:
            now: seconds since the epoch.
        """
        for each in self.known:
            if (complaint := each.complaint(now)) is not None:
                log.warning(
                    "tls.certificate_old",
                    name=each.name,
                    file=str(each.file),
                    problem=f"it {complaint}",
                )
            if each.open_key:
                problem = "everybody on this machine may read its key"
                log.warning("tls.key_open", name=each.name, file=str(each.file), problem=problem)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.known)

    def shown(self, demand: ClientCertificates) -> ShownCertificates:
        """What is shown to clients of whom this is demanded; there are certificates."""
        return self._shown[demand]


class _Asking(ssl.SSLObject):
    """A handshake of ours, which remembers whom the client asked for."""

    asked = ""


async def in_thread(read: Callable[[], Certificates]) -> Certificates:
    """Read where nobody waits for the disk."""
    return await trio.to_thread.run_sync(read, abandon_on_cancel=True)


async def renew(
    shown: Callable[[], Certificates],
    show: Callable[[Certificates], None],
    clock: Callable[[], float],
    in_thread: Callable[[Callable[[], Certificates]], Awaitable[Certificates]] = in_thread,
) -> None:
    """Show new certificates once there are some, and complain of old ones daily; until cancelled.

    Args:
        shown: those that are shown now.
        show: shows others.
        clock: seconds since the epoch.
        in_thread: runs what blocks.
    """
    complained = -math.inf
    while True:
        known = shown()
        if (now := clock()) - complained >= _DAY:
            complained = now
            known.complain(now)
        await trio.sleep(LOOK)
        known = shown()
        found = await in_thread(known.newest)
        if found is not known and shown() is known:  # a reload may have been faster
            complained = -math.inf
            show(found)


class ShownCertificates:
    """Several certificates, of which each client is shown the right one.

    Args:
        table: what was asked for.
        known: its certificates; there is one.
        demand: whether clients show theirs.

    Raises:
        ConfigError: the files have changed meanwhile, for the worse.
    """

    def __init__(
        self, table: Tls, known: Sequence[Certificate], demand: ClientCertificates
    ) -> None:
        self._verified = demand != "off"
        contexts = [
            _context(table, each.certificate, each.key, demand) for each in table.certificates
        ]
        self.context = contexts[0]
        self._by_name: dict[str, ssl.SSLContext] = {}
        self._contexts = contexts  # what an id stands for must live as long
        self._end_points: dict[int, bytes] = {}
        for context, each in zip(contexts, known, strict=True):
            self._end_points[id(context)] = each.end_point
            for name in each.names:
                self._by_name.setdefault(name, context)
        self.context.sslobject_class = _Asking
        self.context.sni_callback = self._choose

    def encryption(self, tls: ssl.SSLObject, version: str, cipher: str) -> Encryption:
        """See `elemta.net.tls.Shown`."""
        client = tls.getpeercert(binary_form=True) if self._verified else None
        return Encryption(
            version=version,
            cipher=cipher,
            server_name=tls.asked if isinstance(tls, _Asking) else "",
            client="" if client is None else _subject(client),
            server_end_point=self._end_points.get(id(tls.context), b""),
        )

    def _choose(self, tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        """Called within the handshake, when the client says whom it wants (RFC 6066 §3)."""
        if name is None:
            return
        name = name.lower().rstrip(".")
        if isinstance(tls, _Asking):
            tls.asked = name
        by_name = self._by_name
        wanted = by_name.get(name) or by_name.get(f"*.{name.partition('.')[2]}")
        if wanted is not None and wanted is not self.context:
            tls.context = wanted


def ignore_strange_names() -> None:
    """Let nobody write into our log by asking for a name beyond ASCII.

    The `ssl` module refuses such a handshake by itself, before it asks us; but it prints a
    traceback to standard error, with what the client wrote, each time. The failure is logged as
    that of any handshake.
    """
    before = sys.unraisablehook

    def hear(told: sys.UnraisableHookArgs) -> None:
        of_name = isinstance(told.exc_value, UnicodeDecodeError)
        if not (of_name and isinstance(told.object, bytes)):
            before(told)

    sys.unraisablehook = hear


def server_context(minimum: str = "1.2") -> ssl.SSLContext:
    """For a server that has yet to load its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _MINIMUM[minimum]
    context.set_ciphers(_CIPHERS)
    # Compression tells what it compresses (CRIME); nobody needs to negotiate twice (RFC 9325 §3).
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # OpenSSL would make two tickets, for programs that come back twice at once; each costs a tenth
    # of a handshake, and hardly any program that sends mail keeps one.
    context.num_tickets = 1
    return context


def load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Show this certificate from now on; blocks.

    Raises:
        CertificateError: a file cannot be read, is something else, or they do not fit together.
    """
    for path in (certificate, key):
        _readable(path, of_key=path is key)
    try:
        # A key that wants a password must not make us ask for one on a terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, ValueError, OSError) as error:
        problem = f"{certificate} and {key} are no certificate and its key, both PEM: {_why(error)}"
        raise CertificateError(problem) from error


def examine(certificate: Path, key: Path) -> Certificate:
    """What is known of a certificate whose key this is; blocks.

    Raises:
        CertificateError: as `load_pair`.
    """
    load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key)
    try:
        open_key = bool(key.stat().st_mode & stat.S_IROTH)
    except OSError as error:  # gone since
        raise CertificateError(f"{key} cannot be read: {_why(error)}", of_key=True) from error
    return described(certificate, open_key=open_key)


def described(certificate: Path, *, open_key: bool = False) -> Certificate:
    """What a certificate says of itself; blocks.

    Raises:
        CertificateError: it cannot be read, or is none.
    """
    from cryptography import x509

    _readable(certificate)
    try:
        first, *issuers = x509.load_pem_x509_certificates(certificate.read_bytes())
        return _described(first, certificate, issuers, open_key=open_key)
    except _strange(OSError) as error:
        raise CertificateError(f"{certificate} is no certificate, PEM: {error}") from error


def described_as_sent(certificate: bytes) -> Certificate:
    """What a certificate says of itself that came over the wire.

    Args:
        certificate: DER.

    Raises:
        ValueError: it is none, or one that cannot be read.
    """
    from cryptography import x509

    try:
        return _described(x509.load_der_x509_certificate(certificate), Path(), [])
    except _strange() as error:
        raise ValueError(str(error)) from error


def misplaced(certificate: Path) -> str | None:
    """What is wrong with the order of the certificates in a file; None: nothing. Blocks.

    Raises:
        CertificateError: as `described`.
    """
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    described(certificate)
    chain = x509.load_pem_x509_certificates(certificate.read_bytes())
    for number, (each, behind) in enumerate(pairwise(chain), 1):
        try:
            each.verify_directly_issued_by(behind)
        except _strange(TypeError, InvalidSignature):
            return f"certificate {number} is not issued by the one behind it"
    return None


def _described(
    first: x509.Certificate,
    file: Path,
    issuers: Sequence[x509.Certificate],
    *,
    open_key: bool = False,
) -> Certificate:
    return Certificate(
        file=file,
        subject=first.subject.rfc4514_string(),
        issuer=first.issuer.rfc4514_string(),
        names=_names(first),
        begins=first.not_valid_before_utc.timestamp(),
        ends=first.not_valid_after_utc.timestamp(),
        key=_kind(first),
        issuers=len(issuers),
        end_point=_end_point(first),
        open_key=open_key,
    )


def _strange(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """What `cryptography` raises when it is asked what certificates say that OpenSSL takes.

    Not all of it is a ValueError: extensions that are there twice, keys of curves that it lacks.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    return (
        ValueError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType, *others,
    )  # fmt: skip


def _context(
    table: Tls, certificate: Path, key: Path, demand: ClientCertificates
) -> ssl.SSLContext:
    context = server_context(table.minimum)
    try:
        load_pair(context, certificate, key)
        context.verify_mode = _DEMANDS[demand]
        if demand != "off" and table.client_authorities is not None:
            _trust(context, table.client_authorities)
    except CertificateError as error:  # as it is now; a moment ago it was right
        raise ConfigError(Mistake("tls", str(error))) from error
    return context


def _trust(context: ssl.SSLContext, authorities: Path) -> None:
    _readable(authorities)
    try:
        context.load_verify_locations(authorities)
    except (ssl.SSLError, OSError) as error:
        problem = f"{authorities} has no certificates, PEM: {_why(error)}"
        raise CertificateError(problem) from error


def _readable(path: Path, *, of_key: bool = False) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror or error}"
        raise CertificateError(problem, of_key=of_key) from error


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Who it is for; its common name only where it names nobody (RFC 6125 §6.4.4)."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return tuple(str(each.value).lower() for each in common)
    return tuple(name.lower() for name in names.value.get_values_for_type(x509.DNSName))


def _kind(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    match certificate.public_key():
        case rsa.RSAPublicKey() as key:
            return f"RSA {key.key_size}"
        case ec.EllipticCurvePublicKey() as key:
            return f"ECDSA {_CURVES.get(key.curve.name, key.curve.name)}"
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
        case key:
            return type(key).__name__


def _end_point(certificate: x509.Certificate) -> bytes:
    """The hash that logins can be bound to (RFC 5929 §4.1)."""
    from cryptography.hazmat.primitives.serialization import Encoding

    algorithm = certificate.signature_hash_algorithm
    if algorithm is None:  # Ed25519: what to hash by is not defined
        return b""
    name = "sha256" if algorithm.name in ("md5", "sha1") else algorithm.name
    return hashlib.new(name, certificate.public_bytes(Encoding.DER)).digest()


def _subject(certificate: bytes) -> str:
    """Empty, if it has none that can be read: then it is good, and nobody's."""
    from cryptography import x509

    try:
        return x509.load_der_x509_certificate(certificate).subject.rfc4514_string()
    except _strange():
        return ""


def _why(error: Exception) -> str:
    reason: str | None = getattr(error, "reason", None)
    return reason.lower().replace("_", " ") if reason else str(error)
