"""What a schema cannot say of a route: how its servers are met, and what contradicts that."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from elemta.config.addresses import HostPort
from elemta.config.patterns import AddressPattern
from elemta.config.source import Mistake
from elemta.config.targets import Smarthost, target
from elemta.protocol import parse_domain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elemta.config.schema import Login, Route, TlsPolicy

#: The null sender, as `senders` of a route has it.
NULL_SENDER: Final = "<>"
#: Stands in `server_name` for the domain whose mail it is.
OF_DOMAIN: Final = "domain"
#: Octets of a name or a password (RFC 4616 §2).
_LONGEST: Final = 255

#: A name that OAUTHBEARER and XOAUTH2 write as it is.
_NAME: Final = re.compile(r"[!-+\--<>-~]+")

_NAMED_HOSTS: Final = "expected smtp:// or smtps:// in `via`: nobody else is told who we are"
_IN_CLEAR: Final = (
    "expected `tls: verified`, or `required`: without TLS a login is only for hosts on loopback, "
    "with `tls: off`"
)


def route_mistakes(route: Route, everywhere: TlsPolicy, at: str) -> Iterator[Mistake]:
    """What is wrong with how the servers of a route are met, and whose mail it is for.

    Args:
        route: whose match and targets are looked at elsewhere.
        everywhere: ``tls`` of ``delivery``.
        at: where it stands.
    """
    for index, text in enumerate(route.senders):
        if text != NULL_SENDER:
            try:
                AddressPattern.parse(text)
            except ValueError as error:
                yield Mistake(f"{at}.senders[{index}]", f"{error}, or <> for the null sender")
    yield from _encryption(route, everywhere, at)
    if route.login is not None:
        yield from _login(route, route.login, at)


def _encryption(route: Route, everywhere: TlsPolicy, at: str) -> Iterator[Mistake]:
    policy = route.encryption or everywhere
    if (route.certificate is None) != (route.key is None):
        there, missing = ("key", "certificate") if route.key else ("certificate", "key")
        yield Mistake(
            f"{at}.{there}", f"expected `{missing}` too: one is of no use without the other"
        )
    if policy == "off":
        for key in ("server_name", "certificate"):
            if getattr(route, key) is not None:
                yield Mistake(f"{at}.{key}", "is of no use with `tls: off`")
        for index, text in enumerate(route.via):
            if text.startswith("smtps://"):
                problem = "expected smtp://: smtps:// is always encrypted, and `tls` is off here"
                yield Mistake(f"{at}.via[{index}]", problem)
    if route.authorities is not None and policy != "verified":
        problem = f"is of use with `tls: verified` alone, and here it is {policy}"
        yield Mistake(f"{at}.authorities", problem)
    name = route.server_name
    if name == OF_DOMAIN:
        if route.via:
            problem = "expected the name of a host: `domain` is for routes without `via`"
            yield Mistake(f"{at}.server_name", problem)
    elif name is not None:
        try:
            parse_domain(name)
        except ValueError as error:
            problem = f"expected the name of a host or `domain`, not {name!r}: {error}"
            yield Mistake(f"{at}.server_name", problem)


def _login(route: Route, login: Login, at: str) -> Iterator[Mistake]:
    hosts = [found for text in route.via if (found := _smarthost(text)) is not None]
    here = all(HostPort(each.host, each.port).is_loopback for each in hosts)
    if not hosts or len(hosts) < len(route.via):
        yield Mistake(f"{at}.login", _NAMED_HOSTS)
    elif route.tls == "opportunistic" or (route.tls == "off" and not here):
        yield Mistake(f"{at}.tls", _IN_CLEAR)
    if not _is_word(login.user):
        yield Mistake(f"{at}.login.user", f"expected a name of 1 to {_LONGEST} octets")
    if login.password is not None and not _is_word(login.password):
        yield Mistake(f"{at}.login.password", f"expected 1 to {_LONGEST} octets")
    given = (login.password, login.password_file, login.token_file)
    if sum(each is not None for each in given) != 1:
        yield Mistake(f"{at}.login", "expected one of `password_file`, `token_file` and `password`")
    if login.token_file is not None and not _NAME.fullmatch(login.user):
        problem = "expected a name without commas, equals signs and what is not ASCII, for a token"
        yield Mistake(f"{at}.login.user", problem)


def _smarthost(text: str) -> Smarthost | None:
    try:
        found = target(text)
    except ValueError:  # which is told elsewhere
        return None
    return found if isinstance(found, Smarthost) else None


def _is_word(text: str) -> bool:
    return 0 < len(text.encode()) <= _LONGEST and text.isprintable()
