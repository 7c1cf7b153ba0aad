"""What a configuration amounts to, in a few lines."""

from __future__ import annotations

import pwd
from typing import TYPE_CHECKING

from elemta.config import HostPort, without_userinfo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from elemta.config import Config, Listener


def summary(config: Config, path: Path | None) -> Iterator[str]:
    """Lines for somebody who wants to know whether this is what was meant."""
    yield f"OK: {path}" if path is not None else "OK: no configuration file, so the sandbox"
    yield f"  hostname   {config.hostname}"
    yield f"  data       {config.data_dir}"
    for listener in config.listeners:
        encrypted = _encrypted(listener, config)
        who = ", for who logs in" if listener.submission else ""
        where = " ".join(map(str, listener.bindings))
        yield f"  listener   {listener.name}: {where}, {encrypted}{who}"
    for certificate in config.tls.certificates:
        yield f"  certificate {certificate.certificate}"
    if config.api is not None:
        encrypted = "in clear" if config.api.certificate is None else "by TLS"
        yield f"  api        {' '.join(map(str, config.api.bindings))}, {encrypted}"
    networks = " ".join(map(str, config.relay.networks))
    yield f"  relay      {networks or 'for nobody'}"
    if config.relay.domains:
        yield f"  relay to   {' '.join(config.relay.domains)}"
    if config.relay.domain_map is not None:
        yield f"  relay to   those of {config.relay.domain_map}"
    for domain in config.domains:
        count = "any mailbox" if "*" in domain.mailboxes else f"{len(domain.mailboxes)} mailboxes"
        count += f" and {domain.mailbox_map}" if domain.mailbox_map else ""
        aliases = f"{len(domain.aliases)} aliases"
        aliases += f" and {domain.alias_map}" if domain.alias_map else ""
        yield f"  domain     {domain.name}: {count}, {aliases}, {domain.target}"
    for name, table in config.maps.items():
        kept = table.file or table.database or table.http
        yield f"  map        {name}: {without_userinfo(str(kept))}"
    if config.forwarding.srs is not None:
        yield f"  forwards   in the name of {config.forwarding.srs}"
    for route in config.routes:
        told = ", then ".join(map(str, route.targets)) or "by MX"
        if route.map is not None:
            told = f"as {route.map} says"
        if route.login is not None:
            told += f", as {route.login.user}"
        whose = f" from {' '.join(route.senders)}" if route.senders else ""
        yield f"  route      {route.match or route.name}{whose}: {told}"
    if not any(each.match == "*" and not (each.senders or each.map) for each in config.routes):
        yield "  route      everything else: by MX"
    for plugin in config.plugins:
        yield f"  plugin     {plugin.name}"


def warnings(config: Config) -> Iterator[str]:
    """What is no mistake, but hardly what anybody wants."""
    for index, listener in enumerate(config.listeners):
        at = f"listeners[{index}]"
        public = any(isinstance(each, HostPort) and each.port == 25 for each in listener.bindings)
        if public and listener.tls in ("required", "implicit"):
            yield (
                f"{at}.tls: {listener.tls} on port 25 turns mail away of servers that do not "
                "encrypt; a server that anybody sends to must not do so (RFC 3207 §4)"
            )
        if public and listener.client_certificates != "off":
            yield (
                f"{at}.client_certificates: servers that show one of another authority, as many "
                "do where they are asked, cannot send to port 25"
            )
        if public and listener.submission:
            yield f"{at}.kind: submission on port 25 turns mail away of who does not log in"
        if listener.logins == "always" and any(
            isinstance(each, HostPort) and not each.is_loopback for each in listener.bindings
        ):
            yield f"{at}.auth: always lets anybody on the way to it read passwords"
    yield from _open_relays(config)
    yield from _unverified(config)
    yield from _never_asked(config)
    yield from _too_early(config)
    if config.user is not None and not _is_user(config.user):
        yield f"user: nobody on this machine is called {config.user}"
    api = config.api
    if api is not None and api.certificate is None:
        for each in api.bindings:
            if not each.is_loopback:
                yield f"api.address: {each} is read by anybody on the way: it has no certificate"


def _is_user(name: str) -> bool:
    """Whether somebody on this machine is called so."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _unverified(config: Config) -> Iterator[str]:
    for index, route in enumerate(config.routes):
        policy = route.encryption or config.delivery.tls
        if route.server_name is not None and policy in ("opportunistic", "required"):
            yield (
                f"routes[{index}].server_name: with `tls: {policy}` servers are asked for "
                f"{route.server_name}, and nobody looks whether they are that: "
                "`tls: verified` does"
            )


def _open_relays(config: Config) -> Iterator[str]:
    for index, network in enumerate(config.relay.networks):
        if str(network).endswith("/0"):
            yield f"relay.networks[{index}]: {network} is everybody, who may send to any domain"
    for index, domain in enumerate(config.relay.domains):
        if domain == "*":
            yield f'relay.domains[{index}]: "*" lets everybody send to any domain'


def _never_asked(config: Config) -> Iterator[str]:
    """Routes behind one that has all of their mail. An asterisk in front is the usual mistake."""
    before: list[tuple[int, str]] = []
    for index, route in enumerate(config.routes):
        match = (route.match or "").lower()
        if not match:
            continue
        for earlier, wider in before:
            if wider in ("*", match) or (wider.startswith("*.") and match.endswith(wider[1:])):
                yield (
                    f"routes[{index}] ({match}) is never asked, as the first match wins and "
                    f"routes[{earlier}] ({wider}) stands before it"
                )
                break
        if not (route.senders or route.map):
            before.append((index, match))


def _too_early(config: Config) -> Iterator[str]:
    """Plugins that tell of others, and count for them, stand behind these."""
    names = [each.name for each in config.plugins]
    if "authentication-results" in names and "dmarc" in names:
        told = names.index("authentication-results")
        if told < names.index("dmarc"):
            yield (
                f"plugins[{told}]: authentication-results stands before dmarc, and so cannot "
                "tell what that will find"
            )


def _encrypted(listener: Listener, config: Config) -> str:
    if listener.tls == "off" or not config.tls.certificates:
        return "in clear"
    return {"implicit": "by TLS", "required": "by STARTTLS alone"}.get(
        listener.tls, "STARTTLS offered"
    )
