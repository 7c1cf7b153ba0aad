"""How long Hypothesis looks: `ci` for seconds, the same each time; `deep` for hours, by hand.

``HYPOTHESIS_PROFILE=deep python -m pytest fuzz`` is the deep one; `mutants` is that of
`fuzz/mutants.py`.
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, Phase, settings

PROFILE: Final = os.environ.get("HYPOTHESIS_PROFILE", "ci")

#: How many times more examples the profile wants than the tests ask for.
_FACTORS: Final = {"ci": 1, "mutants": 1, "deep": 100}


def load() -> None:
    """Make the profile that was asked for the default of all tests."""
    # Derandomised, and without a clock: a red run is the change's fault, never the day's.
    settings.register_profile(
        "ci",
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    # As `ci`, but to have found a bug is enough: nobody reads the smallest example.
    settings.register_profile(
        "mutants", settings.get_profile("ci"), phases=[Phase.explicit, Phase.generate]
    )
    settings.register_profile("deep", deadline=None, stateful_step_count=100, print_blob=True)
    settings.load_profile(PROFILE)


def examples(usual: int) -> settings:
    """So many examples in `ci`; what the profile says in others."""
    return settings(max_examples=usual * _FACTORS[PROFILE])
