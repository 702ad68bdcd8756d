"""Attaches the installed packages to Lightning's trainer, whose optimiser computes gradients within its step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning

from benchmarks.rivals.installed.attached import Attached


class AttachedCallback(lightning.Callback):
    """Attaches when the fit starts.

    Attributes:
        attached: What watched, once the fit has started.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.attached: Attached | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        optimizer = trainer.optimizers[0]
        self.attached = Attached(self.names, pl_module.model, optimizer, loss_fn=pl_module.loss_fn, step_hooks=False)

    def on_before_optimizer_step(self, *_: Any) -> None:
        if self.attached is not None:
            self.attached.before_step()

    def on_train_batch_end(self, *_: Any) -> None:
        if self.attached is not None:
            self.attached.after_step()

    def on_fit_end(self, *_: Any) -> None:
        if self.attached is not None:
            self.attached.finish()
