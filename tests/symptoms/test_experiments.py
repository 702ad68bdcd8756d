import math

import numpy as np
import pytest
from synthetic import fit_record

from trainwatch.record import RunRecord
from trainwatch.symptoms.experiments import Change, evaluated, lead, one_batch, releases, rivals

LOOK = [0.5, 0.01, 0.7, 0.6, 0.02]


def record(**rows):
    made = RunRecord()
    for key, row in rows.items():
        quantity, _, name = key.partition("__")
        made.append(quantity, name or {"evaluated_loss": "held", "one_batch_fit": "train"}[quantity], 90, np.array(row))
    return made


def test_an_empty_record_has_none():
    made = RunRecord()
    assert [f(made) for f in (evaluated, one_batch, lead)] == [None] * 3
    assert [f(made) for f in (rivals, releases)] == [[], []]


def test_the_last_look_counts():
    made = record(evaluated_loss=[9.0] * 5)
    made.append("evaluated_loss", "held", 95, np.array(LOOK))
    found = evaluated(made)
    assert found.step == 95
    assert (found.training, found.noisy, found.validation) == pytest.approx((0.5, 0.7, 0.6))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_no_measure(bad):
    assert evaluated(record(evaluated_loss=[bad, *LOOK[1:]])) is None
    assert one_batch(record(one_batch_fit=[bad, 1, 1, 32])) is None
    assert rivals(record(reference_loss__boosting=[bad, 0.1, 0.01, 1, 99, 99])) == []
    assert releases(record(without_regulariser__dropout=[bad, 1, 1, 0.1, 0.1] * 2)) == []
    assert releases(record(without_regulariser__dropout=[1, 1, bad, 0.1, 0.1] * 2)) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_copy_that_could_not_learn_as_the_run_did_leaves_the_runs_end_to_compare_with(bad):
    (found,) = releases(record(without_regulariser__dropout=[1, bad, 0.4, math.nan, 0.02] * 2))
    assert (found.training.gain, found.training.error, found.training.anyway) == pytest.approx((0.6, 0.02, 0.0))


def test_one_batch_may_end_anywhere():
    found = one_batch(record(one_batch_fit=[1.0, math.inf, 0.25, 32]))
    assert (found.before, found.own, found.reference, found.samples) == (1.0, math.inf, 0.25, 32)


def test_rivals_come_best_first():
    made = record(
        reference_loss__neighbours=[1, 0.4, 0.01, 2, 64, 32], reference_loss__boosting=[1, 0.3, 0.01, 2, 64, 32]
    )
    assert [r.name for r in rivals(made)] == ["boosting", "neighbours"]


@pytest.mark.parametrize(
    ("training", "ahead"),
    [(1.0, 0.6), (0.7, 0.4), (0.1, -0.2)],
    ids=["less known of new samples", "less known of its own", "learned by heart"],
)
def test_the_lead_is_the_lesser_of_that_on_new_samples_and_that_on_the_nets_own(training, ahead):
    made = record(evaluated_loss=[training, 0.04, 1, 1, 1], reference_loss__boosting=[0.9, 0.3, 0.03, 2, 64, 32])
    found = lead(made)
    assert found.lead == pytest.approx(ahead)
    assert found.error == pytest.approx(math.hypot(0.03, 0.04))
    assert found.training == pytest.approx(training)


def test_without_a_look_at_training_batches_no_lead_is_known():
    assert lead(record(reference_loss__boosting=[0.9, 0.3, 0.03, 2, 64, 32])) is None


def test_the_greater_lead_counts():
    made = record(
        evaluated_loss=LOOK,
        reference_loss__neighbours=[0.9, 0.4, 0.01, 2, 64, 32],
        reference_loss__boosting=[0.9, 0.2, 0.01, 2, 64, 32],
    )
    assert lead(made).rival.name == "boosting"


@pytest.mark.parametrize(
    ("before", "control", "without", "gain", "error", "anyway"),
    [(1.0, 0.8, 0.5, 0.3, 0.01, 0.4), (1.0, 1.2, 0.5, 0.5, 0.02, -0.4), (1.0, 1.0, 1.1, -0.1, 0.01, 0.0)],
)
def test_the_gain_is_over_the_lower_of_the_others(before, control, without, gain, error, anyway):
    change = Change(before, control, without, control_error=0.01, before_error=0.02)
    assert (change.gain, change.error) == (pytest.approx(gain), error)
    assert change.anyway == pytest.approx(anyway)


def test_releases_know_what_was_left_out_and_whether_validation_was_seen():
    half = [1.0, 0.9, 0.5, 0.01, 0.02]
    made = record(without_regulariser__dropout=half * 2)
    made.append("without_regulariser", "dropout+weight_decay", 90, np.array(half + [math.nan] * 5))
    seen, unseen = releases(made)
    assert (seen.left_out, unseen.left_out) == (("dropout",), ("dropout", "weight_decay"))
    assert seen.validation == seen.training
    assert unseen.validation is None
    assert seen.step == 90


def test_validation_of_the_run_counts_where_it_was_lowest():
    made = fit_record([1.0, 0.6, 0.5, 0.7], spread=0.0)
    made.append("without_regulariser", "dropout", 90, np.array([1.0, 0.9, 0.5, 0.01, 0.02] * 2))
    (found,) = releases(made)
    assert found.training.before == 1.0
    assert found.validation.before == pytest.approx(0.8)
