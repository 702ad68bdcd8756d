"""Scores of yes / no labels in validation: logit and target of an even subset of the samples."""

from __future__ import annotations

import torch

from trainwatch.capture.classes import OVER_CLASSES, PER_LABEL, class_indices
from trainwatch.capture.interception import LossCall

MOST_SAMPLES = 20_000  # of a pass
MOST_CELLS = 1 << 18  # samples times labels
MOST_LABELS = 64
SMOOTHED = 0.15  # usual label smoothing moves targets by less
SMALLEST = 1e-7  # of a probability: single precision knows none between 1 - 6e-8 and 1


def scored(call: LossCall, predictions: torch.Tensor, target: torch.Tensor) -> torch.Tensor | None:
    """Logit and target of each sample and label, shape (samples, labels, 2); None where the loss has no such labels.

    Two classes under one softmax are one label: the logit of class 1 is the difference of the two. Targets near
    0 and 1 are smoothed labels; others keep their value: shares, or such as are ignored.
    """
    if call.sort in OVER_CLASSES:
        if predictions.ndim != 2 or predictions.shape[1] != 2:
            return None
        logits, truth = predictions[:, 1:].float() - predictions[:, :1].float(), class_indices(call.sort, target)
    elif call.sort in PER_LABEL and predictions.shape == target.shape and predictions.ndim <= 2:
        values = target.float()
        truth = torch.where((values - values.round()).abs() <= SMOOTHED, values.round(), values)
        logits = predictions.float()
        if call.sort == "binary_cross_entropy":
            logits = logits.logit(SMALLEST)
        elif not call.known:  # handed over by the user: logits or probabilities, as the numbers tell
            inside = ((logits >= 0) & (logits <= 1)).all()
            logits = torch.where(inside, logits.clamp(0, 1).logit(SMALLEST), logits)
    else:
        return None
    logits = logits.reshape(len(logits), -1)
    if logits.shape[1] > MOST_LABELS or truth.numel() != logits.numel():
        return None
    return torch.stack([logits, truth.reshape(logits.shape).float()], -1)


class EvenSubset:
    """Keeps every k-th row of what passes by; k doubles whenever too many are kept.

    Which rows are kept depends on their number alone, so passes over the same samples keep the same.
    """

    def __init__(self) -> None:
        self._kept: list[torch.Tensor] = []
        self._every, self._seen, self._rows = 1, 0, 0
        self._mixed = False  # rows of different labels came

    def add(self, rows: torch.Tensor) -> None:
        """Take in further rows, shape (n, labels, 2)."""
        self._mixed |= bool(self._kept) and self._kept[0].shape[1:] != rows.shape[1:]
        if self._mixed:
            return
        some = rows[-self._seen % self._every :: self._every]
        if self._every > 1:
            some = some.clone()  # a view would keep all of them alive
        self._seen += len(rows)
        self._rows += len(some)
        self._kept.append(some)
        while self._rows > min(MOST_SAMPLES, MOST_CELLS // max(1, rows.shape[1])):
            whole = torch.cat(self._kept)[::2].clone()
            self._kept, self._rows, self._every = [whole], len(whole), 2 * self._every

    def rows(self) -> torch.Tensor | None:
        """What was kept, at most `MOST_SAMPLES` rows; None where there is none, or where they differ in labels."""
        return None if self._mixed or not self._kept else torch.cat(self._kept)
