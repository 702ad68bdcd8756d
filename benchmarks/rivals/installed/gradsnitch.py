"""gradsnitch: a table of loss, rate, gradient norm, update ratio and validation loss, linted at the end.

Its monitor is called in each step, which measures norms and updates itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.rivals.installed.adapter import (
    OVERFITTED,
    PUBLISHED,
    STUCK,
    UNSTABLE,
    Adapter,
    Log,
    Said,
    once,
    read_as,
)

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


class Gradsnitch(Adapter):
    """Its codes; errors before warnings."""

    codes = read_as(
        {
            "GS001": "303 302 601 107",
            "GS002": "302 303 601",
            "GS003": "302 604 601",
            "GS004": OVERFITTED,
            "GS005": STUCK,
            "GS006": UNSTABLE,
            "GS007": "301 304 305 309",
            "GS008": "601 602 603 604 705 307",
            "GS009": "603 601 604 403",
            "GS010": "602 205",
        }
    )
    settings: ClassVar = {
        PUBLISHED: {},
        "spikes of 20 times": {"detect_grad_spike": {"k": 20.0}},
        "plateau below t of 2": {"detect_loss_plateau": {"t_thresh": 2.0}},
        "both": {"detect_grad_spike": {"k": 20.0}, "detect_loss_plateau": {"t_thresh": 2.0}},
    }

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        super().__init__(model, optimizer)
        import gradsnitch

        self._monitor = gradsnitch.watch(model, optimizer)

    def before_step(self, step: int, inputs: Any, targets: Tensor, loss: float) -> None:
        self._monitor.log(step, loss)

    def judge(self, log: Log, **thresholds: Any) -> Said:
        import gradsnitch

        table = self._monitor.df()
        if log.validation:
            table["val_loss"] = [log.validation.get(i) for i in range(len(table))]
        found = gradsnitch.lint(table)
        for code, detector in gradsnitch.DETECTORS:
            if detector.__name__ in thresholds:
                again = detector(table, **thresholds[detector.__name__])
                found = [f for f in found if f.code != code or again is not None]
        found.sort(key=lambda f: f.severity != "error")
        return once([(f.code, "warning") for f in found])


ADAPTER = Gradsnitch
