"""The client's state table, walked to its end."""

from __future__ import annotations

from elemta.protocol.client_states import (
    EXACT,
    FOLLOWS,
    LEADS,
    TABLE,
    ClientState,
    Said,
)

S, V = ClientState, Said

#: States from which a message can still be sent, or the conversation ended politely.
SPEAKING = set(S) - {S.GREETING, S.DATA, S.LOGIN, S.TLS, S.CLOSED}


def reachable() -> set[ClientState]:
    found, new = set(), {S.GREETING}
    while new:
        found |= new
        new = {
            state
            for here in new
            for step in TABLE[here].values()
            for state in (step.done, step.more, step.no)
            if state is not None
        } - found
    return found


def test_every_state_has_a_row_and_can_be_reached() -> None:
    assert set(TABLE) == set(S) == reachable()


def test_every_command_can_be_said_somewhere() -> None:
    assert {verb for row in TABLE.values() for verb in row} == set(V) - {V.NOTHING}


def test_quit_may_be_said_whenever_we_may_speak() -> None:
    assert {state for state in S if V.QUIT in TABLE[state]} == SPEAKING


def test_a_transaction_that_began_can_be_reset_wherever_we_may_speak() -> None:
    assert {state for state in S if V.RSET in TABLE[state]} == SPEAKING - {S.START, S.UNWELCOME}
    assert all(row[V.RSET].done is S.READY for row in TABLE.values() if V.RSET in row)


def test_content_is_wanted_only_by_data_and_only_by_a_3xx() -> None:
    leads = {
        (verb, kind)
        for row in TABLE.values()
        for verb, step in row.items()
        for kind, state in zip(("2xx", "3xx", "no"), step[:3], strict=True)
        if state is S.DATA
    }
    assert leads == {(V.DATA, "3xx")}
    assert all(row[V.DATA].done is None for row in TABLE.values() if V.DATA in row)


def test_only_a_transaction_with_a_recipient_can_be_given_its_message() -> None:
    given = {
        state
        for state, row in TABLE.items()
        for verb in (V.DATA, V.BDAT, V.BDAT_LAST)
        if verb in row and row[verb].write
    }
    assert given == {S.RCPT, S.CHUNKS}


def test_nothing_may_stand_behind_what_has_to_be_waited_for() -> None:
    waited_for = {
        V.EHLO,
        V.HELO,
        V.DATA,
        V.STARTTLS,
        V.AUTH,
        V.AUTH_RESPONSE,
        V.NOOP,
        V.QUIT,
        V.CONNECT,
    }
    assert not waited_for & LEADS
    assert not {V.EHLO, V.HELO, V.STARTTLS, V.AUTH, V.AUTH_RESPONSE, V.DOT, V.CONNECT} & FOLLOWS


def test_an_exact_code_is_of_a_class_that_its_command_can_be_answered_with() -> None:
    for verb, code in EXACT.items():
        cells = [row[verb] for row in TABLE.values() if verb in row]
        assert all((cell.done if code < 300 else cell.more) is not None for cell in cells)
