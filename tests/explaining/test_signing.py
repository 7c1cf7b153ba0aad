"""Which keys would sign, as `elemta explain` tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elemta.config import PluginEntry
from elemta.plugins import Chain, Loaded, Transaction, load
from elemta.testing import some_tools
from tests.explaining.scene import scene, step
from tests.mailauth.signing import rsa_key
from tests.plugins.saying import saying

if TYPE_CHECKING:
    from pathlib import Path


def plugins(tmp_path: Path) -> list[Loaded]:
    (key := tmp_path / "key").touch(0o600)
    key.write_bytes(rsa_key()[0])
    own: dict[str, object] = {"domain": "us.example", "selector": "s1", "key": str(key)}
    found = load(
        [
            PluginEntry(name="dkim-sign", settings={"keys": [own]}),
            PluginEntry(name="arc-seal", settings=own),
        ]
    )
    for each in found:
        each.plugin.tools = some_tools(each.name)
    return found


async def test_which_keys_would_sign_is_told(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.with_plugins(Chain(plugins(tmp_path)))
        found = await here.explain("x@gone.example", client="198.51.100.7", sender="a@us.example")
        told = step(found, "signing")
        assert told.answer == "if From is of us.example"
        assert told.details == (
            "dkim-sign would sign by s1._domainkey.us.example (rsa, 1024 bits)",
            "arc-seal would not seal: it is not mail of others that is passed on",
        )
        found = await here.explain("x@gone.example", client="198.51.100.7", sender="a@them.example")
        assert step(found, "signing").details[0] == (
            "dkim-sign would not sign: there is no key for them.example"
        )
        found = await here.explain("x@gone.example", client="198.51.100.7", sender=None)
        assert step(found, "signing").answer == "of a message from the null sender"


async def test_nobody_is_vouched_for_who_is_a_stranger(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.with_plugins(Chain(plugins(tmp_path)))
        found = await here.explain("bob@us.example", client="192.0.2.1", sender="a@us.example")
        assert step(found, "signing").details[0] == (
            "dkim-sign would not sign: the client is none that we vouch for"
        )


async def test_a_plugin_that_does_not_know_or_fails_is_named(tmp_path: Path) -> None:
    silent = saying("silent", on_sign=())
    broken = saying("broken", on_sign=())

    def fails(transaction: Transaction, author: str) -> str:
        raise LookupError

    broken.foresee_signing = fails  # type: ignore[method-assign]
    async with scene(tmp_path) as here:
        here.with_plugins(Chain([Loaded(silent), Loaded(broken)]))
        found = await here.explain("bob@us.example")
        names = step(found, "signing").details
        assert names == ("silent would be asked", "broken would be asked")
