import math

import pytest
from synthetic import curve, fit_record, mode_record

from trainwatch.diagnosis import Severity
from trainwatch.rules.tw201_overfitting import Overfitting
from trainwatch.rules.tw701_train_mode_in_validation import TrainModeInValidation


def verdict(record, **thresholds):
    return list(TrainModeInValidation(**thresholds).check(record))


@pytest.mark.parametrize("share", [0.1, 1.0])
@pytest.mark.parametrize(
    ("options", "severity"),
    [
        ({"root": True}, Severity.WARNING),
        ({"root": True, "batch_norm": True, "modules": ("drop", "norm")}, Severity.ERROR),
        ({"root": False, "batch_norm": True, "modules": ("norm",)}, Severity.ERROR),
        ({"root": False}, Severity.INFO),
    ],
    ids=["whole-model", "batch-norm", "batch-norm-alone", "dropout-for-sampling"],
)
def test_fires(share, options, severity):
    (found,) = verdict(mode_record(share, **options))
    assert found.severity == severity
    assert found.margin == math.inf
    assert found.where == options.get("modules", ("drop",))


def test_stays_silent_in_evaluation_mode():
    assert verdict(mode_record(0.0)) == []


def test_stays_silent_on_a_stream_over_training_data():
    assert verdict(mode_record(1.0, kind="train-eval")) == []


def test_a_threshold_can_silence_it():
    assert not verdict(mode_record(0.4), share=0.5)
    assert verdict(mode_record(0.6), share=0.5)


def test_onset_and_both_losses():
    (found,) = verdict(mode_record(switched_at=2))
    assert found.onset_step == 30
    shown = {e.name: e for e in found.evidence}
    assert shown["validation loss in training mode"].value == pytest.approx(0.25)
    assert shown["validation loss in evaluation mode"].value == pytest.approx(0.5)
    (always,) = verdict(mode_record())
    assert "not measured" in always.evidence[-1].note


def test_message_names_the_modules():
    (found,) = verdict(mode_record(modules=[f"block.{i}.drop" for i in range(7)]))
    assert found.summary == (
        "block.0.drop, block.1.drop, block.2.drop, block.3.drop, block.4.drop and 2 more in training mode "
        "during 4 of 4 passes of 'val'"
    )
    (single,) = verdict(mode_record(root=False))
    assert single.summary.endswith(", the model itself in evaluation mode")


def test_the_place_is_the_module_the_model_itself_or_else_the_stream():
    assert [verdict(mode_record(modules=m))[0].where for m in (("drop",), ("",), ())] == [
        ("drop",), ("the model itself",), ("val",),
    ]  # fmt: skip


def test_a_parent_in_training_mode_is_no_sampling_on_purpose():
    record = mode_record(root=False)
    assert verdict(record)[0].severity == Severity.INFO
    known = {**record.facts["validation"]["val"], "parent_in_train_mode": True}
    record.set_fact("validation", {"val": known})
    assert verdict(record)[0].severity == Severity.WARNING


def test_batch_norm_needs_its_statistics_again():
    (found,) = verdict(mode_record(batch_norm=True, modules=("norm",)))
    assert [r.id for r in found.remedies] == ["eval-mode", "restore-running-statistics"]
    (plain,) = verdict(mode_record())
    assert [r.id for r in plain.remedies] == ["eval-mode"]


def test_explains_a_rise_that_began_later_but_not_by_sampling_on_purpose():
    (rise,) = Overfitting().check(fit_record(curve()))
    explains = TrainModeInValidation.explains["TW201"]
    (cause,) = verdict(mode_record())
    assert explains(cause, rise)
    (late,) = verdict(mode_record(passes=12, switched_at=11))
    assert not explains(late, rise)
    (sampling,) = verdict(mode_record(root=False))
    assert not explains(sampling, rise)
