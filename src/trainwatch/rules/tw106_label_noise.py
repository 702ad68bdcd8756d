"""TW106: a share of the labels is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, Rule, always
from trainwatch.rules.fit_remedies import label_smoothing
from trainwatch.rules.rising_validation import ranked
from trainwatch.rules.suspects import NAMED, by_heart, clean_data, contrast, listed, share_of_wrong
from trainwatch.symptoms.classes import class_names
from trainwatch.symptoms.labels import Contrast, label_contrast, label_noise
from trainwatch.symptoms.labels import LabelNoise as Noise
from trainwatch.symptoms.shift import input_shift
from trainwatch.symptoms.unrelated import Unrelated, unrelated

SHOWN_PAIRS = 3
PRIORITY = 0.68  # before costlier ones
SURE = 1.96  # standard errors of a 95 % bound


@dataclass(frozen=True)
class LabelNoise(Rule):
    """Labels contradict what samples like theirs are labelled, or do not follow from the inputs at all.

    ## Symptom
    A forest that has not seen a sample's label says another, as surely as it is right elsewhere, for more than `least`
    of the held training or validation samples, by the lower bound of that share. Or neither validation gains by what
    training learned, nor a forest learns anything.

    ## Why it hurts
    Wrong training labels can be fitted only by heart, and the network that does so repeats them. Wrong validation
    labels put a ceiling on every metric, and choose the wrong model.

    ## How it is measured
    At the end of a run extremely randomised trees learn from the held samples of training and validation, and each tree
    votes on those that it has not seen (`held_labels`). Where classes overlap, labels and votes disagree less and less
    the surer the votes are; the share that no sureness does away with is taken for wrong, with its 95 % interval by
    profile likelihood. Classes of which the forest recognises less than half are left out, unless it recognises three
    quarters of them among the held samples of the other kind: else they are rare or hard, and their labels are not to
    blame. Labels and votes must agree by a kappa of `agreement` where the lower bound accounts for no more than
    `accounts` of the disagreement; that falls to `some` where it accounts for `mostly` of it. Or, whatever the forest
    knows, training labels contradict it more often than validation labels of the same classes, by `sure` standard
    errors, while nothing tells their inputs apart by an area under the ROC curve above `alike` (`held_shift`). Judged
    from `samples` samples on. Or training got rid of more than `by_heart` of what a constant guess costs, no validation
    pass of more than `carried`, and its labels and the forest agree by a kappa below `unrelated`; sure by 95 %.

    ## Remedies
    `clean-data`, with the samples to look at first; `label-smoothing`. Where nothing is learned: `pair-labels`.

    ## Not a fault when
    The label is a matter of chance and not of the inputs everywhere alike, as with a coin that decides one case in ten:
    that looks the same. Two labels are right for a sample: then it needs several. A forest on raw entries tells little
    of photographs or text: not checked.

    ## Sources
    §2 §10; Wichmann and Hill, "The psychometric function" (2001), on lapse rates; Northcutt, Jiang and Chuang,
    "Confident Learning" (2021), on which samples to suspect; Arpit et al., "A Closer Look at Memorization" (2017).
    """

    code: ClassVar[str] = "TW106"
    name: ClassVar[str] = "label-noise"
    section: ClassVar[str] = "§2 §10"
    needs: ClassVar[tuple[str, ...]] = ("held_labels",)
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(("TW201", "TW202", "TW203"), always)

    least: float = 0.02
    agreement: float = 0.6
    some: float = 0.2
    accounts: float = 0.25
    mostly: float = 0.5
    sure: float = 3.0
    alike: float = 0.6
    by_heart: float = 0.03
    carried: float = 0.01
    unrelated: float = 0.1
    samples: int = 60

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """A look at the labels of the held samples, where they are classes; rows of several numbers may be one-hot."""
        shapes = [list(loss.get("target_shape") or ()) for loss in record.facts.get("loss", {}).values()]
        if record.facts.get("task") in ("binary", "multiclass") or any(len(s) == 2 and s[1] > 1 for s in shapes):
            yield ProbeRequest("labels", (), "are all labels right?", PRIORITY)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        looks = [noise for noise in record.memo(label_noise) if noise.samples >= self.samples]
        found = record.memo(unrelated)
        margin = -1.0 if found is None else found.margin(self.by_heart, self.carried, self.unrelated)
        if found is not None and found.samples >= self.samples and margin > SURE:
            yield self._by_heart(found, margin)
            return
        if not looks:
            raise NotChecked(f"fewer than {self.samples} samples of classes that can be recognised are held")
        wrong = [noise for noise in looks if noise.low > self.least and self._is_told(noise)]
        beside = None if wrong else self._contrasted(record)
        if wrong or beside is not None:
            yield self._found(record, wrong, looks, beside)
        elif all(noise.agreement < self.agreement for noise in looks):
            kappa = max(noise.agreement for noise in looks)
            raise NotChecked(f"wrong labels and classes that overlap look alike here: kappa {kappa:.2f} with a forest")

    def _is_told(self, noise: Noise) -> bool:
        """Whether the forest knows enough of the classes to doubt a label."""
        accounted = noise.low / noise.disagreeing if noise.disagreeing > 0 else 0.0
        needed = np.interp(accounted, [self.accounts, self.mostly], [self.agreement, self.some])
        return noise.agreement >= float(needed)

    def _contrasted(self, record: RunRecord) -> Contrast | None:
        """Training labels that contradict a forest more often than those of validation, where the inputs are alike."""
        found, shift = record.memo(label_contrast), record.memo(input_shift)
        if found is None or shift is None or shift.told.auc > self.alike:
            return None  # augmented inputs are harder to tell
        return found if found.gap > self.sure * found.error and found.noise.low > self.least else None

    def _by_heart(self, found: Unrelated, margin: float) -> Diagnosis:
        return self.diagnose(
            f"training labels do not follow from the inputs: training got rid of {found.learned:.0%} of a constant "
            f"guess's loss, no validation pass of more than {max(found.carried, 0):.1%}; a forest learns nothing",
            margin=margin,
            where=("training labels",),
            onset_step=0,
            evidence=by_heart(found, self.by_heart, self.carried, self.unrelated),
            remedies=(remedy("pair-labels", samples=found.samples),),
        )

    def _found(self, record: RunRecord, wrong: list[Noise], looks: list[Noise], beside: Contrast | None) -> Diagnosis:
        wrong = wrong if beside is None else [beside.noise]
        worst = max(wrong, key=lambda noise: noise.low)
        names = class_names(record, 1 + max(max(s.given, s.predicted) for n in wrong for s in n.suspects))
        pairs = ", ".join(f"{names[a]} like {names[b]} ({n})" for (a, b), n in worst.pairs[:SHOWN_PAIRS])
        return self.diagnose(
            f"about {worst.rate:.0%} of the {NAMED[worst.kind]} labels look wrong (at least {worst.low:.1%}); "
            f"what is labelled as one class looks like another, most often {pairs}",
            margin=(worst.low - self.least) / max((worst.rate - worst.low) / 1.96, 1e-3),
            where=tuple(f"{NAMED[noise.kind]} labels" for noise in wrong),
            onset_step=0,
            evidence=(
                *([contrast(beside, self.sure)] if beside is not None else []),
                *(share_of_wrong(noise, self.least) for noise in looks),
                *(evidence for noise in wrong for evidence in listed(record, noise, names)),
            ),
            remedies=ranked([clean_data(record), label_smoothing(record)]),
        )
