"""What TW204 and TW206 show: where losses came to rest, what holds the network back, what other predictors reach."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.robust_loss import heavy_tails
from trainwatch.symptoms.begun_again import wider
from trainwatch.symptoms.experiments import Lead, OneBatch, evaluated, one_batch
from trainwatch.symptoms.plateau import Trend
from trainwatch.symptoms.rest import Rest
from trainwatch.symptoms.restraints import Restraint

FITTED = 0.5  # of its loss: a batch that keeps more could not be fitted
RIVALS = {"neighbours": "nearest neighbours", "boosting": "gradient boosting"}
COME = {"neighbours": "come", "boosting": "comes"}
FALLING = "gain of half as many steps again"


def still_falls(cause: Diagnosis, effect: Diagnosis) -> bool:
    """Predicate: the loss of an underfitting was still falling, and nothing was found that holds the network back."""
    return any(e.name == FALLING for e in effect.evidence)


def falling(end: Rest, causes: list[Restraint]) -> Iterator[Evidence]:
    """What more of the same training would gain, where the loss has not come to rest and nothing holds it up."""
    if not (end.flat or causes):
        trend = end.trends[0]
        yield Evidence(FALLING, trend.gain, where=trend.stream, note="less than half of the lead of another predictor")


def shown(
    record: RunRecord, trends: Iterable[Trend], causes: Iterable[Restraint], ahead: Lead | None, least: float
) -> Iterator[Evidence]:
    """The numbers behind a verdict on underfitting.

    Args:
        record: The run.
        trends: Of the losses against which a constant guess can be held.
        causes: What holds the network back.
        ahead: The lead of another predictor that counts.
        least: Share of the loss of a constant guess from which on it does.
    """
    yield from held_back(trends, causes)
    look, batch = record.memo(evaluated), record.memo(one_batch)
    if look is not None:
        note = f"of held batches; {look.noisy:.3g} in training mode"
        yield Evidence("training loss in evaluation mode", look.training, step=look.step, note=note)
    if ahead is not None:
        rival = ahead.rival
        note = f"of {rival.scored} samples, learned from {rival.learned_from}; the network's is {rival.net:.3g}"
        yield Evidence(f"validation loss of {RIVALS[rival.name]}", rival.loss, step=rival.step, note=note)
        note = f"in validation and training, the lesser; standard error {ahead.error:.2g}"
        yield Evidence("lead over the network", ahead.lead, least * rival.guess, step=rival.step, note=note)
    if batch is not None:
        note = f"from {batch.before:.3g}; {batch.own:.3g} by as many steps of the run's own optimiser"
        yield Evidence("loss of one batch that Adam fits alone", batch.reference, step=batch.step, note=note)
    yield from heavy_tails(record)[0]


def held_back(trends: Iterable[Trend], causes: Iterable[Restraint]) -> Iterator[Evidence]:
    """Where the losses came to rest, and what holds the network back."""
    for trend in trends:
        kind, note = "validation" if trend.validation else "training", f"a constant guess costs {trend.chance:.3g}"
        yield Evidence(f"{kind} loss", trend.end, where=trend.stream, note=note)
    for cause in causes:
        yield Evidence("holds the network back", cause.value, where=cause.where, note=cause.text)


def reason(causes: list[Restraint], ahead: Lead | None) -> str:
    """Why the loss is taken to be higher than it must be, in words that go on a sentence."""
    if causes:
        return f": {causes[0].text}"
    if ahead is None:
        return "; noise, or a network that is held back"
    return f"; {RIVALS[ahead.rival.name]} {COME[ahead.rival.name]} to {ahead.rival.loss:.3g} on new samples"


def advice(record: RunRecord, causes: list[Restraint]) -> Iterator[Remedy]:
    """A larger network, and boosting as a yardstick."""
    measured = _width_gains(record)
    for cause in causes:
        yield remedy(cause.remedy, **({"measured": measured} if cause.remedy == "larger-model" else {}) | cause.numbers)
    if not causes:
        yield remedy("larger-model", reason=_capacity(record.memo(one_batch)), measured=measured)
    regression: Any = record.facts.get("task") == "regression"
    yield remedy("boosting", estimator=f"HistGradientBoosting{'Regressor' if regression else 'Classifier'}")
    yield from heavy_tails(record)[1]


def _capacity(batch: OneBatch | None) -> str:
    """What the fit of one batch says of the size of the network."""
    if batch is None:
        return "Whether capacity is short was not measured."
    told = f"Without anything that regularises, Adam takes one batch of {batch.samples} from {batch.before:.3g} to "
    if batch.reference < FITTED * batch.before:
        return f"{told}{batch.reference:.3g}: capacity is there, what holds it back comes first."
    return f"{told}no less than {batch.reference:.3g}: capacity is short, or out of use."


def _width_gains(record: RunRecord) -> str:
    copy = record.memo(wider)
    if copy is None:
        return "not measured"
    (_, narrow, wide), (_, narrow_val, wide_val) = copy.training, copy.validation
    return (
        f"one of {copy.times} times the width came to {wide:.3g} in training and {wide_val:.3g} in validation on held "
        f"batches, one as wide as this to {narrow:.3g} and {narrow_val:.3g}"
    )
