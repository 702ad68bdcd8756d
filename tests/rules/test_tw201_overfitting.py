from dataclasses import replace

import numpy as np
import pytest
from synthetic import curve, fit_record

from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw201_overfitting import Overfitting
from trainwatch.rules.tw202_overconfidence import Overconfidence
from trainwatch.symptoms.losses import loss_course
from trainwatch.symptoms.paired import validation_rise

FALLING_ACCURACY = np.r_[np.linspace(0.2, 0.9, 8), np.linspace(0.89, 0.8, 12)]


def verdict(record, **thresholds):
    return list(Overfitting(**thresholds).check(record))


@pytest.mark.parametrize("climb", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("accuracy", [None, FALLING_ACCURACY], ids=["no-accuracy", "accuracy-falls"])
def test_fires(climb, noise, accuracy):
    (found,) = verdict(fit_record(curve(climb=climb), noise=noise, accuracy=accuracy))
    assert found.severity == Severity.WARNING
    assert 60 <= found.onset_step <= 100
    assert found.margin > 0
    assert found.where == ("val",)


def test_targets_far_beyond_all_others_are_learned_by_heart_first():
    record = fit_record(curve())
    assert "robust-loss" not in [r.id for r in verdict(record)[0].remedies]
    record.append("target_stats", "mse_loss", 0, [-3, 60, 0, 1, -1.6, 1.6, 0, 0.8, 0.4])
    (found,) = verdict(record)
    assert [r.id for r in found.remedies][:2] == ["robust-loss", "early-stopping"]
    assert [r.id for r in found.remedies].count("robust-loss") == 1
    assert found.evidence[-1].name.startswith("farthest training target")


SILENT = {
    "keeps-falling": {"validation": curve(best=19)},
    "flat-after-minimum": {"validation": curve(climb=0.0), "noise": 0.02},
    "rise-too-small": {"validation": curve(climb=0.002)},
    "one-stray-last-pass": {"validation": np.r_[curve(climb=0.0)[:-1], 3.0]},
    "recovers": {"validation": np.r_[curve(length=15), 0.5, 0.49, 0.48, 0.47, 0.46]},
    "training-rises-too": {"validation": curve(), "training": curve()},
    "training-stands-still-above": {"validation": curve(), "training": np.full(20, 2.0)},
    "rise-within-noise": {"validation": curve(climb=0.01), "noise": 0.2},
    "accuracy-holds": {"validation": curve(), "accuracy": np.full(20, 0.9)},
    "minimum-too-recent": {"validation": curve(length=20, best=17, climb=0.3)},
}


@pytest.mark.parametrize("case", SILENT.values(), ids=SILENT)
def test_stays_silent(case):
    assert verdict(fit_record(**case)) == []


def judge_by_another_criterion(record):
    record.set_fact("validation", {"val": {"kind": "val", "primary": True, "criterion": "l1_loss", "paired": True}})


def test_training_far_below_counts_where_it_stands_still_by_the_same_criterion_alone():
    record = fit_record(curve(), training=np.full(20, 0.1))
    assert verdict(record)
    judge_by_another_criterion(record)
    assert not verdict(record)


def test_training_that_falls_counts_from_far_above_too():
    """As under heavy dropout."""
    assert len(verdict(fit_record(curve(), training=np.linspace(3, 2, 20)))) == 1


@pytest.mark.parametrize(("climb", "found"), [(0.02, 1), (0.034, 0)])
def test_training_far_below_may_rise_by_half_as_much_as_validation(climb, found):
    """Validation rises by 0.5."""
    assert len(verdict(fit_record(curve(), training=curve(floor=0.05, climb=climb)))) == found


def measured(training, errors, probability=1.0, size=0.5, **how):
    """A rise by so much that is known by so many standard errors."""
    record = fit_record(curve(), training=training, **how)
    return with_rise(record, error=size / errors, rise=size, probability=probability)


def with_rise(record, **changes):
    """The record, of which a rise is measured that differs by so much from its own."""
    rise = replace(validation_rise(record), **changes)
    record.memo = lambda symptom, memo=record.memo: rise if symptom is validation_rise else memo(symptom)
    return record


FAR_BELOW, NEAR = np.linspace(1.0, 0.78, 20), np.linspace(1.1, 0.87, 20)


@pytest.mark.parametrize(
    ("record", "found"),
    [
        (measured(FAR_BELOW, 1.01), 1),
        (measured(FAR_BELOW, 0.99), 0),
        (measured(FAR_BELOW, 1.01, probability=0.94), 0),
        (measured(FAR_BELOW, 1.01, probability=0.95), 1),
        (measured(NEAR, 1.31), 0),
        (measured(NEAR, 1.99), 0),
        (measured(NEAR, 2.01), 1),
        (measured(np.r_[FAR_BELOW[:17], np.inf, np.nan, 0.78], 1.01), 1),
    ],
)
def test_fewer_standard_errors_do_where_training_is_far_below(record, found):
    """0.8 of what validation ends at."""
    assert len(verdict(record)) == found


@pytest.mark.parametrize(("share", "errors"), [(0.021, 2 - 1 / 30), (0.035, 1.5), (0.049, 1 + 1 / 30), (0.051, 1.0)])
def test_the_less_clear_a_rise_the_surer_it_must_be(share, errors):
    """From `min_rise` to `clear_rise` of the drop before it."""
    drop = Overfitting().rise(measured(FAR_BELOW, 3.0))[1]
    sizes = [measured(FAR_BELOW, times * errors, size=share * drop) for times in (0.99, 1.01)]
    assert [len(verdict(record)) for record in sizes] == [0, 1]


def test_what_fewer_errors_find_has_no_margin():
    (found,) = verdict(measured(FAR_BELOW, 1.5))
    assert found.margin == 0.0
    assert found.evidence[0].threshold == pytest.approx(1.0 * 0.5 / 1.5)
    (found,) = verdict(measured(FAR_BELOW, 3.0))
    assert found.margin == pytest.approx(1.0)


def test_another_criterion_in_training_is_not_far_below():
    record = measured(FAR_BELOW, 1.5)
    judge_by_another_criterion(record)
    assert verdict(record) == []


@pytest.mark.parametrize(("chance", "found"), [(2.0, 1), (60.0, 0)])
def test_a_first_loss_far_above_chance_is_no_drop_to_measure_a_rise_by(chance, found):
    """From 60, as of a net whose outputs begin large, validation falls to 0.5 and rises by 0.5."""
    record = fit_record(np.r_[60.0, curve()])
    course = replace(record.memo(loss_course), chance=chance)
    record.memo = lambda symptom, memo=record.memo: course if symptom is loss_course else memo(symptom)
    assert len(verdict(record)) == found


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_verdict_ignores_the_scale_of_the_loss(scale):
    (found,) = verdict(fit_record(curve(), noise=0.01, scale=scale))
    (plain,) = verdict(fit_record(curve(), noise=0.01))
    assert found.onset_step == plain.onset_step
    assert found.margin == pytest.approx(plain.margin, rel=1e-3)
    assert not verdict(fit_record(curve(climb=0.0), noise=0.02, scale=scale))


@pytest.mark.parametrize("length", [1, 3, 4])
def test_waits_for_enough_passes(length):
    with pytest.raises(NotChecked, match=f"{length} whole validation pass"):
        verdict(fit_record(curve()[:length]))


def test_without_training_between_the_passes_it_abstains():
    late = RunRecord()
    for quantity, key, series in fit_record(curve()).items():
        if quantity != "train_loss":
            late.put_series(quantity, key, series)
    late.append("train_loss", "cross_entropy", 500, 1.0)
    with pytest.raises(NotChecked, match="no training loss"):
        verdict(late)


def test_a_drop_by_another_criterion_does_not_begin_at_what_a_guess_costs_in_training():
    facts = {"function": "cross_entropy", "reduction": "mean", "arguments": {}, "classes": 2}
    record = fit_record(curve(start=3.0), training=curve(start=3.0), loss={"cross_entropy": facts})
    assert Overfitting().rise(record)[1] == pytest.approx(0.55, abs=0.01), "what is left, more than a guess loses"
    judge_by_another_criterion(record)
    assert Overfitting().rise(record)[1] == pytest.approx(2.45, abs=0.01)


@pytest.mark.parametrize("lost", [slice(5, 10), slice(15, 20)], ids=["around-the-best-pass", "at-the-end"])
def test_without_a_finite_training_loss_at_either_end_of_the_rise_it_abstains(lost):
    training = np.full(20, 0.1)
    training[lost] = np.inf
    with pytest.raises(NotChecked, match="no training loss"):
        verdict(fit_record(curve(), training=training))


@pytest.mark.parametrize(
    ("threshold", "value"), [("min_rise", 0.9), ("min_errors", 1e4), ("min_after", 15), ("accuracy_slack", 0.5)]
)
def test_each_threshold_can_silence_it(threshold, value):
    record = fit_record(curve(climb=0.05), noise=0.005, accuracy=FALLING_ACCURACY)
    assert verdict(record)
    assert not verdict(record, **{threshold: value, "apart": 0.0})


@pytest.mark.parametrize(("climb", "said"), [(0.0035, True), (0.0025, False)])
def test_a_fiftieth_of_the_drop_is_a_rise(climb, said):
    """Of a drop of 1.5; the rise is that of ten passes, and without noise."""
    assert bool(verdict(fit_record(curve(climb=climb)))) is said


@pytest.mark.parametrize(("climb", "said"), [(0.0045, True), (0.0035, False)])
def test_a_twenty_fifth_of_what_is_left_is_a_rise(climb, said):
    """Of 1.0, where 0.5 was learned: a fiftieth of it is 0.02, a twenty-fifth 0.04. The rise is that of ten passes."""
    record = fit_record(curve(start=1.5, floor=1.0, climb=climb), training=np.linspace(1.5, 0.3, 20))
    assert bool(verdict(record)) is said
    assert verdict(record, of_left=0.0)
    if said:
        (found,) = verdict(record)
        assert found.evidence[0].threshold == pytest.approx(0.04, rel=0.05)


def test_the_margin_is_what_a_rise_has_beyond_a_twenty_fifth_of_what_is_left():
    record = fit_record(curve(start=1.5, floor=1.0), training=np.linspace(1.5, 0.3, 20))
    (found,) = verdict(with_rise(record, rise=0.06, error=0.005, minimum=1.0))
    assert found.margin == pytest.approx((0.06 - 0.04) / 0.005)


@pytest.mark.parametrize(("noise", "said"), [(0.08, True), (0.1, False)])
def test_a_rise_counts_from_so_many_standard_errors_on(noise, said):
    """By 2.1 standard errors the one, by 1.7 the other; both by a tenth of the drop."""
    made = fit_record(curve(climb=0.02), training=np.linspace(2.0, 0.62, 20), noise=noise, seed=3)
    assert bool(verdict(made)) is said
    assert bool(verdict(made, min_errors=1.6 if not said else 2.2)) is not said


def test_the_margin_is_in_standard_errors_beyond_the_threshold():
    made = fit_record(curve(climb=0.1), noise=0.05)
    (found,) = verdict(made)
    rise = validation_rise(made)
    assert found.margin == pytest.approx(rise.rise / rise.error - 2.0)


def test_shuffled_validation_is_told():
    (found,) = verdict(fit_record(curve(climb=0.2), paired=False))
    assert "unpaired" in found.evidence[0].note
    (paired,) = verdict(fit_record(curve(climb=0.2), paired=True))
    assert "unpaired" not in paired.evidence[0].note
    assert paired.margin > found.margin


def test_works_from_mean_losses_alone():
    assert verdict(fit_record(curve(), samples=0, noise=0.005))


@pytest.mark.parametrize("loss", [0.0, 0.005, 0.01, 0.0101, 0.02, 0.3])
def test_exactly_one_of_overfitting_and_overconfidence_speaks(loss):
    accuracy = np.r_[np.full(12, 0.9), np.full(8, 0.9 - loss)]
    record = fit_record(curve(), accuracy=accuracy)
    over, sure = verdict(record), list(Overconfidence().check(record))
    assert (len(over), len(sure)) == ((1, 0) if loss > 0.01 else (0, 1))


def test_message_and_evidence():
    (found,) = verdict(fit_record(curve(), spread=0.0))
    assert found.summary == (
        "validation loss rose from 0.5306 about step 80 to 1.05 while training loss went from 0.3388 to 0.02747"
    )
    shown = {e.name: e for e in found.evidence}
    rise = shown["rise of the validation loss above its minimum"]
    assert rise.value == pytest.approx(1.05 - 0.5306, abs=0.01)
    assert rise.threshold == pytest.approx(0.02 * 1.47, rel=0.01)
    assert shown["parameters per training sample"].value == 8.0
    assert "gap to validation: 1.0" in shown["training loss now"].note


def test_remedies_have_the_numbers_of_the_run_and_those_in_use_come_last():
    used = {"dropout": [{"name": "drop", "p": 0.1}], "weight_decay": 0.01, "early_stopping": True}
    (found,) = verdict(fit_record(curve(), regularisation=used))
    assert [r.id for r in found.remedies if r.already_in_use] == [
        "early-stopping",
        "stronger-regularisation",
        "dropout",
    ]
    assert all(r.already_in_use for r in found.remedies[-3:])
    assert found.remedies[-4].id == "raise-learning-rate"
    text = {r.id: f"{r.title} {r.why} {r.how}" for r in found.remedies}
    assert "from 0.01 to 0.03" in text["stronger-regularisation"]
    assert "Dropout(p=0.3)" in text["dropout"]
    assert "step 80" in text["early-stopping"]
    assert "next" in text["dropout"]
    (fresh,) = verdict(fit_record(curve()))
    assert fresh.remedies[0].id == "early-stopping"
    assert not any(r.already_in_use for r in fresh.remedies)


def test_a_smaller_network_comes_with_the_rank_that_its_layers_use():
    made = fit_record(curve())
    asked = [r.kind for r in Overfitting().asks(made)]
    assert asked == ["train_eval", "small_changes", "input_importance", "votes", "rank"]
    assert [r.kind for r in Overfitting().asks(fit_record(curve(climb=0.0)))] == ["train_eval"]

    def advice():
        (found,) = verdict(made)
        return {r.id: r.how for r in found.remedies}["smaller-model"]

    assert "effective rank: not measured" in advice()
    weight = {"name": "a.weight", "module": "a", "kind": "weight", "shape": [32, 64], "numel": 2048, "trainable": True}
    narrow = {"name": "b.weight", "module": "b", "kind": "weight", "shape": [8, 32], "numel": 256, "trainable": True}
    made.set_fact("parameters", [narrow, weight | {"name": "a.bias", "kind": "bias"}, weight])
    made.append("weight_rank", "end", 200, [[2.0, 4.0, 5.0], [np.nan] * 3, [3.0, 9.0, 11.0]])
    assert "90 % of its weights' energy lies in 11 of 32 in 'a', 5 of 8 in 'b' directions" in advice()
