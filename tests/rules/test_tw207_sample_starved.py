import numpy as np
import pytest
from synthetic import fit_record

from trained import trained
from trainwatch.diagnosis import Severity
from trainwatch.rules import NotChecked
from trainwatch.rules.tw207_sample_starved import SampleStarved

RESTS = np.r_[np.linspace(2.3, 0.8, 8), np.full(12, 0.8)]
GUESS = 2.3
LOSS = {"cross_entropy": {"function": "cross_entropy", "reduction": "mean", "arguments": {}, "classes": 10}}


def starved(
    *, validation=RESTS, losses=(1.6, 1.2, 0.95), error=0.02, net=0.8, samples=100, known=100, training=0.05,
    gap_error=0.03, probed=True, **facts,
):  # fmt: skip
    run = {"steps": 200, "finished": True, "train_samples": known}
    record = fit_record(validation, **{"run": run, "loss": LOSS, "task": "multiclass", **facts})
    if probed:
        record.append("learning_curve", "forest", 199, [samples, *losses, error, net, GUESS, 400])
        record.append("evaluated_loss", "held", 199, [training, 0.005, training, net, gap_error])
    return record


def verdict(record, **thresholds):
    return list(SampleStarved(**thresholds).check(record))


def test_more_samples_would_help():
    (found,) = verdict(starved())
    assert found.severity == Severity.WARNING
    assert found.margin > 2
    assert "validation keeps 35% of the loss of a constant guess at its best, training 2% at the end" in found.summary
    gain, best, gap = found.evidence
    assert gain.value == pytest.approx(0.25 * 0.25 / 0.4 * 0.8 / 0.95, rel=1e-2)  # the net is ahead of the forest
    assert gain.threshold == pytest.approx(0.04 * GUESS)
    assert best.value == pytest.approx(0.8, abs=0.01)
    assert gap.value == pytest.approx(0.75)
    assert "forests gain, which come to 1.6 with 25, 1.2 with 50, 0.95 with 100" in gain.note
    assert found.margin == pytest.approx((gain.value - gain.threshold) / (0.02 * 0.25 / 0.4 * 0.8 / 0.95), rel=0.05)


def with_copies(half=1.2, whole=0.9, error=0.02, samples=100, **how):
    record = starved(**how)
    record.append("own_curve", "held", 199, [samples, half, whole, error, 0.8, 400])
    return record


def test_copies_of_the_network_tell_where_a_forest_does_not():
    flat = {"losses": (1.0, 0.97, 0.95)}
    assert verdict(starved(**flat)) == []
    (found,) = verdict(with_copies(**flat))
    assert found.evidence[0].value == pytest.approx(0.3 * 0.5**0.5 * 0.8 / 0.9, rel=1e-2)
    assert "copies of the network gain, which come to 1.2 with 50, 0.9 with 100" in found.evidence[0].note
    (found,) = verdict(with_copies(losses=(2.2, 1.9, 1.6)))  # a forest that is far worse
    assert "copies" in found.summary


def test_copies_that_gain_nothing_leave_it_to_the_forest():
    (found,) = verdict(with_copies(half=0.9))
    assert "forests" in found.summary
    assert verdict(with_copies(half=0.9, losses=(1.0, 0.97, 0.95))) == []
    assert verdict(with_copies(error=0.5, losses=(1.0, 0.97, 0.95))) == []


def test_copies_of_a_network_need_no_forest():
    record = fit_record(RESTS, run={"steps": 200, "finished": True, "train_samples": 100}, loss=LOSS, task="multiclass")
    record.append("evaluated_loss", "held", 199, [0.05, 0.005, 0.05, 0.8, 0.03])
    record.append("own_curve", "held", 199, [100, 1.2, 0.9, 0.02, 0.8, 400])
    (found,) = verdict(record)
    assert found.evidence[1].threshold == pytest.approx(0.15 * np.log(10), rel=0.05)


SILENT = {
    "validation is good": {"validation": RESTS / 3, "net": 0.27},
    "training is no better": {"training": 0.7},
    "training is not learned": {"training": 0.45, "gap_error": 0.01},
    "the gap is noise": {"gap_error": 0.5},
    "the curve is flat": {"losses": (1.0, 0.97, 0.95)},
    "the gain is noise": {"error": 0.2},
    "a net so far ahead gains less": {"validation": RESTS / 1.9, "net": 0.42, "losses": (1.4, 1.1, 0.9)},
    "it was good before it overfitted": {"validation": np.r_[np.linspace(2.3, 0.3, 8), np.linspace(0.3, 0.8, 12)]},
}


@pytest.mark.parametrize("how", SILENT.values(), ids=SILENT)
def test_it_is_silent(how):
    assert verdict(starved(**how)) == []


