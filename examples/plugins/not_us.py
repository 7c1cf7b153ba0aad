from typing_extensions import override

from elemta.plugins import CONTINUE, Plugin, Reject, Session, Verdict


class NotUs(Plugin):
    """Believes nobody who calls himself what we are called."""

    name = "not-us"

    @override
    async def on_hello(self, session: Session, name: str) -> Verdict:
        if session.trusted or name.lower() != self.tools.hostname.lower():
            return CONTINUE
        self.tools.count("impostor")
        return Reject((7, 1), "that is our name")
