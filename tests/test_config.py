# ruff: noqa: E501 # a table is read by its columns
from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path

import msgspec
import pytest

from elemta.config import (
    Config,
    ConfigError,
    Discard,
    HostPort,
    Listener,
    LmtpHost,
    LmtpSocket,
    Maildir,
    Mistake,
    Network,
    Pipe,
    Service,
    Smarthost,
    SystemdSocket,
    Table,
    Target,
    TargetError,
    applicable,
    changes,
    check,
    chosen_targets,
    load,
    locate,
    read,
    sandbox,
)
from elemta.units import Octets, Seconds

ROOT = Path(__file__).parent.parent

#: As the README shows it.
EXAMPLE = """\
hostname: mx.example.org
data_dir: ./data
listeners:
  - {name: mx, address: "127.0.0.1:2525"}
relay:
  networks: ["127.0.0.1/32"]             # who may send to domains that are not ours; empty by default
domains:                                  # delivered here
  - name: example.org
    mailboxes: [bob, postmaster]          # "*" takes any
    aliases: {sales: [bob, carol@example.net]}
    deliver: maildir                      # or smtp://HOST:PORT
routes:                                   # for every other recipient domain; the first match wins; no match: MX
  - {match: "*.example.net", via: ["smtp://127.0.0.1:2600", "smtp://127.0.0.1:2601"]}
queue:
  lifetime: 5 d
  retry: [5 min, 10 min, 20 min, 40 min, 1 h, 2 h, 4 h]
dns:
  nameservers: ["127.0.0.1:5353"]
"""

MINIMAL = 'hostname: mx.example.org\nlisteners: [{name: mx, address: ":25"}]\n'


def test_the_example_works_as_written() -> None:
    config = load(EXAMPLE)
    (listener,) = config.listeners
    assert listener.bindings == (HostPort("127.0.0.1", 2525),)
    assert listener.message_size == 50 * 2**20
    assert ipaddress.ip_address("127.0.0.1") in config.relay.networks[0]
    assert ipaddress.ip_address("127.0.0.2") not in config.relay.networks[0]
    assert ipaddress.ip_address("::1") not in config.relay.networks[0]
    (domain,) = config.domains
    assert domain.target == Maildir()
    assert domain.aliases == {"sales": ["bob", "carol@example.net"]}
    (route,) = config.routes
    assert route.targets == (Smarthost("127.0.0.1", 2600), Smarthost("127.0.0.1", 2601))
    assert config.queue.lifetime == 5 * 86400
    assert config.queue.retry == [300, 600, 1200, 2400, 3600, 7200, 14400]
    assert config.dns.servers == (HostPort("127.0.0.1", 5353),)
    assert load(EXAMPLE).queue == load(MINIMAL).queue


def test_the_shipped_file_is_the_defaults() -> None:
    shipped = read(ROOT / "packaging" / "elemta.yaml")
    assert shipped == Config(
        hostname="mx.example.org", listeners=[Listener(name="mx", address=":25")]
    )


def test_nothing_is_relayed_unless_configured() -> None:
    config = load(MINIMAL)
    assert config.relay.networks == []
    assert not config.relay.allows("example.net")


def test_the_sandbox_takes_all_from_this_machine_and_sends_nothing_away(tmp_path: Path) -> None:
    config = sandbox(tmp_path)
    assert config.listeners[0].bindings == (HostPort("127.0.0.1", 2525),)
    assert any(ipaddress.ip_address("127.0.0.1") in net for net in config.relay.networks)
    assert not any(ipaddress.ip_address("192.0.2.1") in net for net in config.relay.networks)
    (route,) = config.routes
    assert route.matches("example.net")
    assert route.targets == (Maildir(),)


def test_people_log_in_at_the_sandbox_encrypted_from_this_machine(tmp_path: Path) -> None:
    config = sandbox(tmp_path)
    _, people = config.listeners
    assert people.bindings == (HostPort("127.0.0.1", 2587),)
    assert (people.submission, people.logins, people.tls) == (True, "tls", "required")
    assert [each.listeners for each in config.plugins] == [[people.name]]


def test_the_sandbox_has_an_api_that_only_this_machine_reaches(tmp_path: Path) -> None:
    api = sandbox(tmp_path).api
    assert api is not None
    assert api.bindings == (HostPort("127.0.0.1", 8025),)


def test_there_is_no_api_unless_configured() -> None:
    assert load(MINIMAL).api is None


def test_an_empty_table_is_an_api_that_only_this_machine_reaches() -> None:
    api = load(MINIMAL + "api: {}\n").api
    assert api is not None
    assert api.bindings == (HostPort("127.0.0.1", 8025),)
    assert api.certificate is None


