"""Connections to servers beside us, such as scanners: they have names that the system knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from elemta.config import HostPort

if TYPE_CHECKING:
    from elemta.config import Service


class Connects(Protocol):
    """Connects to a service."""

    async def __call__(self, service: Service, /) -> trio.abc.Stream:
        """A connection; the caller closes it, and has a deadline.

        Raises:
            OSError: nobody is there.
        """
        ...


async def connect_service(service: Service) -> trio.abc.Stream:
    """See `Connects`: a name is asked of the system, as services stand in ``/etc/hosts``, too."""
    if isinstance(service.where, HostPort):
        return await trio.open_tcp_stream(service.where.host, service.where.port)
    return await trio.open_unix_socket(str(service.where))
