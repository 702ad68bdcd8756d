"""The record of a run that several processes train together: the first process joins what all of them measured."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from trainwatch.record.frames import encode, frames_in
from trainwatch.record.joining import COUNTS, GROUPED, JOINED, NORMS, PASS, SAME, columns, group_sizes, mean
from trainwatch.record.run_record import Journal, RunRecord
from trainwatch.record.series import Array, Series, as_float32

ALL = 1 << 62  # a step beyond all: the process has told everything
IN_STEP = 1e-2  # relative difference of norms of the same gradient in two processes, lower precision allowed for

Rows = list[tuple[int, Array]]
Key = tuple[str, str]  # quantity, key
Passes = dict[int, set[tuple[str, int]]]  # of each process: streams and steps


class Outbox:
    """Journal of a process other than the first: what the first one needs, until it is sent."""

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._sharded = False

    def append(self, quantity: str, key: str, steps: Array, values: Array, provenance: dict[str, Any]) -> None:
        if quantity not in JOINED:
            return
        if quantity in NORMS and not self._sharded:  # the same everywhere: one row shows whether that is so
            steps, values = steps[:1], values[:1]
        self._frames.append(encode({"kind": "rows", "quantity": quantity, "key": key}, (steps, values)))

    def series(self, quantity: str, key: str, series: Series) -> None:
        """A run that goes on is known to the first process, which loads the same state."""

    def event(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "fact" and data["topic"] == "parameters" and any("held" in p for p in data["value"]):
            if not self._sharded:
                parts = [[p.get("held", 0), p["norm"], p["mean"]] for p in data["value"]]
                self._frames.append(encode({"kind": "parts"}, (np.array(parts, np.float32),)))
            self._sharded = True

    def pack(self, upto: int, samples: int) -> bytes:
        """All that was noted since the last time.

        Args:
            upto: Everything measured before this step is told now.
            samples: Training samples seen.
        """
        frames, self._frames = self._frames, []
        return b"".join([*frames, encode({"kind": "upto", "step": upto, "samples": samples})])


@dataclass(eq=False)
class _Other:
    """Another process, as far as it has told of itself."""

    upto: int = 0
    samples: int = 0
    rows: dict[Key, dict[int, list[Array]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    sizes: dict[str, Array] = field(default_factory=dict)  # stream -> samples of each group
    classes: dict[str, Array] = field(default_factory=dict)
    parts: Array | None = None


class JointRecord(RunRecord):
    """A record whose rows are held back until all processes have told theirs.

    Args:
        journal: As for `RunRecord`.
        world: Number of processes.
    """

    def __init__(self, journal: Journal | None, world: int) -> None:
        super().__init__(journal)
        self.world = world
        self._held: dict[Key, Rows] = defaultdict(list)
        self._provenance: dict[Key, dict[str, Any]] = {}
        self._others: dict[int, _Other] = {}
        self._apart: dict[int, str] = {}
        self._sizes: dict[str, Array] = {}
        self._classes: dict[str, Array] = {}
        self._nonfinite: list[dict[str, Any]] = []
        self._out_of_step = False
        self._elsewhere: dict[str, set[int]] = defaultdict(set)  # stream -> processes that validate on other samples

    # ------------------------------------------------------------------ who takes part

    def expect(self, ranks: Sequence[int], apart: dict[int, str]) -> None:
        """Note which other processes tell what they measure, and why the rest do not."""
        self._others = {rank: _Other() for rank in ranks}
        self._apart = {**self._apart, **apart}

    def part(self, rank: int, why: str) -> None:
        """Wait no longer for a process."""
        if self._others[rank].upto < ALL:
            self._apart[rank] = why
            self._others[rank].upto = ALL

    @property
    def awaited(self) -> list[int]:
        """The processes that have more to tell."""
        return [rank for rank, other in self._others.items() if other.upto < ALL]

    @property
    def samples_elsewhere(self) -> int:
        """Training samples that the other processes have seen."""
        return sum(other.samples for other in self._others.values())

    # ------------------------------------------------------------------ what comes in

    def append(
        self, quantity: str, key: str, steps: ArrayLike, values: ArrayLike, provenance: dict[str, Any] | None = None
    ) -> None:
        if quantity not in JOINED or (quantity in NORMS and not self._copies(key).any()):
            told = {**provenance, "scope": self._scope()} if provenance and "scope" in provenance else provenance
            super().append(quantity, key, steps, values, told)
            return
        s, v = np.asarray(steps, np.int64), as_float32(values)
        s, v = (s[None], v[None]) if s.ndim == 0 else (s, v)
        self._provenance[quantity, key] = provenance or {}
        self._held[quantity, key] += [(int(step), row.copy()) for step, row in zip(s, v, strict=True)]
        self._note(0, quantity, key, s, v)

    def fits(self, quantity: str, key: str, row: Array) -> bool:
        """What is joined may have another shape than its parts."""
        return quantity in JOINED or super().fits(quantity, key, row)

    def take(self, rank: int, data: bytes) -> None:
        """Take in what another process sent."""
        other = self._others[rank]
        for head, arrays in frames_in(io.BytesIO(data), 0, len(data)):
            if head["kind"] == "rows":
                key = str(head["quantity"]), str(head["key"])
                if key[0] in NORMS and not self._copies(key[1]).any():
                    self._compare(key[1], *arrays) if key[0] == "grad_norm" else None
                    continue
                for step, row in zip(*arrays, strict=True):
                    other.rows[key][int(step)].append(row)
                self._note(rank, *key, *arrays)
            elif head["kind"] == "parts":
                other.parts = arrays[0].astype(np.float64)
                self._join_parts()
            elif other.upto < ALL:
                other.upto, other.samples = int(head["step"]), int(head["samples"])

    def _note(self, rank: int, quantity: str, key: str, steps: Array, values: Array) -> None:
        """What is known of a process by itself."""
        other = self._others.get(rank)
        if quantity == "train_loss" and not np.isfinite(values).all() and len(self._nonfinite) < self.world:
            if all(found["rank"] != rank for found in self._nonfinite):
                step = int(steps[np.flatnonzero(~np.isfinite(values))[0]])
                self._nonfinite.append({"rank": rank, "step": step, "stream": key})
        elif quantity == "val_group_size":
            (self._sizes if other is None else other.sizes)[key] = values[-1]
        elif quantity == "train_classes":
            counts = self._classes if other is None else other.classes
            counts[key] = values.sum(0) + counts.get(key, 0.0)

    def _compare(self, key: str, steps: Array, values: Array) -> None:
        """Whether a gradient that should be the same in all processes is."""
        series = self.series("grad_norm", key)
        if series is None or not len(series) or series.shape != values.shape[1:]:
            return
        for step, row in zip(steps, values, strict=True):
            mine = series.values[series.steps == step]
            if len(mine) and not np.allclose(mine[0], row, IN_STEP, equal_nan=True):
                self._out_of_step = True

    def _copies(self, key: str) -> Array:
        """For each parameter of an optimiser, how many processes hold the same part of it; 0 where all hold it all."""
        parameters, optimizers = self.facts.get("parameters", []), self.facts.get("optimizers", {})
        return np.array([parameters[i].get("copies", 0) for i in optimizers.get(key, {}).get("parameters", [])])

    def _scope(self) -> str:
        return "process" if self._out_of_step or not self._others else "global"

    # ------------------------------------------------------------------ what goes into the record

    def settle(self, upto: int) -> None:
        """Join and record what all processes have told.

        Args:
            upto: Everything measured in this process before this step is known.
        """
        ready = min([upto, *(other.upto for other in self._others.values())])
        same = self._same_passes(ready)
        for (quantity, key), rows in self._held.items():
            now = [row for row in rows if row[0] < ready]
            self._held[quantity, key] = rows[len(now) :]
            if quantity in COUNTS:
                self._add_counts(quantity, key, now, last=upto >= ALL)
                continue
            for step, row in now:
                joined = self._joined(quantity, key, step, row, same)
                if joined is not None:
                    self._put(quantity, key, step, joined)
        for other in self._others.values():
            for by_step in other.rows.values():
                for step in [s for s in by_step if s < ready]:
                    del by_step[step]
        self._note_processes()

    def _same_passes(self, ready: int) -> Passes:
        """Rank -> (stream, step) of the passes that this process made over the samples of the first one."""
        found: Passes = {rank: set() for rank in self._others}
        for (quantity, stream), rows in self._held.items():
            if quantity != "val_sample_loss":
                continue
            for step, row in rows:
                for rank, other in self._others.items():
                    theirs = other.rows[quantity, stream].get(step) if step < ready else None
                    if theirs and theirs[0].shape == row.shape and np.allclose(theirs[0], row, SAME, 0, equal_nan=True):
                        found[rank].add((stream, step))
        return found

    def _joined(
        self, quantity: str, key: str, step: int, row: Array, same: dict[int, set[tuple[str, int]]]
    ) -> Array | None:
        stream = key.partition(":")[0]
        given = {
            rank: rows.pop(0)
            for rank, other in self._others.items()
            if (rows := other.rows[quantity, key].get(step)) and (stream, step) not in same[rank]
        }
        if quantity in NORMS:
            complete = len(given) == self.world - 1 and all(r.shape == row.shape for r in given.values())
            return NORMS[quantity]([row, *given.values()], self._copies(key)) if complete else None
        if not given:
            return row
        if quantity == "train_loss":
            return mean([row, *given.values()], np.ones(1))
        sizes = [self._sizes.get(stream), *(self._others[rank].sizes.get(stream) for rank in given)]
        known = [s for s in sizes if s is not None]
        if len(known) < len(sizes):
            return row
        self._elsewhere[stream] |= set(given)
        if quantity == "val_group_size":
            return group_sizes(known)
        if quantity in GROUPED:
            fits = all(len(r) == len(s) for r, s in zip([row, *given.values()], known, strict=True))
            return columns([row, *given.values()], known) if fits else None
        if quantity != "val_scores" and any(r.shape != row.shape for r in given.values()):
            return row
        return PASS[quantity]([row, *given.values()], np.array([s.sum() for s in known]))

    def _add_counts(self, quantity: str, key: str, mine: Rows, *, last: bool) -> None:
        theirs = [
            (step, row)
            for other in self._others.values()
            for step, rows in other.rows.pop((quantity, key), {}).items()
            for row in rows
        ]
        rows = [row for _, row in [*mine, *theirs]]
        if (mine or (last and theirs)) and all(row.shape == rows[0].shape for row in rows):
            known = self.series(quantity, key)
            step = max([step for step, _ in mine or theirs], default=0)
            self._put(quantity, key, max(step, -1 if known is None else known.last_step), np.sum(rows, 0))
        elif theirs:  # until there is a row of one's own to put them with
            self._held[quantity, key] = [(step, row) for step, row in sorted(theirs, key=lambda item: item[0])]

    def _put(self, quantity: str, key: str, step: int, row: Array) -> None:
        known, provenance = self.series(quantity, key), self._provenance.get((quantity, key), {})
        if quantity == "val_group_size" and known is not None:
            return
        if known is not None and len(known) and (known.shape != np.shape(row) or step < known.last_step):
            return
        scope = {"scope": self._scope()} if "scope" in provenance else {}
        super().append(quantity, key, step, row, {**provenance, **scope})

    def set_fact(self, topic: str, value: Any) -> None:
        if topic == "validation":
            value = {stream: {**facts, **self._all_samples(stream)} for stream, facts in value.items()}
        super().set_fact(topic, value)

    def _all_samples(self, stream: str) -> dict[str, int]:
        if not self._elsewhere[stream]:
            return {}
        own = self._sizes.get(stream, np.zeros(1)).sum()
        return {"samples": int(own + sum(self._others[r].sizes[stream].sum() for r in self._elsewhere[stream]))}

    def _join_parts(self) -> None:
        """Norm, mean and deviation at the start of parameters of which each process holds a part."""
        parts = [other.parts for other in self._others.values() if other.parts is not None]
        parameters = self.facts.get("parameters", [])
        if len(parts) < self.world - 1 or any(len(part) != len(parameters) for part in parts):
            return
        whole = []
        for i, facts in enumerate(parameters):
            if "held" not in facts:
                whole.append(facts)
                continue
            of_all = [(facts["held"], facts["norm"], facts["mean"]), *(tuple(part[i]) for part in parts)]
            count = sum(n for n, _, _ in of_all)
            average = sum(n * m for n, _, m in of_all) / max(count, 1)
            square = sum(norm**2 for _, norm, _ in of_all) / facts["copies"]
            variance = max(0.0, square / max(facts["numel"], 1) - average**2)
            told = {"norm": float(square**0.5), "mean": float(average), "std": float(variance**0.5)}
            whole.append({**{k: v for k, v in facts.items() if k != "held"}, **told})
        self.set_fact("parameters", whole)

    def _note_processes(self) -> None:
        ranks = sorted(self._others)
        fact: dict[str, Any] = {
            "world": self.world,
            "joined": [rank for rank in ranks if rank not in self._apart],
            "apart": {str(rank): why for rank, why in sorted(self._apart.items())},
            "nonfinite": sorted(self._nonfinite, key=lambda found: (found["step"], found["rank"])),
            "gradients_differ": self._out_of_step,
        }
        for key, counts in self._classes.items():
            rows = [counts, *(self._others[rank].classes.get(key, np.zeros_like(counts)) for rank in ranks)]
            if all(row.shape == counts.shape for row in rows):
                fact.setdefault("classes", {})[key] = [row.astype(int).tolist() for row in rows]
        if fact != self.facts.get("processes"):
            super().set_fact("processes", fact)
        known = self.facts.get("validation")
        if known and any(self._all_samples(s).get("samples", f["samples"]) != f["samples"] for s, f in known.items()):
            self.set_fact("validation", known)
        sharded = any(self._copies(key).any() for key in self.facts.get("optimizers", {}))
        if (
            sharded
            and not self.has("grad_norm")
            and len(self._others) - len(self._apart.keys() & set(ranks)) < self.world - 1
        ):
            why = "its parameters are sharded, and not all processes told of their parts"
            off = self.facts.get("switched_off", {})
            super().set_fact("switched_off", {**off, "grad_norm": why, "other_grad_norms": why})
