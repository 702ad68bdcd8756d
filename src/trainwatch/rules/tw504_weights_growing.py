"""TW504: the weights have grown to a multiple of their first size and go on growing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Rule
from trainwatch.rules.fit_remedies import stronger_regularisation
from trainwatch.symptoms.weight_growth import Norms, weight_growth

SHOWN = 3


@dataclass(frozen=True)
class WeightsGrowing(Rule):
    """Weights are several times as large as at the start, and nothing ends their growth.

    ## Symptom
    The root mean square of all weights is at least `growth` times that at the start, and in the second half of the run
    it still grew at least like the steps to the power of `pace`. This is a remark.

    ## Why it hurts
    Large weights make a function that turns sharply: small changes of an input become large changes of the output, and
    predictions surer than they should be. Before a normalisation the size of a weight has no effect on what is
    computed, but every step counts the less the larger the weight is: the rate falls without anybody having lowered it.

    ## How it is measured
    `weights`: norms of up to 1,024 fixed entries of each parameter at each flush, against those at the start; for
    weights of two dimensions or more. The pace is the slope of the logarithm of the size over that of the steps: 0.5
    for a random walk, 1 for a straight line; on a loss that a growing scale always lowers, as that of classes which are
    told apart without error, growth is logarithmic and the slope falls towards 0. It must be beyond two standard
    errors.

    ## Remedies
    `stronger-regularisation`, `max-norm`.

    ## Not a fault when
    Weights began very small on purpose. The validation loss keeps falling: then they grow because there is something to
    learn. Where it rises, TW201 and TW202 say so, and have this remark below them.

    ## Sources
    §5 §14; Srebro and Shraibman, "Rank, trace-norm and max-norm" (2005); van Laarhoven, "L2 regularization versus batch
    and weight normalization" (2017).
    """

    code: ClassVar[str] = "TW504"
    name: ClassVar[str] = "weights-growing"
    severity: ClassVar[Severity] = Severity.INFO
    section: ClassVar[str] = "§5 §14"
    needs: ClassVar[tuple[str, ...]] = ("weights",)

    growth: float = 3.0
    pace: float = 0.2

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Compare the size of the weights with that at the start, and see whether it still grows."""
        found = record.memo(weight_growth)
        if found is None:
            raise NotChecked("several optimisers, or too few looks at the weights to tell whether they grow")
        error = max(found.error, 1e-6)
        beyond = (found.rate - self.pace) / error
        if found.factor < self.growth or beyond < 2:
            return
        shown = found.tensors[:SHOWN]
        yield self.diagnose(
            f"weights are {found.factor:.3g} times as large as at the start and still grow like the steps to the power "
            f"of {found.rate:.2f}",
            margin=min(beyond, 1e3),
            where=tuple(one.name for one in shown),
            evidence=(
                Evidence("size of the weights over that at the start", found.factor, self.growth, step=record.steps),
                Evidence("pace of growth in the second half", found.rate, self.pace, note=f"+- {found.error:.2g}"),
                *(_norms(one) for one in shown),
            ),
            remedies=tuple(_remedies(record, shown[0], self.growth)),
        )


def _norms(one: Norms) -> Evidence:
    note = f"L1 {one.l1:.3g}, L2 {one.l2:.3g}, largest {one.largest:.3g}, zeros {one.zeros:.0%}"
    return Evidence("growth of the L2 norm", one.growth, where=one.name, step=one.step, note=note)


def _remedies(record: RunRecord, most: Norms, growth: float) -> Iterator[Remedy]:
    (rows,) = [p["shape"][0] for p in record.facts["parameters"] if p["name"] == most.name]
    limit = growth * most.l2 / most.growth / rows**0.5  # so many times the length that a row had at the start
    yield stronger_regularisation(record)
    yield remedy("max-norm", name=most.name, limit=limit, present=most.l2 / rows**0.5)
