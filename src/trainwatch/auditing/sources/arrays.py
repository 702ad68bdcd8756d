"""Arrays, tensors and nested lists, alone, as a pair with targets, or in a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from trainwatch.auditing.samples import Samples, Split
from trainwatch.auditing.sources.assembling import assemble
from trainwatch.auditing.sources.collecting import are_tokens, parts_of
from trainwatch.auditing.sources.numbers import as_array
from trainwatch.auditing.sources.reading import AuditError, Reading, in_part, spread
from trainwatch.auditing.sources.tables import read_frame


def read_arrays(of: Any, goal: Any, split: Split, reading: Reading, source: str, **more: Any) -> Samples:
    """Inputs and their targets, or None for these.

    Raises:
        AuditError: They differ in length, are empty, or no numbers.
    """
    inputs = as_array(of, f"the input of {source}")
    targets = None if goal is None else as_array(goal, f"the targets of {source}")
    if not inputs.ndim or (targets is not None and not targets.ndim):
        raise AuditError(f"{source} is a single number: pass arrays with one row a sample")
    if targets is not None and len(targets) != len(inputs):
        raise AuditError(f"{source} has {len(inputs):,} inputs but {len(targets):,} targets")
    places = spread(len(inputs), reading.room(inputs.nbytes // max(len(inputs), 1)))
    chosen = slice(None) if len(places) == len(inputs) else places
    return assemble(
        inputs[chosen],
        None if targets is None else targets[chosen],
        places,
        len(inputs),
        split=split,
        source=source,
        reading=reading,
        notes=in_part(len(places), len(inputs)),
        **more,
    )


def read_mapping(held: Mapping[str, Any], split: Split, reading: Reading, source: str) -> Samples:
    """A dict of arrays, such as scikit-learn's sets are, with the names of features and classes where it has them."""
    held = {str(k): v for k, v in held.items() if v is not None}
    more: dict[str, Any] = {}
    for key, name in (("feature_names", "feature_names"), ("target_names", "class_names")):
        if isinstance(names := held.pop(key, None), (list, tuple, np.ndarray)):
            more[name] = tuple(str(n) for n in names)
    arrays = {k: v for k, v in held.items() if hasattr(v, "__len__") and not isinstance(v, (str, Mapping))}
    reading.tokens |= are_tokens(arrays)
    of, goal = parts_of(arrays, source, reading.target)
    if hasattr(of, "columns"):
        return read_frame(of, goal, split, reading, source, class_names=more.get("class_names", ()))
    if np.shape(of)[1:] != (len(more.get("feature_names", ())),):
        more.pop("feature_names", None)  # as of pictures, whose pixels have names
    return read_arrays(of, goal, split, reading, source, **more)


def read_stored(path: Path, split: Split, reading: Reading) -> Samples:
    """An array in ``.npy``, or a dict of them in ``.npz``.

    Raises:
        AuditError: The file cannot be read, or holds Python objects.
    """
    try:
        with path.open("rb") as file:  # which NumPy leaves open where it fails
            held = np.load(file, allow_pickle=False)
            if isinstance(held, np.ndarray):
                return read_arrays(held, None, split, reading, path.name)
            return read_mapping({name: held[name] for name in held.files}, split, reading, path.name)
    except AuditError:
        raise
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise AuditError(f"cannot read {path}: {error}") from None
