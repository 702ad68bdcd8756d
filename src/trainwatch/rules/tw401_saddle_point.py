"""TW401: the loss rests at a saddle, and there is a way down that the gradient does not show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis
from trainwatch.record import RunRecord
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, Rule, always
from trainwatch.rules.saddle_evidence import along_the_direction, at_the_point, of_shaking, summary, too_slow
from trainwatch.rules.saddle_remedies import ways_off
from trainwatch.symptoms.curvature import Curvature, Escape, curvature, decay_of, shares_of
from trainwatch.symptoms.experiments import Shaken, shaken
from trainwatch.symptoms.rest import Rest, fall_since, rest_of

EFFECTS = ("TW102", "TW203", "TW204", "TW205", "TW208", "TW602")
GOOD = 0.9  # of the loss of a constant guess gone: then it is not worth the time to look
RESTING = 0.1  # of the loss of a constant guess: where it fell by less lately, it may be at rest
SHOWN = 3
SURE = 3.0  # standard errors

Way = tuple[Escape, float] | None  # with its margin
Free = tuple[Shaken, float] | None


@dataclass(frozen=True)
class SaddlePoint(Rule):
    """The loss is at rest where it curves downwards: the gradient is as good as zero, yet a way down is near.

    ## Symptom
    The loss has come to rest, and steps along a direction that the optimiser does not take lower it by at least
    `drop` of the loss of a constant guess (of the first loss, where that is not known), or noise in the weights frees
    the run.

    ## Why it hurts
    Near a saddle the gradient is next to nothing, so steps are, too. The run is not done: it waits until rounding or
    noise has grown large enough along the way down, which may take all the time there is.

    ## How it is measured
    Some held batches give a direction of negative curvature by Lanczos (`hessian`), others confirm it. The bound of its
    curvature on these, one-sided at `sure`, is below 0; the mean over both sides of the direction is below the loss at
    `sizes` lengths or more (`saddle_line`), and the loss falls, each beyond its error by Student's t at `beyond`. The
    fall is more than `gain` times what a step along the gradient would bring that is as long as the largest curvature
    allows, and more than the optimiser gained in the last third of its steps and since the measurement, beyond `errors`
    standard errors. Weight decay that is part of the gradient is taken off curvature and fall. Or there is a negative
    eigenvalue, and of copies that train on at the end (`shaken_loss`) all whose weights were shaken come to a loss
    lower by `freed` of a constant guess's than the lowest of one left as it was: units alike part slowly, by no
    straight line. Judged from `steps` steps on; of plain SGD where the sum of its rates, times the most negative
    eigenvalue, is at least `grown`: by so many e-folds a run leaves a saddle. Of others, updates sum up to `way` of the
    weights' length, and no copy that learns at a higher rate is ahead by `freed`.

    ## Remedies
    `perturb` along the direction, by the step that was tried; `add-noise`; `momentum`.

    ## Not a fault when
    The loss still falls, or the direction promises little: flat directions of a net that has learned bend to either
    side. Where weights begin too small, that is the cause (TW309); where steps are too short to get away, the rate is
    (TW602). A plateau without a way down is TW402.

    ## Sources
    §13; Dauphin et al., "Identifying and attacking the saddle point problem in high-dimensional non-convex
    optimization" (2014); Jin et al., "How to escape saddle points efficiently" (2017); docs/benchmarks.md.
    """

    code: ClassVar[str] = "TW401"
    name: ClassVar[str] = "saddle-point"
    section: ClassVar[str] = "§13"
    needs: ClassVar[tuple[str, ...]] = ("train_loss", "hessian")
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(EFFECTS, always)

    drop: float = 0.015
    sure: float = 0.99
    beyond: float = 0.975
    sizes: int = 2
    gain: float = 5.0
    errors: float = 2.0
    freed: float = 0.05
    grown: float = 1.0
    way: float = 1.0
    steps: int = 50

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Look for a way down where the loss rests high up, or nobody knows how high."""
        rest = record.memo(rest_of)
        if rest is not None and rest.fall < RESTING * rest.scale and not (rest.known and rest.learned > GOOD):
            high = rest.learned <= GOOD
            yield ProbeRequest("saddle", (), "the loss is at rest: does it curve downwards?", 1.2 if high else 0.3)
            if high:
                yield ProbeRequest("shaken", (), "the loss is at rest: does noise in the weights free it?", 0.45)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Compare the way down that was found, and what shaken copies gain, with what the optimiser gains."""
        found, rest = record.memo(curvature), record.memo(rest_of)
        if found is None or rest is None:
            raise NotChecked("too few steps, or losses that are not finite, to tell whether the loss is at rest")
        if record.steps < self.steps:
            raise NotChecked(f"only {record.steps} steps were seen; {self.steps} are needed to call it a rest")
        if any(escape["step"] >= found.step for escape in record.facts.get("escapes", ())):
            raise NotChecked("the weights were moved since the curvature was measured")
        gained = max(rest.fall, fall_since(record, found.step))
        way, free = self._way(record, found, rest, gained), self._free(record, found, rest, gained)
        if (way or free) and not too_slow(record, self.grown, self.freed, self.way):
            yield self._found(record, found, rest, way, free, gained)

    def confirmed(self, found: Curvature) -> Escape | None:
        """The way down, where batches confirm it that it was not taken from; else None."""
        escape, errors = found.escape, found.quantile(self.beyond)
        if escape is None or found.along_below(self.sure) >= 0 or escape.sizes_below(errors) < self.sizes:
            return None
        return escape if escape.drop > max(errors * escape.drop_error, self.gain * found.gradient_gain) else None

    def _way(self, record: RunRecord, found: Curvature, rest: Rest, gained: float) -> Way:
        """A way down that pays, and its margin."""
        escape, decay = self.confirmed(found), decay_of(record)
        if escape is None or found.along_below(self.sure) + decay >= 0:
            return None
        drop = escape.drop - decay / 2 * escape.length**2  # weight decay takes its part
        error = float(np.hypot(rest.error, escape.drop_error))
        if drop < self.drop * rest.scale or drop <= gained + self.errors * error:
            return None
        return escape, (drop - gained) / max(error, 1e-3 * drop)

    def _free(self, record: RunRecord, found: Curvature, rest: Rest, gained: float) -> Free:
        """What noise in the weights brings, where it pays, and its margin."""
        copies, least = record.memo(shaken), max(self.freed * rest.scale, gained)
        if copies is None or found.smallest + found.smallest_bound + decay_of(record) >= 0:
            return None
        margin = (copies.lead - least) / max(copies.error, 1e-3 * least)
        return (copies, margin) if margin > 0 and copies.lead > SURE * copies.error else None

    def _found(self, record: RunRecord, found: Curvature, rest: Rest, way: Way, free: Free, gained: float) -> Diagnosis:
        escape, copies = way[0] if way else None, free[0] if free else None
        shares = shares_of(record)[:SHOWN] if escape else []
        least = max(self.drop * rest.scale, self.gain * found.gradient_gain)
        return self.diagnose(
            summary(rest, escape, copies, shares),
            margin=min(max(margin for _, margin in (pair for pair in (way, free) if pair)), 1e3),
            where=tuple(name for name, _ in shares),
            onset_step=max(0, found.step - rest.steps),
            evidence=(
                *(along_the_direction(found, escape, least, self.sure) if escape else ()),
                *(of_shaking(copies, max(self.freed * rest.scale, gained)) if copies else ()),
                *at_the_point(record, found, rest),
            ),
            remedies=tuple(ways_off(record, found, escape, copies, rest)),
        )
