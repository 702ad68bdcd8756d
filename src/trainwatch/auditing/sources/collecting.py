"""Samples that come one by one or in batches, gathered until they are arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainwatch.auditing.samples import Problem, Samples, Split
from trainwatch.auditing.sources.assembling import assemble
from trainwatch.auditing.sources.numbers import as_array
from trainwatch.auditing.sources.reading import AuditError, Reading, named
from trainwatch.auditing.sources.targets import NAMES

INPUTS = (
    "x",
    "input",
    "inputs",
    "image",
    "images",
    "img",
    "pixel_values",
    "features",
    "data",
    "input_values",
    "input_ids",
)
TOKENS = "input_ids"
OFF_SHAPE = 0.5  # of the samples may have another shape than most of them, and are left out


def parts_of(sample: Any, source: str, target: str | None = None) -> tuple[Any, Any]:
    """Input and target of a sample or a batch: of a pair, of a mapping by its keys; one thing alone is an input.

    Raises:
        AuditError: It is None, or of its keys none is known as the input.
    """
    if sample is None:
        raise AuditError(f"{source} gives None where a sample should be: does its __getitem__ return one?")
    if isinstance(sample, Mapping):
        keys = [str(k) for k in sample]
        goal = target if target is not None else next((k for k in keys if k.lower() in NAMES), None)
        rest = [k for k in keys if k != goal]
        of = next((k for k in rest if k.lower() in INPUTS), rest[0] if len(rest) == 1 else None)
        if of is None or (target is not None and target not in keys):
            raise AuditError(
                f"{source} gives mappings with the keys {named(keys)}: pass pairs (input, target) instead, such as "
                '[(s["input"], s["label"]) for s in dataset]'
            )
        return sample[of], sample[goal] if goal is not None else None
    if isinstance(sample, (tuple, list)) and len(sample) >= 2:
        return sample[0], sample[1]
    if isinstance(sample, (tuple, list)) and len(sample) == 1:
        return sample[0], None
    return sample, None


def are_tokens(sample: Any) -> bool:
    """Whether the input of a sample or a batch is token numbers, by its key."""
    return isinstance(sample, Mapping) and TOKENS in sample and not set(INPUTS[:-1]) & set(sample)


class Collector:
    """Gathers samples, and what could not be read.

    Attributes:
        problems: So far.
        size: Bytes of the first sample; 0 before.
    """

    def __init__(self, split: Split, source: str, reading: Reading) -> None:
        self._split, self._source, self._reading = split, source, reading
        self.problems: list[Problem] = []
        self.size = 0
        self._inputs: list[NDArray[Any]] = []
        self._targets: list[Any] = []
        self._places: list[int] = []
        self._batches: list[int] = []

    def __len__(self) -> int:
        return len(self._inputs)

    @property
    def full(self) -> bool:
        """As many samples as the limits allow are there."""
        return len(self) >= self._reading.room(self.size)

    def add(self, place: int, sample: Any) -> None:
        """One sample.

        Raises:
            AuditError: It is none.
        """
        self._reading.tokens |= are_tokens(sample)
        of, goal = parts_of(sample, self._source, self._reading.target)
        self._keep(place, as_array(of, f"the input of {self._source}"), goal)

    def add_batch(self, places: list[int] | None, batch: Any, number: int | None) -> None:
        """One batch; without places its samples are counted on.

        Raises:
            AuditError: It is none.
        """
        self._reading.tokens |= are_tokens(batch)
        of, goal = parts_of(batch, self._source, self._reading.target)
        inputs = as_array(of, f"a batch of {self._source}")
        goals = None if goal is None else as_array(goal, f"the targets of {self._source}")
        if not inputs.ndim or (goals is not None and goals.shape[:1] != inputs.shape[:1]):
            raise AuditError(
                f"{self._source} gives batches whose inputs and targets differ in length: audit its dataset"
            )
        if places is None or len(places) != len(inputs):
            places = [len(self) + i for i in range(len(inputs))]
        for row, place in enumerate(places):
            self._keep(place, inputs[row], None if goals is None else goals[row])
            self._batches += [] if number is None else [number]

    def problem(self, place: Any, error: BaseException | str) -> None:
        """Something could not be read."""
        what = error if isinstance(error, str) else f"cannot be read: {type(error).__name__}: {error}"
        self.problems.append(Problem(str(place), what[:300]))

    def _keep(self, place: int, of: NDArray[Any], goal: Any) -> None:
        self.size = self.size or of.nbytes
        self._inputs.append(of)
        self._targets.append(goal)
        self._places.append(place)

    def samples(self, total: int | None, **more: Any) -> Samples:
        """All of one shape as arrays, in order of their places; the few of another shape are told and left out.

        Raises:
            AuditError: There are none, or there is no shape that most of them have.
        """
        if not self._inputs:
            why = f": sample {self.problems[0].place} {self.problems[0].what}" if self.problems else ""
            raise AuditError(f"no {self._split} sample could be read from {self._source}{why}")
        shapes = Counter(of.shape for of in self._inputs)
        shape, count = shapes.most_common(1)[0]
        if count <= OFF_SHAPE * len(self):
            raise AuditError(
                f"the samples of {self._source} differ in shape ({named([str(s) for s in shapes], 3)}): pad, crop or "
                "resize them to one in the dataset"
            )
        order = [i for i in np.argsort(self._places, kind="stable").tolist() if self._inputs[i].shape == shape]
        self.problems += [
            Problem(str(place), f"has shape {of.shape}, most have {shape}: left out")
            for place, of in zip(self._places, self._inputs, strict=True)
            if of.shape != shape
        ]
        kinds = Counter(of.dtype.name for of in self._inputs)
        notes = (*more.pop("notes", ()), *([f"the inputs mix {', '.join(sorted(kinds))}"] if len(kinds) > 1 else []))
        targets, told = self._goals(order)
        return assemble(
            np.stack([self._inputs[i] for i in order]),
            targets,
            np.array([self._places[i] for i in order], np.int64),
            total,
            split=self._split,
            source=self._source,
            reading=self._reading,
            notes=(*notes, *told),
            problems=self.problems,
            batches=np.array([self._batches[i] for i in order], np.int64) if self._batches else None,
            **more,
        )

    def _goals(self, order: list[int]) -> tuple[NDArray[Any] | None, list[str]]:
        goals = [self._targets[i] for i in order]
        if all(goal is None for goal in goals):
            return None, []
        try:
            return as_array(goals, f"the targets of {self._source}"), []
        except AuditError as error:
            return None, [f"{error}; the audit goes on without targets"]