def test_certificate_and_key_start_at_the_file(tmp_path: Path) -> None:
    path = tmp_path / "elemta.yaml"
    path.write_text(MINIMAL + "api: {certificate: tls/a.pem, key: /etc/b.pem}\n")
    api = read(path).api
    assert api is not None
    assert (api.certificate, api.key) == (tmp_path / "tls" / "a.pem", Path("/etc/b.pem"))


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("{address: 8025}", "api.address: expected text or a list, not a whole number"),
        ("{address: localhost}", "api.address: expected a port behind the host, as in localhost:25"),
        ("{address: []}", "api.address: expected at least one address"),
        ('{address: ["127.0.0.1:1", "127.0.0.1:1"]}', "api.address[1]: 127.0.0.1:1 is taken by api.address[0] already"),
        ('{address: ":25"}', "api.address: :25 is taken by listeners[0].address already"),
        ("{address: systemd:api}", "api.address: expected HOST:PORT, [IPV6]:PORT or :PORT, not 'systemd:api'"),
        ("{certificate: a.pem}", "api.certificate: expected `key` too: one is of no use without the other"),
        ("{key: a.pem}", "api.key: expected `certificate` too: one is of no use without the other"),
        ("{origins: [mail.example.org]}", "api.origins[0]: expected a web origin such as https://mail.example.org, not 'mail.example.org'"),
        ("{origins: [https://mail.example.org/]}", "api.origins[0]: expected a web origin such as"),
        ("{port: 1}", "api.port: there is no such key here; there are address, certificate, key, "),
    ],
)  # fmt: skip
def test_a_mistake_in_the_api_is_told(table: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as failure:
        load(MINIMAL + f"api: {table}\n")
    assert complaint in str(failure.value)


def test_a_change_of_the_api_needs_a_restart() -> None:
    before = load(MINIMAL + "api: {}\n")
    after = load(MINIMAL + "api: {metrics: false}\n")
    (change,) = changes(before, after)
    assert (change.place, change.needs_restart) == ("api.metrics", True)
    assert applicable(before, after) == before
    gone = changes(before, load(MINIMAL))
    assert gone
    assert all(change.needs_restart for change in gone)


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    path = tmp_path / "elemta.yaml"
    path.write_text(EXAMPLE)
    assert read(path).data_dir == tmp_path / "data"
    path.write_text(EXAMPLE.replace("./data", "/srv/mail"))
    assert read(path).data_dir == Path("/srv/mail")


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        # keys
        ("{name: mx, address", "{name: mx, adress", "4:16: listeners[0].adress: there is no such key; did you mean `address`?"),
        ("listeners:", "listener:", "3:1: listener: there is no such key; did you mean `listeners`?"),
        ("lifetime", "xyzzy", "15:3: queue.xyzzy: there is no such key here; there are lifetime, retry, "),
        ("dns:", "queue:", "17:1: queue: this key stands on line 14 already"),
        ("hostname: mx.example.org\n", "", "1:1: the key `hostname` is missing"),
        ("name: mx, ", "", "4:5: listeners[0]: the key `name` is missing"),
        # types
        ("5 d", "5", "15:13: queue.lifetime: expected a number with a unit, as in 90 s, 5 min, 4 h or 5 d, not 5"),
        ("5 d", "5 days", "15:13: queue.lifetime: expected a number and one of ms, s, min, h, d, not '5 days'"),
        ("5 d", "", "15:12: queue.lifetime: expected a number with a unit, as in 90 s, 5 min, 4 h or 5 d, not nothing"),
        ("10 min", "[10 min]", "16:18: queue.retry[1]: expected a number with a unit"),
        ("[5 min, 10 min, 20 min, 40 min, 1 h, 2 h, 4 h]", "[]", "16:10: queue.retry: expected a list of at least 1"),
        ("./data", "4", "2:11: data_dir: expected a path, not 4"),
        ("name: mx,", "name: 7,", "4:12: listeners[0].name: expected text, not a whole number"),
        ("name: mx,", 'name: "m x",', "4:12: listeners[0].name: expected a name of letters, digits"),
        ("name: mx,", "name: mx, kind: http,", "4:22: listeners[0].kind: expected lmtp or smtp or submission, not 'http'"),
        ("name: mx,", "name: mx, recipients: 99,", "listeners[0].recipients: expected a whole number, at least 100"),
        ("name: mx,", "name: mx, messages: lots,", "listeners[0].messages: expected a whole number, not text"),
        ("name: mx,", "name: mx, message_size: 1 MB,", "expected a number and one of B, KiB, MiB, GiB, not '1 MB'"),
        ("name: mx,", "name: mx, message_size: 1,", "as in 512 B, 64 KiB, 50 MiB or 2 GiB, not 1"),
        ('"127.0.0.1:2525"', "2525", "4:25: listeners[0].address: expected text or a list, not a whole number"),
        ("sales: [bob,", "sales: [7,", "10:23: domains[0].aliases.sales[0]: expected text, not a whole number"),
        ("sales: [bob, carol@example.net]", "sales: bob", "10:22: domains[0].aliases.sales: expected a list, not text"),
        ("sales:", "7:", "10:14: domains[0].aliases: expected keys that are text; put them in quotes"),
        # addresses
        ("127.0.0.1:2525", "127.0.0.300:25", "4:25: listeners[0].address: expected a host name or an IP address, not '127.0.0.300'"),
        ("127.0.0.1:2525", "127.0.0.1", "listeners[0].address: expected a port behind the host, as in 127.0.0.1:25"),
        ("127.0.0.1:2525", "127.0.0.1:99999", "listeners[0].address: expected a port from 0 to 65535, not 99999"),
        ("127.0.0.1:2525", "::1:25", "listeners[0].address: expected HOST:PORT, [IPV6]:PORT or :PORT, not '::1:25'"),
        ("127.0.0.1:2525", "[::g]:25", "listeners[0].address: expected an IPv6 address in brackets, not '::g'"),
        ("127.0.0.1:2525", "systemd:", "listeners[0].address: expected systemd:NAME"),
        ('"127.0.0.1:2525"', '[":25", "x"]', "4:33: listeners[0].address[1]: expected a port behind the host, as in x:25"),
        ('"127.0.0.1:2525"', "[]", "4:25: listeners[0].address: expected at least one address"),
        ('"127.0.0.1:2525"}', '":25"}\n  - {name: b, address: [":24", ":25"]}', "5:32: listeners[1].address[1]: :25 is taken by listeners[0].address already"),
        ("127.0.0.1/32", "127.0.0.1/8", "6:14: relay.networks[0]: 127.0.0.1/8 has bits set behind its prefix: did you mean 127.0.0.0/8?"),
        ("127.0.0.1/32", "localhost", "relay.networks[0]: expected a network such as 192.0.2.0/24 or 2001:db8::/32, not 'localhost'"),
        ('["127.0.0.1/32"]', "[7]", "relay.networks[0]: expected a network such as 192.0.2.0/24, not 7"),
        ("127.0.0.1:5353", "dns.example.org", "18:17: dns.nameservers[0]: expected the IP address of a name server, not 'dns.example.org'"),
        ("deliver: maildir", "deliver: http://x", "11:14: domains[0].deliver: expected maildir, smtp://HOST:PORT, smtps://HOST:PORT, lmtp://HOST:PORT, "),
        ("deliver: maildir", "deliver: 'lmtp:///" + 108 * "x" + "'", "11:14: domains[0].deliver: expected the path of a socket, at most 107 octets"),
        ("deliver: maildir", "deliver: 'pipe:procmail'", "domains[0].deliver: expected pipe:/path/to/program ARGUMENT…, not 'procmail'"),
        ("deliver: maildir", "deliver: 'pipe:'", "domains[0].deliver: expected pipe:/path/to/program ARGUMENT…, not ''"),
        ("deliver: maildir", "deliver: 'pipe:/bin/x \"'", "domains[0].deliver: No closing quotation: "),
        ("deliver: maildir", "deliver: 'pipe:/bin/x {rcpt}'", "domains[0].deliver: expected one of {sender}, {recipient}, {local_part}, {domain}, {id} in an argument, not {rcpt}"),
        ("deliver: maildir", "deliver: 'pipe:/bin/{local_part}'", "in an argument, not {local_part}"),
        ("smtp://127.0.0.1:2601", "smtp://:25", "13:61: routes[0].via[1]: expected maildir, smtp://HOST:PORT, "),
        ("smtp://127.0.0.1:2601", "foo://us:secret@x", "13:61: routes[0].via[1]: expected maildir, smtp://HOST:PORT, smtps://HOST:PORT, lmtp://HOST:PORT, lmtp:///path/to/socket, pipe:/path/to/program ARGUMENT…, plugin:NAME or discard, not 'foo://***@x'"),
        ("smtp://127.0.0.1:2601", "smtp://us:secret@x", "13:61: routes[0].via[1]: expected HOST:PORT, [IPV6]:PORT or :PORT, and no user before the host"),
        ("smtp://127.0.0.1:2601", "maildir", "13:61: routes[0].via[1]: expected several smtp:// and smtps://, or several lmtp://: any other"),
        ("smtp://127.0.0.1:2601", "lmtp://127.0.0.1", "routes[0].via[1]: expected several smtp:// and smtps://, or several lmtp://: any other"),
        ('"*.example.net", via', '"*.example.net", hello_name: a..b, via', "routes[0].hello_name: expected a domain"),
        ('"*.example.net", via', '"*.example.net", tls: always, via', "routes[0].tls: expected off or opportunistic or required or verified, not 'always'"),
        ('"*.example.net", via', '"*.example.net", source: [localhost], via', "routes[0].source[0]: expected an IP address, not 'localhost'"),
        ('"*.example.net", via', '"*.example.net", source: [192.0.2.1, "::1", 192.0.2.2], via', "routes[0].source[2]: expected no more than one IPv4 address"),
        ("queue:", "delivery: {pipe_timeout: 0 s}\nqueue:", "delivery.pipe_timeout: expected more than 0 s"),
        ("*.example.net", "*example.net ", """routes[0].match: expected a domain, *.DOMAIN or "*", not '*example.net '"""),
        ("mx.example.org", "localhost", "1:11: hostname: expected this machine's full name, such as mx.example.org, not 'localhost'"),
        ("mx.example.org", "192.0.2.1", "hostname: expected this machine's full name"),
        ("mx.example.org", "mx..example.org", "hostname: expected a domain such as example.org, not 'mx..example.org'"),
        # contradictions
        ('"127.0.0.1:2525"}', '":25"}\n  - {name: mx, address: ":24"}', "5:12: listeners[1].name: 'mx' is taken by listeners[0] already"),
        ("routes:", "  - {name: Example.ORG}\nroutes:", "12:12: domains[1].name: 'example.org' is taken by domains[0] already"),
        ("queue:", '  - {match: "*.example.net", via: [maildir]}\nqueue:', "routes[1].match: '*.example.net' is taken by routes[0] already"),
        ('"*.example.net"', "example.org", "routes[0].match: example.org stands in `domains`: set its `deliver` there"),
        ("sales: [bob,", "sales: [rob,", "10:23: domains[0].aliases.sales[0]: example.org has no mailbox or alias 'rob'"),
        ("carol@example.net", "carol@example.org", "10:28: domains[0].aliases.sales[1]: example.org has no mailbox or alias 'carol'"),
        ("[bob, carol@example.net]", "[]", "domains[0].aliases.sales: expected at least one recipient"),
        ("carol@example.net", "a@b@c", "domains[0].aliases.sales[1]: expected"),
        ("sales: [bob,", "sales: [sales,", "domains[0].aliases.sales: the alias 'sales' leads back to itself"),
        ("{sales: [bob,", "{a: [sales], sales: [a,", "domains[0].aliases.sales: the alias 'sales' leads back to itself"),
        ("deliver: maildir", "alias_map: x", "domains[0].alias_map: there is no such map: 'x'"),
        ("routes:", "maps: {x: {}}\nroutes:", "maps.x: expected one of file, database and http, not 0"),
        ("routes:", "maps: {x: {file: a, http: 'http://a/'}}\nroutes:", "maps.x: expected one of file, database and http, not 2"),
        ("routes:", "maps: {x: {file: a, query: 'SELECT :key'}}\nroutes:", "maps.x.query: expected `database` too"),
        ("routes:", "maps: {x: {database: 'sqlite:a'}}\nroutes:", "maps.x.database: expected `query` too"),
        ("routes:", "maps: {x: {database: 'sqlite:a', query: 'SELECT 1'}}\nroutes:", "maps.x.query: expected a query with one of :key"),
        ("routes:", "maps: {x: {database: 'mysql://a', query: 'SELECT :key'}}\nroutes:", "maps.x.database: expected sqlite:PATH or postgresql://USER@HOST/NAME"),
        ("routes:", "maps: {x: {database: 'postgresql://a/b?password=c', query: 'SELECT :key'}}\nroutes:", "maps.x.database: expected no password behind the ?"),
        ("routes:", "maps: {x: {http: 'ftp://a/'}}\nroutes:", "maps.x.http: expected http://HOST:PORT/PATH or https://HOST/PATH"),
        ("routes:", "maps: {x: {http: 'http://u:p@a/'}}\nroutes:", "maps.x.http: expected http://HOST:PORT/PATH"),
        ("routes:", "maps: {x: {http: 'http://a/{user}'}}\nroutes:", "maps.x.http: expected one of {key}, {local_part} and {domain}, not {user}"),
        ("routes:", "maps: {x: {file: a, timeout: 0 s}}\nroutes:", "maps.x.timeout: expected more than 0 s"),
        ("routes:", "maps: {'a b': {file: a}}\nroutes:", "maps: expected a name of letters, digits, dots, dashes and underscores, not 'a b'"),
        ("routes:", "forwarding: {srs: example.org}\nroutes:", "forwarding.srs: expected `secret_file` too"),
        ("routes:", "forwarding: {secret_file: a}\nroutes:", "forwarding.secret_file: expected `srs` too"),
        ("routes:", "forwarding: {srs: example.com, secret_file: a}\nroutes:", "forwarding.srs: expected one of `domains`, as reports come there, not 'example.com'"),
        ("deliver: maildir", "catch_all: [rob]", "11:17: domains[0].catch_all[0]: example.org has no mailbox or alias 'rob'"),
        ("deliver: maildir", "delimiter: '+-'", "11:16: domains[0].delimiter: expected one of + - = _ ~ #, not '+-'"),
        ("deliver: maildir", "delimiter: '.'", "11:16: domains[0].delimiter: expected one of + - = _ ~ #, not '.'"),
        ("[bob, postmaster]", "[bob, bob]", "9:17: domains[0].mailboxes[0]: 'bob' is listed 2 times"),
        ("[bob, postmaster]", '[bob, "a b@c"]', "9:22: domains[0].mailboxes[1]: expected the part of an address before the @"),
        ("lifetime: 5 d", "lifetime: 1 min", "queue.lifetime: expected at least the first pause of `retry`"),
        ("lifetime: 5 d", "lifetime: 7 d", "queue.history.age: expected at least a day more than `lifetime`"),
        ("[5 min", "[0 s", "queue.retry[0]: expected at least 1 s"),
        ("lifetime: 5 d", "return_size: 2 MiB", "queue.return_size: expected at most 1 MiB"),
        ("lifetime: 5 d", "double_bounces: keep", "queue.double_bounces: "),
        ("lifetime: 5 d", "report_lifetime: 0 s", "queue.report_lifetime: expected more than 0 s"),
        ("dns:", "destinations: [{match: x, retry: [0 s]}]\ndns:", "destinations[0].retry[0]: expected at least 1 s"),
        ("dns:", "destinations: [{match: x, lifetime: 1 min}]\ndns:", "destinations[0].lifetime: expected at least the first"),
        ("dns:", "destinations: [{match: x, lifetime: 7 d}]\ndns:", "destinations[0].lifetime: expected a day less than `queue.history.age`"),
        ("dns:", "destinations: [{match: x, messages: 5}]\ndns:", "destinations[0].messages: expected a number in a time, as in 100/1 h, not 5"),
        ("dns:", "destinations: [{match: x, messages: 5/m}]\ndns:", "destinations[0].messages: expected a number and one of"),
        ("dns:", "destinations: [{match: x}, {match: X}]\ndns:", "destinations[1].match: 'x' is taken by destinations[0] already"),
        ("dns:", "destinations: [{match: a b}]\ndns:", "destinations[0].match: expected a domain"),
        ("name: mx,", "name: mx, soft_errors: 30,", "listeners[0].soft_errors: expected no more than hard_errors, which is 20"),
        ("name: mx,", "name: mx, idle_timeout: 0 s,", "listeners[0].idle_timeout: expected more than 0 s"),
        ("name: mx,", "name: mx, message_size: 1 KiB,", "listeners[0].message_size: expected at least 64 KiB"),
        # YAML
        ("dns:", "dns: {{", "no YAML: while parsing a flow mapping"),
        ("dns:", "{[1]: 2}: 3\ndns:", "no YAML: while constructing a mapping found unhashable key"),
        ("hostname:", "\x01hostname:", "no YAML: unacceptable character"),
        ("./data", "!!python/object:os.system x", "no YAML: could not determine a constructor"),
        ("5 d", "*what", "15:13: no YAML: found undefined alias"),
        ("5 d", "*what", '; an asterisk wants quotes: "*"'),
        ("[bob, postmaster]", "[*]", 'expected alphabetic or numeric character, but found \']\'; an asterisk wants quotes: "*"'),
        ("dns:", "tls:\n\tminimum: x\ndns:", "cannot start any token; indent by spaces"),
        ('"127.0.0.1:2525"', ":2525", 'but found \':\'; what begins with a colon wants quotes: ":25"'),
        ("dns:", "routes: [{match: x, senders: [@a.example]}]\ndns:", 'what begins with an @ wants quotes: "@example.org"'),
        ("dns:", "x: a: b\ndns:", "a text with a colon and a space in it wants quotes"),
        ("dns:", "tls: {minimum: 1.2}\ndns:", 'tls.minimum: expected "1.2" or "1.3", in quotes'),
    ],
)  # fmt: skip
def test_a_mistake_says_where_and_what_was_expected(
    before: str, after: str, complaint: str
) -> None:
    assert before in EXAMPLE
    with pytest.raises(ConfigError) as caught:
        load(EXAMPLE.replace(before, after, 1), "elemta.yaml")
    assert complaint in str(caught.value)
    assert str(caught.value).startswith("elemta.yaml:")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty; at least hostname and listeners are needed"),
        ("# nothing\n", "is empty"),
        ("- 1", "1:1: expected a mapping of keys to values, not a list"),
        ("7", "1:1: expected a mapping of keys to values, not a whole number"),
        ("a: &a [*a]", "1:1: a: there is no such key here"),
        ("[" * 1500, "no YAML"),
    ],
)
def test_what_is_no_configuration_at_all_is_told_so(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text, "elemta.yaml")
    assert complaint in str(caught.value)


