"""How hosts would be met."""

from __future__ import annotations

import random

import pytest

from elemta.config import HostPort
from elemta.delivery.hosts import Hosts
from elemta.delivery.outlook import Meeting, meet
from elemta.delivery.routes import ByMx, Remote, Terms, ToHosts
from elemta.delivery.security import MEMORY, Security
from elemta.protocol import Reply
from tests.delivery.zone import Zone

A, B = "198.51.100.1", "198.51.100.2"


async def met(
    route: Remote, security: Security, zone: Zone | None = None, now: float = 0
) -> Meeting:
    zone = zone or Zone()
    hosts = Hosts(zone, hostname="us.example", is_own=lambda *_: False, random=random.Random(1))
    return await meet(route, hosts, security, "us.example", now)


def tls(meeting: Meeting) -> list[str]:
    assert isinstance(meeting.calls, tuple)
    return [each.tls for each in meeting.calls]


async def test_a_host_whose_tls_failed_is_met_in_clear_for_a_while() -> None:
    security = Security("opportunistic")
    route = ToHosts((HostPort(A, 25), HostPort(B, 25)))
    first = await met(route, security)
    assert isinstance(first.calls, tuple)
    assert tls(first) == ["TLS if it offers it", "TLS if it offers it"]
    security.failed(first.calls[0].candidate, 0.0, "STARTTLS was refused")
    told = "in clear for 60 min more: STARTTLS was refused"
    assert tls(await met(route, security, now=1.0)) == [told, "TLS if it offers it"]
    assert tls(await met(route, security, now=MEMORY + 1)) == ["TLS if it offers it"] * 2


@pytest.mark.parametrize(("policy", "told"), [("required", "TLS required"), ("off", "in clear")])
async def test_a_route_may_say_otherwise(policy: str, told: str) -> None:
    terms = Terms(hello_name="out.example", source=("192.0.2.9",), tls=policy)  # type: ignore[arg-type] # one of them
    meeting = await met(ToHosts((HostPort(A, 25),), terms=terms), Security("opportunistic"))
    assert tls(meeting) == [told]
    assert (meeting.hello_name, meeting.source, meeting.policy) == (
        "out.example",
        ("192.0.2.9",),
        policy,
    )


async def test_a_socket_of_this_machine_is_spoken_to_in_clear() -> None:
    meeting = await met(ToHosts((HostPort("/run/lmtp", 0),), lmtp=True), Security("required"))
    assert tls(meeting) == ["in clear, as it is on this machine"]
    assert (meeting.lmtp, meeting.found) == (True, ())


async def test_where_nobody_can_be_called_that_is_said() -> None:
    meeting = await met(ByMx("nowhere.example"), Security("off"))
    assert isinstance(meeting.calls, Reply)
    assert meeting.calls.code == 550
