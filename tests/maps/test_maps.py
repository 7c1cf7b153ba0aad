from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from elemta.config import ConfigError, Map
from elemta.maps import Maps
from elemta.testing import at_once

if TYPE_CHECKING:
    from pathlib import Path


def tables(folder: Path) -> dict[str, Map]:
    (folder / "aliases").write_text("bob: carol\n")
    database = f"sqlite:{folder / 'mail.db'}"
    return {
        "aliases": Map(file=folder / "aliases"),
        "users": Map(database=database, query="SELECT :key"),
        "people": Map(http="http://127.0.0.1:1/"),
    }


async def test_maps_that_stay_as_they_are_are_kept_at_a_reload(tmp_path: Path) -> None:
    wanted = tables(tmp_path)
    maps = Maps(wanted, in_thread=at_once)
    assert await maps.get("aliases", "bob") == ("carol",)
    (tmp_path / "aliases").unlink()
    after = maps.reconfigured({"aliases": wanted["aliases"]})
    after.settle()
    assert await after.get("aliases", "bob") == ("carol",)  # looked at a moment ago
    after.close()
    maps.close()


async def test_what_is_down_is_a_trouble(tmp_path: Path) -> None:
    maps = Maps(tables(tmp_path), in_thread=at_once)
    assert list(maps.troubles) == []
    with pytest.raises(Exception, match="users is down"):
        await maps.get("users", "bob")
    assert list(maps.troubles) == ["the map users is down: unable to open database file"]


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_a_missing_driver_is_a_mistake_of_the_configuration(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    table = Map(database=f"{scheme}://127.0.0.1/mail", query="SELECT :key")
    with pytest.raises(ConfigError, match=r"pip install 'elemta\[postgresql\]'") as caught:
        Maps({"users": table})
    assert [each.place for each in caught.value.mistakes] == ["maps.users.database"]


def test_an_url_that_libpq_does_not_know_is_one_too() -> None:
    pytest.importorskip("psycopg")
    table = Map(database="postgresql://127.0.0.1/mail?colour=red", query="SELECT :key")
    with pytest.raises(ConfigError, match="colour"):
        Maps({"users": table})
