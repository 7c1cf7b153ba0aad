"""How people see who is connected, what is said and what is logged; a scenario has the rest."""

from __future__ import annotations

import re

from elemta.cli.listening import entry_lines, session_lines, spoken_line, transcript_lines
from elemta.control import plain
from elemta.control.facts import LogEntry, Said, SessionStatus, Spoken, Transcript
from elemta.queue import Missed

SESSION = SessionStatus(
    id="0123456789ab", direction="in", place="mx", peer="192.0.2.1:49152", name="client.example",
    state="data", tls="TLSv1.3", login="ann", since=100.0, messages=2, message="M3", sender=None,
    recipients=1, octets=2048,
)  # fmt: skip
SPOKEN = Spoken(
    session="s1", direction="out", place="mx:b.example", peer="mx.b.example[192.0.2.9]:25",
    at=0.0, speaker="C", text="DATA",
)  # fmt: skip
ENTRY = LogEntry(at=0.0, level="warning", event="x.y", logger="elemta.x", fields={"size": 1})


def test_a_session_is_a_line_and_its_message_another() -> None:
    heading, line, message = session_lines([SESSION], 160.0)
    assert heading.split() == ["ID", "WAY", "PLACE", "PEER", "STATE", "SINCE", "MAIL", "NAME"]
    assert line.split() == [
        "0123456789ab", "in", "mx", "192.0.2.1:49152", "data", "1min", "2", "client.example",
        "(TLSv1.3)", "as", "ann",
    ]  # fmt: skip
    assert message == "  M3 from <> to 1 recipient, 2.0 KiB so far"
    assert list(session_lines([], 0.0)) == ["nobody is connected"]


def test_what_is_said_is_a_line_with_its_conversation() -> None:
    line = re.sub(r"^\d\d:\d\d:\d\d", "T", spoken_line(SPOKEN))
    assert line == "T s1 > mx:b.example mx.b.example[192.0.2.9]:25 C: DATA"
    assert spoken_line(Missed(1)) == "(1 line missed)"


def test_a_transcript_has_the_time_since_it_began() -> None:
    told = Transcript(
        id="s1", direction="in", place="mx", peer="192.0.2.1:1", began=10.0, ended=12.5,
        messages=("M1",), said=(Said(10.25, "S", "220 mx"),), cut=3,
    )  # fmt: skip
    heading, cut, said, between, _, _, _ = transcript_lines([told, told])
    assert heading.startswith("s1 from 192.0.2.1:1 (mx), ")
    assert heading.endswith("took 2.5s")
    assert (cut, said, between) == ("  … 3 lines before are forgotten", "    0.250 S: 220 mx", "")
    assert list(transcript_lines([])) == ["nothing is remembered of what was said about it"]


def test_an_event_of_the_log_reads_as_on_a_terminal() -> None:
    (line,) = entry_lines(ENTRY)
    assert re.sub(r"^\d\d:\d\d:\d\d", "T", line) == "T warning x.y size=1"
    assert entry_lines(Missed(2)) == ["(2 events missed)"]


def test_programs_are_told_what_each_line_is() -> None:
    assert plain.spoken(SPOKEN)["type"] == "Spoken"
    assert plain.entry(ENTRY) == {
        "type": "LogEntry", "at": 0.0, "level": "warning", "event": "x.y", "logger": "elemta.x",
        "fields": {"size": 1},
    }  # fmt: skip
    assert plain.entry(Missed(2)) == {"type": "Missed", "count": 2}
    assert plain.session(SESSION)["message"] == "M3"
