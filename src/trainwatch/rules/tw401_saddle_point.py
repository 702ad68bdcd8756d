"""TW401: the loss rests at a saddle, and there is a way down that the gradient does not show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence
from trainwatch.record import RunRecord
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, Rule, always
from trainwatch.rules.saddle_remedies import ways_off
from trainwatch.symptoms.curvature import Curvature, Escape, curvature, decay_of, shares_of
from trainwatch.symptoms.rest import Rest, fall_since, rest_of

EFFECTS = ("TW102", "TW203", "TW204", "TW205", "TW208", "TW307", "TW602")
GOOD = 0.9  # of the loss of a constant guess gone: then it is not worth the time to look
RESTING = 0.1  # of the loss of a constant guess: where it fell by less lately, it may be at rest
SHOWN = 3


@dataclass(frozen=True)
class SaddlePoint(Rule):
    """The loss is at rest where it curves downwards: the gradient is as good as zero, yet a way down is near.

    ## Symptom
    The loss has come to rest, and steps along a direction that the optimiser does not take lower it by at least
    `drop` of the loss of a constant guess (of the first loss, where that is not known).

    ## Why it hurts
    Near a saddle the gradient is next to nothing, so steps are, too. The run is not done: it waits until rounding or
    noise has grown large enough along the way down, which may take all the time there is.

    ## How it is measured
    Some held batches give a direction of negative curvature by Lanczos (`hessian`), others confirm it. The bound of
    its curvature on these, one-sided at `sure`, is below 0; the mean over both sides of the direction is below the loss
    at `sizes` lengths or more (`saddle_line`), and the loss falls, each beyond its error by Student's t at `beyond`.
    The fall is more than `gain` times what a step along the gradient would bring that is as long as the largest
    curvature allows, and more than the optimiser gained in the last third of its steps and since the measurement,
    beyond `errors` standard errors. Weight decay that is part of the gradient is taken off curvature and fall. A
    negative eigenvalue alone says nothing: healthy nets have many, all along.

    ## Remedies
    `perturb` along the direction, by the step that was tried; `add-noise`; `momentum`.

    ## Not a fault when
    The loss still falls, or the direction promises little: flat directions of a net that has learned bend to either
    side. Where weights begin too small, that is the cause (TW309). A plateau without a way down is TW402.

    ## Sources
    §13; Dauphin et al., "Identifying and attacking the saddle point problem in high-dimensional non-convex
    optimization" (2014); Jin et al., "How to escape saddle points efficiently" (2017); docs/benchmarks.md.
    """

    code: ClassVar[str] = "TW401"
    name: ClassVar[str] = "saddle-point"
    section: ClassVar[str] = "§13"
    needs: ClassVar[tuple[str, ...]] = ("train_loss", "hessian")
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(EFFECTS, always)

    drop: float = 0.03
    sure: float = 0.99
    beyond: float = 0.975
    sizes: int = 2
    gain: float = 20.0
    errors: float = 2.0

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Look for a way down where the loss rests high up, or nobody knows how high."""
        rest = record.memo(rest_of)
        if rest is not None and rest.fall < RESTING * rest.scale and not (rest.known and rest.learned > GOOD):
            priority = 1.2 if rest.learned <= GOOD else 0.3
            yield ProbeRequest("saddle", (), "the loss is at rest: does it curve downwards somewhere?", priority)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Compare the way down that was found with what the optimiser gains."""
        found, rest = record.memo(curvature), record.memo(rest_of)
        if found is None or rest is None:
            raise NotChecked("too few steps, or losses that are not finite, to tell whether the loss is at rest")
        if any(escape["step"] >= found.step for escape in record.facts.get("escapes", ())):
            raise NotChecked("the weights were moved since the curvature was measured")
        escape, decay = self.confirmed(found), decay_of(record)
        if escape is None or found.along_below(self.sure) + decay >= 0:
            return
        drop = escape.drop - decay / 2 * escape.length**2  # weight decay takes its part
        gained, error = max(rest.fall, fall_since(record, found.step)), float(np.hypot(rest.error, escape.drop_error))
        if drop < self.drop * rest.scale or drop <= gained + self.errors * error:
            return
        yield self._found(record, found, escape, rest, (drop - gained) / max(error, 1e-3 * drop))

    def confirmed(self, found: Curvature) -> Escape | None:
        """The way down, where batches confirm it that it was not taken from; else None."""
        escape, errors = found.escape, found.quantile(self.beyond)
        holds = (
            escape is not None
            and found.along_below(self.sure) < 0
            and escape.sizes_below(errors) >= self.sizes
            and escape.drop > errors * escape.drop_error
            and escape.drop > self.gain * found.gradient_gain
        )
        return escape if holds else None

    def why_not(self, found: Curvature) -> str:
        """What `confirmed` lacks, in words."""
        if found.escape is None:
            return (
                f"no direction curves downwards on other batches, too: the most negative curvature is "
                f"{found.smallest:.2g}, on those {found.along:.2g} +- {found.along_error:.1g}"
            )
        if found.escape.drop <= self.gain * found.gradient_gain:
            return (
                f"the gradient shows a way: a step along it would bring {found.gradient_gain:.2g}, one along the "
                f"direction of negative curvature {found.escape.drop:.2g}"
            )
        return "other batches do not confirm the way down beyond their noise"

    def _found(self, record: RunRecord, found: Curvature, escape: Escape, rest: Rest, margin: float) -> Diagnosis:
        shares, step = shares_of(record)[:SHOWN], found.step
        named = ", ".join(f"'{name}' {share:.0%}" for name, share in shares)
        promised = self.gain * found.gradient_gain
        lengths = f"at a length of {escape.length:.3g}, that of the weights is {found.weights:.3g}"
        note = f"+- {escape.drop_error:.1g}, {found.batches} batches; {lengths}"
        return self.diagnose(
            f"the loss rests at a saddle: it gained {rest.fall:.2g} in the last {rest.steps} steps, and falls by "
            f"{escape.drop:.3g} within {escape.length:.3g} along a direction of negative curvature (mostly {named})",
            margin=min(margin, 1e3),
            where=tuple(name for name, _ in shares),
            onset_step=max(0, step - rest.steps),
            evidence=(
                Evidence("fall of the loss along the direction, on other batches", escape.drop,
                         max(self.drop * rest.scale, promised), step=step, note=note),
                Evidence("what the optimiser gained over the plateau", rest.fall, step=record.steps,
                         note=f"+- {rest.error:.1g}, in {rest.steps} steps"),
                Evidence("curvature along the direction, on other batches", found.along, 0.0, step=step,
                         note=f"below {found.along_below(self.sure):.3g} with {self.sure:.0%} confidence"),
                Evidence("most negative eigenvalue", found.smallest, step=step,
                         note=f"within {found.smallest_bound:.1g}; {found.products} products with the Hessian"),
                Evidence("largest eigenvalue", found.largest, step=step, note=f"within {found.largest_bound:.1g}"),
                Evidence("what a step along the gradient would bring", found.gradient_gain, escape.drop / self.gain,
                         step=step),
            ),
            remedies=tuple(ways_off(record, found, escape, rest)),
        )  # fmt: skip
