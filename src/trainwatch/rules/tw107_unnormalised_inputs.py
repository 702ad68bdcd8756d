"""TW107: inputs on a scale that the training cannot cope with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, Rule, no_remark
from trainwatch.rules.begun_evidence import Ahead, inputs_better, standard_wanted
from trainwatch.rules.raw_data import raw_inputs
from trainwatch.symptoms.losses import LossCourse, loss_course
from trainwatch.symptoms.ranges import Range, range_of
from trainwatch.symptoms.scaled_otherwise import furthest
from trainwatch.symptoms.subject import is_of_data

NORMALISING = ("BatchNorm", "LayerNorm", "InstanceNorm", "GroupNorm", "RMSNorm", "SyncBatchNorm")
EFFECTS = ("TW102", "TW203", "TW204", "TW205", "TW206", "TW208", "TW301", "TW302", "TW303", "TW304", "TW305",
           "TW306", "TW309", "TW401", "TW402", "TW403", "TW601", "TW602", "TW603", "TW604")  # fmt: skip


@dataclass(frozen=True)
class UnnormalisedInputs(Rule):
    """The inputs are far from unit scale, or their features from one another, and the net does not get over it.

    ## Symptom
    The root mean square of the inputs is above `large` or below `small`, or that of the largest feature above `uneven`
    times the median one; nothing normalises them before the first layer; and the run ends with less than `learned` of
    its loss gone. Or a copy that learns from the start on standardised inputs is better than another without and than
    the run, in training and, by `better` of the loss of a constant guess, in validation.

    ## Why it hurts
    The gradient of the first layer is proportional to its inputs. No rate fits features of 0.1 and of 1,000 at once:
    the large ones saturate or overshoot while the small ones are not learned.

    ## How it is measured
    `input_stats` at steps 0, 1, 3, 7 ..., and the course of the training loss against that of a constant guess. Judged
    from `steps` optimiser steps on. Copies learn from held batches (`standard_inputs`) where the root mean square is
    `unusual` times 1 or less than its inverse, the mean as many deviations, or the largest feature `unusual` squared
    times the median one. Before training (`trainwatch.audit`) such a scale is a remark, since a table as it
    was collected harms nobody yet; a warning where it is above `extreme`, and where a feature is `uneven` beside others
    that share a scale, nine in ten of them within `alike` times the median one.

    ## Remedies
    `normalise-inputs` with the statistics of the training data.

    ## Not a fault when
    The net learns all the same, begins with a batch or layer norm, or is given categories. Validation inputs on another
    scale are TW109's.

    ## Sources
    §10; LeCun et al., "Efficient BackProp" (1998), section 4.3.
    """

    code = "TW107"
    name = "unnormalised-inputs"
    section = "§10"
    needs = ("input_stats",)
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(EFFECTS, no_remark)

    large: float = 10.0
    small: float = 0.05
    uneven: float = 30.0
    learned: float = 0.7
    alike: float = 3.0
    extreme: float = 1e6
    unusual: float = 3.0
    better: float = 0.05
    steps: int = 20

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Where inputs are of another size than is usual: what standardised ones would bring."""
        inputs = None if is_of_data(record) else range_of(record, "input_stats", "train")
        if inputs is not None and self._is_unusual(inputs) and not _begins_with_a_norm(record):
            wanted = standard_wanted(record, "inputs")
            yield from [wanted] if wanted is not None else []

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        inputs, course = range_of(record, "input_stats", "train"), record.memo(loss_course)
        if inputs is None:
            raise NotChecked("the scale of the training inputs is not known")
        uneven = inputs.largest / inputs.median if inputs.median > 0 else 1.0
        reach = float(furthest(inputs.low, inputs.high))  # few broken samples are another fault (TW604)
        off = min(inputs.rms, reach) > self.large or inputs.rms < self.small or uneven > self.uneven
        if is_of_data(record):
            raw = raw_inputs(record, off, self.uneven, self.alike, self.extreme)
            return (yield from (self.diagnose(**fields) for fields in raw))
        if course is None:
            raise NotChecked("no training loss was seen")
        if record.steps < (self.steps if record.facts.get("run", {}).get("finished") else 10 * self.steps):
            return
        ahead = inputs_better(record, self.better) if self._is_unusual(inputs) else None
        if not (off or ahead) or _begins_with_a_norm(record):
            return
        margin = (self.learned - course.learned) / course.gained_error
        if ahead is not None or np.isnan(margin) or margin > 0:
            margin = ahead.margin if ahead else min(float(np.nan_to_num(margin, nan=1e3)), 1e3)
            yield self._found(record, inputs, uneven, course, margin, ahead)

    def _is_unusual(self, inputs: Range) -> bool:
        unit = 1 / self.unusual <= inputs.rms <= self.unusual
        uneven = inputs.largest > self.unusual**2 * inputs.median > 0
        return not unit or uneven or abs(inputs.mean) > self.unusual * inputs.sd

    def _found(
        self, record: RunRecord, inputs: Range, uneven: float, course: LossCourse, margin: float, ahead: Ahead | None
    ) -> Diagnosis:
        of_features = f", the largest feature {uneven:.3g} times the median one" if uneven > self.uneven else ""
        told = f"the loss went {course.story}" if ahead is None else ahead.told
        return self.diagnose(
            f"inputs have a root mean square of {inputs.rms:.3g}{of_features}, and {told}",
            margin=margin,
            where=("inputs",),
            onset_step=0,
            evidence=(
                Evidence("root mean square of the inputs", inputs.rms, self.large, where="inputs", step=inputs.step,
                         note=f"5 to 95 %: {inputs.low:.3g} to {inputs.high:.3g}; too small below {self.small:g}"),
                Evidence("largest over median feature", uneven, self.uneven, where="inputs", step=inputs.step),
                Evidence("share of the loss that training removed", course.learned, self.learned, where=course.stream,
                         step=record.steps),
                *([ahead.shown] if ahead else []),
            ),
            remedies=(remedy("normalise-inputs", rms=f"{inputs.rms:.3g}", mean=f"{inputs.mean:.4g}",
                             std=f"{inputs.sd:.4g}"),),
        )  # fmt: skip


def _begins_with_a_norm(record: RunRecord) -> bool:
    """The first module that has parameters, in order of execution, normalises what it is given."""
    owners = {p["module"] for p in record.facts.get("parameters", ())}
    first = next((m for m in record.facts.get("modules", ()) if m["name"] in owners), None)
    return first is not None and str(first["type"]).startswith(NORMALISING)