def test_several_mistakes_are_told_in_the_order_of_the_file() -> None:
    text = EXAMPLE.replace("mx.example.org", "mx").replace('"127.0.0.1:2525"', '"x"')
    with pytest.raises(ConfigError) as caught:
        load(text.replace("127.0.0.1:5353", "x"), "f")
    assert [m.place for m in caught.value.mistakes] == [
        "hostname",
        "listeners[0].address",
        "dns.nameservers[0]",
    ]
    assert len(str(caught.value).splitlines()) == 3


def test_words_that_old_yaml_takes_for_something_else_are_mailboxes() -> None:
    text = EXAMPLE.replace("[bob, postmaster]", "[bob, no, on, 12:30, 2026-01-01, 0x1f, 1_0, .5]")
    assert load(text).domains[0].mailboxes == [
        "bob", "no", "on", "12:30", "2026-01-01", "0x1f", "1_0", ".5",
    ]  # fmt: skip


def test_anchors_and_merges_are_understood() -> None:
    text = MINIMAL.replace(
        '[{name: mx, address: ":25"}]',
        '\n- &mx {name: mx, address: ":25", messages: 7}\n- {<<: *mx, name: b, address: ":24"}',
    )
    assert [listener.messages for listener in load(text).listeners] == [7, 7]


