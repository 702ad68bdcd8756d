"""runmedic: reads a log of loss, validation loss, rate and gradient norm when the run is over; it has no thresholds."""

from __future__ import annotations

from typing import Any

from benchmarks.rivals.installed.adapter import OVERFITTED, STUCK, UNSTABLE, Adapter, Log, Said, once, read_as


class Runmedic(Adapter):
    """Its checks, critical ones first."""

    codes = read_as(
        {
            "non_finite": "303 302 601 107",
            "divergence": UNSTABLE,
            "loss_spikes": "604 601 603 302 403",
            "no_learning": STUCK,
            "overfitting": OVERFITTED,
            "val_below_train": "109 110 701 206",
            "grad_spikes": "302 604 601",
            "constant_lr_plateau": "205 603 601",
        }
    )

    def judge(self, log: Log, **thresholds: Any) -> Said:
        from runmedic.checks import run_checks
        from runmedic.model import Run
        from runmedic.roles import detect

        run = Run("zoo", "csv", "")
        for metric, step, value in log.points("train_loss", "lr", "grad_norm", "val_loss"):
            run.get(metric).add(step, value)
        run.finalize()
        return once([(f.check, "info" if f.severity == "info" else "warning") for f in run_checks(run, detect(run))])


ADAPTER = Runmedic
