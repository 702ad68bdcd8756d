import pytest
from synthetic import curve, fit_record, mode_record

from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.rules.tw709_not_judgeable import NotJudgeable


def verdict(record, **thresholds):
    return list(NotJudgeable(**thresholds).check(record))


def trained(steps):
    record = RunRecord()
    record.append("train_loss", "root", range(steps), [1.0] * steps)
    return record


def test_an_empty_run_lacks_everything():
    (found,) = verdict(RunRecord())
    assert found.severity == Severity.INFO
    assert found.summary == (
        "too little to judge: no training loss was seen; only 0 of 20 optimiser steps; no validation loss was seen"
    )
    assert [r.id for r in found.remedies] == ["show-loss", "run-longer", "add-validation"]


@pytest.mark.parametrize("passes", [3, 4, 30])
def test_stays_silent_where_there_is_enough(passes):
    assert verdict(fit_record(curve(length=passes))) == []


def test_no_validation():
    (found,) = verdict(trained(100))
    assert found.summary == "too little to judge: no validation loss was seen"
    assert [r.id for r in found.remedies] == ["add-validation"]


def test_passes_over_training_data_are_no_validation():
    record = mode_record(kind="train-eval")
    record.append("train_loss", "root", range(100), [1.0] * 100)
    (found,) = verdict(record)
    assert "no validation loss" in found.summary


def test_a_pass_before_the_first_step_does_not_count():
    record = trained(100)
    record.append("val_loss", "val", [0, 50, 100], [3.0, 2.0, 1.0])
    (found,) = verdict(record)
    assert "only 2 of 3 validation passes" in found.summary
    record.append("val_loss", "val", 150, 1.0)
    assert not verdict(record)


@pytest.mark.parametrize(("steps", "fires"), [(19, True), (20, False)])
def test_too_few_steps(steps, fires):
    record = trained(steps)
    record.append("val_loss", "val", [5, 10, 15], [3.0, 2.0, 1.0])
    assert bool(verdict(record)) is fires
    assert not verdict(record, min_steps=19)


def test_passes_needed_can_be_set():
    assert verdict(fit_record(curve(length=4)), min_passes=5)


@pytest.mark.parametrize(("validated", "fires"), [(False, True), (True, False), (None, False)])
def test_before_a_training_what_counts_is_whether_there_will_be_validation(validated, fires):
    record = RunRecord()
    record.set_fact("subject", "preflight")
    record.set_fact("validated", validated)
    assert [d.summary.partition(":")[0] for d in verdict(record)] == ["there is no validation"] * fires
