"""The record of one run: named series, facts, faults and the transitions of verdicts. NumPy only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from trainwatch.record.series import Array, Series

T = TypeVar("T")


class Journal(Protocol):
    """Where a record writes what it is told, as it is told (see `trainwatch.record.segments`)."""

    def append(self, quantity: str, key: str, steps: Array, values: Array, provenance: dict[str, Any]) -> None: ...

    def event(self, kind: str, data: dict[str, Any]) -> None: ...


class RunRecord:
    """Everything known of one run. The quantities are listed in ``docs/architecture.md``.

    Attributes:
        facts: JSON-able facts by topic: ``parameters``, ``modules``, ``optimizers``, ``loss``, ``validation`` ...
        faults: Faults of trainwatch itself, contained (TW000): part, error, traceback, step.
        transitions: When a diagnosis was first reported or resolved: code, where, state, step.
        journal: Where additions are persisted; None keeps them in memory only.
    """

    def __init__(self, journal: Journal | None = None) -> None:
        self.facts: dict[str, Any] = {}
        self.faults: list[dict[str, Any]] = []
        self.transitions: list[dict[str, Any]] = []
        self.journal = journal
        self._series: dict[str, dict[str, Series]] = {}
        self._memo: dict[Any, Any] = {}

    def append(
        self, quantity: str, key: str, steps: ArrayLike, values: ArrayLike, provenance: dict[str, Any] | None = None
    ) -> None:
        """Add rows to a series, which is made at the first call.

        Args:
            quantity: What was measured, such as ``"grad_norm"``.
            key: Which one, such as an optimiser or a validation stream.
            steps: One step or an array of n rising steps.
            values: One row or an array of n rows, of the shape of the earlier rows.
            provenance: How it was measured; merged into that of the series.
        """
        s = np.atleast_1d(np.asarray(steps, np.int64))
        v = np.asarray(values, np.float32)
        v = v[None] if np.ndim(steps) == 0 else v
        if not len(s):
            return
        known = self._series.setdefault(quantity, {})
        if key not in known:
            known[key] = Series(v.shape[1:])
        known[key].append(s, v)
        known[key].provenance.update(provenance or {})
        self._memo.clear()
        if self.journal is not None:
            self.journal.append(quantity, key, s, v, provenance or {})

    def set_fact(self, topic: str, value: Any) -> None:
        """Set one topic of `facts`; the value must be JSON-able."""
        self.facts[topic] = value
        self._memo.clear()
        if self.journal is not None:
            self.journal.event("fact", {"topic": topic, "value": value})

    def add_fault(self, fault: dict[str, Any]) -> None:
        """Note a contained fault of trainwatch itself."""
        self.faults.append(fault)
        if self.journal is not None:
            self.journal.event("fault", fault)

    def add_transition(self, transition: dict[str, Any]) -> None:
        """Note that a diagnosis was first reported, or is resolved."""
        self.transitions.append(transition)
        self._memo.clear()
        if self.journal is not None:
            self.journal.event("transition", transition)

    def series(self, quantity: str, key: str) -> Series | None:
        """One series, or None where nothing was recorded."""
        return self._series.get(quantity, {}).get(key)

    def keys(self, quantity: str) -> list[str]:
        """The keys recorded under a quantity, in order of their first row."""
        return list(self._series.get(quantity, {}))

    def has(self, quantity: str) -> bool:
        return bool(self._series.get(quantity))

    def items(self) -> list[tuple[str, str, Series]]:
        """All series as (quantity, key, series)."""
        return [(q, k, s) for q, by_key in self._series.items() for k, s in by_key.items()]

    def put_series(self, quantity: str, key: str, series: Series) -> None:
        """Put a whole series in its place, as readers of stored records do."""
        self._series.setdefault(quantity, {})[key] = series
        self._memo.clear()

    @property
    def steps(self) -> int:
        """Optimiser steps taken, as far as the record knows."""
        train = [s.last_step + 1 for q in ("train_loss", "grad_norm") for s in self._series.get(q, {}).values()]
        return max([int(self.facts.get("run", {}).get("steps", 0)), *train])

    def memo(self, function: Callable[[RunRecord], T]) -> T:
        """``function(record)``, computed once until the record changes: several rules share a symptom."""
        if function not in self._memo:
            self._memo[function] = function(self)
        return self._memo[function]  # type: ignore[no-any-return]
