"""The tokens of a running server: remembered, so that a request costs neither disk nor hashing."""

from __future__ import annotations

import hashlib
import hmac
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import trio

from elemta.api import tokens
from elemta.api.threads import in_thread
from elemta.api.tokens import Known, TokenFileError
from elemta.files import Watched
from elemta.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elemta.api.threads import InThread
    from elemta.api.tokens import Text, Token, TokenFile
    from elemta.api.visit import Scope

log = logger(__name__)

#: Seconds after which it is looked whether the file is another: so long a revoked token may work.
LOOK: Final = 1.0
#: Seconds that the disk gets for that, before what was known goes on being believed.
LOOK_PATIENCE: Final = 1.0
#: Seconds that the disk and the processor get for anything else.
PATIENCE: Final = 10.0
#: Seconds between two times that it is written down when tokens were used last.
USED: Final = 3600.0

T = TypeVar("T")


class Keys:
    """What a server knows of its tokens.

    Args:
        file: where they are kept.
        clock: seconds since the epoch.
        in_thread: where disk and processor are waited for.
    """

    def __init__(
        self, file: TokenFile, clock: Callable[[], float], in_thread: InThread = in_thread
    ) -> None:
        self._file = file
        self._clock = clock
        self._run = in_thread
        self._known = Watched(
            (file.path,), self._read, wrong=(TokenFileError,), refused=self._hear_refused
        )
        #: By id: the hash that a text was held against, and SHA-256 of the text.
        self._sure: dict[str, tuple[str, bytes]] = {}
        self._used: dict[str, float] = {}
        # One at a time: each takes 19 MiB and a processor.
        self._hashing = trio.CapacityLimiter(1)
        self._disk = trio.CapacityLimiter(2)

    @property
    def _tokens(self) -> dict[str, Token]:
        """By id; nobody's, while the file cannot be read."""
        nobodys: dict[str, Token] = {}
        return self._known.content_or(nobodys)

    async def run(self) -> None:
        """Write down now and then when tokens were used last, and once more at the end."""
        try:
            while True:
                await trio.sleep(USED)
                await self._save_used()
        finally:
            with trio.move_on_after(1) as scope:
                scope.shield = True  # a shield has a deadline
                await self._save_used()

    async def look(self) -> None:
        """See whether the file is another by now. Believes what it knew, if the disk is slow."""
        await self._known.fresh(LOOK, self._by_the_disk, patience=LOOK_PATIENCE)

    def sure(self, text: Text, whole: str) -> Token | None:
        """The token of this text, if that has been verified before and is still good."""
        token, known = self.good(text.id), self._sure.get(text.id)
        if token is None or known is None or known[0] != token.hash:
            return None
        if not hmac.compare_digest(known[1], _digest(whole)):
            return None
        self._used[token.id] = self._clock()
        return token

    def good(self, id: str) -> Token | None:  # noqa: A002 # the word of people
        """A token that has been neither revoked nor has expired."""
        token = self._tokens.get(id)
        return token if token is not None and token.good(self._clock()) else None

    async def verify(self, text: Text, whole: str) -> Token | None:
        """The token of this text; None: there is none, its secret is another, or it has ended.

        Raises:
            TokenFileError: we cannot tell, just now.
        """

        def ask() -> tuple[Token | None, bool]:
            self._look()  # it may have been made a moment ago
            token = self._tokens.get(text.id)
            return token, tokens.verify(token.hash if token else None, text.secret)

        token, right = await self._in_thread(ask, self._hashing)
        if token is None or not right or text.once or not token.good(self._clock()):
            return None
        self._sure[token.id] = token.hash, _digest(whole)
        self._used[token.id] = self._clock()
        return token

    async def redeem(self, text: Text) -> bool:
        """See `tokens.redeem`."""
        return await self._in_thread(
            partial(tokens.redeem, self._file, text, now=self._clock()), self._hashing
        )

    async def issue(
        self, name: str, scopes: Sequence[Scope], expires: float | None
    ) -> tuple[Token, str]:
        """See `tokens.issue`."""
        now = self._clock()
        issue = partial(tokens.issue, self._file, name, scopes, now=now, expires=expires)
        made = await self._in_thread(issue, self._hashing)
        await self._in_thread(self._look, self._disk)
        return made

    async def revoke(self, id: str) -> Token:  # noqa: A002 # the word of people
        """See `tokens.revoke`. It does not work any more once this returns."""
        token = await self._in_thread(partial(tokens.revoke, self._file, id), self._disk)
        self._tokens.pop(id, None)
        self._sure.pop(id, None)
        return token

    async def all(self) -> list[Token]:
        """All tokens, and when they were used last."""
        await self._in_thread(self._look, self._disk)
        return [self._with_use(token) for token in self._tokens.values()]

    async def _in_thread(self, call: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
        try:
            with trio.fail_after(PATIENCE):
                return await self._run(call, limiter)
        except trio.TooSlowError:
            raise TokenFileError(f"{self._file.path}: the disk is too slow") from None

    async def _by_the_disk(self, call: Callable[[], T], /) -> T:
        return await self._run(call, self._disk)

    def _look(self) -> None:
        """In a thread: somebody must know what is there now."""
        self._known.look(wait=True)

    def _read(self) -> dict[str, Token]:
        return {token.id: token for token in self._file.read().tokens}

    def _hear_refused(self, error: Exception) -> None:
        log.warning("api.tokens_unreadable", error=str(error))

    async def _save_used(self) -> None:
        used, self._used = self._used, {}
        if not used:
            return

        def alter(known: Known) -> tuple[Known, None]:
            told = tuple(
                msgspec.structs.replace(each, used=used.get(each.id, each.used))
                for each in known.tokens
            )
            return msgspec.structs.replace(known, tokens=told), None

        try:
            await self._in_thread(partial(self._file.change, alter), self._disk)
        except TokenFileError as error:  # it is of no weight, and its turn comes again
            log.info("api.use_not_saved", error=str(error))
            self._used = {**used, **self._used}

    def _with_use(self, token: Token) -> Token:
        return msgspec.structs.replace(token, used=self._used.get(token.id, token.used))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
