"""torchmortem: collectors hooked to the model, detectors over what they collected.

`Autopsy` is given the model, the optimiser and each loss, with its default sampling. Under other thresholds its
detectors look again at what was collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.rivals.installed.adapter import PUBLISHED, STUCK, UNSTABLE, Adapter, Log, Said, once, read_as

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

STEADY = {
    "update_ratio": {"high_threshold": 1.0, "low_threshold": 1e-7},
    "gradient_flow": {"vanishing_ratio_threshold": 1e4},
    "gradient_noise": {"low_snr_threshold": 0.1},
}


class Torchmortem(Adapter):
    """Titles of findings, less the layer that some of them name."""

    codes = read_as(
        {
            "Training divergence detected": UNSTABLE,
            "Exploding gradients detected": f"{UNSTABLE} 309",
            "Vanishing gradients detected": "301 305 306 309 705",
            "Gradient stalling": "301 304 305 306 602 705",
            "Dead units": "304 309",
            "Activation saturation": "305 107 309",
            "Update ratio too low": "602 301 307 705 108",
            "Update ratio too high": "601 603 604 302 403",
            "Loss plateau detected": STUCK,
            "Catapult phase detected": "403 601 604",
            "Edge of stability regime detected": "403 601",
            "Rank collapse": "208 304 402 706 206",
            "High gradient noise": "106 603",
            "Weight norm explosion": "504 601 302 403 704",
            "Stagnant weight norms": "602 301 307 705",
            "Inter layer weight norm imbalance": "309",
        }
    )
    settings: ClassVar = {
        PUBLISHED: {},
        "update ratio above 1 or below 1e-7": {"update_ratio": STEADY["update_ratio"]},
        "vanishing beyond 10,000": {"gradient_flow": STEADY["gradient_flow"]},
        "signal to noise below 0.1": {"gradient_noise": STEADY["gradient_noise"]},
        "all three": STEADY,
    }

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        super().__init__(model, optimizer)
        from torchmortem import Autopsy

        self._autopsy = Autopsy(model, optimizer=optimizer)
        self._autopsy.attach()

    def after_step(self, step: int, loss: float) -> None:
        self._autopsy.step(loss=loss)

    def finish(self, log: Log) -> None:
        self._autopsy.detach()
        self._report = self._autopsy.get_report()

    def judge(self, log: Log, **thresholds: Any) -> Said:
        from torchmortem.registry import get_all_detectors

        found = list(self._report.findings)
        for name, moved in thresholds.items():
            detector = get_all_detectors()[name](**moved)
            states = self._report.collector_states
            found = [f for f in found if f.detector != name] + detector.analyze(states, self._report.metadata)
        found.sort(key=lambda f: -f.severity)
        names = [f.title.partition(" in ")[0].partition(" (")[0].replace("-", " ") for f in found]
        return once([(n, "warning" if f.severity else "info") for n, f in zip(names, found, strict=True)])


ADAPTER = Torchmortem
