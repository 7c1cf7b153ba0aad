from __future__ import annotations

from ipaddress import ip_address

import pytest

from elemta.plugins import AddHeader, Continue, Tag, change
from elemta.testing import a_session


@pytest.mark.parametrize(
    ("address", "ip"),
    [("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::1")],
)
def test_a_client_has_an_address(address: str, ip: str) -> None:
    assert a_session(address).ip == ip_address(ip)


def test_who_comes_by_a_unix_socket_has_none() -> None:
    assert a_session("").ip is None


def test_changes_are_said_in_a_word() -> None:
    wanted = (AddHeader("X-Seen", "yes"), Tag("seen"))
    assert change(*wanted, note="as always") == Continue(wanted, "as always")
