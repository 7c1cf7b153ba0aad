from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from elemta.login import ScramVerifier
from elemta.plugins import CONTINUE, Chain, Defer, Granted, Known, Loaded, Reject, Session
from elemta.plugins.plugin import TRY_LATER
from elemta.protocol import Credentials, Token
from tests.plugins.saying import saying

if TYPE_CHECKING:
    from collections.abc import Awaitable

SESSION = Session(id="s1", address="192.0.2.1", port=1, listener="mx")
ANN = Granted("ann")
KEPT = Known(ScramVerifier.of("secret", salt=b"salt", iterations=4096), ANN)
HOOKS = ("on_authenticate", "on_verifier", "on_token")


def answer(hook: str, *answers: object) -> Awaitable[object]:
    plugins = [saying(f"p{number}", **{hook: each}) for number, each in enumerate(answers)]
    chain = Chain([Loaded(each) for each in plugins])
    match hook:
        case "on_authenticate":
            return chain.on_authenticate(SESSION, Credentials("ann", "secret"))
        case "on_verifier":
            return chain.on_verifier(SESSION, "ann")
        case _:
            return chain.on_token(SESSION, Token("ann", "opaque"))


@pytest.mark.parametrize("hook", HOOKS)
async def test_the_first_that_knows_somebody_is_believed(hook: str) -> None:
    found = KEPT if hook == "on_verifier" else ANN
    assert await answer(hook, CONTINUE, found, Reject((7, 8), "no")) == found
    assert await answer(hook, Reject((7, 8), "no"), found) == Reject((7, 8), "no")
    assert await answer(hook, Defer((3, 0), "later"), found) == Defer((3, 0), "later")
    assert await answer(hook, CONTINUE) is None
    assert await answer(hook) is None


@pytest.mark.parametrize("hook", HOOKS)
async def test_who_means_yes_must_say_whom(hook: str) -> None:
    wrong = ANN if hook == "on_verifier" else KEPT
    assert await answer(hook, wrong) == TRY_LATER
    assert await answer(hook, None) == TRY_LATER


@pytest.mark.parametrize("hook", HOOKS)
async def test_whose_code_fails_lets_nobody_in(hook: str) -> None:
    def fails(*_: object) -> None:
        raise ValueError("a bug")

    assert await answer(hook, fails, ANN) == TRY_LATER


def test_one_text_of_what_somebody_may_send_as_is_no_list_of_them() -> None:
    # Each of its letters would be a pattern, and an asterisk anything.
    one: Any = "@*.a.example"
    with pytest.raises(ValueError, match="expected a tuple"):
        Granted("ann", one)
    assert Granted("ann", (one,)).addresses == (one,)


def test_what_is_secret_is_not_shown() -> None:
    assert "opaque" not in repr(Token("ann", "opaque"))
    assert "ann" in repr(Token("ann", "opaque"))
    assert "secret" not in repr(KEPT)
