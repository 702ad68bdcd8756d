"""TW110: validation samples that were trained on, and samples that occur several times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Rule
from trainwatch.rules.suspects import NAMED
from trainwatch.symptoms.duplicates import Duplicates, Leak, Share, duplicates, leak

SHOWN = 5


@dataclass(frozen=True)
class DuplicatesAndLeakage(Rule):
    """The same samples are in training and validation, or several times in one of them.

    ## Symptom
    More than `leaked` of the validation samples are copies of training samples, by the lower bound of that share; or
    rows recur in validation by `excess` more than among themselves, by `errors` standard errors. Within a part, more
    than `copied` of the samples are copies of others, or more than `against` have a copy with another target. Fewer
    are a remark.

    ## Why it hurts
    What was learned by heart counts as recognised: validation looks better than the network is, and stops too late.
    Copies within training weigh as much as they are many; with two targets, one of them is wrong.

    ## How it is measured
    All samples are compared, as single-precision numbers (`duplicates`, `leaked`). Rows of a few categories recur by
    chance. So copies count only where no other sample is alike with them in a random half of the features, in most of
    eight draws; rows that do recur by chance are held against how often those of training recur among themselves.
    Blank images are no copies. On request samples that are almost equal count as copies (`near_duplicates`): those
    nearer to another one than the dimension of the data allows.

    ## Remedies
    `remove-leaked`, `split-anew`, `drop-duplicates`, `clean-data` for copies with two targets.

    ## Not a fault when
    Rare classes were drawn more often on purpose, after the split. Samples recur in use too, as readings at rest do.

    ## Sources
    §10; Barz and Denzler, "Do We Train on Test Data?" (2020); Kapoor and Narayanan, "Leakage and the Reproducibility
    Crisis in Machine-Learning-Based Science" (2023).
    """

    code: ClassVar[str] = "TW110"
    name: ClassVar[str] = "duplicates-and-leakage"
    section: ClassVar[str] = "§10"
    needs: ClassVar[tuple[str, ...]] = ("duplicates",)

    leaked: float = 0.005
    excess: float = 0.02
    errors: float = 4.0
    copied: float = 0.02
    against: float = 0.005

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Compare all samples with one another."""
        looks, across = record.memo(duplicates), record.memo(leak)
        if not looks:
            raise NotChecked("samples were not compared")
        if across is not None:
            yield from self._leak(across)
        for look in looks.values():
            yield from self._within(look)

    def _leak(self, found: Leak) -> Iterator[Diagnosis]:
        told = max((s for s in (found.copies, found.near) if s is not None), key=lambda s: s.value)
        by_chance = found.excess - self.excess < self.errors * found.excess_error
        if not told.count and by_chance:
            return
        kind = "copies of" if told is found.copies else "almost equal to"
        pairs = found.pairs if told is found.copies else [[b, a, False] for a, _, b in found.near_pairs]
        if told.low > self.leaked or by_chance:
            share = f"{told.count:.0f} of {told.total:.0f} validation samples ({told.value:.1%})"
            summary = f"{share} are {kind} training samples"
            margin, severity = _margin(told, self.leaked), _severity(told.low > self.leaked)
        else:
            summary = f"validation samples recur in training by {found.excess:.1%} more than training samples do"
            margin, severity = (found.excess - self.excess) / found.excess_error, Severity.WARNING
        listed = ", ".join(f"{b} (training {a})" for a, b, _ in pairs[:SHOWN])
        yield self.diagnose(
            summary,
            margin=margin,
            severity=severity,
            where=("validation inputs",),
            evidence=(
                Evidence("validation samples that are in training, lower bound", told.low, self.leaked,
                         where="validation", note=f"share {told.value:.2%}; samples {listed}" if listed else ""),
                Evidence("validation samples alike with one of training, above what chance gives", found.excess,
                         self.excess, where="validation", note=f"standard error {found.excess_error:.2g}"),
            ),
            remedies=(remedy("remove-leaked", count=f"{told.count:.0f}"), remedy("split-anew")),
        )  # fmt: skip

    def _within(self, found: Duplicates) -> Iterator[Diagnosis]:
        copies = max((s for s in (found.copies, found.near) if s is not None), key=lambda s: s.value)
        torn = found.against or Share(0, found.copies.total)
        if not copies.count:
            return
        wrong, part = torn.low > self.against, NAMED[found.split]
        told = f"{copies.count:.0f} of {copies.total:.0f} {part} samples ({copies.value:.1%}) are copies of others"
        if copies is found.near:
            told = f"{copies.count:.0f} of {copies.total:.0f} {part} samples looked at are almost equal to another one"
        if torn.count:
            told += f", {torn.count:.0f} have one with another target"
        yield self.diagnose(
            told,
            margin=max(_margin(copies, self.copied), _margin(torn, self.against)),
            severity=_severity(copies.low > self.copied or wrong),
            where=(f"{part} inputs",),
            evidence=(
                Evidence("copies of other samples, lower bound", copies.low, self.copied, where=part,
                         note=f"share {copies.value:.2%}; {_listed(found.pairs)}"),
                Evidence("samples with a copy that has another target, lower bound", torn.low, self.against,
                         where=part, note=f"share {torn.value:.2%}"),
                Evidence("samples alike with another one, by chance or not", found.alike.value, where=part,
                         note=f"{found.blank} samples are blank"),
            ),
            remedies=(*_settle(found.pairs, torn), remedy("drop-duplicates", count=f"{copies.count:.0f}", part=part)),
        )  # fmt: skip


def _settle(pairs: list[list[Any]], torn: Share) -> Iterator[Any]:
    if torn.count:
        yield remedy("clean-data", suspects=f"Copies with two targets: {_listed(pairs)}.", count=round(torn.count))


def _severity(beyond: bool) -> Severity:
    return Severity.WARNING if beyond else Severity.INFO


def _margin(share: Share, threshold: float) -> float:
    return (share.low - threshold) / share.error


def _listed(pairs: list[list[Any]]) -> str:
    return "; ".join(f"{b} is {a}{', with another target' if differ else ''}" for a, b, differ in pairs[:SHOWN])
