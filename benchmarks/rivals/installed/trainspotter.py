"""trainspotter: reads a log of loss, validation loss, rate and gradient norm when the run is over."""

from __future__ import annotations

from typing import Any, ClassVar

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


class Trainspotter(Adapter):
    """Its detectors, in the order of its report."""

    codes = read_as(
        {
            "divergence": UNSTABLE,
            "spikes": "604 601 603 302 403",
            "grad_norm": "302 604 601 308",
            "plateau": STUCK,
            "overfitting": OVERFITTED,
            "eval_noise": "109 601 603 207",
            "loss_floor": "110 201 106",
            "lr_schedule": "601 602",
        }
    )
    settings: ClassVar = {
        PUBLISHED: {},
        "spikes beyond z of 12": {"spikes": {"threshold": 12.0}, "grad_norm": {"threshold": 20.0}},
        "divergence of 3 times": {"divergence": {"growth_ratio": 3.0}},
        "overfitting of 10 %": {"overfitting": {"min_rise": 0.1}},
        "all three": {
            "spikes": {"threshold": 12.0},
            "grad_norm": {"threshold": 20.0},
            "divergence": {"growth_ratio": 3.0},
            "overfitting": {"min_rise": 0.1},
        },
    }

    def judge(self, log: Log, **thresholds: Any) -> Said:
        from trainspotter import Run, default_detectors, run_all

        run = Run()
        for point in log.points("train/loss", "lr", "grad_norm", "eval/loss"):
            run.add_point(*point)
        run.finalize()
        detectors = default_detectors()
        for detector in detectors:
            for name, value in thresholds.get(detector.name, {}).items():
                setattr(detector, name, value)
        return once([(f.detector, "info" if f.severity == "info" else "warning") for f in run_all(run, detectors)])


ADAPTER = Trainspotter
