"""How many steps are watched: all of the first ones, then as many as the budget allows."""

from __future__ import annotations

import math

FIRST, SECONDS = 2000, 20.0  # so many steps of a run are all watched, or those of so many seconds if they are fewer
LONGEST = 16  # a rest lasts at most so many times as long as the stretch that was watched before it


class Pace:
    """Lets stretches of steps go by unwatched where steps are so short that watching each costs too much.

    Whole stretches are watched and whole stretches are not: spikes, oscillation and gradients that are not zeroed
    show only from one step to the next.

    Args:
        stretch: Steps that are watched between two rests, at least.

    Attributes:
        resting: The coming step goes by unwatched.
        unwatched: Steps that did so far.
    """

    def __init__(self, stretch: int) -> None:
        self.resting = False
        self.unwatched = 0
        self._stretch = stretch
        self._watched = 0  # since the last rest
        self._left = 0  # of this rest

    def rest(self, steps: int, seconds: float, debt: float, allowance: float) -> None:
        """Rest until the budget has caught up, if it must.

        Args:
            steps: Optimiser steps taken.
            seconds: Since the run began.
            debt: Seconds spent beyond what was allowed so far.
            allowance: Seconds that are allowed with every further step.
        """
        begun = steps >= FIRST or seconds >= SECONDS
        if begun and self._watched >= self._stretch and debt > 0:
            self._left = min(math.ceil(debt / allowance), LONGEST * self._stretch)
            self._watched, self.resting = 0, True

    def stepped(self) -> None:
        """An optimiser has stepped."""
        if self.resting:
            self.unwatched += 1
            self._left -= 1
            self.resting = self._left > 0
        else:
            self._watched += 1

    def wake(self) -> None:
        """Something happens that is to be watched: the rest is over."""
        self.resting = False
