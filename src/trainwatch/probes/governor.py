"""Which probes may run now: by priority and measured cost, within what is left of the budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

AGAIN = 2.0  # a probe is repeated when the run is so many times as long as it was at the last time
FIRST = 20  # optimiser steps before the first probe
RESERVE = 0.8  # of the time left: what a step takes is an estimate


class Request(Protocol):
    """A wish of a rule, as `trainwatch.rules.base.ProbeRequest` states it."""

    @property
    def kind(self) -> str: ...

    @property
    def priority(self) -> float: ...


@dataclass
class Account:
    """What is known of one kind of probe.

    Attributes:
        runs: How often it ran.
        step: Optimiser step of the last time.
        seconds: What the last time cost.
        put_off: How often it was due and the budget did not allow it.
    """

    runs: int = 0
    step: int = -1
    seconds: float = 0.0
    put_off: int = 0


class Governor:
    """Decides on probes. It never measures time itself: the caller tells what a probe took.

    Args:
        mode: ``auto`` (what the rules ask for, within the budget), ``off``, ``all`` (every kind each time, whatever it
            costs), or kind -> every how many optimiser steps.
        kinds: Kinds that can be run.
        at_end: Those that run in the round at the end alone, unless the mode says otherwise.
        steps: Kind -> about how many training steps one time is worth: what it will cost before it ever ran.
    """

    def __init__(
        self,
        mode: str | Mapping[str, int],
        kinds: Iterable[str],
        at_end: Collection[str] = (),
        steps: Mapping[str, int] | None = None,
    ) -> None:
        self._mode, self._at_end, self._steps = mode, at_end, steps or {}
        self.accounts = {kind: Account() for kind in kinds}
        self.step_seconds = 0.0  # what a training step takes, as the caller tells

    def due(self, requests: Iterable[Request], step: int, left: float) -> Iterator[str]:
        """Kinds to run now, the most urgent first, as long as their cost is within what is left.

        What one took (see `ran`) is taken off what is left before the next is given.

        Args:
            requests: What the rules ask for.
            step: Optimiser steps taken.
            left: Seconds that the budget has left.
        """
        return self._chosen(requests, left, lambda kind: self._is_due(kind, step))

    def last(self, requests: Iterable[Request], step: int, left: float) -> Iterator[str]:
        """As `due`, for the round at the end: all that the mode allows and that were not run since the last step."""
        named = self._mode if isinstance(self._mode, Mapping) else self.accounts if self._mode != "off" else ()
        return self._chosen(requests, left, lambda kind: kind in named and self.accounts[kind].step < step)

    def waiting(self, step: int) -> bool:
        """Whether any kind is due, asked for or not."""
        return any(self._is_due(kind, step) for kind in self.accounts)

    def ran(self, kind: str, step: int, seconds: float) -> None:
        """Note what a probe took."""
        account = self.accounts[kind]
        account.runs, account.step, account.seconds = account.runs + 1, step, seconds

    def affords(self, left: float) -> float:
        """Training steps in a probe that so many seconds are worth, with something in reserve."""
        pace = self._pace()
        return RESERVE * left / pace if pace > 0 else math.inf

    @property
    def put_off(self) -> list[str]:
        """What was not run, in words for the report."""
        told = {kind: a.put_off for kind, a in self.accounts.items() if a.put_off}
        return [
            f"probe {kind}: put off {'once' if n == 1 else f'{n} times'} to keep the budget"
            for kind, n in sorted(told.items())
        ]

    def _cost(self, kind: str) -> float:
        account, worth = self.accounts[kind], self._steps.get(kind, 0)
        if account.runs or not worth:
            return account.seconds
        return worth * self._pace()

    def _pace(self) -> float:
        """Seconds that a training step takes in a probe.

        The run's own steps take longer: they wait for data, for validation, for their trainer.
        """
        others = [a.seconds / self._steps[k] for k, a in self.accounts.items() if a.runs and self._steps.get(k)]
        return min([self.step_seconds, *others])

    def _is_due(self, kind: str, step: int) -> bool:
        account = self.accounts[kind]
        if isinstance(self._mode, Mapping):
            every = self._mode.get(kind, 0)
            return every > 0 and step // every > max(account.step, 0) // every
        if self._mode != "auto":
            return self._mode == "all"
        if kind in self._at_end:
            return False
        return step >= (AGAIN * account.step if account.runs else FIRST)

    def _chosen(self, requests: Iterable[Request], left: float, is_due: Callable[[str], bool]) -> Iterator[str]:
        priority: dict[str, float] = {}
        for request in requests:
            if request.kind in self.accounts:
                priority[request.kind] = max(request.priority, priority.get(request.kind, 0.0))
        forced = self._mode != "auto"
        if forced:  # all kinds, asked for or not
            priority = dict.fromkeys(self.accounts, 0.0) | priority
        for kind in sorted(priority, key=lambda k: (-priority[k], k)):
            if not is_due(kind):
                continue
            cost = self._cost(kind)
            if not forced and (left <= 0 or cost > left):
                self.accounts[kind].put_off += 1
                continue
            yield kind
            left -= self.accounts[kind].seconds or cost
