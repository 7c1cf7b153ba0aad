"""What routes say of how servers are met: TLS, logins, senders."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

import pytest

from elemta.config import ConfigError, Login, Smarthost, changes, load, read, shown

HEAD = 'hostname: mx.example.org\nlisteners: [{name: mx, address: ":25"}]\n'
LOGIN = 'via: ["smtp://a.example:587"]\nlogin: {user: us, password: hush}\n'


def text(route: str, rest: str = "") -> str:
    return f'{HEAD}{rest}routes:\n  - match: "*"\n{indent(route, "    ")}\n'


@pytest.mark.parametrize(
    ("route", "complaint"),
    [
        ('senders: ["bob"]', "routes[0].senders[0]: expected ADDRESS"),
        ('senders: ["<>", "@-"]', "routes[0].senders[1]: expected ADDRESS"),
        ("certificate: a.pem", "routes[0].certificate: expected `key` too"),
        ("key: a.pem", "routes[0].key: expected `certificate` too"),
        ('tls: "off"\nserver_name: a.example', "routes[0].server_name: is of no use with"),
        (
            'tls: "off"\ncertificate: a\nkey: b',
            "routes[0].certificate: is of no use with",
        ),
        ('tls: "off"\nvia: ["smtps://a.example"]', "routes[0].via[0]: expected smtp://"),
        ("authorities: a.pem", "routes[0].authorities: is of use with `tls: verified` alone"),
        ("tls: required\nauthorities: a.pem", "and here it is required"),
        ("server_name: a b", "routes[0].server_name: expected the name of a host or `domain`"),
        (
            'via: ["smtp://a.example"]\nserver_name: domain',
            "routes[0].server_name: expected the name of a host",
        ),
        ("login: {user: us, password: x}", "routes[0].login: expected smtp:// or smtps://"),
        (
            'via: ["lmtp://a.example"]\nlogin: {user: us, password: x}',
            "routes[0].login: expected smtp:// or smtps://",
        ),
        (
            'via: ["nonsense"]\nlogin: {user: us, password: x}',
            "routes[0].login: expected smtp:// or smtps://",
        ),
        (LOGIN + "tls: opportunistic", "routes[0].tls: expected `tls: verified`, or `required`"),
        (LOGIN + 'tls: "off"', "routes[0].tls: expected `tls: verified`, or `required`"),
        (
            'via: ["smtp://127.0.0.1", "smtp://192.0.2.1"]\nlogin: {user: us, password: x}\n'
            'tls: "off"',
            "routes[0].tls: expected `tls: verified`, or `required`",
        ),
        (LOGIN.replace("user: us", 'user: ""'), "routes[0].login.user: expected a name"),
        (LOGIN.replace("hush", '"a\\0b"'), "routes[0].login.password: expected 1 to 255"),
        (LOGIN.replace(", password: hush", ""), "routes[0].login: expected one of"),
        (LOGIN.replace("hush", "hush, password_file: p"), "routes[0].login: expected one of"),
        (LOGIN.replace("hush", "hush, token_file: p"), "routes[0].login: expected one of"),
        (LOGIN.replace("hush", "hush, passwd: p"), "there is no such key"),
    ],
)
def test_a_mistake_is_told_with_its_place(route: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text(route))
    assert complaint in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "route",
    [
        LOGIN,
        LOGIN + "tls: required",
        'via: ["smtp://localhost", "smtp://[::1]"]\ntls: "off"\nlogin: {user: us, password: x}',
        "tls: verified\nserver_name: domain\nauthorities: ca.pem",
        'senders: ["<>", "*", "bob@example.org", "@example.org", "@*.example.org"]',
        "certificate: a.pem\nkey: b.pem",
    ],
)
def test_what_is_right_is_taken(route: str) -> None:
    load(text(route))


def test_authorities_are_of_use_where_everything_is_verified() -> None:
    load(text("authorities: ca.pem", "delivery: {tls: verified}\n"))


def test_routes_of_the_same_match_differ_by_their_senders() -> None:
    more = '\n  - {match: "*", senders: ["@b.example"]}\n  - {match: "*"}\n'
    load(text('senders: ["@a.example"]') + more)
    with pytest.raises(ConfigError, match=r"routes\[2\].match: '\*' is taken by routes\[0\]"):
        load(text("tls: required") + more)


def test_a_login_is_verified_unless_the_route_says_otherwise() -> None:
    [route] = load(text(LOGIN)).routes
    assert route.encryption == "verified"
    [route] = load(text(LOGIN + "tls: required")).routes
    assert route.encryption == "required"


def test_smtps_is_another_way_to_the_same_kind_of_host() -> None:
    [route] = load(text('via: ["smtps://a.example", "smtp://b.example:587"]')).routes
    first, second = route.targets
    assert first == Smarthost("a.example", 465, implicit=True)
    assert second == Smarthost("b.example", 587)
    assert [str(first), str(second)] == ["smtps://a.example:465", "smtp://b.example:587"]


def test_paths_of_a_route_start_at_the_file(tmp_path: Path) -> None:
    file = tmp_path / "elemta.yaml"
    file.write_text(
        text(
            'via: ["smtp://a.example"]\nlogin: {user: us, password_file: secret}\n'
            "authorities: ca.pem\ncertificate: us.pem\nkey: /etc/us.key"
        )
    )
    [route] = read(file).routes
    assert route.login == Login(user="us", password_file=tmp_path / "secret")
    assert (route.authorities, route.certificate) == (tmp_path / "ca.pem", tmp_path / "us.pem")
    assert route.key == Path("/etc/us.key")


def test_the_password_is_not_shown() -> None:
    config = load(text(LOGIN))
    assert "hush" not in str(shown(config)) + repr(config)
    assert "'password': '***'" in str(shown(config))
    later = load(text(LOGIN.replace("hush", "hushhush")))
    [change] = changes(config, later)
    assert change.place == "routes[*].login.password"
    assert (change.before, change.after) == ('"***"', '"***"')
    [gone, come] = changes(config, load(text(LOGIN.replace("password: hush", "password_file: p"))))
    assert (gone.before, gone.after) == ('"***"', "null")
    assert come.after == '"p"'


def test_secrets_in_settings_of_plugins_are_not_shown_when_they_change() -> None:
    entry = "plugins:\n  - {name: x, settings: {secret: NAME, port: 1}}\n"
    old, new = load(HEAD + entry.replace("NAME", "one")), load(HEAD + entry.replace("NAME", "two"))
    [change] = changes(old, new)
    assert "one" not in str(change)
    assert "two" not in str(change)
    assert change.place == "plugins[x].settings"
