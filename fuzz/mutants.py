"""Seeds one bug at a time into a copy of the engine; the fuzz tests must catch every one.

``python fuzz/mutants.py [WORD]``: all of them, or those whose name has WORD in it. The exit code is
the number that got away. Each mutant names the test files that ought to catch it; a mutant whose
text is not in the source any more is an error: mend it or drop it.
"""

# A mutant is a row of a table, however long.
# ruff: noqa: E501

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

import hypothesis.stateful  # noqa: F401 # so that each of the processes below need not
import pytest

SOURCE: Final = Path(__file__).parent.parent
#: Mutants at a time.
PROCESSES: Final = 2


class Mutant(NamedTuple):
    """A bug.

    Attributes:
        name: what goes wrong.
        file: in `elemta/protocol`.
        old: text that is there exactly once.
        new: what it becomes.
        tests: in `fuzz`, the likeliest first, without ``test_`` and ``.py``; ``file::test`` is one.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


STATES: Final = ("states",)
DOTS: Final = ("framing::test_a_message_comes_out_as_it_went_in",)
CHUNKS: Final = ("framing::test_chunks_come_out_as_they_went_in",)
LINES: Final = ("framing::test_a_line_ends_at_crlf_only",)
TALK: Final = ("server_machine::test_a_conversation_comes_to_its_ends",)
PIPELINED: Final = ("server_machine::test_what_is_pipelined_behind_a_question_is_never_obeyed",)
MAIL: Final = ("grammar::test_mail_is_read_as_it_is_meant",)
RCPT: Final = ("grammar::test_rcpt_is_read_as_it_is_meant",)
ANY_LINE: Final = ("grammar::test_every_line_is_a_command_or_a_reply",)
VALID: Final = ("address::test_a_valid_address_is_read_and_said_as_it_is_meant",)
NEARLY: Final = ("address::test_what_is_read_is_safe_to_say",)
SASL: Final = ("sasl",)
CLIENT: Final = ("client_machine",)
PAIR: Final = ("pair",)

MUTANTS: Final = [
    # states.py
    Mutant("RCPT before MAIL", "states.py", "        MAIL=Step(done=S.MAIL),\n", "        MAIL=Step(done=S.MAIL),\n        RCPT=Step(done=S.RCPT),\n", STATES),
    Mutant("DATA without a recipient", "states.py", "reset=S.READY, RCPT=Step(done=S.RCPT)),", "reset=S.READY, RCPT=Step(done=S.RCPT), DATA=Step(more=S.DATA)),", STATES),
    Mutant("DATA after BDAT", "states.py", "S.BDAT: _row(S.BDAT, reset=S.READY, ", "S.BDAT: _row(S.BDAT, reset=S.READY, DATA=Step(more=S.DATA), ", STATES),
    Mutant("STARTTLS within a transaction", "states.py", "reset=S.READY, RCPT=Step(done=S.RCPT)),", "reset=S.READY, RCPT=Step(done=S.RCPT), STARTTLS=Step(done=S.TLS)),", STATES),
    Mutant("EHLO keeps the transaction", "states.py", "V.HELLO: Step(done=S.READY),", "V.HELLO: Step(done=S.READY if here is not S.MAIL else here),", STATES),
    Mutant("RSET keeps the transaction", "states.py", "S.MAIL: _row(S.MAIL, reset=S.READY,", "S.MAIL: _row(S.MAIL, reset=S.MAIL,", STATES),
    Mutant("RSET forgets EHLO", "states.py", "        S.READY,\n        reset=S.READY,\n        MAIL", "        S.READY,\n        reset=S.START,\n        MAIL", STATES),
    Mutant("refused content keeps the transaction", "states.py", "S.DATA: {V.END_OF_DATA: Step(done=S.READY, no=S.READY)},", "S.DATA: {V.END_OF_DATA: Step(done=S.READY, no=S.RCPT)},", STATES),
    Mutant("a refused chunk keeps the transaction", "states.py", "Step(done=S.BDAT, no=S.READY)", "Step(done=S.BDAT, no=S.BDAT)", STATES),
    Mutant("a failed login goes on", "states.py", "_CHALLENGE: Final = Step(done=S.READY, more=S.LOGIN, no=S.READY)", "_CHALLENGE: Final = Step(done=S.READY, more=S.LOGIN)", STATES),
    Mutant("a refused line of a login does not end it", "states.py", "V.NONSENSE: Step(no=S.READY)}", "V.NONSENSE: Step()}", STATES),
    Mutant("421 closes nothing", "states.py", "    if code == CLOSING:\n        return State.CLOSED\n", "", STATES),
    # framing.py
    Mutant("DATA line's CRLF not counted", "framing.py", 'self._held = b"\\r\\n"  # as if', 'self._held = b""  # as if', DOTS),
    Mutant("holds back 3 octets, not 4", "framing.py", '(b"\\r\\n.\\r", b"\\r\\n.",', '(b"\\r\\n.",', DOTS),
    Mutant("LF.CRLF ends a message", "framing.py", "end = octets.find(_FINAL_DOT) if dotted else -1", 'end = octets.find(b"\\n.\\r\\n") - 1', DOTS),
    Mutant("unstuffs the first line only", "framing.py", 'content.replace(b"\\r\\n.", b"\\r\\n")', 'content.replace(b"\\r\\n.", b"\\r\\n", 1)', DOTS),
    Mutant("unstuffs behind a bare LF", "framing.py", 'content.replace(b"\\r\\n.", b"\\r\\n")', 'content.replace(b"\\n.", b"\\n")', DOTS),
    Mutant("bare newline let pass", "framing.py", "self._faults.add(Fault.BARE_NEWLINE)", "pass", DOTS),
    Mutant("bare CR let pass", "framing.py", 'if not pairs == content.count(b"\\n") == content.count(b"\\r"):', 'if pairs != content.count(b"\\n"):', DOTS),
    Mutant("bare CR not normalized", "framing.py", '.replace(b"\\r", b"\\n")\n', "\n", DOTS),
    Mutant("CRLF over two reads is two bare ones", "framing.py", 'content, self._held = content[:-1], b"\\r"', "pass", CHUNKS),
    Mutant("last CR of a message forgotten", "framing.py", 'last, self._held = self._held, b""', 'last, self._held = b"", b""', CHUNKS),
    Mutant("NUL of a new piece begins no line", "framing.py", "(not self._line and content.startswith", "(False and content.startswith", DOTS),
    Mutant("NUL within a line refused", "framing.py", "(not self._line and content.startswith", "(content.startswith", DOTS),
    Mutant("NUL before a dot let pass", "framing.py", 'b"\\n\\0" in content or', "False or", DOTS),
    Mutant("line limit off by one", "framing.py", 'last = content.rfind(b"\\n", start, reach)', 'last = content.rfind(b"\\n", start, reach + 1)', DOTS),
    Mutant("last line's limit off by two", "framing.py", "if self._line + 2 > self._max_line:", "if self._line > self._max_line:", CHUNKS),
    Mutant("line length forgotten between reads", "framing.py", "self._line = min(size - reach + most, most)", "self._line = 0", DOTS),
    Mutant("size limit off by one", "framing.py", "if self._size > self._max_size:", "if self._size >= self._max_size:", DOTS),
    Mutant("the fault that came first is told", "framing.py", "next(fault for fault in Fault if fault in self._faults)", "sorted(self._faults, key=lambda fault: fault.name)[-1]", DOTS),
    Mutant("CRLF over two reads overlooked in commands", "framing.py", "self._searched = max(0, len(self._buffer) - 1)", "self._searched = len(self._buffer)", LINES),
    Mutant("end of an over-long line is a command", "framing.py", "return Fault.LINE_TOO_LONG if skipped or end + 2 > max_line else line", "return Fault.LINE_TOO_LONG if end + 2 > max_line else line", LINES),
    # server.py
    Mutant("no turn-taking", "server.py", "if self._owed is not None:\n            return Wait.FOR_REPLY", "if self._final:\n            return Wait.FOR_REPLY", TALK),
    Mutant("rest behind the dot dropped", "server.py", "            self._lines.feed(rest)", "            pass", TALK),
    Mutant("faulty content may be accepted", "server.py", "            case ContentEnd(fault=fault):\n                self._must_refuse = fault is not None\n", "            case ContentEnd(fault=fault):\n", TALK),
    Mutant("a faulty chunk may be accepted", "server.py", "            case ChunkEnd(fault=fault):\n                self._must_refuse = fault is not None\n", "            case ChunkEnd(fault=fault):\n                pass\n", TALK),
    Mutant("a refused chunk's octets are commands", "server.py", "self._unwanted, self._refusal = chunk.size, refused", "self._unwanted, self._refusal = 0, refused", TALK),
    Mutant("each chunk is checked alone", "server.py", "            if self._state is State.RCPT:\n                self._checks", "            if self._state is not State.CHUNK:\n                self._checks", TALK),
    Mutant("chunks are never checked anew", "server.py", "            if self._state is State.RCPT:\n                self._checks", "            if self._state is State.DATA:\n                self._checks", TALK),
    Mutant("LMTP answers but once", "server.py", "self._replies = self._recipients if self._lmtp else 1", "self._replies = 1", TALK),
    Mutant("LMTP counts refused recipients", "server.py", "elif good and verb is Verb.RCPT:", "elif verb is Verb.RCPT:", TALK),
    Mutant("LMTP counts the last message's recipients", "server.py", "                self._recipients = 0\n            case Hello", "            case Hello", TALK),
    Mutant("two logins", "server.py", "if isinstance(parsed, Auth) and self._logged_in:", "if isinstance(parsed, Auth) and self._final:", TALK),
    Mutant("a login by challenge is forgotten", "server.py", "(verb is Verb.AUTH or verb is Verb.RESPONSE)", "verb is Verb.AUTH", TALK),
    Mutant("* is no base64", "server.py", 'if line == b"*":', 'if line == b"**":', TALK),
    Mutant("an AUTH line has a command's limit", "server.py", "if len(lines) > most and self._offer.mechanisms and", "if len(lines) > most and self._final and", TALK),
    Mutant("a response has a command's limit", "server.py", "line = self._lines.next_line(self._limits.login_line)", "line = self._lines.next_line(self._limits.command_line)", TALK),
    Mutant("a password is logged", "server.py", 'b"" if line == MASK or is_login(line) else line', "line", TALK),
    Mutant("a password stands in a transcript", "server.py", "return mask_login(line)", "return line", TALK),
    Mutant("a response stands in a transcript", "server.py", "self.line = MASK", "self.line = line", TALK),
    Mutant("the hostile may go on", "server.py", "self._final = hostile", "self._final = False", TALK),
    Mutant("plaintext behind STARTTLS is let pass", "server.py", "if isinstance(parsed, StartTls) and self._lines:", "if isinstance(parsed, StartTls) and self._final:", PIPELINED),
    Mutant("content before 354 is let pass", "server.py", "return isinstance(command, (Data, Auth))", "return isinstance(command, Auth)", PIPELINED),
    # grammar.py, params.py, sasl.py
    Mutant("a quoted > ends the path", "grammar.py", '(?:[^<>\\"]|\\"(?:[^\\"\\\\]|\\\\.)*+\\")*+', "[^<>]*+", MAIL),
    Mutant("quadratic path", "grammar.py", '_PATH: Final = r" *<', '_PATH: Final = r" * *<', ("grammar::test_no_expression_is_slower_than_linear",)),
    Mutant("a source route is an address", "grammar.py", "path = path[route.end() :]", "pass", ("grammar::test_a_source_route_is_ignored",)),
    Mutant("case matters in MAIL", "grammar.py", '_MAIL: Final = re.compile(rf"FROM:{_PATH}", re.IGNORECASE)', '_MAIL: Final = re.compile(rf"FROM:{_PATH}")', MAIL),
    Mutant("UTF-8 without SMTPUTF8", "grammar.py", "if not smtputf8 and not path.isascii():", "if not path:", RCPT),
    Mutant("a BDAT without size is let pass", "grammar.py", "        return Hostile(NO_CHUNK_SIZE)", "        return SYNTAX", TALK),
    Mutant("a repeated parameter wins", "params.py", "found is None or (key := found[1].upper()) in words", "found is None or not (key := found[1].upper())", MAIL),
    Mutant("a parameter that is not offered", "params.py", 'case "RET" if offer.dsn:', 'case "RET":', MAIL),
    Mutant("a line end in an ENVID", "params.py", "if not text.isprintable():", "if not text:", ANY_LINE),
    Mutant("SIZE of 19 digits", "params.py", "[0-9]{1,20}", "[0-9]{1,19}", MAIL),
    Mutant("xtext not taken off", "params.py", "chr(int(found[1] or found[2], 16))", "found[0]", RCPT),
    Mutant("NEVER beside others", "params.py", "if Notify.NEVER in notify and len(notify) > 1:", "if not notify:", ("grammar::test_never_stands_alone",)),
    Mutant("any proof", "scram.py", "        if not right:\n            fault = fault or", "        if not octets:\n            fault = fault or", SASL),
    Mutant("the header is not looked at", "scram.py", "if not fault and not self._is_bound(bound)", "if not fault and not bound", SASL),
    Mutant("the proof is not of what was said", "scram.py", 'said = ",".join((self._bare, self._server_first, without_proof)).encode()', 'said = ",".join((self._bare, "", without_proof)).encode()', SASL),
    Mutant("names are not prepared", "saslprep.py", '    return prepare(text)\n', "    return text\n", SASL),
    Mutant("lax base64", "sasl.py", "strict_mode=True", "strict_mode=False", TALK),
    # address.py
    Mutant("a@b@c", "address.py", '_ANY: Final = re.compile(rf"(?:({UTF8_DOT_STRING})', '_ANY: Final = re.compile(rf"(?:({UTF8_DOT_STRING}(?:@b)?)', NEARLY),
    Mutant("quotes not put back", "address.py", "if not _BARE.fullmatch(local):", "if not local:", VALID),
    Mutant("backslashes kept", "address.py", '_ESCAPE.sub(r"\\1", quoted[1:-1])', "quoted[1:-1]", VALID),
    Mutant("backslash not escaped", "address.py", '.replace("\\\\", "\\\\\\\\")', "", VALID),
    Mutant("domain keeps its case", "address.py", "return Mailbox(common[1], common[2].lower())", "return Mailbox(common[1], common[2])", VALID),
    Mutant("a zone in an address literal", "address.py", 'if "%" in inner:', "if not inner:", NEARLY),
    Mutant("control characters", "address.py", "if not text.isprintable():", "if not text:", NEARLY),
    Mutant("labels of any length", "address.py", "if len(domain) > MAX_LABEL and any(", "if len(domain) > MAX_DOMAIN and any(", ("address::test_a_domain_is_read_or_refused",)),
    Mutant("U-labels not normalized", "address.py", 'domain = unicodedata.normalize("NFC", domain)', "pass", VALID),
    # client_states.py, client.py, replies.py
    Mutant("a client says RCPT before MAIL", "client_states.py", "        V.MAIL: Step(S.MAIL),\n", "        V.MAIL: Step(S.MAIL),\n        V.RCPT: Step(S.RCPT),\n", CLIENT),
    Mutant("a client says DATA for nobody", "client_states.py", "more=S.DATA, write=False)", "more=S.DATA)", CLIENT),
    Mutant("a client goes on after a refused DATA", "client_states.py", "more=S.DATA, no=S.FAILED)", "more=S.DATA, no=S.READY)", CLIENT),
    Mutant("a client goes on after a refused chunk", "client_states.py", "V.BDAT: Step(S.CHUNKS, no=S.FAILED),\n", "V.BDAT: Step(S.CHUNKS),\n", CLIENT),
    Mutant("a client goes on after a refused RSET", "client_states.py", "V.RSET: Step(S.READY, no=S.UNWELCOME)", "V.RSET: Step(S.READY)", CLIENT),
    Mutant("a client says something behind NOOP", "client_states.py", "LEADS: Final = frozenset({", "LEADS: Final = frozenset({V.NOOP, ", CLIENT),
    Mutant("a client pipelines unasked", "client.py", "self._extensions.pipelining and verb in FOLLOWS", "verb in FOLLOWS", CLIENT),
    Mutant("an early reply is taken for an answer", "client.py", "if not waiting and self._replies.pending:", "if not waiting and self._eof:", CLIENT),
    Mutant("a client is usable before all is answered", "client.py", "            self._unanswered or self._ready or", "            self._ready or", CLIENT),
    Mutant("421 ends nothing for a client", "client.py", "if code == CLOSING:", "if code == 1:", CLIENT),
    Mutant("any 3xx asks for content", "client.py", "(exact and kind == exact // 100 and reply.code != exact)", "(exact and kind != 3 and reply.code != exact)", CLIENT),
    Mutant("LMTP content for nobody", "client.py", "if state is _DATA and self._lmtp and not self._accepted:", "if state is _DATA and self._eof and not self._accepted:", CLIENT),
    Mutant("LMTP's first answer is for all", "client.py", "if self._lmtp and self._told + 1 < len(accepted):", "if self._eof and self._told + 1 < len(accepted):", CLIENT),
    Mutant("LMTP's answers are counted over messages", "client.py", "self._answered, self._told = 0, 0\n        return", "self._answered = 0\n        return", CLIENT),
    Mutant("who was refused is told of the message", "client.py", "        if reply.code < 300:\n            self._accepted.append(number)", "        self._accepted.append(number)", CLIENT),
    Mutant("recipients are counted over messages", "client.py", "self._answered, self._told = 0, 0\n        return", "self._told = 0\n        return", CLIENT),
    Mutant("a refused chunk keeps its recipients", "client.py", "self._accepted = []  # the rest of the message", "pass  # the rest of the message", CLIENT),
    Mutant("RSET keeps the recipients", "client.py", "        self._accepted = []\n        return ResetAnswer", "        return ResetAnswer", CLIENT),
    Mutant("plaintext behind a client's STARTTLS is let pass", "client.py", "if self._state is State.TLS and self._replies.pending:", "if self._state is State.TLS and self._eof:", CLIENT),
    Mutant("one dot is stuffed", "client.py", r"""octets.replace(b"\r\n.", b"\r\n..")""", r"""octets.replace(b"\r\n.", b"\r\n..", 1)""", CLIENT),
    Mutant("the first line's dot is not stuffed", "client.py", 'if self._line_ended and octets.startswith(b"."):', 'if self._eof and octets.startswith(b"."):', PAIR),
    Mutant("a dot within a line is stuffed", "client.py", 'if self._line_ended and octets.startswith(b"."):', 'if octets.startswith(b"."):', PAIR),
    Mutant("a cut CRLF is written as two", "client.py", "octets = octets[:-1]  # with", "pass  # with", CLIENT),
    Mutant("a bare CR is written", "client.py", r""".replace(b"\r", b"\n").replace(b"\n", b"\r\n")""", r""".replace(b"\n", b"\r\n")""", CLIENT),
    Mutant("bare newlines are written", "client.py", "if not has_clean_lines(octets):", "if not octets:", PAIR),
    Mutant("the dot is glued to the last line", "client.py", r"""return b".\r\n" if self._line_ended and not self._carriage_return else""", r"""return b".\r\n" if octets_end else""".replace("octets_end", "not self._eof"), PAIR),
    Mutant("the end of one message shows in the next", "client.py", "        self._line_ended, self._carriage_return = True, False\n        return", "        return", CLIENT),
    Mutant("a chunk is announced too large", "client.py", "(len(octets), b\" LAST\"", "(len(octets) + 1, b\" LAST\"", PAIR),
    Mutant("a parameter that was not announced is said", "client.py", "if params.size is not None and offered.size is not None:", "if params.size is not None:", PAIR),
    Mutant("NOTIFY to a server without DSN", "client.py", "if self._extensions.dsn:", "if self._extensions.smtputf8:", PAIR),
    Mutant("a plus in xtext", "client.py", 'rb"[^!-*,-<>-~]"', 'rb"[^!-<>-~]"', PAIR),
    Mutant("a backslash in utf-8 xtext", "client.py", r"""r"[^!-*,-<>-\[\]-~]" """.strip(), r"""r"[^!-*,-<>-~]" """.strip(), PAIR),
    Mutant("a bare LF ends a reply", "replies.py", r"""if line[-2:] != b"\r\n":""", "if not line:", CLIENT),
    Mutant("a reply with two codes", "replies.py", "if self._texts and code != self._code:", "if self._texts and code < self._code:", CLIENT),
    Mutant("replies without end", "replies.py", "if len(self._texts) == MAX_LINES:", "if len(self._texts) == 10 * MAX_LINES:", CLIENT),
    Mutant("reply lines without end", "replies.py", "if len(line) > MAX_LINE:", "if len(line) > 10 * MAX_LINE:", CLIENT),
    Mutant("reply lines without an end", "replies.py", "if len(buffer) >= MAX_LINE:", "if len(buffer) >= 10 * MAX_LINE:", CLIENT),
    Mutant("a reply of 1xx", "replies.py", 'b"2" <= code[:1] <= b"5"', 'code[:1] <= b"5"', CLIENT),
    Mutant("control characters in a reply's text", "replies.py", "if not line.isprintable():", "if not line:", CLIENT),
]  # fmt: skip


def begin(mutant: Mutant, folder: Path) -> int:
    """Begin to test an engine that has this bug, in a process that has all libraries imported by now.

    Returns:
        Its id; its exit code will be that of pytest.
    """
    shutil.copytree(SOURCE / "fuzz", folder / "fuzz")
    (folder / "elemta").mkdir()
    for part in (SOURCE / "elemta").iterdir():
        if part.name != "protocol":
            (folder / "elemta" / part.name).symlink_to(part)
    shutil.copytree(SOURCE / "elemta" / "protocol", folder / "elemta" / "protocol")
    path = folder / "elemta" / "protocol" / mutant.file
    text = path.read_text()
    path.write_text(text.replace(mutant.old, mutant.new))
    # What was compiled is taken as it is, but for what has the bug.
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
        compiled.unlink()
    # Without the project's settings, plugins and telling asserts: starting takes half as long.
    arguments = ["-q", "-x", "--assert=plain", "-p", "no:cacheprovider", "--import-mode=importlib"]
    for test in mutant.tests:
        file, *name = test.split("::")
        arguments.append("::".join((f"fuzz/test_{file}.py", *name)))
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 3  # as pytest's own, if it breaks
    try:
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        output = os.open("output", os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = pytest.main(arguments)
    finally:
        sys.stdout.flush()
        os._exit(code)


def main() -> int:
    """Report each mutant; the exit code is the number that got away."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    mutants = [mutant for mutant in MUTANTS if word in mutant.name or word == mutant.file]
    for mutant in mutants:
        text = (SOURCE / "elemta" / "protocol" / mutant.file).read_text()
        if text.count(mutant.old) != 1:
            raise SystemExit(f"mutant {mutant.name!r} no longer applies to {mutant.file}")
    os.environ |= {
        "HYPOTHESIS_PROFILE": "mutants",
        # Where it keeps what it knows of Unicode, which takes long to gather.
        "HYPOTHESIS_STORAGE_DIRECTORY": str(SOURCE / ".hypothesis"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    sys.dont_write_bytecode = True
    gc.freeze()  # what is imported by now is nothing for each process to look through
    escaped = 0
    waiting = list(reversed(mutants))
    running: dict[int, tuple[Mutant, tempfile.TemporaryDirectory[str]]] = {}
    while waiting or running:
        while waiting and len(running) < PROCESSES:
            mutant, folder = waiting.pop(), tempfile.TemporaryDirectory()
            running[begin(mutant, Path(folder.name))] = (mutant, folder)
        process, status = os.wait()
        mutant, folder = running.pop(process)
        with folder:
            code = os.waitstatus_to_exitcode(status)
            if code not in (0, 1):  # neither passed nor failed
                output = Path(folder.name, "output").read_text(errors="replace")
                raise SystemExit(f"{mutant.name}: {output}")
        escaped += code == 0
        print("caught" if code else "MISSED", mutant.name, flush=True)
    print(f"{len(mutants) - escaped} of {len(mutants)} caught")
    return escaped


if __name__ == "__main__":
    raise SystemExit(main())