def test_an_alias_may_keep_a_copy_in_its_own_mailbox() -> None:
    text = EXAMPLE.replace("{sales: [bob,", "{bob: [bob,")
    assert load(text).domains[0].aliases == {"bob": ["bob", "carol@example.net"]}


def test_aliases_may_lead_to_aliases_and_to_anything_where_all_is_taken() -> None:
    chain = EXAMPLE.replace("{sales: [bob,", "{a: [sales], b: [a, postmaster], sales: [Bob,")
    assert len(load(chain).domains[0].aliases) == 3
    anything = EXAMPLE.replace("[bob, postmaster]", '["*"]').replace("[bob,", "[whoever,")
    assert load(anything).domains[0].mailboxes == ["*"]


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot be read: No such file"):
        read(tmp_path / "missing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"hostname: m\xfcnchen")
    with pytest.raises(ConfigError, match=r"latin\.yaml: is no UTF-8 at octet 11"):
        read(tmp_path / "latin.yaml")


class Settings(Table, frozen=True):
    recipients: int = 7


def test_a_plugin_holds_its_settings_against_a_schema_of_its_own(tmp_path: Path) -> None:
    text = MINIMAL + "plugins:\n  - {name: x, settings: {recipients: 3, any: [{thing: null}]}}\n"
    (entry,) = load(text).plugins
    assert entry.settings == {"recipients": 3, "any": [{"thing": None}]}
    with pytest.raises(ConfigError) as caught:
        check(entry.settings, Settings, "plugins[0].settings")
    assert caught.value.mistakes[0].place == "plugins[0].settings.any"
    path = tmp_path / "elemta.yaml"
    path.write_text(text)
    assert str(locate(caught.value, path)).startswith(f"{path}:4:41: plugins[0].settings.any: ")


def test_a_place_that_is_not_there_is_told_without_a_line() -> None:
    assert str(ConfigError(Mistake("a.b", "wrong"))) == "a.b: wrong"
    assert str(ConfigError(Mistake("", "wrong"), where="f")) == "f: wrong"


def test_patterns_match_domains_and_what_is_below_them() -> None:
    relay = load(MINIMAL + 'relay: {domains: [Example.net, "*.example.com"]}').relay
    assert relay.allows("example.net")
    assert not relay.allows("sub.example.net")
    assert relay.allows("a.b.example.com")
    assert not relay.allows("example.com")
    assert not relay.allows("notexample.com")


def test_addresses_are_written_as_they_were_read() -> None:
    text = MINIMAL.replace('":25"', '["[::1]:25", "systemd:smtp", ":26", "localhost:27"]')
    bindings = load(text).listeners[0].bindings
    assert [str(b) for b in bindings] == ["[::1]:25", "systemd:smtp", ":26", "localhost:27"]
    assert bindings[0] == HostPort("::1", 25)
    assert bindings[1] == SystemdSocket("smtp")
    text = (
        MINIMAL + "routes: [{match: '*', via: ['smtp://[2001:DB8::1]', 'smtp://mx.example.net/']}]"
    )
    targets = load(text).routes[0].targets
    assert targets == (Smarthost("2001:db8::1", 25), Smarthost("mx.example.net", 25))
    assert str(targets[0]) == "smtp://[2001:db8::1]:25"
    assert load(MINIMAL + "dns: {nameservers: ['::1', 192.0.2.1]}").dns.servers == (
        HostPort("::1", 53),
        HostPort("192.0.2.1", 53),
    )


@pytest.mark.parametrize(
    ("text", "target", "written"),
    [
        ("discard", Discard(), "discard"),
        ("lmtp://127.0.0.1", LmtpHost("127.0.0.1", 24), "lmtp://127.0.0.1:24"),
        ("lmtp://[::1]:2424/", LmtpHost("::1", 2424), "lmtp://[::1]:2424"),
        ("lmtp:///run/dovecot/lmtp", LmtpSocket("/run/dovecot/lmtp"), "lmtp:///run/dovecot/lmtp"),
        (
            "pipe:/bin/x -f{sender} 'a  b' {recipient}",
            Pipe(("/bin/x", "-f{sender}", "a  b", "{recipient}")),
            "pipe:/bin/x '-f{sender}' 'a  b' '{recipient}'",
        ),
    ],
)
def test_mail_can_go_to_hosts_sockets_programs_and_nowhere(
    text: str, target: Target, written: str
) -> None:
    domain = load(EXAMPLE.replace("deliver: maildir", f"deliver: {json.dumps(text)}")).domains[0]
    assert domain.target == target
    assert str(domain.target) == written


def test_a_value_is_one_argument_and_never_becomes_an_option() -> None:
    values = {
        "sender": "a b@x",
        "recipient": "-r{id}@x",
        "local_part": "-r",
        "domain": "x",
        "id": "",
    }
    pipe = Pipe(("/bin/x", "-f{sender}", "--to={recipient}", "{domain}{id}", "{}", "{id}"))
    assert pipe.arguments(values) == ["/bin/x", "-fa b@x", "--to=-r{id}@x", "x", "{}", ""]
    for word in ("{recipient}", "{local_part}", "{id}{local_part}"):
        with pytest.raises(ValueError, match="would be taken for an option"):
            Pipe(("/bin/x", word)).arguments(values)


def test_a_route_without_targets_is_for_the_way_to_the_mx() -> None:
    text = MINIMAL + 'routes: [{match: "*", tls: required, source: [192.0.2.1, "2001:db8::1"]}]'
    (route,) = load(text).routes
    assert (route.targets, route.tls, len(route.source)) == ((), "required", 2)


def test_networks_compare_by_what_they_hold() -> None:
    assert Network.parse("192.0.2.0/24") == Network.parse("192.0.2.0/24")
    assert Network.parse("192.0.2.1") != Network.parse("192.0.2.2")
    assert len({Network.parse("::1"), Network.parse("::1/128")}) == 1
    assert repr(Network.parse("::1")) == "Network('::1/128')"
    assert str(Network.parse("::1")) == "::1/128"


def test_services_are_hosts_with_ports_or_sockets() -> None:
    assert str(Service.parse("clamav:3310")) == "clamav:3310"
    assert str(Service.parse("[::1]:3310")) == "[::1]:3310"
    assert repr(Service.parse("/run/x.sock")) == "Service('/run/x.sock')"
    assert Service.parse("/run/x.sock") == Service.parse("/run/x.sock")
    assert len({Service.parse("localhost:1"), Service.parse("localhost:2")}) == 2


@pytest.mark.parametrize("text", ["", "run/x.sock", "localhost", ":3310", "localhost:0", "a b:1"])
def test_what_is_no_service_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected HOST:PORT or the path of a socket"):
        Service.parse(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("inet:8891@localhost", "localhost:8891"),
        ("inet6:8891@::1", "[::1]:8891"),
        ("unix:/run/x.sock", "/run/x.sock"),
        ("local:/run/x.sock", "/run/x.sock"),
    ],
)
def test_a_service_written_as_milters_do_is_told_how_it_is_here(text: str, meant: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"did you mean {meant}?")):
        Service.parse(text)
    assert str(Service.parse(meant)) == meant


