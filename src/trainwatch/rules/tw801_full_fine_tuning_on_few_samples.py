"""TW801: all of a pretrained model is trained further on few samples, and overfits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.record import RunRecord
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, no_remark
from trainwatch.rules.rising_validation import Risen, RisingValidation, best_weights_are_back
from trainwatch.rules.tuning_evidence import shown
from trainwatch.rules.tuning_remedies import Spared, spared_by, tuning_remedies
from trainwatch.symptoms.curves import validation_curve
from trainwatch.symptoms.experiments import evaluated
from trainwatch.symptoms.tuning import extent_of, trained_before


@dataclass(frozen=True)
class FullFineTuningOnFewSamples(RisingValidation):
    """Every weight of a pretrained model is moved for a few samples, though most need not be.

    ## Symptom
    The weights carry training at the start, at least `full` of the numbers are trained, more than `crowded` for each
    training sample, and copies with the first modules frozen learn as well. A warning where the validation loss rises
    from its minimum while the training loss keeps falling; where those copies learn better, and better than the run; or
    where it ended above that by `of_left` and samples cost below `by_heart` of what validation does; else a remark.

    ## Why it hurts
    What the model knew from much data is overwritten by what is particular to a few samples. Time, memory, and a whole
    copy of the model go into changes that are worth nothing.

    ## How it is measured
    In pretrained weights directions stand out that no random beginning has, biases have left the range they are drawn
    from, and norms have seen batches. At the end copies learn from the start on held batches, with none, some, and all
    but the last of the modules frozen (`learned_frozen`). Other copies keep of the run's change only the entries that
    moved furthest (`kept_entries`), or a few directions of each update (`kept_directions`, `update_rank`). As well: the
    validation loss is higher by no more than `errors` standard errors, paired by sample, or `alike` of the loss, and by
    no more than `slack` of it, or the run itself never came lower; better: lower by more than `errors` and `slack`.
    Whether validation rises is measured as for TW201, with `min_rise`, `of_left`, `min_errors`, `fewer_errors`,
    `clear_rise`, `apart`, `min_after` and `accuracy_slack`.

    ## Remedies
    `freeze-layers`, `low-rank-update`, `subnetwork-mask` and `share-weights`, with modules, ranks and shares of this
    run.

    ## Not a fault when
    The model began at random, or a run is resumed. A part is trained already. Copies with a part frozen learn less.

    ## Sources
    §11; Lee et al., "Surgical Fine-Tuning Improves Adaptation to Distribution Shifts" (2022); Hu et al., "LoRA" (2021);
    Gavish and Donoho, "The optimal hard threshold for singular values is 4 / sqrt(3)" (2014); Frankle and Carbin, "The
    Lottery Ticket Hypothesis" (2018).
    """

    code: ClassVar[str] = "TW801"
    name: ClassVar[str] = "full-fine-tuning-on-few-samples"
    section: ClassVar[str] = "§11"
    needs: ClassVar[tuple[str, ...]] = ("train_loss", "val_loss")
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(("TW201", "TW202", "TW203", "TW207"), no_remark)

    full: float = 0.9
    crowded: float = 10.0
    errors: float = 2.0
    alike: float = 0.05
    slack: float = 0.1
    by_heart: float = 0.25

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Where all of a pretrained model is trained on few samples: which changes are needed."""
        if self._applies(record):
            yield ProbeRequest("frozen_part", (), "a pretrained model is trained: can a part stay frozen?", 0.65)
            yield ProbeRequest("train_eval", (), "a pretrained model is trained: by heart?", 0.58)
            yield ProbeRequest("tuning", (), "a pretrained model is trained: which of its changes are needed?", 0.55)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        if trained_before(record) is None:
            raise NotChecked("no weight is large enough to tell whether the model was trained before")
        if not record.facts.get("run", {}).get("finished"):
            raise NotChecked("the run has not ended: what its changes are worth is not known yet")
        extent = record.memo(extent_of)
        if trained_before(record) and not extent.samples:
            raise NotChecked("the number of training samples is not known")
        if not self._applies(record):
            return
        if not record.has("learned_frozen"):
            reason = record.facts.get("switched_off", {}).get("learned_frozen", "there was no time for the experiment")
            raise NotChecked(f"whether a part can stay frozen was not measured: {reason}")
        spared = spared_by(record, self._allowed)
        if spared is None or not spared.modules:
            return
        try:
            found = self.risen(record)
        except NotChecked:
            found = None
        harm, copies = f", and {_rise(found)}" if found is not None else "", f"{len(spared.modules)} of {spared.of}"
        lasting = found is not None and not best_weights_are_back(record)
        margins = [found.margin] if found is not None else []
        if (better := self._better(record, spared)) is not None:
            margins.append(better)
        if (learned := self._by_heart(record)) is not None:
            margins.append(learned)
            harm += ", by heart"
        limits = {"full": self.full, "crowded": self.crowded, "by_heart": self.by_heart}
        warns = lasting or better is not None or learned is not None
        yield self.diagnose(
            f"{extent.share:.0%} of a pretrained model, {extent.trained:,} numbers, are trained on {extent.samples:,} "
            f"samples{harm}; copies learn {'better' if better else 'as well'} with {copies} modules "
            f"frozen, to a validation loss of {spared.loss:.3g} against {max(spared.before, spared.best):.3g}",
            severity=self.severity if warns else Severity.INFO,
            margin=max(margins, default=float("inf")),
            where=spared.modules,
            onset_step=found.rise.best_step if found is not None else 0,
            evidence=(*shown(record, extent, spared, **limits), *(self.evidence(found) if found is not None else ())),
            remedies=tuple(tuning_remedies(record, spared, self._allowed)),
        )

    @property
    def _allowed(self) -> tuple[float, float, float]:
        return self.errors, self.alike, self.slack

    def _better(self, record: RunRecord, spared: Spared) -> float | None:
        """Standard errors beyond the thresholds by which a copy with a part frozen is better; None where it is not."""
        curve, ahead = record.memo(validation_curve), spared.before - spared.loss
        beyond = ahead - max(self.errors * spared.error, self.slack * abs(spared.before))
        if beyond <= 0 or curve is None or curve.mean[-1] < spared.loss:
            return None
        return beyond / spared.error if spared.error else float("inf")

    def _by_heart(self, record: RunRecord) -> float | None:
        """Standard errors by which training samples cost less than the threshold; None where that did no harm."""
        look = record.memo(evaluated)
        if look is None or not look.training < self.by_heart * look.validation or not self.ended_above(record):
            return None
        error = float(np.hypot(look.training_error, self.by_heart * look.validation_error))
        return (self.by_heart * look.validation - look.training) / error if error > 0 else None

    def _applies(self, record: RunRecord) -> bool:
        extent, known = record.memo(extent_of), record.facts.get("start_weights", {})
        crowded = extent.trained > self.crowded * extent.samples  # 0 where that is not known yet
        return bool(trained_before(record) and not known["resumed"] and extent.share >= self.full and crowded)


def _rise(found: Risen) -> str:
    return f"validation rose from {found.rise.minimum:.3g} to {found.rise.end:.3g} since step {found.rise.best_step}"
