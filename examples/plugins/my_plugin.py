from typing_extensions import override

from elemta.plugins import Content, Continue, Plugin, Transaction, Verdict


class MyPlugin(Plugin):
    """Has nothing against any mail."""

    name = "my-plugin"

    @override
    async def start(self) -> None:
        """Open what the plugin needs."""

    @override
    async def stop(self) -> None:
        """Close it."""

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        return Continue(note="plugin executed successfully")
