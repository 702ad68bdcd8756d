"""Where the losses of a run came to rest, as TW204 and TW206 read it."""

from __future__ import annotations

from dataclasses import dataclass

from trainwatch.record import RunRecord
from trainwatch.rules.base import NotChecked
from trainwatch.symptoms.experiments import evaluated
from trainwatch.symptoms.plateau import Trend, training_trend, validation_trend

FLAT = 0.01  # of the loss of a constant guess: what a fifth of the steps more may gain on a plateau


@dataclass(frozen=True)
class Rest:
    """Training and validation at the end, against the loss of a constant guess.

    Attributes:
        training: Trend of the training loss.
        trends: Those of which it is known what a constant guess costs, validation first: it is less noisy.
        best: The one that learned more.
        learned: Share of the loss of a constant guess that is gone.
        error: Its standard error.
    """

    training: Trend
    trends: list[Trend]
    best: Trend
    learned: float
    error: float

    @property
    def guess(self) -> float:
        """The loss of a constant guess."""
        return abs(self.trends[0].chance or 1.0)

    @property
    def flat(self) -> bool:
        """The loss lies on a plateau."""
        return self.trends[0].gains_less_than(FLAT, of=self.guess)

    def falls_short_of(self, share: float) -> bool:
        """Even half as many steps again would not bring it to that share of the loss of a constant guess."""
        return self.trends[0].gains_less_than(share - max(self.learned, 0.0), of=self.guess, steps=0.5)

    @property
    def story(self) -> str:
        """Where it came to rest, in words that begin a summary."""
        return (
            f"training {'has come to rest' if self.flat else 'ended'} at a loss of {self.training.end:.3g}, with "
            f"{max(self.learned, 0.0):.0%} of the loss of a constant guess gone"
        )


def rest(record: RunRecord) -> Rest:
    """Where the losses of a run that has ended came to rest.

    Raises:
        NotChecked: It has not ended, or the record does not tell.
    """
    if not record.facts.get("run", {}).get("finished"):
        raise NotChecked("the run has not ended")
    if len(record.facts.get("optimizers", {})) > 1:
        raise NotChecked("several optimisers: their losses have no common course")
    training, validation = record.memo(training_trend), record.memo(validation_trend)
    trends = [t for t in (validation, training) if t is not None and t.chance is not None]
    if training is None or not trends:
        raise NotChecked("too few steps, or a loss of which it is not known what a constant guess costs")
    best = max(trends, key=_learned)
    learned = _learned(best)
    look = record.memo(evaluated) if validation is None else None
    if look is not None and best.chance:  # without the noise of dropout
        learned = max(learned, 1 - look.training / best.chance)
    return Rest(training, trends, best, learned, best.fall_error / abs(best.chance or 1.0))


def _learned(trend: Trend) -> float:
    """Share of the loss of a constant guess that was gone at the end."""
    return 1 - trend.end / trend.chance if trend.chance else 0.0
