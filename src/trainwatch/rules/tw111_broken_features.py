"""TW111: features that carry no number, no information, or the answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, Rule, no_remark
from trainwatch.rules.feature_evidence import in_words, missing, places_of, shown
from trainwatch.symptoms.features import Features, Tell, changed_in_validation, features, tell


@dataclass(frozen=True)
class BrokenFeatures(Rule):
    """Some features are not numbers, hold codes for what is not known, never change, or give the target away.

    ## Symptom
    Entries are NaN or infinite (in single precision, beyond 3.4e38). Or a value stands for what is not known: it
    recurs, further outside of all others than these are spread (of -999 and the like a quarter will do). Or one feature
    is the target itself, or predicts it alone with a skill of `alone`, and no other one does with more than `others`.
    Or a feature never changes in training but does in `changes` of validation or more, at a chance below `chance`; or
    more than `constant` of all features never change. Single constants and row numbers are a remark; of fewer than
    `samples` samples nothing is called constant.

    ## Why it hurts
    One NaN makes the loss NaN. A code of -999 is taken for a measurement, and stretches the scale of the feature. A
    feature that holds the answer will not be there in use. What never changes teaches nothing, and dividing by its
    deviation is a division by zero.

    ## How it is measured
    Over all samples (`feature_stats`): columns of a table, channels of images. Skill is that of a small tree which sees
    one feature and half of the samples, on the other half (`feature_alone`): 0 for the most frequent class, 1 without
    an error; of numbers, the rank correlation.

    ## Remedies
    `fill-missing`, `drop-features`.

    ## Not a fault when
    The network is given a mask of what is missing. The telling feature is known before the target is. Borders of images
    are constant: pixels are not judged one by one.

    ## Sources
    §10; Kaufman, Rosset and Perlich, "Leakage in Data Mining" (2012); Little and Rubin, "Statistical Analysis with
    Missing Data" (2002).
    """

    code: ClassVar[str] = "TW111"
    name: ClassVar[str] = "broken-features"
    section: ClassVar[str] = "§10"
    needs: ClassVar[tuple[str, ...]] = ("feature_stats",)
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(("TW107", "TW303"), no_remark)

    alone: float = 0.98
    others: float = 0.9
    changes: float = 0.05
    chance: float = 1e-3
    constant: float = 0.5
    samples: int = 10

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Look at each feature by itself."""
        looks = record.memo(features)
        if "train" not in looks:
            raise NotChecked("the features of training samples were not looked at")
        train, told = looks["train"], record.memo(tell)
        for look in looks.values():
            if look.bad.any():
                yield self._not_numbers(record, look)
        if (coded := np.flatnonzero(np.isfinite(train.code))).size:
            yield self._codes(train, coded)
        if told is not None and len(told.skill) == len(train):
            yield from self._telling(train, told)
        yield from self._constant(train, looks.get("val"))
        if (numbered := np.flatnonzero(train.numbered == 1)).size:
            yield self._of(train, numbered, f"{in_words(train, numbered)}: each sample has a number of its own, as row "
                           "numbers and keys do", Severity.INFO, train.distinct / train.entries, "different values",
                           remedy("drop-features", **shown(train, numbered)))  # fmt: skip

    def _not_numbers(self, record: RunRecord, look: Features) -> Diagnosis:
        bad = np.flatnonzero(look.bad)
        which = bad[np.argsort(-look.bad[bad], kind="stable")]
        nans, infinities = look.nans.sum(), look.infinities.sum()
        words = " and ".join(f"{n:.0f} {what}" for n, what in ((nans, "NaN"), (infinities, "infinite")) if n)
        return self._of(look, which, f"{words} entries in {in_words(look, which)}", Severity.WARNING, look.bad,
                        "share of entries that are not finite numbers", missing(look, which),
                        places_of(record, look.split))  # fmt: skip

    def _codes(self, look: Features, which: np.ndarray) -> Diagnosis:
        told = ", ".join(f"{look.names[j]} is {look.code[j]:g} in {look.coded[j]:.0f} samples" for j in which[:5])
        rest = f" and {len(which) - 5} features more are like that" if len(which) > 5 else ""
        return self._of(look, which, f"{told}{rest}, further outside than all other values are spread: a code for what "
                        "is not known", Severity.WARNING, look.coded / look.entries, "share of entries with that value",
                        missing(look, which))  # fmt: skip

    def _telling(self, look: Features, told: Tell) -> Iterator[Diagnosis]:
        known = np.nan_to_num(told.skill)
        telling = np.flatnonzero(known >= self.alone)
        rest = np.delete(known, telling).max(initial=0.0)
        which = told.same if len(told.same) else telling if len(telling) == 1 else np.zeros(0, int)
        if not len(which) or (not len(told.same) and rest > self.others):
            return
        what = "is the target under another name" if len(told.same) else "predicts the target all alone"
        yield self._of(look, which, f"{in_words(look, which)} {what} (skill {known[which].max():.3f}, the next best "
                       f"feature {rest:.2f}): will it be known in use?", Severity.WARNING, known,
                       "skill of the feature alone", remedy("drop-features", **shown(look, which)),
                       threshold=self.alone)  # fmt: skip

    def _constant(self, train: Features, val: Features | None) -> Iterator[Diagnosis]:
        which = np.flatnonzero(train.constant & (train.entries >= self.samples))
        if not len(which):
            return
        share = len(which) / len(train)
        news = changed_in_validation(train, val) if val is not None else ()
        changed = [j for j, share, p in news if share >= self.changes and p * len(train) < self.chance]
        told = f"constant in training: {in_words(train, which)} ({len(which)} of {len(train)} features)"
        values = train.most
        if changed and val is not None:
            which = np.asarray(changed)
            told = f"constant in training, but not in validation: {in_words(train, which)}"
            values = val.beyond / val.entries
        yield self._of(train, which, told, Severity.WARNING if changed or share > self.constant else Severity.INFO,
                       values, "share of validation samples with another value" if changed else "value in all samples",
                       remedy("drop-features", **shown(train, which)))  # fmt: skip

    def _of(
        self, look: Features, which: np.ndarray, summary: str, severity: Severity, values: np.ndarray, what: str,
        todo: object, note: dict[int, str] | None = None, threshold: float | None = None,
    ) -> Diagnosis:  # fmt: skip
        rows = [Evidence(what, float(values[j]), threshold, where=look.names[j], note=(note or {}).get(int(j), ""))
                for j in which[:10]]  # fmt: skip
        return self.diagnose(summary, margin=float("inf"), severity=severity, evidence=tuple(rows), remedies=(todo,),
                             where=tuple(look.names[j] for j in which[:10]))  # fmt: skip
