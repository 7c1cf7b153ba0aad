"""How often somebody may be wrong about who he is, over connections and restarts.

Who may try is told by where he is and who he says he is; of each there is a count:

- of a client's network (an IPv4 address, an IPv6 /64), whoever it says it is: so much in an hour,
  and a ban where that goes on; of an IPv6 /48, which has 65,536 of those, `WIDE` times as much;
- of an account at one network: from the fifth wrong password in a row on each wait is twice as long
  as the one before;
- of an account at all networks together that it has never been seen at.

The rules of this file:

- Outsiders cannot keep an owner out of where he is at home: where an account has logged in within
  the last weeks, only the second count holds for it, and no other.
- The same wrong password again is no further guess: a telephone that has the old one says it all
  day. What is kept to know it is 32 bits of a keyed hash, of which nobody can find a password.
- While somebody has to wait no password is looked at, so the right one tells no more than a wrong.
- Memory is bounded. Of too many rows those go whose time would be over first, and what strangers
  bring is over within a day: it cannot push out where owners are at home. Nor can one owner, who
  comes to be at home at so many networks a day and no more.

It holds guesses, as `elemta.ledger` has it: a file that fails stops nobody. All nodes have them in
common, or each would be one more to guess at.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import sqlite3
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio
from msgspec import Struct, field

from elemta.config import ConfigError, Mistake
from elemta.files import make_file
from elemta.ledger import Book, Ledger, Row, short
from elemta.login.preparing import prepare_name
from elemta.login.scram import DIGEST, ITERATIONS, SALT, ScramVerifier
from elemta.net.limits import network

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from elemta.config import Logins
    from elemta.ledger import Exchange

T = TypeVar("T")

#: Rows of each kind, some 20 MB of memory in all when full.
MOST: Final = 50_000
#: Wrong passwords in a row of an account at a network before it has to wait.
FREE: Final = 4
#: Seconds that it has to wait at most.
LONGEST: Final = 3600.0
#: Seconds after which what was wrong is forgotten.
DAY: Final = 86400.0
#: Wrong passwords of an account at a network that are known again, and octets of the hash of each.
_AGAIN: Final = 8
_SHORT: Final = 4
#: How much of an IPv6 address is a site, and how many times as often one may be wrong as a network:
#: some have many people in it, and strangers to each other.
SITE: Final = 48
WIDE: Final = 10
#: Networks in a day that an account can come to be at home at: more than anybody travels.
HOMES: Final = 50
#: Seconds in which what is known must be written at the end.
FAREWELL: Final = 5.0
#: Octets of the secret.
_SECRET: Final = 32


class Locked(Struct, frozen=True):
    """Somebody has to wait.

    Attributes:
        why: ``network``, ``banned`` (the network, for long), ``account`` (at networks where it was
            never seen), or ``tries`` (the account at this network).
        until: when that may be over, seconds since the epoch.
    """

    why: str
    until: float


class _Network(Row, array_like=True):
    """A client's network: how much was wrong of late, in two measures, and its ban."""

    level: float = 0.0
    at: float = 0.0
    long_level: float = 0.0
    banned_until: float = 0.0


class _Account(Row, array_like=True):
    """An account: how much was wrong of late where it was never seen, and how often it moved in."""

    level: float = 0.0
    at: float = 0.0
    homes: float = 0.0
    homed_at: float = 0.0


class _Pair(Row, array_like=True):
    """An account at a network.

    Attributes:
        good_at: when its password was last right there; 0: never.
        wrong: how often it was wrong since.
        at: when it was last wrong.
        locked_until: when the next may be tried.
        said: short hashes of what was wrong of late.
    """

    good_at: float = 0.0
    wrong: int = 0
    at: float = 0.0
    locked_until: float = 0.0
    said: list[bytes] = field(default_factory=list[bytes])


async def _in_thread(call: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(call)


class _Owner:
    """See `elemta.ledger.ledger.Owner`."""

    name = "login"

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float],
        thread: Callable[[Callable[[], object]], Awaitable[object]],
        exchange: Exchange | None,
    ) -> None:
        self.folder = folder
        self.clock = clock
        self.exchange = exchange
        self._thread = thread

    async def in_thread(self, call: Callable[[], T], /) -> T:
        """Run what blocks."""
        found: list[T] = []
        await self._thread(lambda: found.append(call()))
        return found[0]


