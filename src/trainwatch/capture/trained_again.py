"""Whether a model is given once more, without gradients, the batch that it was just trained on: no validation."""

from __future__ import annotations

import weakref

import torch


class TrainedAgain:
    """Tells a batch that a loop evaluates beside training, to log what the step made of it, by the tensor itself.

    A tensor that is trained on time after time is a whole set, and evaluating that is a pass; so it is once other data
    were evaluated.

    Attributes:
        here: The model was last called with such a batch.
    """

    def __init__(self) -> None:
        self.here = False
        self._trained: weakref.ref[torch.Tensor] | None = None
        self._passes = False  # a look at it would belong to one

    def called(self, batch: torch.Tensor | None, *, trains: bool) -> None:
        """The model is called with a batch, with gradients or without."""
        known = batch is not None and self._trained is not None and self._trained() is batch
        self.here = known and not trains and not self._passes
        if not trains:
            self._passes |= not known
        else:
            self._passes = known
            if batch is not None and not known:
                self._trained = weakref.ref(batch)
