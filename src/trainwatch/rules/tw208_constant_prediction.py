"""TW208: the network says the same whatever it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Rule
from trainwatch.symptoms.classes import Confusion, class_names, confusions, share_bounds
from trainwatch.symptoms.curves import is_one_sample, passes, primary_stream, samples_of


@dataclass(frozen=True)
class ConstantPrediction(Rule):
    """In validation every sample gets (almost) the same prediction.

    ## Symptom
    At the end of the run at least `one_class` of the predictions name one class, whatever the truth, or the outputs of
    a regression spread less than `spread` of what their targets do.

    ## Why it hurts
    The network ignores its inputs. What it says could be said without it.

    ## How it is measured
    In each of the last `min_passes` passes. Classes: the lower Clopper-Pearson bound (97.5 %) of the share of the most
    named class is above the truth's share of it, no more than half of the other answers are right, and the
    cross-entropy, where it is unweighted, has not come below `at_chance` of the entropy of the true classes: with rare
    classes the probabilities may tell samples apart while the arg-max does not. Regression: `val_spread`, from
    `min_samples` samples on.

    ## Remedies
    `overfit-one-batch` finds out whether the network can learn at all; `watch-activations` shows where samples become
    alike; a rate that is too high or too low is worth a look.

    ## Not a fault when
    The targets cannot be predicted from the inputs: the mean is then the best answer. Training goes on or has hardly
    begun. Of imbalanced classes TW102 tells more.

    ## Sources
    §2; Lu et al., "Dying ReLU and initialization" (2019).
    """

    code: ClassVar[str] = "TW208"
    name: ClassVar[str] = "constant-prediction"
    section: ClassVar[str] = "§2"
    needs: ClassVar[tuple[str, ...]] = ("val_loss",)

    one_class: float = 0.98
    at_chance: float = 0.95
    spread: float = 0.05
    min_passes: int = 2
    min_samples: int = 20

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Look at the confusion matrix, or at the spread of outputs and targets."""
        if not record.facts.get("run", {}).get("finished"):
            raise NotChecked("the run has not ended")
        stream = primary_stream(record)
        tables = record.memo(confusions)
        steps, rows = passes(record, "val_spread", stream or "")
        seen = max(len(tables), len(steps))
        if not seen or is_one_sample(record, stream):
            raise NotChecked("no validation predictions were seen, or those of a single sample")
        if seen < self.min_passes:
            raise NotChecked(f"{seen} validation passes with predictions; judged from {self.min_passes} on")
        found = self._classes(record, tables) if tables else self._regression(record, steps, rows, str(stream))
        if found is not None:
            yield found

    def _classes(self, record: RunRecord, tables: list[Confusion]) -> Diagnosis | None:
        onset = _since([self._names_one(t) for t in tables], self.min_passes)
        if onset is None or self._knows_more(record, tables[-1]):
            return None
        table = tables[-1]
        named, total = table.table.sum(0), float(table.table.sum())
        column = int(named.argmax())
        share, name = float(named[column] / total), class_names(record, len(named))[column]
        true = float(table.totals[column] / total)
        error = max((share - share_bounds(named[column], total)[0]) / 1.96, 1e-9)
        return self.diagnose(
            f"{share:.1%} of the validation predictions are class {name}, which {true:.1%} of the samples are",
            margin=min((share - true) / error, 1e3),
            where=(name,),
            onset_step=tables[onset].step,
            evidence=(
                Evidence("predictions of the class named most", share, threshold=self.one_class, step=table.step),
                Evidence("accuracy", table.accuracy, step=table.step, note=f"naming one class gives {true:.3f}"),
                Evidence("MCC", table.mcc, step=table.step, note="0 is no better than chance"),
            ),
            remedies=_remedies(),
        )

    def _names_one(self, table: Confusion) -> bool:
        named, total = table.table.sum(0), float(table.table.sum())
        column = int(named.argmax())
        above = share_bounds(named[column], total)[0] > table.totals[column] / total
        right = table.hits.sum() - table.hits[column]  # among the few other answers
        no_better = right <= (total - named[column]) / 2
        return bool(named[column] >= self.one_class * total and above and no_better)

    def _knows_more(self, record: RunRecord, table: Confusion) -> bool:
        """Whether the probabilities tell samples apart although the arg-max does not."""
        stream = primary_stream(record) or ""
        facts = record.facts.get("validation", {}).get(stream, {})
        weighted = {"weight", "pos_weight"} & set(facts.get("arguments", {}))
        if "cross_entropy" not in str(facts.get("criterion")) or weighted:
            return False
        share = table.totals[table.totals > 0] / table.totals.sum()
        losses = passes(record, "val_loss", stream)[1].ravel()
        return bool(losses[-1] < self.at_chance * -(share * np.log(share)).sum())

    def _regression(self, record: RunRecord, steps: np.ndarray, rows: np.ndarray, stream: str) -> Diagnosis | None:
        samples = samples_of(record, stream)
        if samples < self.min_samples:
            raise NotChecked(f"{samples} validation samples; a spread is judged from {self.min_samples} on")
        outputs, targets = rows.T
        onset = _since([bool(o < self.spread * t) for o, t in rows], self.min_passes)
        if onset is None:
            return None
        ratio = float(outputs[-1] / targets[-1])
        return self.diagnose(
            f"outputs spread by {outputs[-1]:.3g} over the validation samples, their targets by {targets[-1]:.3g}",
            margin=(self.spread - ratio) / self.spread * float(np.sqrt(2 * samples)),
            where=(stream,),
            onset_step=int(steps[onset]),
            evidence=(
                Evidence("spread of outputs over that of targets", ratio, threshold=self.spread, step=int(steps[-1])),
                Evidence("standard deviation of the outputs", float(outputs[-1]), where=stream, step=int(steps[-1])),
                Evidence("standard deviation of the targets", float(targets[-1]), where=stream, step=int(steps[-1])),
            ),
            remedies=_remedies(),
        )


def _since(stuck: list[bool], fewest: int) -> int | None:
    """Index of the pass from which on all are stuck; None where those are fewer than `fewest`."""
    free = [i for i, s in enumerate(stuck) if not s]
    first = free[-1] + 1 if free else 0
    return first if len(stuck) - first >= fewest else None


def _remedies() -> tuple[Remedy, ...]:
    return remedy("overfit-one-batch"), remedy("watch-activations")