ABSTAINS = {
    "not ended": ({"run": {"steps": 200, "finished": False}}, "not ended"),
    "many more samples": ({"known": 1000}, "100 of 1000"),
    "poor forest": ({"losses": (2.2, 1.9, 1.6)}, "far worse"),
    "not measured": ({"probed": False}, "not measured"),
    "still falling": ({"validation": np.linspace(2.3, 0.8, 20)}, "still have been falling"),
}


@pytest.mark.parametrize(("how", "reason"), ABSTAINS.values(), ids=ABSTAINS)
def test_it_abstains(how, reason):
    with pytest.raises(NotChecked, match=reason):
        verdict(starved(**how))


def test_where_validation_is_good_nothing_need_be_measured():
    assert verdict(starved(validation=RESTS / 5, probed=False)) == []


def test_the_loss_of_held_batches_alone_does_not_tell_what_samples_are_worth():
    record = starved(probed=False)
    record.append("evaluated_loss", "held", 199, [0.05, 0.005, 0.05, 0.8, 0.03])
    with pytest.raises(NotChecked, match="not measured"):
        verdict(record)


@pytest.mark.parametrize(("training", "found"), [(0.25, 1), (0.29, 0)])
def test_the_gap_is_a_tenth_of_the_guess(training, found):
    """0.25 and 0.21 of 2.3."""
    how = {"validation": RESTS * 0.5 / 0.8, "net": 0.5, "losses": (1.4, 1.0, 0.7)}
    assert len(verdict(starved(training=training, **how), fitted=0.9)) == found


@pytest.mark.parametrize(("training", "found"), [(0.39, 1), (0.41, 0)])
def test_half_of_the_validation_loss_is_gone_in_training(training, found):
    assert len(verdict(starved(training=training, gap_error=0.01))) == found


@pytest.mark.parametrize(
    ("known", "facts", "counted", "ratio"),
    [
        (150, {}, 150, "26.7 parameters per training sample"),
        (150, {"parameters": []}, 150, "150 samples"),
        (None, {}, 100, "40 parameters per training sample"),
        (None, {"parameters": []}, 100, "100 samples"),
    ],
)
def test_samples_are_those_of_the_run_else_those_that_are_held(known, facts, counted, ratio):
    (found,) = verdict(starved(known=known, **facts))
    assert f"twice the {counted} samples" in found.summary
    assert f"There are {ratio} for the network" in found.remedies[0].why


@pytest.mark.parametrize(
    "thresholds", [{"poor": 0.5}, {"gap": 0.5}, {"gain": 0.2}, {"errors": 30.0}, {"behind": 0.01}, {"held": 1.5}]
)
def test_each_threshold_can_silence_it(thresholds):
    try:
        assert verdict(starved(), **thresholds) == []
    except NotChecked:
        assert thresholds.keys() & {"behind", "held"}


def test_it_asks_where_validation_is_worse_than_training():
    def asked(**how):
        return {wish.kind for wish in SampleStarved().asks(starved(**how))}

    assert asked(probed=False) == {"train_eval"}, "a cheap look tells whether the dear ones are worth their time"
    assert asked() == {"learning_curve", "own_curve", "prior"}
    assert asked(training=0.5) == asked(training=0.7, net=0.75) == asked(gap_error=0.5) == set()
    assert asked(validation=RESTS / 5) == asked(validation=RESTS / 5, probed=False) == set()
    alike = fit_record(RESTS, training=RESTS + 0.2, run={"steps": 200, "finished": True}, loss=LOSS, task="multiclass")
    assert list(SampleStarved().asks(alike)) == []


def remedies(record):
    (found,) = verdict(record)
    return {remedy.id: remedy for remedy in found.remedies}


def test_all_seven_ways_are_there_and_say_what_was_not_measured():
    found = remedies(starved())
    assert [*found] == ["more-data", "prior-augmentation", "pretrained", "prior-features", "prior-loss",
                        "bayesian-prior", "prior-rules", "distillation"]  # fmt: skip
    for name in ("prior-augmentation", "pretrained", "prior-features", "prior-rules", "distillation"):
        assert "not measured" in found[name].why
    assert "worst tenth of the samples makes up" in found["prior-loss"].why


def test_they_carry_what_was_measured():
    record = starved(regularisation={"weight_decay": 0.01})
    record.append("input_change", "shift", 199, [0.8, 2.0, 0.1, 0.93, 0.61])
    record.append("input_change", "flip", 199, [0.8, 0.9, 0.1, 0.93, 0.9])
    record.append("feature_importance", "val", 199, np.r_[0.0, 0.5, 0.01, np.full(61, np.nan)])
    record.append("linear_probe", "inputs", 199, [0.7, 0.8, 0.05])
    record.append("weight_spread", "end", 199, 0.2)
    found = remedies(record)
    assert "a shift by one pixel takes the accuracy from 0.930 to 0.610" in found["prior-augmentation"].why
    assert "torch.roll" in found["prior-augmentation"].how
    assert "1 (loss + 0.5)" in found["prior-features"].why
    assert "2 of 3 could be shuffled" in found["prior-features"].why
    assert "no better than the bare inputs" in found["pretrained"].why
    assert "the decay of 0.01 implies 1, and the weights have 0.2" in found["bayesian-prior"].why
    assert "0.2 gives 0.25" in found["bayesian-prior"].how
    assert found["bayesian-prior"].already_in_use
    assert [*found][-1] == "bayesian-prior"


