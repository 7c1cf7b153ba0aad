"""A configuration as people may see it: as the file would have it, defaults filled in, no secrets.

What is a secret we do not know, as plugins have settings of their own: so whatever is called like
one is masked, and whatever stands before the host of an URL.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from elemta.units import Frequency, Octets, Seconds

if TYPE_CHECKING:
    from elemta.config.schema import Config, Route

#: What stands in place of a secret.
MASK: Final = "***"

#: What a file is made of.
Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"

#: ``api_key`` and ``apiKey`` have the word "key" in them, ``monkey`` has not.
_WORDS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
_SECRETS: Final = frozenset(
    {
        *("password", "passwords", "passwd", "passphrase", "pass", "secret", "secrets"),
        *("token", "tokens", "key", "keys", "apikey", "credential", "credentials"),
    }
)
#: The last word of what only says where a secret lies.
_PLACES: Final = frozenset({"file", "files", "path", "dir", "directory"})
_KEY_FILE: Final = re.compile(r"\.{0,2}/.*\.(?:pem|key|crt|der|p12|pub|private)")
#: All up to the last ``@``: a password need not be written as an URL wants it. What is masked for
#: no reason is the smaller evil.
_USERINFO: Final = re.compile(r"(?<=://)\S*@")


def shown(config: Config) -> dict[str, object]:
    """The values of a configuration: quantities with their units, secrets masked."""
    plugins = [
        {**_bare_table(_plain(entry)), "settings": masked(_plain(entry.settings))}
        for entry in config.plugins
    ]
    found: dict[str, object] = {**_bare_table(_plain(config)), "plugins": plugins}
    found["routes"] = [_without_password(each) for each in config.routes]
    return found


def _without_password(route: Route) -> dict[str, Plain]:
    login = route.login
    if login is not None and login.password is not None:
        login = msgspec.structs.replace(login, password=MASK)
    return _bare_table(_plain(msgspec.structs.replace(route, login=login)))


def without_userinfo(text: str) -> str:
    """The same without what stands before the hosts of URLs."""
    return _USERINFO.sub(f"{MASK}@", text)


def _plain(value: object) -> dict[str, Plain]:
    plain: dict[str, Plain] = msgspec.to_builtins(value, enc_hook=_written, str_keys=True)
    return plain


def _written(value: object) -> str:
    if isinstance(value, (Seconds, Octets, Frequency)):
        return value.written
    return str(value)


def _bare_table(table: dict[str, Plain]) -> dict[str, Plain]:
    return {key: _bare(value) for key, value in table.items()}


def _bare(value: Plain) -> Plain:
    """The same without what stands before a host."""
    if isinstance(value, str):
        return without_userinfo(value)
    if isinstance(value, list):
        return [_bare(each) for each in value]
    return _bare_table(value) if isinstance(value, dict) else value


def masked(settings: dict[str, Plain]) -> dict[str, Plain]:
    """Settings without what is called like a secret."""
    return {
        key: MASK if _is_secret(key, value) else _within(value) for key, value in settings.items()
    }


def _within(value: Plain) -> Plain:
    if isinstance(value, dict):
        return masked(value)
    return [_within(each) for each in value] if isinstance(value, list) else _bare(value)


def _has_file(value: Plain) -> bool:
    """Whether it is a table of a key that lies elsewhere."""
    return isinstance(value, dict) and not _is_secret("key", value.get("key", MASK))


def _is_secret(key: str, value: Plain) -> bool:
    words = [word.lower() for word in _WORDS.findall(key)]
    if not _SECRETS.intersection(words) or words[-1] in _PLACES:
        return False
    if isinstance(value, str) and words[-1] == "key" and _KEY_FILE.fullmatch(value):
        return False
    if words[-1] == "keys" and isinstance(value, list) and value and all(map(_has_file, value)):
        return False
    return not (value is None or isinstance(value, bool) or value in ("", [], {}))
