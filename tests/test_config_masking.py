"""What people may see of a configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from elemta.config import Config, changes, load, shown

WHOLE = """
hostname: mx.example.org
listeners: [{name: mx, address: ":25", message_size: 50 MiB, idle_timeout: 5 min}]
limits: {memory: 1000 B}
relay: {networks: [192.0.2.0/24]}
destinations: [{match: slow.example, messages: 100/h}]
"""
PLUGIN = """
hostname: mx.example.org
listeners: [{name: mx, address: ":25"}]
plugins:
  - name: recipient-limit
    settings:
"""


def settings(text: str) -> object:
    """What is shown of a plugin's settings."""
    config = load(PLUGIN + "\n".join(f"      {line}" for line in text.strip().splitlines()))
    values: dict[str, list[dict[str, object]]] = json.loads(json.dumps(shown(config)))
    return values["plugins"][0]["settings"]


def test_quantities_have_their_units_and_defaults_are_filled_in() -> None:
    values = shown(load(WHOLE))
    limits = values["limits"]
    assert isinstance(limits, dict)
    assert (limits["connections"], limits["memory"]) == (2000, "1000 B")
    wanted = {"networks": ["192.0.2.0/24"], "domains": [], "domain_map": None}
    assert values["relay"] == wanted
    assert values["shutdown_grace"] == "30 s"
    assert values["data_dir"] == "/var/lib/elemta"
    told = json.dumps(values)
    for part in ('"50 MiB"', '"5 min"', '"100/1 h"', '"4 h"', '"1 GiB"'):
        assert part in told


@pytest.mark.parametrize("path", ["packaging/elemta.yaml"])
def test_what_is_shown_is_a_configuration_and_the_same_one(path: str) -> None:
    text = (Path(__file__).parent.parent / path).read_text()
    for config in (load(WHOLE), load(text)):
        again: Config = load(yaml.safe_dump(shown(config)))
        assert again == config


@pytest.mark.parametrize(
    "secret",
    [
        "password: hunter2",
        "smtpPassword: hunter2",
        "api_key: hunter2",
        "APIKey: hunter2",
        "key: /hunter2",
        "access-token: hunter2",
        "credentials: {user: hunter2, word: hunter2}",
        "tokens: [hunter2]",
        "secret: 2222",
        "one: {two: [{passphrase: hunter2}]}",
        "url: https://user:hunter2@example.org/",
        "urls: [redis://:hunter/2@hunter2@example.org/]",
    ],
)
def test_secrets_are_masked_wherever_they_are(secret: str) -> None:
    told = json.dumps(settings(secret))
    assert "***" in told
    assert "hunter2" not in told
    assert "2222" not in told


@pytest.mark.parametrize(
    "plain",
    [
        "monkey: bananas",
        "keyboard: de",
        "password_file: /etc/secret",
        "token_path: /etc/secret",
        "tls_key: /etc/ssl/private/mail.pem",
        "key: /etc/ssl/private/mail.key",
        "use_token: true",
        "password: null",
        "url: https://example.org/a?b=c",
        "one: {two: [{three: 4}]}",
    ],
)
def test_what_is_no_secret_is_shown(plain: str) -> None:
    assert settings(plain) == yaml.safe_load(plain)


def test_an_url_is_bare_of_its_user_wherever_it_stands() -> None:
    config = load(WHOLE + "dns: {nameservers: []}\n")
    values = shown(config)
    assert values["routes"] == []
    pipe = "domains: [{name: a.example, deliver: 'pipe:/bin/x https://me:hunter2@h/'}]\n"
    assert "hunter2" not in json.dumps(shown(load(WHOLE + pipe)))


def test_where_keys_lie_is_shown_and_what_they_are_is_not() -> None:
    keys = "keys: [{domain: example.org, selector: a, key: /etc/keys/a.pem}]"
    assert "/etc/keys/a.pem" in json.dumps(settings(keys))
    for secret in (
        "keys: [{key: hunter2, selector: a}]",
        "keys: [hunter2]",
        "keys: [{a: hunter2}]",
    ):
        assert settings(secret) == {"keys": "***"}


def test_the_password_of_a_database_is_shown_nowhere() -> None:
    table = "maps: {users: {database: 'postgresql://me:WORD@db/mail', query: 'SELECT :key'}}\n"
    before, after = (load(WHOLE + table.replace("WORD", each)) for each in ("hunter2", "other"))
    assert "hunter2" not in json.dumps(shown(before))
    assert "postgresql://***@db/mail" in json.dumps(shown(before))
    (change,) = changes(before, after)
    assert change.place == "maps[users].database"
    assert change.before == change.after == '"postgresql://***@db/mail"'
