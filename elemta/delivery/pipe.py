"""Hands mail to a program, one run for each recipient, and understands how it ended.

The rules of this file:

- No shell is asked, and nothing that came in by mail becomes an option or part of the environment.
- A program that takes too long is killed with all that it has started; so it is when we are
  cancelled.
- Only what a program says by a code of sysexits(3) about the mail is permanent. Whatever is wrong
  with this machine or with the program is temporary: it is ours to mend.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Final

import trio
from msgspec import Struct

from elemta.delivery.lines import UnixLines
from elemta.delivery.replies import made
from elemta.message import delivered_to, return_path
from elemta.queue import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.config import Pipe
    from elemta.delivery.transaction import StoredBody
    from elemta.protocol import Reply
    from elemta.queue import Message, Recipient

#: What `{sender}` becomes for the null sender: an empty argument would swallow the next one.
NULL_SENDER: Final = "MAILER-DAEMON"
#: Octets of what a program writes that are kept for the reply.
MAX_OUTPUT: Final = 2048
#: Seconds that we listen for more of it once the program has ended, should it have left others
#: behind that could go on writing.
LINGER: Final = 1.0
#: Seconds in which the kernel has to end what was killed.
_DEATH: Final = 5.0
#: All that a program is told of its surroundings.
_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}

#: Codes of sysexits(3) that are a word on the mail: reply code, subject, detail, meaning.
_PERMANENT: Final = {
    64: (554, 3, 0, "command line usage error"),
    65: (554, 6, 0, "data format error"),
    66: (554, 3, 0, "cannot open input"),
    67: (550, 1, 1, "user unknown"),
    68: (550, 1, 2, "host name unknown"),
    69: (554, 3, 0, "service unavailable"),
    70: (554, 3, 0, "internal software error"),
    73: (550, 2, 0, "cannot create the user's output file"),
    76: (554, 5, 0, "remote error in protocol"),
    77: (550, 7, 0, "permission denied"),
}
#: Those that are a word on this machine.
_TEMPORARY: Final = {
    71: (451, 3, 0, "system resource problem"),
    72: (451, 3, 5, "critical system file missing"),
    74: (451, 3, 0, "input/output error"),
    75: (451, 3, 0, "temporary failure"),
    78: (451, 3, 5, "local configuration error"),
}


class Ended(Struct, frozen=True):
    """How a run ended.

    Attributes:
        status: the exit status; negative: the signal that ended it.
        output: the beginning of what it wrote.
    """

    status: int
    output: bytes


class CannotRunError(Exception):
    """The program did not run, or not to its end.

    Attributes:
        reply: why; of our own making, temporary.
        started: it was there, at least.
    """

    def __init__(self, reply: Reply, *, started: bool) -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.started = started


async def deliver(
    pipe: Pipe, message: Message, recipient: Recipient, body: StoredBody, time_limit: float
) -> Reply:
    """Hand a message to a program for one recipient.

    Args:
        pipe: the program.
        message: whose recipient it is.
        recipient: who gets it.
        body: CRLF line ends; the program sees LF.
        time_limit: seconds until the program is killed.

    Returns:
        What became of it.

    Raises:
        CannotRunError: nothing did.
    """
    address = recipient.address
    values = {
        "sender": NULL_SENDER if message.sender is None else str(message.sender),
        "recipient": str(address),
        "local_part": address.local_part,
        "domain": address.domain,
        "id": message.id,
    }
    try:
        arguments = pipe.arguments(values)
    except ValueError as error:
        return made(553, 1, 3, f"the address cannot be given to a program: {error}")
    head = (return_path(message.sender) + delivered_to(address, recipient.original)).replace(
        b"\r\n", b"\n"
    )
    return _reply(arguments[0], await run(arguments, head, body, time_limit))


async def run(arguments: Sequence[str], head: bytes, body: StoredBody, time_limit: float) -> Ended:
    """Run a program.

    Args:
        arguments: the absolute path of the program, and what it is told.
        head: what stands before the content, LF line ends.
        body: the content.
        time_limit: seconds.

    Raises:
        CannotRunError: see there.
    """
    try:
        process = await trio.lowlevel.open_process(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_ENVIRONMENT,
            start_new_session=True,
        )
    except OSError as error:
        why = made(451, 3, 5, f"cannot run {arguments[0]}: {error.strerror or error}")
        raise CannotRunError(why, started=False) from error
    assert process.stdin is not None, "as asked"
    assert process.stdout is not None, "as asked"
    output = bytearray()
    trouble: list[StoreUnavailable] = []
    scope = trio.move_on_after(time_limit)
    try:
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_write, process.stdin, head, body, trouble, nursery.cancel_scope)
                nursery.start_soon(_read, process.stdout, output)
                await process.wait()
                nursery.cancel_scope.deadline = trio.current_time() + LINGER
    finally:
        await _bury(process)
    if trouble:
        why = made(451, 3, 0, f"the content could not be read: {trouble[0]}")
        raise CannotRunError(why, started=True)
    if scope.cancelled_caught and process.returncode in (None, -signal.SIGKILL):
        text = f"{arguments[0]} was killed: it may take {time_limit:g} s"
        raise CannotRunError(made(451, 3, 0, text), started=True)
    assert process.returncode is not None, "it was waited for"
    return Ended(process.returncode, bytes(output))


async def _write(
    stdin: trio.abc.SendStream,
    head: bytes,
    body: StoredBody,
    trouble: list[StoreUnavailable],
    scope: trio.CancelScope,
) -> None:
    """Write the content. Who does not want to read all of it need not: the exit status counts."""
    lines = UnixLines()
    async with stdin:
        with suppress(trio.BrokenResourceError):
            try:
                await stdin.send_all(head)
                async with aclosing(body.chunks()) as chunks:
                    async for chunk in chunks:
                        await stdin.send_all(lines.feed(chunk))
                await stdin.send_all(lines.end())
            except StoreUnavailable as error:
                # The end of the stream must not look like the end of the message.
                trouble.append(error)
                scope.cancel()


async def _read(stdout: trio.abc.ReceiveStream, output: bytearray) -> None:
    """Take what the program writes, lest it wait for us; keep the beginning."""
    async for some in stdout:
        output += some[: MAX_OUTPUT - len(output)]


async def _bury(process: trio.Process) -> None:
    """End a program that has not ended, and all that it has started; leave nothing open."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with trio.move_on_after(_DEATH, shield=True):
            await process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            await trio.aclose_forcefully(stream)


def _reply(program: str, ended: Ended) -> Reply:
    """What an exit status means."""
    words = " ".join(ended.output.decode("utf-8", "replace").split())
    said = f": {words}" if words else ""
    if ended.status == 0:
        return made(250, 0, 0, f"delivered by {program}{said}")
    if ended.status < 0:
        return made(451, 3, 0, f"{program} was ended by signal {-ended.status}{said}")
    code, subject, detail, meaning = (_PERMANENT | _TEMPORARY).get(
        ended.status, (451, 3, 0, f"unknown exit status {ended.status}")
    )
    return made(code, subject, detail, f"{program}: {meaning}{said}")
