"""From what was read, sample by sample or at once, to `Samples`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainwatch.auditing.samples import Problem, Samples, Split
from trainwatch.auditing.sources.numbers import as_inputs
from trainwatch.auditing.sources.reading import AuditError, Reading
from trainwatch.auditing.sources.targets import targets_of

OF_SAMPLES = ("batches", "files")


def assemble(
    inputs: NDArray[Any],
    targets: NDArray[Any] | None,
    places: NDArray[np.int64],
    total: int | None,
    *,
    split: Split,
    source: str,
    reading: Reading,
    notes: tuple[str, ...] = (),
    **more: Any,
) -> Samples:
    """One part, with targets coded, samples without a target left out and told, and what was assumed noted.

    Args:
        inputs: Of the samples read, in order of `places`.
        targets: Theirs; None without.
        places: As in `Samples`.
        total: As in `Samples`.
        split: Which part it is.
        source: What it was read from.
        reading: Shared by the parts.
        notes: What people should know about how this was read.
        more: Further fields of `Samples`.

    Raises:
        AuditError: There is no sample, or inputs or targets cannot be used.
    """
    if not len(inputs):
        raise AuditError(f"{source} is empty: there is no {split} sample to look at")
    if not inputs[0].size:
        raise AuditError(f"the samples of {source} are empty: their shape is {inputs.shape[1:]}")
    pairs = targets is not None and targets.shape == inputs.shape  # token numbers and those that follow them
    tokens = inputs.dtype.kind in "ui" and inputs.ndim == 2 and inputs.shape[1] > 1 and (pairs or reading.tokens)
    inputs, layout = as_inputs(inputs, f"the input of {source}")
    names: tuple[str, ...] = more.pop("class_names", ())
    problems: list[Problem] = list(more.pop("problems", ()))
    kept = np.ones(len(inputs), bool)
    values = None
    if tokens:
        layout, more = "other", {**more, "categorical": (True,)}
        notes = (*notes, f"inputs{' and targets' * pairs} were taken for token numbers")
    if targets is not None and not (tokens and pairs):
        found = targets_of(targets, reading)
        values, names, kept = found.values, found.names or names, ~found.missing
        notes = (*notes, found.note) if found.note else notes
        problems += [Problem(str(place), "has no target") for place in places[found.missing]]
        if not kept.any():
            raise AuditError(f"no sample of {source} has a target: drop the column, or pass target=")
    more |= {name: _some(more[name], kept) for name in OF_SAMPLES if more.get(name) is not None}
    inventory = {**(more.pop("inventory", None) or {}), **({"notes": list(notes)} if notes else {})}
    return Samples(
        split=split,
        source=source,
        inputs=inputs if kept.all() else inputs[kept],
        layout=layout,
        targets=values if values is None or kept.all() else values[kept],
        places=places[kept],
        total=total,
        class_names=names,
        inventory=inventory or None,
        problems=tuple(problems),
        **more,
    )


def _some(values: Any, kept: NDArray[np.bool_]) -> Any:
    if isinstance(values, tuple):
        return tuple(v for v, keep in zip(values, kept, strict=True) if keep) if values else values
    return values[kept]
