"""TW105: training batches hold fewer classes, or targets closer together, than a shuffled draw would give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, Rule, always
from trainwatch.rules.batch_order import forgotten, of_processes, shuffling, unless_on_purpose
from trainwatch.symptoms.batches import BatchClasses, batch_classes
from trainwatch.symptoms.classes import TrainClasses, train_classes
from trainwatch.symptoms.losses import loss_course
from trainwatch.symptoms.target_order import TargetOrder, target_order

SHOWN = 5
ONE = 1.5  # classes in a batch up to which data are sorted, or come class by class
EFFECTS = ("TW102", "TW201", "TW202", "TW203", "TW204", "TW205", "TW206", "TW208", "TW309", "TW401", "TW402", "TW403",
           "TW601", "TW603", "TW604")  # fmt: skip


@dataclass(frozen=True)
class ClassesMissingFromBatches(Rule):
    """Classes are missing from training batches far more often than chance has it: the data are not shuffled.

    ## Symptom
    On the way from one class in a batch to as many as a shuffled draw gives, batches fall short by `shortfall` or more,
    by `min_errors` standard errors. Down to about one class a batch the data are sorted by class. Where numbers are
    predicted, `shortfall` or more of their variance lies between the batches of a pass, in place of within them.

    ## Why it hurts
    A batch stands for the whole: its gradient should point where that of all samples does. One of few classes points to
    naming these, and the next batches take that back: the net keeps what it saw last, and batch norm learns the
    statistics of single classes.

    ## How it is measured
    Of `min_batches` training batches or more, those without each class are counted (`batches_without_class`) and set
    beside the hypergeometric chance, which knows the size of the batches and how rare a class is: a class that small
    batches must lack is no fault. Where chance gives fewer than `least_classes` classes a batch, nothing can be told.
    Of numbers `target_moments` has mean and variance of each batch; a pass over a loader must have ended, or the
    same batches have come again in the same order.

    ## Remedies
    `shuffle`, and `stratified-batches` where a rare class should be in every batch.

    ## Not a fault when
    Batches are composed on purpose, as for losses over pairs: a remark where the loader has a batch sampler of its own.
    Tokens and pixels are no samples and are not judged. Numbers in an order, as those of a time series, are a remark
    where they are not sorted, and the net ends no worse on the first ones than on all as they came (`evaluated_loss`).

    ## Sources
    §1; Bottou, "Stochastic Gradient Descent Tricks" (2012), on the order of samples.
    """

    code = "TW105"
    name = "classes-missing-from-batches"
    section = "§1"
    needs = ()
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(EFFECTS, always)

    shortfall: float = 0.25
    min_errors: float = 4.0
    min_batches: int = 20
    least_classes: float = 1.3

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """What numbers that come in an order cost, unless they are sorted."""
        order = _order(record)
        if order is not None and not order.climbs and order.between >= self.shortfall:
            yield ProbeRequest("train_eval", (), "samples come in an order: are the first ones forgotten?", 0.7)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        if record.facts.get("task") == "language-model":
            raise NotChecked("tokens of a language model are no samples")
        known, seen = record.memo(train_classes), record.memo(batch_classes)
        if known is None or seen is None:
            yield from self._of_numbers(record)
            return
        if len(known.present) < 2:
            return
        if seen.batches < self.min_batches:
            raise NotChecked(f"{seen.batches} training batches; judged from {self.min_batches} on")
        if seen.by_chance < self.least_classes:
            raise NotChecked(f"batches of {seen.size} hold {seen.by_chance:.2f} classes by chance: too few to tell")
        if seen.shortfall < max(self.shortfall, self.min_errors * seen.shortfall_error):
            return
        excess = seen.absent - seen.expected
        worst = [int(i) for i in np.argsort(-excess, kind="stable") if excess[i] >= excess.max() / 2]
        loader: Any = record.facts.get("loaders", {}).get("train") or {}
        sorted_too = ": they are sorted by class" if seen.classes < ONE else ""
        yield self.diagnose(
            f"training batches of {seen.size} hold {seen.classes:.1f} of {len(known.present)} classes on average, a "
            f"shuffled draw gives {seen.by_chance:.1f}{sorted_too}",
            margin=(seen.shortfall - self.shortfall) / max(seen.shortfall_error, 1e-6),
            severity=unless_on_purpose(self.severity, loader),
            where=tuple(known.names[i] for i in worst),
            onset_step=0,
            evidence=(*self._evidence(known, seen, worst), *of_processes(record)),
            remedies=tuple(shuffling(known, seen, loader)),
        )

    def _of_numbers(self, record: RunRecord) -> Iterator[Diagnosis]:
        order = _order(record)
        if order is None:
            raise NotChecked("no training batches with one class a sample were seen, nor numbers in whole passes")
        if order.batches < self.min_batches:
            raise NotChecked(f"{order.batches} training batches; judged from {self.min_batches} on")
        if order.between < max(self.shortfall, self.min_errors * order.error):
            return
        loader: Any = record.facts.get("loaders", {}).get("train") or {}
        lost = tuple(forgotten(record))
        told = f"{order.between:.0%} of the variance of the targets lies between training batches of {order.size}"
        note = f"0 is chance, 1 is one target a batch; standard error {order.error:.2g}; {order.batches} batches"
        gain = f"Each batch of {order.size} then shows what all targets do, in place of {1 - order.between:.0%} of it."
        yield self.diagnose(
            f"{told}, a shuffled draw leaves none beyond chance: samples "
            + ("are sorted by what is to be predicted" if order.climbs else "come in an order"),
            margin=(order.between - self.shortfall) / max(order.error, 1e-6),
            severity=unless_on_purpose(self.severity if order.climbs or lost else Severity.INFO, loader),
            where=("training samples",),
            onset_step=order.first_step,
            evidence=(Evidence("share of the variance that lies between batches", order.between, self.shortfall,
                               note=note), *lost),
            remedies=(remedy("shuffle", already_in_use=bool(loader.get("shuffled")), size=order.size, gain=gain),),
        )  # fmt: skip

    def _evidence(self, known: TrainClasses, seen: BatchClasses, worst: list[int]) -> Iterator[Evidence]:
        note = f"0 is chance, 1 is one class a batch; standard error {seen.shortfall_error:.2g}; {seen.batches} batches"
        yield Evidence("shortfall of classes in a batch", seen.shortfall, self.shortfall, note=note)
        yield Evidence("classes in a batch", seen.classes, note=f"by chance {seen.by_chance:.2f}")
        for i in worst[:SHOWN]:
            note = f"by chance {seen.expected[i]:.3f}"
            yield Evidence("share of batches without the class", float(seen.absent[i]), where=known.names[i], note=note)


def _order(record: RunRecord) -> TargetOrder | None:
    course = record.memo(loss_course)
    return target_order(record, "train" if course is None else course.stream)  # an audit sees no loss
