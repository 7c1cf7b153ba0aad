from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from typing_extensions import override

from elemta.config import Table
from elemta.plugins import CONTINUE, Granted, PluginWith, Reject, Session, Verdict
from elemta.protocol import Credentials


class Settings(Table, frozen=True):
    #: A line for each user: his name, a colon, and the argon2 hash of his password.
    file: Path


class PasswordFile(PluginWith[Settings]):
    """Knows people by a file of names and hashes."""

    name = "password-file"

    @override
    async def start(self) -> None:
        text = await self.tools.in_thread(self.settings.file.read_text)
        lines = (line.partition(":") for line in text.splitlines())
        self._hashes = {user: known for user, _, known in lines}

    @override
    async def on_authenticate(
        self, session: Session, credentials: Credentials
    ) -> Granted | Verdict:
        known = self._hashes.get(credentials.user)
        if known is None:
            return CONTINUE
        if await self.tools.in_thread(lambda: _matches(known, credentials.password)):
            return Granted(credentials.user)
        return Reject((7, 8), "that is not the password")


def _matches(known: str, password: str) -> bool:
    try:
        return PasswordHasher().verify(known, password)
    except (VerificationError, InvalidHashError):
        return False
