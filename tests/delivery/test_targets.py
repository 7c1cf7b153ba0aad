from __future__ import annotations

import pytest

from elemta.config import HostPort, SystemdSocket
from elemta.delivery.targets import OwnAddresses, is_public


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2a00:1450::1", "::ffff:8.8.8.8", "172.32.0.1", "100.128.0.1"]
)
def test_an_address_of_the_world_is_public(address: str) -> None:
    assert is_public(address)


def test_what_we_listen_on_is_ours_by_address_and_port() -> None:
    own = OwnAddresses([HostPort("203.0.113.25", 25), HostPort("::1", 2525)])
    assert own("203.0.113.25", 25)
    assert own("::ffff:203.0.113.25", 25)
    assert own("0:0::1", 2525)
    assert not own("203.0.113.25", 587)
    assert not own("203.0.113.26", 25)


@pytest.mark.parametrize(
    "binding",
    [HostPort("", 25), HostPort("0.0.0.0", 25), HostPort("::", 25), SystemdSocket("smtp")],
)
def test_who_listens_everywhere_owns_every_address_of_the_machine(
    binding: HostPort | SystemdSocket,
) -> None:
    own = OwnAddresses([binding])
    assert own("127.0.0.1", 25)
    assert not own("127.0.0.1", 26)
    assert not own("198.51.100.1", 25)