def test_a_configuration_cannot_be_changed() -> None:
    config = load(MINIMAL)
    with pytest.raises(AttributeError):
        config.hostname = "other.example"  # type: ignore[misc]  # that is the point
    assert msgspec.structs.replace(config, hostname="other.example") != config


def test_defaults_know_their_units() -> None:
    config = load(MINIMAL)
    assert isinstance(config.queue.lifetime, Seconds)
    assert isinstance(config.listeners[0].message_size, Octets)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("5 d", "4 d", [("queue.lifetime", '"5 d"', '"4 d"', False)]),
        ("queue:", "queue:\n  history: {count: 1}", [("queue.history.count", "1000000", "1", True)]),
        ("queue:", "queue:\n  disk_reserve: 1 B", [("queue.disk_reserve", '"1 GiB"', '"1 B"', True)]),
        ("queue:", "destinations: [{match: x}]\nqueue:", [("destinations[x]", None, "", False)]),
        ("name: mx,", "name: b,", [("listeners[b]", None, "", True), ("listeners[mx]", "", None, True)]),
        ("name: mx,", "name: mx, messages: 5,", [("listeners[mx].messages", "100", "5", False)]),
        ("127.0.0.1:2525", ":25", [("listeners[mx].address", '"127.0.0.1:2525"', '":25"', True)]),
        (":5353", ":53", [("dns.nameservers", '["127.0.0.1:5353"]', '["127.0.0.1:53"]', True)]),
        ("/32", "/31", []),
        ("127.0.0.1/32", "::1/128", [("relay.networks", '["127.0.0.1/32"]', '["::1/128"]', False)]),
        ("dns:", "plugins: [{name: x}]\ndns:", [("plugins[x]", None, "", False)]),
        ("dns:", "log: {level: debug}\ndns:", [("log.level", '"info"', '"debug"', False)]),
        ("./data", "./other", [("data_dir", '"data"', '"other"', True)]),
        ("  - {match", '  - {match: x, via: [maildir]}\n  - {match', [("routes[x]", None, "", False)]),
    ],
)  # fmt: skip
def test_a_change_says_what_it_was_and_whether_it_needs_a_restart(
    before: str, after: str, told: list[tuple[str, str | None, str | None, bool]]
) -> None:
    if not told:
        before, after = "queue:", "queue:\n  # nothing"
    found = changes(load(EXAMPLE), load(EXAMPLE.replace(before, after, 1)))
    assert [(c.place, c.before, c.after, c.needs_restart) for c in found] == told


