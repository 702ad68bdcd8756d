"""What TW304 and TW305 share: activations seen by a probe, in a net that has not learned much."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from trainwatch.record import RunRecord
from trainwatch.rules.base import NotChecked, ProbeRequest, Rule
from trainwatch.symptoms.activity import Activity, activities
from trainwatch.symptoms.losses import LossCourse, loss_course

SHOWN = 4


@dataclass(frozen=True)
class HiddenActivity(Rule):
    """Base of the rules on the health of hidden activations."""

    needs: ClassVar[tuple[str, ...]] = ("activity", "train_loss")

    learned: float = 0.75
    entries: int = 50

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Look at the activations, the sooner the less the net has learned."""
        course = record.memo(loss_course)
        if course is not None:
            stuck = course.gained < self.learned
            reason = "the loss is not low: are units dead or saturated?" if stuck else "the health of hidden units"
            yield ProbeRequest("activations", (), reason, 1.0 if stuck else 0.2)

    def judged(self, record: RunRecord, *, squashing: bool) -> tuple[LossCourse, list[Activity]]:
        """The course of the loss, and the activations of a sort of which enough samples were seen.

        Raises:
            NotChecked: There is no loss, or there are too few samples.
        """
        course = record.memo(loss_course)
        if course is None:
            raise NotChecked("no training loss was seen")
        seen = [a for a in record.memo(activities) if (a.squashes if squashing else a.rectifies)]
        judged = [a for a in seen if a.entries >= self.entries]
        if seen and not judged:
            raise NotChecked(f"only {seen[0].entries} samples were held; {self.entries} are needed")
        return course, judged


def named(shares: list[tuple[Activity, float]]) -> str:
    """The activations with their shares, in words."""
    more = f" and {len(shares) - SHOWN} more" if len(shares) > SHOWN else ""
    return ", ".join(f"{share:.0%} in '{a.site}'" for a, share in shares[:SHOWN]) + more
