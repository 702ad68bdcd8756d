"""TW301: the gradient dies out on its way back to the first layers, and the net does not learn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence
from trainwatch.record import RunRecord
from trainwatch.rules.backward_parts import parts_shown, parts_wanted
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, Rule, always
from trainwatch.rules.begun_evidence import begun_better, usual_wanted
from trainwatch.rules.depth_remedies import gated_cells, stronger_signal
from trainwatch.rules.layer_signal import fading_cell, signal_evidence, starved_of
from trainwatch.symptoms.gradients import backward_signal, gradients_of
from trainwatch.symptoms.losses import LossCourse, loss_course

WISH = "a gradient that fades on its way back: would rectified units or usual weights learn more?"
FADED = 2.0  # decades that a profile which was severe at first must still fall by, in the middle of the run
EFFECTS = ("TW203", "TW204", "TW205", "TW208", "TW307", "TW401", "TW402", "TW602")


@dataclass(frozen=True)
class VanishingGradients(Rule):
    """The first layers get next to no gradient, and the loss has not left the level of a constant guess.

    ## Symptom
    The gradient shrinks from layer to layer on its way back, by powers of ten, from the first step on and to the end.

    ## Why it hurts
    Layers near the output learn, the first stay where they began: a deep net is in effect a shallow one on random
    features. An adaptive optimiser moves the first layers nonetheless, without much use.

    ## How it is measured
    RMS gradient of each bias (of each weight, where layers have no bias) by depth in order of execution, a robust line
    through its logarithm. Fires after `min_steps` where the line falls by `decades` at the first step, at the last,
    and in `sustained` of the run, where `steady` of neighbouring layers fall with it, and where less than `learned` of
    the loss is gone: of the loss of chance where the criterion tells, else of the loss after the first tenth. A fall
    by `severe` decades at the first step may level out later; less than `slow` of the loss is then gone. Or it falls so
    at the first step, and a copy that learns from the start with usual weights, or with ReLUs as well, ends lower than
    one as the run began and than the run, in training and by `led` of the loss of a constant guess in validation
    (`usual_start`). Through time the recurrent weight of a plain RNN tells: its gain (deviation times root of its
    width) is the factor of each time step, and one below `fading` leaves nothing of a long sequence (below half of
    that, `slow` is the limit). Probes say what weights and what activations pass on, and signal from noise in the first
    gradient; they decide nothing.

    ## Remedies
    `relu-family`, `batch-norm`, `residual`, `initialisation`, `lstm-gating`, `pretrain-finetune`.

    ## Not a fault when
    The net learns: a steep profile at the start often levels out. Small gradients of a converged run are small in all
    layers. Layers whose gradient is exactly zero are dead or cut off, which is another fault.

    ## Sources
    §9; Hochreiter 1991; Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural
    networks".
    """

    code: ClassVar[str] = "TW301"
    name: ClassVar[str] = "vanishing-gradients"
    section: ClassVar[str] = "§9"
    needs: ClassVar[tuple[str, ...]] = ("train_loss", "grad_norm")
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(EFFECTS, always)

    decades: float = 2.5
    steady: float = 0.7
    sustained: float = 0.75
    learned: float = 0.1
    severe: float = 4.5
    slow: float = 0.4
    fading: float = 0.5
    led: float = 0.1
    min_steps: int = 50

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Where the gradient fades: which part of the factor is the weight's, and whether there is a signal in it."""
        for wish in parts_wanted(record, self.decades, self.slow):
            yield wish
            yield ProbeRequest("gradient_noise", reason="whether the gradient carries a signal", priority=0.5)
        signal, copies = record.memo(backward_signal), usual_wanted(record, WISH)
        if copies is not None and signal is not None and signal.decades[0] <= -self.decades:
            yield copies

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        course, signal = record.memo(loss_course), record.memo(backward_signal)
        if record.memo(gradients_of) is None or course is None:
            raise NotChecked("several optimisers: their losses have no common course")
        if len(course) < self.min_steps:
            raise NotChecked(f"only {len(course)} steps were seen; {self.min_steps} are needed")
        if (cell := fading_cell(record, self.fading)) is not None:
            limit = self.slow if cell[1] < self.fading / 2 else self.learned
            if -np.inf < course.learned < limit:
                yield self._through_time(record, course, *cell, limit)
                return
        if signal is None:
            raise NotChecked("fewer than three layers in a row have a gradient")
        falls = (signal.decades <= -self.decades) & (signal.steady >= self.steady)
        seen = falls[np.isfinite(signal.decades)]  # a block whose layers are dead or cut off says nothing
        if not falls[0] or len(seen) <= len(falls) / 2:
            return
        lasting, measured = seen[-1] and seen.mean() >= self.sustained, float(np.nanmedian(signal.decades))
        severe = signal.decades[0] <= -self.severe and measured <= -FADED
        decades, limit = (self.decades, self.learned) if lasting else (FADED, self.slow)
        goal = f"chance is {course.chance:.3g}" if course.chance is not None else f"it began at {course.start:.3g}"
        when, ahead = "median over the run", begun_better(record, self.led, "usual", "rectified")
        if (lasting or severe) and -np.inf < course.learned < limit:
            margin = min((-measured - decades) / signal.error, (limit - course.learned) / course.gained_error)
            told = f"and the loss has not learned: {course.end:.3g} at the end, {goal}"
        elif ahead is not None:
            margin, measured, decades = ahead.margin, float(signal.decades[0]), self.decades
            when, told = "at first", f"at first; {ahead.told}"
        else:
            return
        starved = starved_of(signal, self.decades)
        first, last = signal.parameters[0]["module"], signal.parameters[-1]["module"]
        yield self.diagnose(
            f"The gradient of '{first}' is {10**measured:.1g} times that of '{last}', {signal.factor:.2g} a "
            f"layer, {told}",
            margin=margin,
            where=tuple(dict.fromkeys(p["module"] for p in starved)),
            onset_step=int(signal.steps[0]),
            evidence=(
                Evidence("gradient of the first layer over the last", 10**measured, 10**-decades, where=first,
                         step=int(signal.steps[0]), note=f"RMS gradient of each {signal.kind}; {when}"),
                Evidence("share of the loss learned", course.learned, limit, where=course.stream,
                         step=int(course.steps[-1]), note=goal),
                Evidence("factor per layer", signal.factor, step=int(signal.steps[0]), note=f"{signal.layers} layers"),
                *([] if ahead is None else [ahead.shown]),
                *parts_shown(record),
                *signal_evidence(record, signal.parameters[0], signal.parameters[-1]),
            ),
            remedies=tuple(stronger_signal(record, signal, starved)),
        )  # fmt: skip

    def _through_time(self, record: RunRecord, course: LossCourse, module: str, gain: float, limit: float) -> Diagnosis:
        return self.diagnose(
            f"'{module}' passes on {gain:.2g} of a gradient from one time step to the one before, {gain**10:.1g} over "
            f"ten of them, and the loss went {course.story}",
            margin=min((limit - course.learned) / course.gained_error, 1e3),
            where=(module,),
            onset_step=int(course.steps[0]),
            evidence=(
                Evidence("gain of the recurrent weight at the start", gain, self.fading, where=module, step=0),
                Evidence("share of the loss learned", course.learned, limit, where=course.stream),
            ),
            remedies=tuple(gated_cells(record)),
        )  # fmt: skip
