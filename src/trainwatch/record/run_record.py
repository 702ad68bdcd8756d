"""The record of one run: named series, facts, faults and the transitions of verdicts. NumPy only."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from trainwatch.record.series import Array, Series, as_float32

T = TypeVar("T")

EVENTS = 1000  # faults, and transitions, that are kept


class Journal(Protocol):
    """Where a record writes what it is told, as it is told (see `trainwatch.record.segments`)."""

    def append(self, quantity: str, key: str, steps: Array, values: Array, provenance: dict[str, Any]) -> None: ...

    def series(self, quantity: str, key: str, series: Series) -> None: ...

    def event(self, kind: str, data: dict[str, Any]) -> None: ...


class RunRecord:
    """Everything known of one run. The quantities are listed in ``docs/architecture.md``.

    Facts, faults and transitions are kept as JSON would give them back (tuples become lists, keys strings), so a live
    record and the one read from its files are judged alike.

    Attributes:
        facts: JSON-able facts by topic: ``parameters``, ``modules``, ``optimizers``, ``loss``, ``validation`` ...
        faults: Faults of trainwatch itself, contained (TW000): part, error, traceback, step. The last 1000.
        transitions: When a diagnosis was first reported or resolved: code, where, state, step. The last 1000.
        dropped: How many older ones were dropped: ``faults``, ``transitions``.
        journal: Where additions are persisted; None keeps them in memory only.
    """

    def __init__(self, journal: Journal | None = None) -> None:
        self.facts: dict[str, Any] = {}
        self.faults: list[dict[str, Any]] = []
        self.transitions: list[dict[str, Any]] = []
        self.dropped = {"faults": 0, "transitions": 0}
        self.journal = journal
        self._series: dict[str, dict[str, Series]] = {}
        self._memo: dict[Any, Any] = {}

    def append(
        self, quantity: str, key: str, steps: ArrayLike, values: ArrayLike, provenance: dict[str, Any] | None = None
    ) -> None:
        """Add rows to a series, which is made at the first call. The arrays are copied.

        Args:
            quantity: What was measured, such as ``"grad_norm"``.
            key: Which one, such as an optimiser or a validation stream.
            steps: One step or an array of n rising steps.
            values: One row or an array of n rows, of the shape of the earlier rows.
            provenance: How it was measured; merged into that of the series.

        Raises:
            ValueError: The rows do not fit those before them, or the steps fall.
        """
        s, v = np.asarray(steps, np.int64), as_float32(values)
        if s.ndim == 0:
            s, v = s[None], v[None]
        if not len(s):
            return
        series = self.series(quantity, key)
        if series is None:
            series = Series(v.shape[1:])
        held = series.provenance
        news = {k: p for k, p in (provenance or {}).items() if k not in held or held[k] != p}
        news = _plain(news) if news else news
        series.append(s, v)
        held.update(news)
        self._series.setdefault(quantity, {})[key] = series
        self._memo.clear()
        if self.journal is not None:
            self.journal.append(quantity, key, s, v, news)

    def set_fact(self, topic: str, value: Any) -> None:
        """Set one topic of `facts`; the value must be JSON-able.

        Raises:
            TypeError: It is not.
        """
        value = _plain(value)
        self.facts[topic] = value
        self._memo.clear()
        if self.journal is not None:
            self.journal.event("fact", {"topic": topic, "value": value})

    def add_fault(self, fault: dict[str, Any]) -> None:
        """Note a contained fault of trainwatch itself."""
        self._add("fault", self.faults, fault)

    def add_transition(self, transition: dict[str, Any]) -> None:
        """Note that a diagnosis was first reported, or is resolved."""
        self._add("transition", self.transitions, transition)

    def series(self, quantity: str, key: str) -> Series | None:
        """One series, or None where nothing was recorded."""
        return self._series.get(quantity, {}).get(key)

    def fits(self, quantity: str, key: str, row: Array) -> bool:
        """Whether a row has the shape of those before it, if there are any."""
        known = self.series(quantity, key)
        return known is None or known.shape == row.shape

    def latest(self, quantity: str, key: str) -> tuple[int, Array] | None:
        """Step and row recorded last, the row in double precision; None where nothing was recorded."""
        series = self.series(quantity, key)
        return (series.last_step, series.values[-1].astype(float)) if series is not None and len(series) else None

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
        if self.journal is not None:
            self.journal.series(quantity, key, series)

    @property
    def steps(self) -> int:
        """Optimiser steps taken, as far as the record knows."""
        train = [s.last_step + 1 for q in ("train_loss", "grad_norm") for s in self._series.get(q, {}).values()]
        run = self.facts.get("run")
        told = run.get("steps") if isinstance(run, dict) else None
        return max([told if isinstance(told, int) else 0, *train])

    def memo(self, function: Callable[[RunRecord], T]) -> T:
        """``function(record)``, computed once until the record changes: several rules share a symptom."""
        if function not in self._memo:
            self._memo[function] = function(self)
        return self._memo[function]  # type: ignore[no-any-return]

    def _add(self, kind: str, events: list[dict[str, Any]], event: dict[str, Any]) -> None:
        event = _plain(event)
        events.append(event)
        if len(events) > EVENTS:
            del events[0]
            self.dropped[f"{kind}s"] += 1
        self._memo.clear()
        if self.journal is not None:
            self.journal.event(kind, event)


def _from_numpy(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"a record keeps what JSON can: {type(value).__name__} is not")


_JSON = json.JSONEncoder(default=_from_numpy)


def _plain(value: Any) -> Any:
    """A copy of a value as JSON would give it back."""
    return json.loads(_JSON.encode(value))