class Guesses:
    """What is known of wrong passwords, and what follows from it. Belongs to the loop.

    It works without a file, too, until `open` was called.

    Args:
        rules: how much is too much.
        clock: seconds since the epoch.
        secret: of this server; None: a random one.
    """

    def __init__(
        self, rules: Logins, clock: Callable[[], float], secret: bytes | None = None
    ) -> None:
        self._clock = clock
        self._secret = secret or os.urandom(_SECRET)
        self._ledger = Ledger()
        self._networks = Book(_Network, MOST, self._joined_networks)
        self._sites = Book(_Account, MOST, self._joined_sites)
        self._accounts = Book(_Account, MOST, self._joined_accounts)
        self._pairs = Book(_Pair, MOST, self._joined_pairs)
        self.configure(rules)

    def configure(self, rules: Logins) -> None:
        """Have other rules from now on."""
        self._rules = rules
        self._count = rules.failures.count
        self._seconds = float(rules.failures.seconds)

    # Its life.

    @asynccontextmanager
    async def living(
        self,
        folder: Path,
        shared: Path,
        thread: Callable[[Callable[[], object]], Awaitable[object]],
        exchange: Exchange | None = None,
    ) -> AsyncGenerator[None]:
        """As long as this is entered, what is known of wrong passwords outlives the process.

        Args:
            folder: of this node's data.
            shared: of the data of all nodes.
            thread: runs what blocks.
            exchange: with the other nodes; None: there are none.

        Raises:
            ConfigError: a file cannot be read or made.
        """
        try:
            try:
                secret = shared / "login" / "secret"
                await self.open(folder / "login", secret, thread, exchange)
            except (OSError, sqlite3.Error) as error:
                problem = f"what is known of wrong passwords: {error}"
                raise ConfigError(Mistake("data_dir", problem)) from error
            yield
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + FAREWELL):
                await self.close()

    async def open(
        self,
        folder: Path,
        secret: Path,
        thread: Callable[[Callable[[], object]], Awaitable[object]] = _in_thread,
        exchange: Exchange | None = None,
    ) -> None:
        """Know what was known before.

        Args:
            folder: where the file lies; made if it is not there. Each node has its own.
            secret: the file with the server's secret; made if it is not there. All nodes have one,
                or the same stranger would be shown different verifiers.
            thread: runs what blocks.
            exchange: see `living`.

        Raises:
            OSError, sqlite3.Error: a file cannot be read or made.
        """

        def prepare() -> bytes:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            secret.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return _read_secret(secret)

        owner = _Owner(folder, self._clock, thread, exchange)
        self._secret = await owner.in_thread(prepare)
        await self._ledger.open(owner)
        book = partial(self._ledger.book, common=True)
        self._networks = await book("networks", self._networks)
        self._sites = await book("sites", self._sites)
        self._accounts = await book("accounts", self._accounts)
        self._pairs = await book("pairs", self._pairs)

    async def run(self) -> None:
        """Write down what changes; never returns."""
        await self._ledger.run()

    async def close(self) -> None:
        """Write what is unwritten; may come without `open`."""
        await self._ledger.close()

    # What is asked of it.

    def locked(self, address: str, user: str) -> Locked | None:
        """Whether somebody has to wait before a password of his is looked at.

        Args:
            address: the client's; empty for a Unix socket.
            user: who he says he is; empty: that is not known.
        """
        now, where, account = self._clock(), network(address), _account(user)
        pair = self._pairs.get(short(where, account))
        if pair is not None:
            if pair.locked_until > now:
                return Locked("tries", pair.locked_until)
            if self._at_home(pair, now):
                return None
        found = self._networks.get(short(where))
        if found is not None and not self._is_shared(address):
            if found.banned_until > now:
                return Locked("banned", found.banned_until)
            if wait := self._wait(found.level, found.at, now):
                return Locked("network", now + wait)
        site = self._sites.get(short(_site(address))) if ":" in where else None
        if (
            site is not None
            and not self._is_shared(address)
            and (wait := self._wait(site.level, site.at, now, WIDE))
        ):
            return Locked("network", now + wait)
        known = self._accounts.get(short(account))
        if known is not None and (wait := self._wait(known.level, known.at, now)):
            return Locked("account", now + wait)
        return None

    def right(self, address: str, user: str) -> None:
        """Somebody has proved who he is: he is at home there."""
        if not user:
            return
        key = short(network(address), _account(user))
        now, pair = self._clock(), self._pairs.get(key)
        if pair is not None and not pair.wrong and 0 <= now - pair.good_at < DAY:
            return  # as nearly always: nothing new is to be written
        at_home = pair is not None and self._at_home(pair, now)
        if at_home or self._moves_in(_account(user), now):
            self._pairs.put(key, _Pair(until=now + self._rules.known, good_at=now))
        else:
            self._pairs.drop(key)  # what was wrong before counts no more

    def _moves_in(self, account: str, now: float) -> bool:
        """Whether an account may be at home at one more network.

        Else one of somebody who has many networks, as each IPv6 /48 is, would push out where all
        others are at home.
        """
        key = short(account)
        found = self._accounts.get(key) or _Account(until=now)
        homes = _homes(found, now)
        if homes > HOMES - 1:
            return False
        until = max(found.until, now + (homes + 1) * DAY / HOMES)
        self._accounts.put(key, _Account(until, found.level, found.at, homes + 1, now))
        return True

    def wrong(self, address: str, user: str, said: str = "") -> None:
        """Somebody has not.

        Args:
            address: as of `locked`.
            user: as of `locked`.
            said: the password or the token; empty: it was not said.
        """
        now, where, account = self._clock(), network(address), _account(user)
        if user:
            key = short(where, account)
            pair = self._pairs.get(key) or _Pair(until=now)
            hashed = self._hash(key, said) if said else b""
            if hashed in pair.said:
                return
            at_home = self._at_home(pair, now)
            wrong = 1 if now - pair.at > DAY else pair.wrong + 1
            changed = _Pair(
                until=max(pair.until, now + DAY),
                good_at=pair.good_at,
                wrong=wrong,
                at=now,
                locked_until=now + self._lock(wrong) if wrong > FREE else 0.0,
                said=[hashed, *pair.said[: _AGAIN - 1]] if said else pair.said,
            )
            self._pairs.put(key, changed)
            if at_home:
                return
            known = self._accounts.get(short(account)) or _Account(until=now)
            level = self._level(known.level, known.at, now) + 1
            until = max(known.until, now + self._seconds)
            moved = known.homes, known.homed_at
            self._accounts.put(short(account), _Account(until, level, now, *moved))
        if not self._is_shared(address):
            self._count_network(short(where), now)
            if ":" in where:
                self._count_site(short(_site(address)), now)

    def _count_site(self, key: bytes, now: float) -> None:
        found = self._sites.get(key) or _Account(until=now)
        level = self._level(found.level, found.at, now, WIDE) + 1
        self._sites.put(key, _Account(now + self._seconds, level, now))

    def _count_network(self, key: bytes, now: float) -> None:
        rules = self._rules
        found = self._networks.get(key) or _Network(until=now)
        past = max(0.0, now - found.at)
        many = rules.ban_after
        long_level = max(0.0, found.long_level - past * many / DAY) + 1
        banned_until = found.banned_until
        if long_level >= many:
            banned_until, long_level = now + rules.ban, 0.0
        level = self._level(found.level, found.at, now) + 1
        until = max(now + self._seconds, now + long_level * DAY / many, banned_until)
        self._networks.put(key, _Network(until, level, now, long_level, banned_until))

    def pretended(self, user: str) -> ScramVerifier:
        """What a user whom nobody knows would have: the same each time, and no password fits it.

        What is kept of a real one looks so, if it was made here (`ScramVerifier.of`), and is shown
        however his name is written.
        """
        name = _prepared(user).encode()
        octets = [
            hmac.digest(self._secret, b"%b\n%b" % (what, name), "sha256")
            for what in (b"salt", b"stored key", b"server key")
        ]
        return ScramVerifier(
            iterations=ITERATIONS,
            salt=octets[0][:SALT],
            stored_key=octets[1][:DIGEST],
            server_key=octets[2][:DIGEST],
        )

    # What two nodes have counted at once; see `Book`.

    def _joined_networks(
        self, before: _Network | None, here: _Network, there: _Network
    ) -> _Network:
        was = before or _Network(here.at)
        past, many = max(0.0, here.at - was.at), self._rules.ban_after
        gained = here.level - self._level(was.level, was.at, here.at)
        long_gained = here.long_level - max(0.0, was.long_level - past * many / DAY)
        return _Network(
            until=max(here.until, there.until),
            level=there.level + max(0.0, gained),
            at=max(here.at, there.at),
            long_level=there.long_level + max(0.0, long_gained),
            banned_until=max(here.banned_until, there.banned_until),
        )

    def _joined_sites(self, before: _Account | None, here: _Account, there: _Account) -> _Account:
        was = before or _Account(here.at)
        gained = here.level - self._level(was.level, was.at, here.at, WIDE)
        level = there.level + max(0.0, gained)
        return _Account(max(here.until, there.until), level, max(here.at, there.at))

    def _joined_accounts(
        self, before: _Account | None, here: _Account, there: _Account
    ) -> _Account:
        was = before or _Account(here.at)
        gained = here.level - self._level(was.level, was.at, here.at)
        homes = here.homes - _homes(was, here.homed_at)
        return _Account(
            until=max(here.until, there.until),
            level=there.level + max(0.0, gained),
            at=max(here.at, there.at),
            homes=there.homes + max(0.0, homes),
            homed_at=max(here.homed_at, there.homed_at),
        )

    def _joined_pairs(self, before: _Pair | None, here: _Pair, there: _Pair) -> _Pair:
        was = before or _Pair(0.0)
        if here.good_at > max(was.good_at, there.at):
            return here  # what was wrong before counts no more
        new = [each for each in here.said if each not in there.said and each not in was.said]
        started_over = here.wrong <= was.wrong  # he was right in between, or a day was over
        wrong = there.wrong + (here.wrong if started_over else here.wrong - was.wrong)
        at = max(here.at, there.at)
        return _Pair(
            until=max(here.until, there.until),
            good_at=max(here.good_at, there.good_at),
            wrong=wrong,
            at=at,
            locked_until=at + self._lock(wrong) if wrong > FREE else 0.0,
            said=[*new, *there.said][:_AGAIN],
        )

    # How much is too much.

    def _lock(self, wrong: int) -> float:
        """Seconds that an account has to wait at a network after so many wrong passwords."""
        return min(LONGEST, self._rules.lock * 2.0 ** min(wrong - FREE - 1, 30))

    def _level(self, level: float, at: float, now: float, times: int = 1) -> float:
        """What is left by now of what was wrong: it is forgotten evenly."""
        return max(0.0, level - max(0.0, now - at) * times * self._count / self._seconds)

    def _wait(self, level: float, at: float, now: float, times: int = 1) -> float:
        """Seconds until one more may be wrong, where that may be so many times as often."""
        many = times * self._count
        over = self._level(level, at, now, times) - (many - 1)
        return over * self._seconds / many if over > 0 else 0.0

    def _at_home(self, pair: _Pair, now: float) -> bool:
        return bool(pair.good_at) and now - pair.good_at < self._rules.known

    def _is_shared(self, address: str) -> bool:
        """Whether many people come from there, who must not answer for each other."""
        shared = self._rules.shared
        if not address:
            return True
        if not shared:
            return False
        ip = ipaddress.ip_address(address)
        return any(ip in each for each in shared)

    def _hash(self, key: bytes, said: str) -> bytes:
        return hmac.digest(self._secret, key + b"\n" + said.encode(), "sha256")[:_SHORT]


def _homes(account: _Account, now: float) -> float:
    """At how many networks it has come to be at home of late: that is forgotten evenly."""
    return max(0.0, account.homes - max(0.0, now - account.homed_at) * HOMES / DAY)


def _site(address: str) -> str:
    return network(address, ipv6=SITE)


def _account(user: str) -> str:
    """Who somebody says he is, however he writes it: else each way to would have its own tries."""
    return _prepared(user).casefold()


def _prepared(user: str) -> str:
    """As plugins look it up; what could be no name of theirs is taken as it comes."""
    try:
        return prepare_name(user)
    except ValueError:
        return user


def _read_secret(path: Path) -> bytes:
    """The secret of this server, which whoever comes first makes.

    Raises:
        OSError: it cannot be read, or not be made; or it is none.
    """
    if not path.exists():
        with suppress(FileExistsError):  # others come, too
            make_file(path, os.urandom(_SECRET))
    secret = path.read_bytes()
    if len(secret) != _SECRET:
        raise OSError(f"{path} is no secret of {_SECRET} octets")
    return secret
