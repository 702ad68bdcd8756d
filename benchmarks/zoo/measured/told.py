"""What a trained net answers for the validation samples, class by class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.zoo.measured.plain import Course

FEWEST = 5  # validation samples that a recall is taken of
RARE = 1 / 3  # of an even share


@dataclass(frozen=True)
class Classes:
    """Numbers by class.

    Attributes:
        training: Shares of the training samples, in multiples of an even share.
        validation: Shares of the validation samples.
        answers: Shares of the answers.
        recall: Share of a class's samples that are told right.
        accuracy: Of all.
        rare: Classes with less than a third of an even share, of which validation has enough to tell.
        untold: Such classes of which it has not.
    """

    training: list[float]
    validation: list[float]
    answers: list[float]
    recall: list[float]
    accuracy: float
    rare: list[int]
    untold: list[int]

    @property
    def others(self) -> float:
        """Mean recall of the classes that are not rare."""
        return float(np.nanmean([r for c, r in enumerate(self.recall) if c not in self.rare]))


def classes(course: Course) -> Classes | None:
    """Of nets that tell one class a sample, or a place of a sequence; None of others."""
    output, wanted, known = course.outputs, course.wanted, course.sets.y_train
    if wanted.dtype == torch.int64:
        if course.sets.task == "tags" or output.ndim != wanted.ndim + 1:
            return None
        told, wanted, known = output.argmax(1).flatten(), wanted.flatten(), known.flatten()
    elif course.sets.task != "classes" or wanted.shape != output.shape:
        return None
    elif wanted.shape[1:] in ((), (1,)):
        told, wanted, known = (output > course.cut).long().flatten(), wanted.long().flatten(), known.long().flatten()
    elif bool((wanted.sum(1) == 1).all()):
        told, wanted, known = output.argmax(1), wanted.argmax(1), known.argmax(1)
    else:
        return None
    n = int(max(wanted.max(), known.max(), told.max())) + 1
    training = (torch.bincount(known, minlength=n) / len(known) * n).tolist()
    counts = torch.bincount(wanted, minlength=n)
    rare = [c for c in range(n) if training[c] < RARE]
    return Classes(
        training,
        (counts / len(wanted)).tolist(),
        (torch.bincount(told, minlength=n) / len(told)).tolist(),
        [float((told[wanted == c] == c).float().mean()) for c in range(n)],
        float((told == wanted).float().mean()),
        [c for c in rare if counts[c] >= FEWEST],
        [c for c in rare if counts[c] < FEWEST],
    )


def thresholds(course: Course) -> float:
    """What F1 or balanced accuracy gains by the best threshold, the most of any output; NaN where there is none."""
    output, wanted = course.outputs, course.wanted
    if wanted.dtype == torch.int64 and output.ndim == 2 and output.shape[1] == 2:
        return _gain(output[:, 1] - output[:, 0], wanted == 1, 0.0)
    if wanted.dtype == torch.int64 or output.shape != wanted.shape or set(wanted.unique().tolist()) != {0.0, 1.0}:
        return float("nan")
    scores, truths = output.reshape(len(output), -1), wanted.reshape(len(wanted), -1) == 1
    return max(_gain(scores[:, i], truths[:, i], course.cut) for i in range(scores.shape[1]))


def _gain(scores: Tensor, positive: Tensor, cut: float) -> float:
    cuts = torch.cat([torch.tensor([cut]), scores.quantile(torch.linspace(0, 1, 60))])
    over = scores > cuts[:, None]
    hits, wrong = (over & positive).sum(1), (over & ~positive).sum(1)
    f1 = 2 * hits / (hits + wrong + positive.sum()).clamp(min=1)
    balanced = (hits / positive.sum().clamp(min=1) + 1 - wrong / (~positive).sum().clamp(min=1)) / 2
    return float(max(f1.max() - f1[0], balanced.max() - balanced[0]))
