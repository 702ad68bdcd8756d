"""The clock of one run."""

from __future__ import annotations

from collections.abc import Callable

LEAP = 60.0  # seconds that pass at most between two readings: a machine that slept, or was halted, did not train


def steady(clock: Callable[[], float]) -> Callable[[], float]:
    """A clock that starts at 0, never goes back, and does not follow a leap forwards.

    Budgets are shares of the time that passed: after a night in which the machine slept they would allow minutes of
    experiments at once, and after a step back nothing for as long.

    Args:
        clock: Tells seconds from any origin.
    """
    last, now = clock(), 0.0

    def read() -> float:
        nonlocal last, now
        moment = clock()
        passed, last = moment - last, moment
        if passed > 0:
            now += min(passed, LEAP)
        return now

    return read
