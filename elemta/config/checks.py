"""What a schema cannot say: values that are no address, and values that contradict each other."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from typing import TYPE_CHECKING, Final, TypeVar

from elemta.config.addresses import SystemdSocket, binding, host_port, is_address, nameserver
from elemta.config.map_checks import forwarding_mistakes, map_mistakes, named_map_mistakes
from elemta.config.outgoing import route_mistakes
from elemta.config.source import Mistake, place, steps
from elemta.config.targets import ALONE, strangers, target
from elemta.protocol import parse_domain, parse_mailbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from elemta.config.schema import (
        Api,
        Config,
        Destination,
        Dns,
        Domain,
        Listener,
        Queue,
        Route,
        Tls,
    )

#: A name as it is meant, without quotes. An @ can stand in one, but is a mistake more often.
_LOCAL_PART: Final = re.compile(r"[^@\x00-\x1f\x7f]+")

#: Scheme, host and port of a page, as browsers write them (RFC 6454 §6.1).
_ORIGIN: Final = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")

#: What may stand before a tag. Not what other servers take for routes, nor a dot.
_DELIMITERS: Final = "+-=_~#"

_DAY: Final = 86400
_QUOTED: Final = str.maketrans({"\\": "\\\\", '"': '\\"'})

T = TypeVar("T")


def mistakes(config: Config) -> Iterator[Mistake]:
    """Everything that is wrong with a configuration whose types are right."""
    yield from _hostname(config.hostname)
    if config.user is not None and not config.user:
        yield Mistake("user", "expected the name of a user")
    yield from _twice("listeners", "name", [listener.name for listener in config.listeners])
    for index, listener in enumerate(config.listeners):
        yield from _listener(listener, f"listeners[{index}]")
        yield from _encryption(listener, config.tls, f"listeners[{index}]")
    yield from _addresses_twice(config.listeners)
    for index, domain in enumerate(config.relay.domains):
        yield from _fits(_pattern, domain, f"relay.domains[{index}]")
    yield from _twice("domains", "name", [domain.name.lower() for domain in config.domains])
    own = {domain.name.lower(): domain for domain in config.domains}
    for index, table in enumerate(config.domains):
        yield from _domain(table, own, f"domains[{index}]")
    yield from named_map_mistakes(config)
    for name, each in config.maps.items():
        yield from map_mistakes(name, each)
    yield from forwarding_mistakes(config)
    yield from _twice("routes", "match", [*map(_matched, config.routes)])
    yield from _twice("routes", "name", [each.name or "" for each in config.routes])
    for index, route in enumerate(config.routes):
        yield from _route(route, own, f"routes[{index}]")
        yield from route_mistakes(route, config.delivery.tls, f"routes[{index}]")
    if config.delivery.hello_name is not None:
        yield from _fits(_domain_name, config.delivery.hello_name, "delivery.hello_name")
    for key in ("connect_timeout", "command_timeout", "content_timeout", "pipe_timeout"):
        yield from _positive(getattr(config.delivery, key), f"delivery.{key}")
    yield from _queue(config.queue)
    yield from _twice("destinations", "match", [each.match.lower() for each in config.destinations])
    for index, destination in enumerate(config.destinations):
        yield from _destination(destination, config.queue, f"destinations[{index}]")
    yield from _dns(config.dns)
    if config.control.group == "":
        yield Mistake("control.group", "expected the name of a group")
    if config.api is not None:
        yield from _api(config.api, config.listeners)
    for index, entry in enumerate(config.plugins):
        yield from _positive(entry.timeout, f"plugins[{index}].timeout")
        known = {"api", *(listener.name for listener in config.listeners)}
        for number, name in enumerate(entry.listeners):
            if name not in known:
                problem = f"there is no listener {name!r}; there are {', '.join(sorted(known))}"
                yield Mistake(f"plugins[{index}].listeners[{number}]", problem)
    stores = {entry.name for entry in config.plugins}
    for where, text in _targets(config):
        if text.startswith("plugin:") and text.removeprefix("plugin:").strip() not in stores:
            yield Mistake(where, f"there is no such plugin among `plugins`: {text!r}")


def _targets(config: Config) -> Iterator[tuple[str, str]]:
    """Wherever the file says where mail goes, and what it says."""
    for index, domain in enumerate(config.domains):
        yield f"domains[{index}].deliver", domain.deliver
    for index, route in enumerate(config.routes):
        for number, text in enumerate(route.via):
            yield f"routes[{index}].via[{number}]", text


def _hostname(name: str) -> Iterator[Mistake]:
    try:
        _domain_name(name)
    except ValueError as error:
        yield Mistake("hostname", str(error))
        return
    if "." not in name or name.replace(".", "").isdigit():
        problem = f"expected this machine's full name, such as mx.example.org, not {name!r}"
        yield Mistake("hostname", problem)


def _listener(listener: Listener, at: str) -> Iterator[Mistake]:
    if isinstance(listener.address, str):
        yield from _fits(binding, listener.address, f"{at}.address")
    else:
        if not listener.address:
            yield Mistake(f"{at}.address", "expected at least one address")
        for index, text in enumerate(listener.address):
            yield from _fits(binding, text, f"{at}.address[{index}]")
    for key in ("idle_timeout", "hello_timeout", "data_timeout"):
        yield from _positive(getattr(listener, key), f"{at}.{key}")
    if listener.message_size < 65536:  # RFC 5321 §4.5.3.1.7: at least 64 Ki
        yield Mistake(f"{at}.message_size", "expected at least 64 KiB (RFC 5321 §4.5.3.1.7)")
    if listener.submission and listener.logins == "off":
        problem = "expected tls or always: on a submission listener nobody sends without logging in"
        yield Mistake(f"{at}.auth", problem)
    for soft, hard in (
        ("soft_errors", "hard_errors"),
        ("soft_unknown_recipients", "hard_unknown_recipients"),
    ):
        low, high = getattr(listener, soft), getattr(listener, hard)
        if low > high:
            yield Mistake(f"{at}.{soft}", f"expected no more than {hard}, which is {high}")


def _encryption(listener: Listener, tls: Tls, at: str) -> Iterator[Mistake]:
    if listener.tls in ("required", "implicit") and not tls.certificates:
        yield Mistake(f"{at}.tls", f"{listener.tls} takes a certificate: name one in `tls`")
    elif listener.logins == "tls" and (listener.tls == "off" or not tls.certificates):
        missing = "`tls` of this listener not to be off" if tls.certificates else "one in `tls`"
        problem = f"nobody can log in without a certificate: expected {missing}"
        if listener.auth is None:
            problem += "; or `auth: always`, where nobody but this machine comes"
        yield Mistake(f"{at}.auth", problem)
    if listener.client_certificates == "off":
        return
    if listener.tls == "off":
        problem = "expected `tls` of this listener not to be off: there is nobody to show one to"
        yield Mistake(f"{at}.client_certificates", problem)
    if tls.client_authorities is None:
        problem = "expected `client_authorities` in `tls`: whose certificates are good?"
        yield Mistake(f"{at}.client_certificates", problem)


def _api(api: Api, listeners: Sequence[Listener]) -> Iterator[Mistake]:
    addresses = [api.address] if isinstance(api.address, str) else api.address
    if not addresses:
        yield Mistake("api.address", "expected at least one address")
    taken = {
        text: f"listeners[{index}].address"
        for index, table in enumerate(listeners)
        for text in ([table.address] if isinstance(table.address, str) else table.address)
    }
    for index, text in enumerate(addresses):
        at = "api.address" if isinstance(api.address, str) else f"api.address[{index}]"
        yield from _fits(host_port, text, at)
        if text in taken and not text.endswith(":0"):
            yield Mistake(at, f"{text} is taken by {taken[text]} already")
        taken.setdefault(text, at)
    if (api.certificate is None) != (api.key is None):
        there, missing = ("key", "certificate") if api.key else ("certificate", "key")
        yield Mistake(
            f"api.{there}", f"expected `{missing}` too: one is of no use without the other"
        )
    for index, text in enumerate(api.origins):
        if not _ORIGIN.fullmatch(text):
            problem = f"expected a web origin such as https://mail.example.org, not {text!r}"
            yield Mistake(f"api.origins[{index}]", problem)


def _addresses_twice(listeners: Sequence[Listener]) -> Iterator[Mistake]:
    """A port that two listeners want; port 0 is a new one each time."""
    taken: dict[str, str] = {}
    for index, listener in enumerate(listeners):
        addresses = [listener.address] if isinstance(listener.address, str) else listener.address
        for number, text in enumerate(addresses):
            try:
                found = binding(text)
            except ValueError:
                continue
            if not isinstance(found, SystemdSocket) and found.port == 0:
                continue
            inner = "" if isinstance(listener.address, str) else f"[{number}]"
            at = f"listeners[{index}].address{inner}"
            if str(found) in taken:
                yield Mistake(at, f"{found} is taken by {taken[str(found)]} already")
            taken.setdefault(str(found), at)


def _domain(domain: Domain, own: dict[str, Domain], at: str) -> Iterator[Mistake]:
    yield from _fits(_domain_name, domain.name, f"{at}.name")
    yield from _fits(target, domain.deliver, f"{at}.deliver")
    for name, count in Counter(domain.mailboxes).items():
        index = domain.mailboxes.index(name)
        if name != "*":
            yield from _fits(_local_part, name, f"{at}.mailboxes[{index}]")
        if count > 1:
            yield Mistake(f"{at}.mailboxes[{index}]", f"{name!r} is listed {count} times")
    for alias, recipients in domain.aliases.items():
        inner = place((*steps(f"{at}.aliases"), alias))
        yield from _fits(_local_part, alias, inner)
        if not recipients:
            yield Mistake(inner, "expected at least one recipient")
        for index, recipient in enumerate(recipients):
            yield from _alias_recipient(recipient, domain, own, f"{inner}[{index}]")
        if _leads_back(alias, domain):
            yield Mistake(inner, f"the alias {alias!r} leads back to itself, and to no mailbox")
    if domain.delimiter and (len(domain.delimiter) > 1 or domain.delimiter not in _DELIMITERS):
        problem = f"expected one of {' '.join(_DELIMITERS)}, not {domain.delimiter!r}"
        yield Mistake(f"{at}.delimiter", problem)
    for index, recipient in enumerate(domain.catch_all):
        yield from _alias_recipient(recipient, domain, own, f"{at}.catch_all[{index}]")


def _alias_recipient(
    recipient: str, domain: Domain, own: dict[str, Domain], at: str
) -> Iterator[Mistake]:
    try:
        if "@" in recipient:
            mailbox = parse_mailbox(recipient)
            local_part, ours = mailbox.local_part, own.get(mailbox.domain)
        else:
            _local_part(recipient)
            local_part, ours = recipient, domain
    except ValueError as error:
        problem = f"expected a name of {domain.name} or an address, not {recipient!r}: {error}"
        yield Mistake(at, problem)
        return
    if ours is not None and not _exists(local_part, ours):
        yield Mistake(at, f"{ours.name} has no mailbox or alias {local_part!r}")


def _exists(local_part: str, domain: Domain) -> bool:
    if "*" in domain.mailboxes or domain.mailbox_map or domain.alias_map:
        return True
    known = {name.lower() for name in ("postmaster", *domain.mailboxes, *domain.aliases)}
    name = local_part.lower()
    bare = name.partition(domain.delimiter)[0] if domain.delimiter else name
    return name in known or bare in known


def _leads_back(alias: str, domain: Domain) -> bool:
    """Whether an alias names itself, by way of others too. One that is also a mailbox may."""
    mailboxes = {name.lower() for name in domain.mailboxes}
    aliases = {name.lower(): recipients for name, recipients in domain.aliases.items()}
    seen: set[str] = set()
    ahead = [alias.lower()]
    while ahead:
        for recipient in aliases.get(ahead.pop(), ()):
            name = recipient.lower().removesuffix(f"@{domain.name.lower()}")
            if name == alias.lower():
                return name not in mailboxes
            if name in aliases and name not in seen:
                seen.add(name)
                ahead.append(name)
    return False


def _route(route: Route, own: dict[str, Domain], at: str) -> Iterator[Mistake]:
    if route.match:
        yield from _fits(_pattern, route.match, f"{at}.match")
    elif route.name is None:
        yield Mistake(at, "the key `match` is missing; or `name`, for maps to lead here")
    if route.match.lower() in own:
        yield Mistake(f"{at}.match", f"{route.match} stands in `domains`: set its `deliver` there")
    for index, text in enumerate(route.via):
        yield from _fits(target, text, f"{at}.via[{index}]")
    for index in strangers(route.via):
        yield Mistake(f"{at}.via[{index}]", ALONE)
    if route.hello_name is not None:
        yield from _fits(_domain_name, route.hello_name, f"{at}.hello_name")
    yield from _sources(route.source, f"{at}.source")


def _matched(route: Route) -> str:
    """What a route is for: another of the same would never be asked."""
    senders = ", ".join(sorted(route.senders))
    if not route.match:  # nothing is: a map leads there
        return ""
    table = f" by {route.map}" if route.map else ""
    return route.match.lower() + (f" from {senders}" if senders else "") + table


def _sources(source: Sequence[str], at: str) -> Iterator[Mistake]:
    taken: set[int] = set()
    for index, text in enumerate(source):
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            yield Mistake(f"{at}[{index}]", f"expected an IP address, not {text!r}")
            continue
        if address.version in taken:
            problem = f"expected no more than one IPv{address.version} address"
            yield Mistake(f"{at}[{index}]", problem)
        taken.add(address.version)


def _destination(destination: Destination, queue: Queue, at: str) -> Iterator[Mistake]:
    if destination.match not in ("*", "maildir"):
        yield from _fits(_destination_name, destination.match, f"{at}.match")
    retry, lifetime = destination.retry, destination.lifetime
    if retry is None and lifetime is None:
        return
    lifetime = queue.lifetime if lifetime is None else lifetime
    yield from _patience(queue.retry if retry is None else retry, lifetime, at)
    if queue.history.age < lifetime + _DAY:
        problem = "expected a day less than `queue.history.age`: what has just ended must be found"
        yield Mistake(f"{at}.lifetime", problem)


def _patience(retry: Sequence[float], lifetime: float, at: str) -> Iterator[Mistake]:
    for index, pause in enumerate(retry):
        if pause < 1:
            yield Mistake(f"{at}.retry[{index}]", "expected at least 1 s")
    if lifetime < retry[0]:
        problem = "expected at least the first pause of `retry`: nothing is ever tried again"
        yield Mistake(f"{at}.lifetime", problem)


def _queue(queue: Queue) -> Iterator[Mistake]:
    yield from _patience(queue.retry, queue.lifetime, "queue")
    yield from _positive(queue.report_lifetime, "queue.report_lifetime")
    if queue.return_size > 2**20:
        problem = "expected at most 1 MiB: a report stands in memory as a whole"
        yield Mistake("queue.return_size", problem)
    if queue.history.age < queue.lifetime + _DAY:
        problem = "expected at least a day more than `lifetime`: what has just ended must be found"
        yield Mistake("queue.history.age", problem)


def _dns(dns: Dns) -> Iterator[Mistake]:
    for index, text in enumerate(dns.nameservers):
        yield from _fits(nameserver, text, f"dns.nameservers[{index}]")
    yield from _positive(dns.timeout, "dns.timeout")


def _positive(seconds: float, at: str) -> Iterator[Mistake]:
    if seconds <= 0:
        yield Mistake(at, "expected more than 0 s")


def _twice(table: str, key: str, values: Sequence[str]) -> Iterator[Mistake]:
    first: dict[str, int] = {}
    for index, value in enumerate(values):
        if value in first and value:
            problem = f"{value!r} is taken by {table}[{first[value]}] already"
            yield Mistake(f"{table}[{index}].{key}", problem)
        first.setdefault(value, index)


def _fits(parse: Callable[[str], T], text: str, at: str) -> Iterator[Mistake]:
    """The mistake that a parser finds, if it finds one."""
    try:
        parse(text)
    except ValueError as error:
        yield Mistake(at, str(error))


def _domain_name(text: str) -> None:
    try:
        parse_domain(text)
    except ValueError as error:
        raise ValueError(f"expected a domain such as example.org, not {text!r}: {error}") from None


def _local_part(text: str) -> None:
    expected = f"expected the part of an address before the @, not {text!r}"
    if not _LOCAL_PART.fullmatch(text):
        raise ValueError(expected)
    try:
        parse_mailbox(f'"{text.translate(_QUOTED)}"@example.org')
    except ValueError as error:
        raise ValueError(f"{expected}: {error}") from None


def _destination_name(text: str) -> None:
    """A domain pattern, or the name of a host, or its IP address."""
    if not is_address(text):
        _pattern(text)


def _pattern(text: str) -> None:
    if text == "*":
        return
    try:
        _domain_name(text.removeprefix("*."))
    except ValueError:
        raise ValueError(f'expected a domain, *.DOMAIN or "*", not {text!r}') from None
