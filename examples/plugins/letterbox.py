import sqlite3

from typing_extensions import override

from elemta.plugins import Accept, Letter, Plugin, Verdict

_TABLE = """
CREATE TABLE IF NOT EXISTS mail
    (id TEXT, number INTEGER, mailbox TEXT, content BLOB, PRIMARY KEY (id, number))
"""


class Letterbox(Plugin):
    """Keeps mail in a database of its own."""

    name = "letterbox"

    @override
    async def start(self) -> None:
        self._file = self.tools.folder / "mail.sqlite"
        await self.tools.in_thread(lambda: self._do(_TABLE))

    @override
    async def on_store(self, letter: Letter) -> Verdict:
        content = letter.head + await letter.read()
        recipient = letter.recipient
        row = (letter.message.id, recipient.number, str(recipient.address), content)
        # After a crash the same comes again: it must not be there twice.
        add = "INSERT OR REPLACE INTO mail VALUES (?, ?, ?, ?)"
        await self.tools.in_thread(lambda: self._do(add, *row))
        return Accept()

    def _do(self, statement: str, *values: str | int | bytes) -> None:
        connection = sqlite3.connect(self._file)
        try:
            with connection:
                connection.execute(statement, values)
        finally:
            connection.close()
