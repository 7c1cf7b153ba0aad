from typing_extensions import override

from elemta.config import Network, Table
from elemta.plugins import CONTINUE, PluginWith, Reject, Session, Verdict


class Settings(Table, frozen=True):
    #: Whose clients may come.
    networks: list[Network]


class Partners(PluginWith[Settings]):
    """Keeps a listener for those whom we know."""

    name = "partners"

    @override
    async def on_connect(self, session: Session) -> Verdict:
        ip = session.ip
        if ip is None or any(ip in network for network in self.settings.networks):
            return CONTINUE
        return Reject((7, 1), "you are not expected here", note=f"{ip} is no partner")
