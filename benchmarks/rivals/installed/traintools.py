"""traintools: its inspectors of gradients and of batches, called in every fifth step before the optimiser's.

It has no thresholds to be moved afterwards: each warning is given at once. Its trackers of single examples give scores,
no verdict, and are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.rivals.installed.adapter import UNSTABLE, Adapter, Log, Said, once, read_as

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

EVERY = 5


class Traintools(Adapter):
    """Warnings by the words that they have in common."""

    codes = read_as(
        {
            "non finite values": "303 107",
            "abs max": "107 108",
            "nearly constant": "101 105 107 108",
            "dominant class": "101 102 105",
            "non finite gradients": "303 302 601",
            "vanished": "301 304 305 309 705",
            "very large": f"{UNSTABLE} 309",
            "update weight ratio is high": "601 603 604 302 403",
            "update weight ratio is tiny": "602 301 705",
            "no gradients found": "705",
        }
    )

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        super().__init__(model, optimizer)
        from traintools import BatchInspector, GradientHealthMonitor

        self._batches, self._gradients = BatchInspector(), GradientHealthMonitor()
        self._said: Said = []

    def before_step(self, step: int, inputs: Any, targets: Tensor, loss: float) -> None:
        if step % EVERY:
            return
        rate = float(self.optimizer.param_groups[0]["lr"])
        reports = self._batches.inspect(inputs, targets, step=step), self._gradients.inspect(self.model, lr=rate)
        for warning in (w for report in reports for w in report.warnings):
            words = warning.replace("-", " ").replace("/", " ")
            name = next((n for n in self.codes if n in words), None)
            if name is not None and (name, "warning") not in self._said:
                self._said.append((name, "warning"))

    def judge(self, log: Log, **thresholds: Any) -> Said:
        return once(self._said)


ADAPTER = Traintools
