"""Reports made by hand, as the engine would make them."""

import math

import pytest

from reports.hostile_names import HOSTILE
from trainwatch.diagnosis import Diagnosis, Evidence, Remedy, Severity
from trainwatch.figures import Bars, Curve, Heatmap
from trainwatch.report import Report

OVERHEAD = {
    "seconds": {"capture": 1.21, "engine": 0.412, "writing": 0.0003},
    "run_seconds": 148.2,
    "share": 0.0109,
    "per_step_us": 1350.4,
    "skipped": ["curvature at step 800"],
}


@pytest.fixture
def small() -> Report:
    """One finding with one of everything."""
    effect = Diagnosis(
        "TW303", "non-finite", Severity.ERROR, "The loss is not finite from step 520 on.", onset_step=520
    )
    cause = Diagnosis(
        code="TW302",
        name="exploding-gradients",
        severity=Severity.ERROR,
        summary="The gradient norm grew 4,100 times within 90 steps.",
        where=("encoder.layers.0.weight",),
        onset_step=430,
        reported_step=500,
        confidence=0.97,
        evidence=(
            Evidence(
                "gradient norm against its history",
                4100.0,
                50.0,
                "times",
                "encoder.layers.0.weight",
                520,
                "median 0.31",
            ),
            Evidence("step size", 0.1),
        ),
        remedies=(
            Remedy("layer-norm", "Normalise the layers", "It bounds the activations.", "", already_in_use=True),
            Remedy(
                "gradient-clipping",
                "Clip the gradient norm at 0.9",
                "It is the 95 % quantile before the onset.",
                "torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=0.9)\noptimizer.step()",
                strength="strong",
            ),
        ),
        consequences=(effect,),
    )
    return Report(
        verdict="findings",
        diagnoses=(cause,),
        not_checked={
            "TW202": "no validation loss was seen",
            "TW104": "no class labels",
            "TW201": "no validation loss was seen",
        },
        facts={"run": {"steps": 1200, "epochs": 12, "finished": True}, "parameters": 61706},
        overhead=OVERHEAD,
    )


@pytest.fixture
def large() -> Report:
    """Every severity, nesting, hostile names, numbers at their limits, all kinds of figures."""
    names = HOSTILE
    deep = Diagnosis("TW203", "trained-past-best", Severity.INFO, "The best epoch was 4.")
    middle = Diagnosis(
        "TW202", "overconfidence", Severity.WARNING, f"It rose on {names[0]}.", onset_step=40, consequences=(deep,)
    )
    fault = "Traceback (most recent call last):\n  File 'x.py', line 1, in f\nValueError: no [bold]luck[/bold]\n"
    diagnoses = (
        Diagnosis(
            "TW201",
            "overfitting",
            Severity.ERROR,
            f"Class {names[1]} is fitted by heart.",
            where=names,
            onset_step=0,
            reported_step=12345,
            margin=math.inf,
            confidence=1.0,
            evidence=(
                Evidence("loss", math.inf, -math.inf, "", names[2], 7, f"against {names[3]}"),
                Evidence("share", math.nan, 0.123449999, "%"),
                Evidence("count", 1234567, 1e-9, "samples", names[5], 12345, "c" * 200),
            ),
            remedies=(
                Remedy(
                    "a",
                    f"Weigh {names[2]}",
                    f"Since {names[4]} is rare.",
                    "w = {'```': 1}\nprint(\"<b>\", w)" + "  # x" * 40,
                ),
                Remedy("b", "Raise it", "It may help.", "1. stop\n2. raise lr", strength="weak"),
                Remedy("c", "Stop early", "", "pip install x && y", already_in_use=True),
            ),
            consequences=(middle,),
        ),
        Diagnosis("TW101", "class-imbalance", Severity.WARNING, "- 3 classes of 10 hold 90 % & more."),
        Diagnosis("TW502", "l2-through-adaptive-optimiser", Severity.INFO, "Adam scales the decay."),
        Diagnosis(
            "TW000",
            "internal-fault",
            Severity.INFO,
            "It failed.",
            evidence=(Evidence("traceback", note=fault, step=3),),
        ),
    )
    figures = {
        "loss": Curve(
            "Loss <b>",
            "loss",
            {"train": ((0, 2.3), (1, 2.123456789), (2, math.inf)), "_val": ((0, 2.4), (2, math.nan))},
            {1: names[1]},
        ),
        "gradients": Heatmap(
            "Gradients", names[:2], (0, 10, 200), ((1.0, 0.1, math.nan), (math.inf, 0.0, 1e-9)), "norm"
        ),
        "classes": Bars("Classes", names, {"samples": (1.0, 2.0, 3.0, 4.0, 5.0, math.nan, 6.0), "recall": (0.5,) * 7}),
        "nothing": Curve("Nothing", "loss", {"train": ()}, {}, log_y=True),
    }
    return Report(
        verdict="findings",
        diagnoses=diagnoses,
        not_checked={"TW104": f"ignored: {names[0]} {names[1]}"},
        facts={"run": {"steps": 1, "epochs": 1, "finished": False}, "class_names": list(names)},
        figures=figures,
        overhead={"seconds": {}, "share": 0.0002, "per_step_us": None, "skipped": []},
    )


@pytest.fixture
def others() -> dict[str, Report]:
    return {
        "empty": Report("healthy"),
        "healthy": Report(
            "healthy", facts={"run": {"steps": 40, "epochs": 0}}, not_checked={"TW201": "no validation data"}
        ),
        "not-judged": Report("not-judged", not_checked={"TW201": "no validation loss was seen"}),
    }
