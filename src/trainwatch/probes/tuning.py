"""How much of a fine-tuning is needed: parts of what it changed are taken back on a copy (§11)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trainwatch.probes.bench import Batch, Bench
from trainwatch.probes.evaluated import MANY, losses_of, mean_and_error
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.update_rank import ENERGIES, Factors, factors_of, matrix_of, rank_above_noise, rank_that_keeps

KIND = "tuning"
QUANTITIES = ("update_rank", "kept_entries", "kept_directions")
AT_END = True
STEPS = 40
SHARES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)  # of the entries, those that moved furthest

Tensors = Mapping[str, torch.Tensor]
Part = tuple[float, Callable[[], object]]  # what is left of the change, and what makes it so


def measure(bench: Bench) -> None:
    """Record ranks of all updates, and the validation loss of a copy of which a part is again as it was at the start.

    `update_rank` has a row of five for each of the facts' parameters: directions above the noise edge, directions that
    keep each of `ENERGIES`, all there are; NaN for what is no matrix or was not kept.

    Under ``held``, rows of (what is left, loss of validation batches, standard error of its paired difference from the
    model as it is), of which the first is the model itself:

    - `kept_entries`: the share of the entries whose change is kept, those that moved furthest of all weights together.
    - `kept_directions`: updates cut to the directions above the noise edge, then to those of each energy; the share of
      the numbers that two factors of that rank take.

    Raises:
        CannotIsolate: No weights of the start are kept, or no validation batch is held.
    """
    if not bench.starts:
        raise CannotIsolate("the weights that it began with look as if they were drawn at random")
    with bench.model() as model, torch.no_grad():
        live = {n: t for n, t in model.state_dict(keep_vars=True).items() if n in bench.starts}
        ends = {name: t.detach().clone() for name, t in live.items()}
        starts = {name: bench.starts[name].to(end) for name, end in ends.items()}
        factors = dict(factors_of({n: matrix_of(ends[n] - starts[n]) for n in ends if _is_matrix(live[n])}))
        _record_ranks(bench, factors)
        batches = bench.held("val", MANY)
        if not batches:
            raise CannotIsolate("no validation batch is held to see what a part of the change is worth")
        parts = {
            "kept_entries": _entries(live, starts, ends),
            "kept_directions": _directions(live, starts, factors),
        }
        for quantity, changes in parts.items():
            rows = _looks(model, batches, changes)
            _put(live, ends)
            bench.record.append(quantity, "held", bench.step, rows)


def _is_matrix(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, nn.Parameter) and tensor.ndim > 1 and min(matrix_of(tensor).shape) > 1


def _record_ranks(bench: Bench, factors: Mapping[str, Factors]) -> None:
    facts = bench.record.facts.get("parameters", [])
    rows = np.full((len(facts), 2 + len(ENERGIES)), np.nan)
    for row, p in zip(rows, facts, strict=True):
        if p["name"] in factors:
            values = factors[p["name"]][1].double().cpu().numpy()
            shape = (p["shape"][0], p["numel"] // p["shape"][0])
            row[:] = [rank_above_noise(values, shape), *(rank_that_keeps(values, e) for e in ENERGIES), len(values)]
    bench.record.append("update_rank", "end", bench.step, rows)


def _looks(model: nn.Module, batches: Sequence[Batch], changes: Iterable[Part]) -> NDArray[np.float64]:
    before = losses_of(model, batches)
    rows = [(1.0, mean_and_error(before)[0], 0.0)]
    for much, change in changes:
        change()
        losses = losses_of(model, batches)
        rows.append((much, mean_and_error(losses)[0], mean_and_error(losses - before)[1]))
    return np.array(rows)


def _put(live: Tensors, values: Tensors) -> None:
    for name, value in values.items():
        live[name].copy_(value)


def _entries(live: Tensors, starts: Tensors, ends: Tensors) -> Iterator[Part]:
    """Keep the change of those entries that moved furthest."""
    weights = [name for name, t in live.items() if _is_matrix(t)]
    if not weights:
        return
    sizes = torch.cat([(ends[n] - starts[n]).abs().flatten().float() for n in weights])
    for share in SHARES:
        limit = sizes.kthvalue(max(1, round(len(sizes) * (1 - share)))).values

        def change(limit: torch.Tensor = limit) -> None:
            _put(live, {n: torch.where((ends[n] - starts[n]).abs() > limit, ends[n], starts[n]) for n in weights})

        yield share, change


def _directions(live: Tensors, starts: Tensors, factors: Mapping[str, Factors]) -> Iterator[Part]:
    """Cut the updates to some of their directions."""
    for energy in (None, *ENERGIES):
        cut, numbers, whole = {}, 0, 0
        for name, (left, values, right) in factors.items():
            found = values.double().cpu().numpy()
            shape = matrix_of(starts[name]).shape
            rank = rank_above_noise(found, (shape[0], shape[1])) if energy is None else rank_that_keeps(found, energy)
            cut[name] = ((left[:, :rank] * values[:rank]) @ right[:rank]).reshape(starts[name].shape)
            numbers, whole = numbers + rank * sum(shape), whole + shape[0] * shape[1]
        if whole:
            yield numbers / whole, lambda cut=cut: _put(live, {n: starts[n] + c for n, c in cut.items()})  # type: ignore[misc]
