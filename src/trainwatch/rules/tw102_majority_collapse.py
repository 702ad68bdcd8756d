"""TW102: the network names one class whatever it is shown: the most frequent one, or that which weighs most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.rules.balance_remedies import balance_remedies
from trainwatch.rules.base import MODEST, NotChecked, Predicate, Rule, always
from trainwatch.rules.threshold_remedies import measured_best, threshold_remedy
from trainwatch.symptoms.balance import sampler_in_use, weights_in_use
from trainwatch.symptoms.classes import Confusion, confusions, share_bounds, train_classes
from trainwatch.symptoms.plateau import nothing_learned


@dataclass(frozen=True)
class MajorityCollapse(Rule):
    """Nearly every prediction in validation is the class that is most frequent in training, or that weighs most.

    ## Symptom
    The largest class has at least `imbalance` times the samples of an average other class, at least `majority_share` of
    the predictions name it, and the recall of all other classes together is below 1 / K. Under weights of the classes,
    in the loss or in a sampler, it may be any class.

    ## Why it hurts
    The network has learned how often classes occur, or how much they weigh, and nothing about the inputs. Accuracy
    equals the majority rate and may look good.

    ## How it is measured
    In each of the last `min_passes` validation passes the upper Clopper-Pearson bound (97.5 %) of the recall of the
    other classes lies below 1 / K, with K the number of classes seen in training.

    ## Remedies
    Under weights `retune-weights`, for two classes. Those of imbalance: adjusted logits, class weights, resampling,
    more samples of the rare classes, a metric that shows it; anomaly detection for a class whose share is below
    `anomaly_share`.

    ## Not a fault when
    Training has hardly begun. Even classes are another matter (a constant prediction), and so are classes with too
    few validation samples for the bound.

    ## Sources
    §1; Clopper and Pearson, "The use of confidence or fiducial limits" (1934).
    """

    code = "TW102"
    name = "majority-collapse"
    section = "§1"
    needs = ("train_classes", "val_confusion")
    explains: ClassVar[dict[str, Predicate]] = {"TW208": always, "TW202": always, "TW205": always}

    imbalance: float = 2.0
    majority_share: float = 0.95
    min_passes: int = 2
    anomaly_share: float = 0.005

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        classes, tables = record.memo(train_classes), record.memo(confusions)
        if classes is None:
            raise NotChecked("no single class per sample was seen in training")
        if len(tables) < self.min_passes:
            raise NotChecked(f"{len(tables)} validation passes with predictions; judged from {self.min_passes} on")
        present = classes.present
        if len(present) < 2:
            return
        weighted = weights_in_use(record) or sampler_in_use(record)
        major = int((tables[-1].table.sum(0) if weighted else classes.counts).argmax())
        others = present[present != major]
        if not weighted and classes.counts[major] < self.imbalance * classes.counts[others].mean():
            return
        chance = 1 / len(present)
        stuck = [self._collapsed(t, major, chance) for t in tables]
        if not all(stuck[-self.min_passes :]):
            return
        table = tables[-1]
        hits, total, bound = _others(table, major)
        named = float(table.table[:, major].sum() / table.table.sum())
        error = max((bound - hits / total) / 1.96, 1e-9)
        first = len(stuck) - (stuck[::-1].index(False) if False in stuck else len(stuck))
        sure = (chance - hits / total) / error
        yield self.diagnose(
            f"{named:.1%} of the validation predictions are class {classes.names[major]}; of all other classes "
            f"{hits:.0f} of {total:.0f} samples are recognised",
            margin=MODEST if record.memo(nothing_learned) else sure,
            where=(classes.names[major],),
            onset_step=tables[first].step,
            evidence=(
                Evidence("predictions of the largest class", named, threshold=self.majority_share, step=table.step),
                Evidence(
                    "recall of all other classes, upper bound",
                    bound,
                    threshold=chance,
                    step=table.step,
                    note="must be above",
                ),
                Evidence("accuracy", table.accuracy, step=table.step, note=f"majority rate {table.majority_rate:.3f}"),
                Evidence("balanced accuracy", table.balanced_accuracy, step=table.step, note=f"chance is {chance:.3f}"),
                Evidence("MCC", table.mcc, step=table.step, note="0 is no better than chance"),
            ),
            remedies=(
                *_retuned(record, len(present) if weighted else 0),
                *balance_remedies(record, classes, table, np.asarray(others), self.imbalance, self.anomaly_share),
            ),
        )

    def _collapsed(self, table: Confusion, major: int, chance: float) -> bool:
        named = table.table[:, major].sum() / table.table.sum()
        return bool(named >= self.majority_share and _others(table, major)[2] < chance)


def _retuned(record: RunRecord, classes: int) -> Iterator[Remedy]:
    """Weights under which both of two classes are named."""
    best = measured_best(record) if classes == 2 else []
    found = threshold_remedy(record, 1, best) if best else None
    if found is not None:
        yield found


def _others(table: Confusion, major: int) -> tuple[float, float, float]:
    """Hits, samples, and the upper bound of the recall of all classes but one."""
    hits, total = (float(v.sum() - v[major]) for v in (table.hits, table.totals))
    return hits, total, share_bounds(hits, total)[1]
