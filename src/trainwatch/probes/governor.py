"""Which probes may run now: by priority and measured cost, within what is left of the budget."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

AGAIN = 2.0  # a probe is repeated when the run is so many times as long as it was at the last time
FIRST = 20  # optimiser steps before the first probe


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
        at_end: Those that say nothing before a run is over, and wait for it unless a mapping names them.
    """

    def __init__(
        self, mode: str | Mapping[str, int], kinds: Iterable[str], at_end: Collection[str] = frozenset()
    ) -> None:
        self._mode, self._at_end = mode, at_end
        self.accounts = {kind: Account() for kind in kinds}

    def due(self, requests: Iterable[Request], step: int, left: float) -> list[str]:
        """Kinds to run now, the most urgent first, with the expected cost of all within what is left.

        Args:
            requests: What the rules ask for.
            step: Optimiser steps taken.
            left: Seconds that the budget has left.
        """
        return self._chosen(requests, left, lambda kind: self._is_due(kind, step))

    def last(self, requests: Iterable[Request], step: int, left: float) -> list[str]:
        """Kinds for the round at the end: all that were not run since the last step."""
        return self._chosen(requests, left, lambda kind: self._mode != "off" and self.accounts[kind].step < step)

    def waiting(self, step: int) -> bool:
        """Whether any kind is due, asked for or not."""
        return any(self._is_due(kind, step) for kind in self.accounts)

    def ran(self, kind: str, step: int, seconds: float) -> None:
        """Note what a probe took."""
        account = self.accounts[kind]
        account.runs, account.step, account.seconds = account.runs + 1, step, seconds

    @property
    def put_off(self) -> list[str]:
        """What was not run, in words for the report."""
        told = {kind: a.put_off for kind, a in self.accounts.items() if a.put_off}
        return [f"probe {kind}: put off {n} times to keep the budget" for kind, n in sorted(told.items())]

    def _is_due(self, kind: str, step: int) -> bool:
        account = self.accounts[kind]
        if isinstance(self._mode, Mapping):
            every = self._mode.get(kind, 0)
            return every > 0 and step // every > max(account.step, 0) // every
        if kind in self._at_end:
            return False
        if self._mode != "auto":
            return self._mode == "all"
        return step >= (AGAIN * account.step if account.runs else FIRST)

    def _chosen(self, requests: Iterable[Request], left: float, is_due: Callable[[str], bool]) -> list[str]:
        priority: dict[str, float] = {}
        for request in requests:
            if request.kind in self.accounts:
                priority[request.kind] = max(request.priority, priority.get(request.kind, 0.0))
        forced = self._mode != "auto"
        if forced:  # all kinds, asked for or not
            priority = dict.fromkeys(self.accounts, 0.0) | priority
        chosen = []
        for kind in sorted(priority, key=lambda k: (-priority[k], k)):
            if not is_due(kind):
                continue
            cost = self.accounts[kind].seconds
            if not forced and (left <= 0 or cost > left):
                self.accounts[kind].put_off += 1
                continue
            left -= cost
            chosen.append(kind)
        return chosen