def test_the_order_of_plugins_is_a_change() -> None:
    one = load(MINIMAL + "plugins: [{name: a}, {name: b}]")
    other = load(MINIMAL + "plugins: [{name: b}, {name: a}]")
    (change,) = changes(one, other)
    assert (change.place, change.before, change.after) == ("plugins.order", "a b", "b a")


def test_what_needs_a_restart_stays_as_it_is_until_then() -> None:
    running = load(EXAMPLE)
    wanted = EXAMPLE.replace("127.0.0.1:2525", ":25").replace("name: mx,", "name: mx, messages: 5,")
    wanted = wanted.replace(":5353", ":53").replace("5 d", "4 d").replace("[bob,", "[bob, al,")
    wanted += "delivery: {max_connections: 7, hello_name: out.example.org}\n"
    wanted = wanted.replace("relay:", '  - {name: b, address: ":24"}\nrelay:')
    now = applicable(running, load(wanted))
    assert all(change.needs_restart for change in changes(now, load(wanted)))
    assert {change.place for change in changes(running, now)} == {
        "queue.lifetime",
        "delivery.hello_name",
        "domains[example.org].aliases",
        "domains[example.org].mailboxes",
        "listeners[mx].messages",
    }
    assert applicable(running, load(EXAMPLE.replace("{name: mx", "{name: b"))) == running


def test_what_can_be_chosen_for_one_recipient_is_a_host_or_its_maildir() -> None:
    assert chosen_targets(()) == ()
    assert chosen_targets(("smtp://a", "smtp://b:26")) == (Smarthost("a", 25), Smarthost("b", 26))
    assert chosen_targets(("maildir",)) == (Maildir(),)
    for wrong, index in ((("smtp://a", "x"), 1), (("discard",), 0), (("smtp://a", "maildir"), 1)):
        with pytest.raises(TargetError) as caught:
            chosen_targets(wrong)
        assert caught.value.index == index
