"""Which probes may run now: by priority and measured cost, within what is left of the budget."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

AGAIN = 2.0  # a probe is repeated when the run is so many times as long as it was at the last time
FIRST = 20  # optimiser steps before the first probe
CHEAP = 16  # training steps: what is worth no more comes first, and may tell what dearer probes are worth
RESERVE = 0.9  # of the time left: what a step takes is an estimate


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
        whole: It measured what it was to: one that gives up at once tells nothing of what a step takes.
        put_off: How often it was due and the budget did not allow it.
    """

    runs: int = 0
    step: int = -1
    seconds: float = 0.0
    whole: bool = True
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

    def next(self, requests: Iterable[Request], step: int, left: float, *, last: bool = False) -> str | None:
        """The most urgent kind that is due and within what is left; None where a round is over.

        One at a time, so that what an experiment found can change what is asked for next. What is due when a round is
        over was put off.

        Args:
            requests: What the rules ask for by now.
            step: Optimiser steps taken.
            left: Seconds that the budget has left.
            last: It is the round at the end: all that the mode allows and that were not run since the last step.
        """
        due = [kind for kind in self._by_urgency(requests) if self._is_due(kind, step, last)]
        for kind in due:
            if self._mode != "auto" or (left > 0 and self._cost(kind) <= left):
                return kind
        for kind in due:
            self.accounts[kind].put_off += 1
        return None

    def waiting(self, step: int) -> bool:
        """Whether any kind is due, asked for or not."""
        return any(self._is_due(kind, step, last=False) for kind in self.accounts)

    def ran(self, kind: str, step: int, seconds: float, *, whole: bool = True) -> None:
        """Note what a probe took, and whether it measured what it was to."""
        account = self.accounts[kind]
        account.runs, account.step, account.seconds, account.whole = account.runs + 1, step, seconds, whole

    def affords(self, left: float) -> float:
        """Training steps in a probe that so many seconds are worth, with something in reserve."""
        pace = self._pace()
        return RESERVE * left / pace if pace > 0 else math.inf

    @property
    def never(self) -> list[str]:
        """Kinds that were due, and that the budget never allowed."""
        return sorted(kind for kind, account in self.accounts.items() if account.put_off and not account.runs)

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
        """Seconds that a training step takes in a probe, by what most of those took that measured something.

        The run's own steps take longer: they wait for data, for validation, for their trainer.
        """
        known = [(self._steps.get(kind, 0), account) for kind, account in self.accounts.items()]
        others = [a.seconds / steps for steps, a in known if steps and a.runs and a.whole]
        return min(self.step_seconds, statistics.median(others)) if others else self.step_seconds

    def _is_due(self, kind: str, step: int, last: bool) -> bool:
        account, named = self.accounts[kind], self._mode if isinstance(self._mode, Mapping) else None
        if self._mode == "off" or account.step >= step or (named is not None and kind not in named):
            return False
        if last or self._mode == "all":
            return True
        if named is not None:
            return named[kind] > 0 and step // named[kind] > max(account.step, 0) // named[kind]
        return kind not in self._at_end and step >= (AGAIN * account.step if account.runs else FIRST)

    def _by_urgency(self, requests: Iterable[Request]) -> list[str]:
        """Kinds that are asked for, cheap ones first; where the mode names them, all others as well."""
        priority: dict[str, float] = {} if self._mode == "auto" else dict.fromkeys(self.accounts, 0.0)
        for request in requests:
            if request.kind in self.accounts:
                priority[request.kind] = max(request.priority, priority.get(request.kind, 0.0))
        cheap = {kind for kind in priority if 0 < self._steps.get(kind, 0) <= CHEAP}
        return sorted(priority, key=lambda kind: (kind not in cheap, -priority[kind], kind))
