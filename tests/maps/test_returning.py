from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from elemta.config import ConfigError, Forwarding
from elemta.maps import srs_of
from elemta.protocol import Mailbox

if TYPE_CHECKING:
    from pathlib import Path

ANN = Mailbox("ann", "far.example")
NEW, OLD = b"0123456789abcdef", b"a secret of yesterday"


def forwarding(folder: Path, content: bytes, mode: int = 0o600) -> Forwarding:
    path = folder / "srs.secret"
    path.write_bytes(content)
    path.chmod(mode)
    return Forwarding(srs="Us.Example", secret_file=path)


def test_the_first_secret_makes_addresses_and_all_check_them(tmp_path: Path) -> None:
    before = srs_of(forwarding(tmp_path, OLD + b"\n"))
    assert before is not None
    ours = before.rewritten(ANN, 0)
    assert ours is not None
    assert ours.domain == "us.example"
    after = srs_of(forwarding(tmp_path, NEW + b"\r\n\n" + OLD))
    assert after is not None
    assert after.original(ours, 0) == ANN
    assert srs_of(Forwarding()) is None


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (b"\n \n", 0o600, "expected a secret on each line"),
        (b"too short", 0o600, "has less than 16 octets"),
        (NEW, 0o604, "others may read"),
        (b"x" * 70_000, 0o600, "more than 65536 octets"),
    ],
)
def test_secrets_that_are_none_are_refused(
    content: bytes, mode: int, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        srs_of(forwarding(tmp_path, content, mode))
    assert [each.place for each in caught.value.mistakes] == ["forwarding.secret_file"]
    assert content.decode()[:16] not in str(caught.value) or not content.strip()


def test_a_file_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no secrets: No such file"):
        srs_of(Forwarding(srs="us.example", secret_file=tmp_path / "gone"))
