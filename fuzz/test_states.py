"""The state table, walked to its end: nothing here is left to chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from elemta.protocol.states import IN_TRANSACTION, TABLE, State, Verb, after, legal
from fuzz.model import ANSWERS, Conversation

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS: Final = {Verb.NONSENSE, Verb.CONNECT, Verb.END_OF_DATA, Verb.END_OF_CHUNK}
SAID: Final = [verb for verb in Verb if verb not in OURS]
CODES: Final = (250, 354, 451, 550)
OVER: Final = {State.CLOSED, State.TLS}


def moved(state: State | None) -> State:
    assert state is not None, "no reply is legal here"
    return state


def outcomes(state: State, verb: Verb, code: int) -> Iterator[tuple[State, str, int]]:
    """What a command leads to: the new state, what the model calls it, and the last reply."""
    new = moved(after(state, verb, code))
    if verb is Verb.DATA and code == 354:
        assert new is State.DATA
        for last in (250, 550):
            yield moved(after(new, Verb.END_OF_DATA, last)), ".", last
    elif verb is Verb.BDAT and code == 250:
        assert new is State.CHUNK
        for last in (250, 550):
            yield moved(after(new, Verb.END_OF_CHUNK, last)), "BDAT", last
            yield moved(after(new, Verb.END_OF_DATA, last)), ".", last
    elif verb is not Verb.BDAT:
        yield new, verb.name, code


def test_the_table_is_the_rfc() -> None:
    """Table and model agree on every command, in every pair of states that they can reach."""
    todo: list[tuple[State, tuple[bool, bool, int, int, bool]]] = [
        (State.START, Conversation().facts)
    ]
    seen = set(todo)
    while todo:
        state, facts = todo.pop()
        assert (state in IN_TRANSACTION) == facts[1]
        for verb in SAID:
            assert legal(state, verb) == Conversation(*facts).may(verb.name), (state, facts, verb)
            for code in CODES if legal(state, verb) else ():
                if str(code)[0] not in ANSWERS.get(verb.name, "245"):
                    assert after(state, verb, code) is None, (state, verb, code)
                    continue
                for new, name, last in outcomes(state, verb, code):
                    if new in OVER:
                        assert verb in (Verb.QUIT, Verb.STARTTLS)
                        continue
                    model = Conversation(*facts)
                    model.answered(name, last)
                    pair = new, model.facts
                    if pair not in seen:
                        seen.add(pair)
                        todo.append(pair)
    assert {state for state, _ in seen} == {
        State.START,
        State.READY,
        State.MAIL,
        State.RCPT,
        State.BDAT,
        State.LOGIN,
    }


def test_a_greeting_opens_or_closes() -> None:
    assert after(State.GREETING, Verb.CONNECT, 220) is State.START
    assert after(State.GREETING, Verb.CONNECT, 554) is State.CLOSED
    assert after(State.GREETING, Verb.CONNECT, 354) is None


def test_every_state_can_end() -> None:
    """421 closes whatever is going on (RFC 5321 §3.8)."""
    for state, row in TABLE.items():
        assert all(after(state, verb, 421) is State.CLOSED for verb in row)


def test_nonsense_can_be_refused_wherever_a_client_may_speak_and_moves_only_a_login() -> None:
    speaking = {state for state, row in TABLE.items() if row.keys() - OURS}
    assert speaking == {state for state in State if legal(state, Verb.NONSENSE)}
    for state in speaking:
        stays = State.READY if state is State.LOGIN else state
        assert after(state, Verb.NONSENSE, 500) is stays
        assert after(state, Verb.NONSENSE, 250) is after(state, Verb.NONSENSE, 354) is None


def test_only_quit_and_starttls_end_the_conversation_with_a_good_reply() -> None:
    ends = {
        (state, verb)
        for state, row in TABLE.items()
        for verb in row
        if after(state, verb, 250) in OVER
    }
    assert {verb for _, verb in ends} == {Verb.QUIT, Verb.STARTTLS}
    assert {state for state, verb in ends if verb is Verb.STARTTLS} == {State.READY}