def test_numbers_have_no_accuracy():
    record = starved()
    record.append("input_change", "noise", 199, [0.8, 1.1, 0.1, np.nan, np.nan])
    assert "takes the loss from 0.8 to 1.1" in remedies(record)["prior-augmentation"].why


def said(data, seed, **how):
    report = trained(data, seed, judges=["TW207"], **how)
    return [d for root in report.diagnoses for d in root.walk() if d.code == "TW207"]


STARVED = [("digits", {"few": 60, "epochs": 80}, 1), ("friedman", {"few": 80, "epochs": 150}, 0)]


@pytest.mark.parametrize(("data", "how", "seed"), STARVED)
def test_real_runs_on_few_samples(data, how, seed):
    assert said(data, seed, **how)


# Enough samples, and targets that are mostly noise: more of those would not help.
ENOUGH = [("digits", {"epochs": 12}, 0), ("wine", {"epochs": 12}, 1), ("diabetes", {"epochs": 60, "width": 128}, 2)]


@pytest.mark.parametrize(("data", "how", "seed"), ENOUGH)
def test_real_runs_that_more_samples_would_not_help(data, how, seed):
    assert not said(data, seed, **how)


FLAT = {"losses": (1.0, 0.97, 0.95)}  # to forests
GOOD = RESTS * 0.42 / 0.8  # ends between `poor` and `fair`: 0.18 of the guess


@pytest.mark.parametrize(("half", "found"), [(0.75, 0), (0.8, 1)])
def test_below_a_fifth_of_the_guess_half_of_what_is_left_must_be_gained(half, found):
    how = {"validation": GOOD, "net": 0.42, "half": half, "whole": 0.45, **FLAT}
    assert len(verdict(with_copies(**how))) == found
    assert len(verdict(with_copies(**how), fair=0.15)) == 1


def test_copies_count_where_training_was_ahead_at_the_best_pass():
    """It was at 0.4 of the validation loss there."""
    made = with_copies(**FLAT)
    assert len(verdict(made)) == 1
    assert verdict(made, learned=0.0) == []


@pytest.mark.parametrize(("share", "found"), [(0.83, 1), (0.87, 0)])
def test_training_is_ahead_where_its_loss_is_below_17_in_20_of_that_of_validation(share, found):
    run = {"steps": 200, "finished": True, "train_samples": 100}
    record = fit_record(RESTS, training=share * RESTS, run=run, loss=LOSS, task="multiclass")
    record.append("evaluated_loss", "held", 199, [0.05, 0.005, 0.05, 0.8, 0.03])
    record.append("own_curve", "held", 199, [100, 1.2, 0.9, 0.02, 0.8, 400])
    assert len(verdict(record)) == found


@pytest.mark.parametrize(("error", "found"), [(0.1, 1), (0.14, 0)])
def test_the_gain_counts_beyond_two_standard_errors(error, found):
    """Forests gain 0.25 by the second half."""
    assert len(verdict(starved(error=error))) == found


@pytest.mark.parametrize(("known", "held"), [(190, True), (210, False)])
def test_half_of_the_samples_must_be_held(known, held):
    if held:
        assert len(verdict(starved(known=known))) == 1
    else:
        with pytest.raises(NotChecked, match="are held"):
            verdict(starved(known=known))


@pytest.mark.parametrize(("whole", "found"), [(1.12, 1), (1.14, 0)])
def test_what_copies_gain_must_be_a_part_of_what_is_left(whole, found):
    """Twice the samples: (1.25 - 1.12) / sqrt(2) of the copies, times 0.8 / 1.12 of the net, is 0.066: 8 % of 0.8."""
    assert len(verdict(with_copies(half=1.25, whole=whole, error=0.001, **FLAT), own_gain=0.0)) == found


@pytest.mark.parametrize(("whole", "found"), [(1.105, 1), (1.12, 0)])
def test_what_copies_gain_must_be_three_in_a_hundred_of_the_guess(whole, found):
    """The same with 1.105 is 0.074, with 1.12 it is 0.066: 3 % of 2.3 is 0.069."""
    assert len(verdict(with_copies(half=1.25, whole=whole, error=0.001, **FLAT), part=0.0)) == found
