"""TW101: some classes are so rare in training that the network neglects them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.rules.balance_remedies import balance_remedies
from trainwatch.rules.base import MODEST, NotChecked, Predicate, Rule, always, no_surer
from trainwatch.symptoms.classes import (
    Confusion,
    TrainClasses,
    confusions,
    mean_of,
    share_bounds,
    share_difference,
    train_classes,
)
from trainwatch.symptoms.curves import Array
from trainwatch.symptoms.plateau import nothing_learned

SHOWN = 5
EFFECTS = dict.fromkeys(("TW102", "TW205", "TW208"), always) | dict.fromkeys(("TW201", "TW202"), no_surer)


@dataclass(frozen=True)
class ClassImbalance(Rule):
    """Classes that are rare in training are recognised less often than frequent ones.

    ## Symptom
    Some classes have less than 1 / `ratio` of an even share of the samples, and in validation their recall is lower
    than that of the others by more than `recall_gap`, by `min_errors` standard errors or more.

    ## Why it hurts
    The loss is a mean over samples: a class that hardly occurs hardly counts. Accuracy hides it.

    ## How it is measured
    Classes are counted in training batches, and are more uneven than as many samples drawn evenly by `chance` standard
    deviations. Recalls are means of the last `min_passes` validation passes, each of which shows the gap; rare classes
    are compared as a whole and one by one, the latter with errors widened for their number. Where recall holds up it is
    no fault: info from `strong_ratio` on (largest class over smallest), as where validation has no predictions. Where
    next to nothing was learned, what kept the net from learning is put first.

    ## Remedies
    Adjusted logits or class weights, resampling, augmenting or collecting the rare classes, a fair metric, for two
    classes a moved threshold, and for very rare ones (share below `anomaly_share`) anomaly detection.

    ## Not a fault when
    The rare classes do not matter. Tokens of a language model are uneven by nature and are not judged.

    ## Sources
    §1; Cui et al., "Class-Balanced Loss Based on Effective Number of Samples" (2019).
    """

    code = "TW101"
    name = "class-imbalance"
    section = "§1"
    needs = ("train_classes",)
    explains: ClassVar[Mapping[str, Predicate]] = EFFECTS

    ratio: float = 3.0
    chance: float = 3.0
    recall_gap: float = 0.1
    min_errors: float = 2.0
    min_passes: int = 2
    strong_ratio: float = 20.0
    anomaly_share: float = 0.005

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        if record.facts.get("task") == "language-model":
            raise NotChecked("tokens of a language model are uneven by nature")
        classes = record.memo(train_classes)
        if classes is None:
            raise NotChecked("no single class per sample was seen in training")
        rare = classes.rarer_than(1 / self.ratio)
        if not len(rare) or classes.beyond_chance < self.chance:
            return
        tables = record.memo(confusions)
        if tables and len(tables) < self.min_passes:
            raise NotChecked(f"{len(tables)} pass with predictions; harm is judged from {self.min_passes} on")
        late = tables[-self.min_passes :]
        table = mean_of(late) if late and late[-1].totals[rare].sum() else None
        gap, error = (0.0, 1.0) if table is None else self._worst(table, rare)
        harmed = self._beyond(gap, error) > 0 and all(self._worst(t, rare)[0] > self.recall_gap for t in late)
        if not harmed and table is not None and classes.ratio < self.strong_ratio:
            return
        names = [classes.names[i] for i in rare]
        listed = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        told = "harm not measured" if table is None else f"their recall is {gap:.3f} below that of the others"
        if table is not None and not harmed:
            told = "no lower recall of theirs is seen beyond sampling error"
        sure = self._beyond(gap, error) / error if harmed else 0.0
        yield self.diagnose(
            f"the largest class has {classes.ratio:.3g} times the samples of the smallest; rare: {listed}; {told}",
            margin=MODEST if harmed and record.memo(nothing_learned) else sure,
            severity=Severity.WARNING if harmed else Severity.INFO,
            where=tuple(names),
            onset_step=self._onset(tables, rare) if harmed else 0,
            evidence=(*self._counted(classes), *(self._recognised(table, rare, classes, gap) if table else ())),
            remedies=balance_remedies(record, classes, table, rare, self.ratio, self.anomaly_share),
        )

    def _beyond(self, gap: float, error: float) -> float:
        return gap - max(self.recall_gap, self.min_errors * error)

    def _worst(self, table: Confusion, rare: Array) -> tuple[float, float]:
        """The gap in recall, of the rare classes together or of one, that stands out most, and its error."""
        other = np.setdiff1d(np.arange(len(table.totals)), rare)
        base = (float(table.hits[other].sum()), float(table.totals[other].sum()))
        gaps = [share_difference(float(table.hits[rare].sum()), float(table.totals[rare].sum()), *base)]
        wider = 1 + np.log(len(rare)) / self.min_errors**2  # close to Bonferroni's quantile for that many looks
        for i in rare if len(rare) > 1 else ():
            gap, error = share_difference(float(table.hits[i]), float(table.totals[i]), *base)
            gaps.append((gap, error * wider))
        return max(gaps, key=lambda g: self._beyond(*g))

    def _onset(self, tables: list[Confusion], rare: Array) -> int:
        """First pass from which on the rare classes are behind in every pass."""
        behind = takewhile(lambda table: self._worst(table, rare)[0] > self.recall_gap, reversed(tables))
        return min((table.step for table in behind), default=tables[-1].step)

    def _counted(self, classes: TrainClasses) -> tuple[Evidence, ...]:
        listed = {classes.names[i]: round(float(classes.counts[i])) for i in classes.present}
        unit = "training samples" if classes.per_epoch else "training targets seen"
        counts = ", ".join(f"{name}: {count}" for name, count in list(listed.items())[:50])
        return (
            Evidence("largest class over smallest", classes.ratio, note=f"{unit}: {counts}"),
            Evidence("smallest class over an even share", classes.least, 1 / self.ratio, note="must be above"),
            Evidence("normalised entropy of the classes", classes.entropy, note="1 is balanced"),
        )

    def _recognised(self, table: Confusion, rare: Array, classes: TrainClasses, gap: float) -> tuple[Evidence, ...]:
        name = "recall of the frequent classes less that of the rare ones"
        note = "shrunk towards 0 as small counts demand"
        shown = [Evidence(name, gap, threshold=self.recall_gap, step=table.step, note=note)]
        for i in rare[: 2 * SHOWN]:
            low, high = share_bounds(float(table.hits[i]), float(table.totals[i]))
            note = f"{table.hits[i]:.0f} of {table.totals[i]:.0f}; 95 % bounds {low:.3f} to {high:.3f}"
            recall = float(table.recalls[i]) if table.totals[i] else None
            shown.append(Evidence("recall", recall, where=classes.names[i], step=table.step, note=note))
        note = f"accuracy {table.accuracy:.3f}, majority rate {table.majority_rate:.3f}, "
        note += f"macro-F1 {table.macro_f1:.3f}, MCC {table.mcc:.3f}"
        return (*shown, Evidence("balanced accuracy", table.balanced_accuracy, step=table.step, note=note))
