from __future__ import annotations

import pytest

from elemta.plugins import Defer, Reject


def test_a_verdict_has_the_usual_code_unless_it_names_another() -> None:
    assert str(Defer((7, 1), "come again").reply) == "451 4.7.1 come again"
    assert str(Defer((5, 3), "too many").reply) == "452 4.5.3 too many"
    assert str(Defer((2, 2), "full", code=452).reply) == "452 4.2.2 full"
    assert str(Reject((7, 1), "no").reply) == "550 5.7.1 no"
    assert str(Reject((6, 0), "no such content", code=554).reply) == "554 5.6.0 no such content"


@pytest.mark.parametrize("code", [200, 399, 421, 500, 1000])
def test_what_is_not_for_now_has_a_code_of_4xx_that_leaves_the_client_there(code: int) -> None:
    with pytest.raises(ValueError, match="no code to defer with"):
        Defer((0, 0), "no", code=code)


@pytest.mark.parametrize("code", [0, 250, 499, 600])
def test_what_is_for_ever_has_a_code_of_5xx(code: int) -> None:
    with pytest.raises(ValueError, match="no code to reject with"):
        Reject((0, 0), "no", code=code)
