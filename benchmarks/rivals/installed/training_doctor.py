"""training-doctor: told loss, rate, gradient norm and validation loss in each step; it looks at every tenth."""

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

EVERY = 10


class TrainingDoctor(Adapter):
    """Its diagnoses, in the order in which they came."""

    codes = read_as(
        {
            "Learning rate likely too high": UNSTABLE,
            "Learning rate may be too low": "602 301 402",
            "Training plateau detected": STUCK,
            "Early training plateau": STUCK,
            "Overfitting detected": OVERFITTED,
            "Unusual train eval pattern": "109 701 110",
            "Gradient instability detected": f"{UNSTABLE} 301 309",
            "Possible mixed precision instability": "303",
        }
    )
    settings: ClassVar = {
        PUBLISHED: {},
        "norms outside 1e-6 to 1,000": {"explosion_threshold": 1e3, "vanishing_threshold": 1e-6},
        "and spikes beyond 6 deviations": {
            "explosion_threshold": 1e3,
            "vanishing_threshold": 1e-6,
            "spike_std_threshold": 6.0,
        },
    }

    def judge(self, log: Log, **thresholds: Any) -> Said:
        from training_doctor import Doctor

        doctor = Doctor()
        for detector in doctor.detectors:
            for name, value in thresholds.items():
                if hasattr(detector, name):
                    setattr(detector, name, value)
        for i, loss in enumerate(log.loss):
            more = {"eval_loss": log.validation[i]} if i in log.validation else {}
            doctor.store.log(i, loss=loss, lr=log.lr[i], grad_norm=log.grad_norm[i], **more)
            if (i + 1) % EVERY == 0 or i + 1 == len(log.loss):
                doctor.check()
        return once([(_name(d.problem), d.severity.value) for d in doctor.diagnoses])


def _name(problem: str) -> str:
    return problem.replace("/", " ").replace("-", " ")


ADAPTER = TrainingDoctor
