from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from elemta import config
from elemta.listener.sockets import BoundListener
from elemta.nodes import Place, folders, inherited, places, share
from elemta.nodes.place import NODE, SOCKETS, environment
from elemta.protocol import parse_mailbox
from elemta.queue import Addressee, Envelope, RetryPolicy, open_queue
from elemta.units import Frequency, Seconds

ENVELOPE = Envelope(sender=None, recipients=(Addressee(address=parse_mailbox("you@example.net")),))

CONFIG = config.load(
    """
hostname: mx.example.org
data_dir: /srv/elemta
nodes: 4
listeners:
  - {name: mx, address: "127.0.0.1:0"}
  - {name: inside, address: "127.0.0.1:0", connections_per_client: 7}
limits: {connections: 1001, memory: 64 MiB}
delivery: {max_connections: 2}
"""
)


def test_a_process_is_told_which_node_it_is() -> None:
    assert Place.told({NODE: "2/4"}) == Place(2, 4)
    assert Place.told({}) is None


@pytest.mark.parametrize("text", ["", "2", "0/4", "4/0", "x/y", "-1/4", "1/4/4"])
def test_a_node_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a node such as 2/4"):
        Place.told({NODE: text})


def test_the_first_node_keeps_the_queue_of_a_server_with_one() -> None:
    data_dir = Path("/srv/elemta")
    assert Place(1, 4).queue(data_dir) == data_dir / "queue"
    assert Place(2, 4).queue(data_dir) == data_dir / "nodes" / "2" / "queue"


def test_nodes_share_what_the_whole_server_may_use() -> None:
    mine = share(CONFIG, Place(2, 4))
    assert mine.limits.connections == 251
    assert mine.limits.memory == 16 * 2**20
    assert mine.limits.transcripts == 250
    assert mine.delivery.max_connections == 1
    assert mine.queue.history.count == CONFIG.queue.history.count // 4
    assert mine.control.socket == Path("/srv/elemta/nodes/2/control.sock")


def test_nodes_share_what_a_destination_gets() -> None:
    told = config.load(
        """
hostname: mx.example.org
listeners: [{name: mx, address: ":25"}]
destinations:
  - {match: example.net, connections: 3, messages: 10/1 h, recipients: 3/1 h}
"""
    )
    one, rest = share(told, Place(1, 4)).destinations
    assert (one.match, one.connections) == ("example.net", 1)
    assert one.messages == Frequency(2, Seconds(3600)), "four times two is at most ten"
    assert one.recipients == Frequency(1, Seconds(7200)), "four times one in two hours is two"
    assert one.connections_rate is None
    assert (rest.match, rest.connections) == ("*", 5)


async def test_a_queue_that_nobody_would_empty_any_more_keeps_its_node(tmp_path: Path) -> None:
    told = config.load(
        f"""
hostname: mx.example.org
data_dir: {tmp_path}
listeners: [{{name: mx, address: ":25"}}]
"""
    )
    assert places(told) == [Place(1, 1)]
    left = Place(3, 1)
    assert left.retired
    async with open_queue(left.queue(tmp_path), RetryPolicy(), lane=lambda *_: "x") as queue:
        pass
    assert places(told) == [Place(1, 1)], "there is nothing in it"
    async with open_queue(left.queue(tmp_path), RetryPolicy(), lane=lambda *_: "x") as queue:
        await queue.accept(ENVELOPE, b"To: you\r\n\r\n")
    assert places(told) == [Place(1, 1), left]
    assert folders(tmp_path) == [tmp_path / "queue", tmp_path / "nodes" / "3" / "queue"]


def test_a_client_may_hold_as_many_connections_as_ever() -> None:
    assert share(CONFIG, Place(2, 4)).listeners == CONFIG.listeners


def test_a_node_listens_on_the_sockets_that_it_inherits() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        bound = [BoundListener(CONFIG.listeners[0], one), BoundListener(CONFIG.listeners[1], two)]
        told = environment(Place(2, 4), bound, 9)
        assert told == {
            "ELEMTA_NODE": "2/4",
            "ELEMTA_SOCKETS": f"mx={one.fileno()},inside={two.fileno()}",
            "ELEMTA_LIFELINE": "9",
        }
        copies = f"mx={os.dup(one.fileno())},inside={os.dup(two.fileno())}"
        found = inherited(CONFIG, {SOCKETS: copies})
        try:
            assert [each.table.name for each in found] == ["mx", "inside"]
            assert found[1].socket.getsockname() == two.getsockname()
        finally:
            for each in found:
                each.socket.close()


def test_a_listener_that_the_configuration_has_no_more_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        copy = os.dup(gone.fileno())
        assert inherited(CONFIG, {SOCKETS: f"gone={copy}"}) == []
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(copy)
