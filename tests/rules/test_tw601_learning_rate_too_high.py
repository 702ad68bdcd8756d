import numpy as np
import pytest
import saddles
import torch
from synthetic_gradients import chain, digits, make_record, mlp, train, tried
from torch import nn

import trainwatch
from trained import split
from trainwatch.config import Settings
from trainwatch.diagnosis import Severity
from trainwatch.engine import judge
from trainwatch.rules import NotChecked
from trainwatch.rules.tw601_learning_rate_too_high import EFFECTS, LATER, LearningRateTooHigh
from trainwatch.symptoms.losses import loss_course

RULE = LearningRateTooHigh()
STEPS, DEPTH = 200, 3
RNG = np.random.default_rng(0)
NOISE = 0.03 * RNG.normal(size=STEPS)
LEARNING = 2.3 * np.exp(-np.arange(STEPS) / 50) + NOISE
LEAP = np.r_[2.3, 40.0, 25.0, 12.0, 6.0, 2.35 + NOISE[5:]]
RELAPSE = np.r_[LEARNING[:120], np.full(80, 2.4) + NOISE[120:]]
PARAMETERS, MODULES = chain(DEPTH)
RMS, WEIGHT = 1e-2, 96**-0.5  # of the gradient, and of the weights at the start: lr=1 moves them by 9.8 %


def record(losses=LEAP, lr=100.0, *, optimizer="SGD", scale=1.0, rms=RMS, **more):
    losses = np.asarray(losses)
    table = np.full((len(losses), 2 * DEPTH), float(rms))
    return make_record(
        scale * losses, scale * table, parameters=PARAMETERS, modules=MODULES, lr=lr, optimizer=optimizer, **more
    )


def ids(found):
    return [r.id for r in found.remedies]


def verdict(made, **thresholds):
    return list(LearningRateTooHigh(**thresholds).check(made))


@pytest.mark.parametrize("lr", [10.0, 100.0, 1e4])
def test_fires_on_a_leap_that_is_never_made_good(lr):
    (found,) = verdict(record(lr=lr))
    assert found.severity == Severity.ERROR
    assert found.onset_step == 1
    assert found.margin > 5
    assert found.evidence[0].value == pytest.approx(lr * RMS / WEIGHT)


def test_the_message_says_how_much_when_and_what_came_of_it_once():
    (found,) = verdict(record())
    assert found.summary == (
        "With a learning rate of 100 the update at step 0 was 9.8 times the weights' length; the loss rose at step 1 "
        "and the run is no better for training: 2.3 at the start, 2.34 at best, 2.35 at the end (2.3 is chance)"
    )


def test_fires_on_a_gain_that_is_lost_in_mid_run():
    (found,) = verdict(record(RELAPSE))
    assert found.onset_step == 120


def test_fires_at_once_where_the_loss_is_not_finite():
    (found,) = verdict(record([2.3, 1e9, np.inf, np.inf]))
    assert found.onset_step == 1


def test_weights_that_are_not_finite_from_the_start_are_no_matter_of_the_rate():
    model = mlp(2, nn.ReLU)
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
    x, y = torch.randn(64, model[0].in_features), torch.arange(64) % 2
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    watch = trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True, "probes": "off"})
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    codes = [d.code for d in watch.finish().findings()]
    assert "TW303" in codes
    assert "TW601" not in codes


def test_a_loss_that_was_never_finite_is_no_matter_of_the_rate():
    assert verdict(record(np.full(STEPS, np.inf), lr=4.0)) == []
    assert len(verdict(record(np.r_[2.3, np.full(STEPS - 1, np.inf)], lr=4.0))) == 1


@pytest.mark.parametrize(("share", "fires"), [(0.55, True), (0.45, False)])
def test_a_leap_goes_up_by_half_of_the_loss_of_chance(share, fires):
    losses = 2.3 + NOISE
    losses[50:52] = losses[0] + share * np.log(10)
    assert bool(verdict(record(losses, lr=2.0))) is fires


@pytest.mark.parametrize(("deviations", "fires"), [(5.5, True), (4.5, False)])
def test_a_leap_stands_out_of_the_noise_by_five_standard_deviations(deviations, fires):
    """The loss goes up and down by 0.6 all along, and two losses in mid-run are higher."""
    losses = 2.0 + 0.6 * (np.arange(STEPS) % 2)
    losses[50:52] = losses[0] + deviations * loss_course(record(losses)).noise
    assert bool(verdict(record(losses, lr=2.0))) is fires


@pytest.mark.parametrize(("gained", "fires"), [(0.08, True), (0.12, False)])
def test_behind_a_leap_a_tenth_of_the_loss_of_chance_gone_is_enough(gained, fires):
    losses = np.r_[LEAP[:5], np.log(10) * (1 - gained) + NOISE[5:]]
    assert bool(verdict(record(losses, lr=2.0))) is fires


@pytest.mark.parametrize(("decades", "fires"), [(1.8, True), (2.2, False)])
def test_a_gradient_that_rises_a_hundredfold_before_any_update_is_the_cause(decades, fires):
    parameters, modules = chain(8)
    rms = np.tile(np.repeat(10 ** np.linspace(decades, 0, 8), 2), (STEPS, 1))
    assert bool(verdict(make_record(LEAP, rms, parameters=parameters, modules=modules, lr=100.0))) is fires


def test_of_steps_that_are_too_long_all_along_the_margin_is_the_lacking_gain_in_standard_errors():
    (found,) = verdict(made := record(2.3 + NOISE, lr=4.0))
    course = loss_course(made)
    assert found.margin == pytest.approx((0.75 - course.gained) / course.gained_error)
    (exact,) = verdict(record(np.full(STEPS, 2.3), lr=4.0))
    assert exact.margin == 1e3


SILENT = {
    "it learns": record(LEARNING),
    "a leap that is made good": record(np.r_[2.3, 40.0, 25.0, 12.0, LEARNING[4:]]),
    "a spike in mid-run": record(np.r_[LEARNING[:100], 30.0, LEARNING[101:]]),
    "a spike near the end": record(np.r_[LEARNING[:195], 30.0, LEARNING[196:]]),
    "stuck from the start without a leap": record(2.3 + NOISE, lr=2.0),
    "noise as large as the leap": record(2.3 + np.abs(20 * NOISE), lr=2.0),
    "a leap after a step of sane length": record(lr=1.0),
    "some of the gain is lost": record(np.r_[LEARNING[:120], np.full(80, 1.0)], lr=2.0),
    "long steps all along that lead somewhere": record(np.r_[LEARNING[:120], np.full(80, 0.2)]),
}


@pytest.mark.parametrize("made", SILENT.values(), ids=SILENT)
def test_silent(made):
    assert verdict(made) == []


@pytest.mark.parametrize("losses", [2.3 + NOISE, np.r_[LEARNING[:120], np.full(80, 1.0)]], ids=["stuck", "stopped"])
def test_steps_that_are_too_long_all_along_need_no_leap(losses):
    """An update of 0.3 of the weights and more, on average, and the loss comes to rest high above zero."""
    (found,) = verdict(record(losses, lr=4.0))
    assert found.evidence[0].value == pytest.approx(4.0 * RMS / WEIGHT)
    assert found.evidence[0].threshold == 0.3
    assert found.onset_step == 0
    assert verdict(record(losses, lr=2.0)) == []


def test_steps_longer_than_the_weights_must_have_led_to_a_good_loss():
    nearly = np.r_[LEARNING[:120], np.full(80, 0.4)]
    (found,) = verdict(record(nearly, lr=5.5))
    assert found.evidence[1].threshold == 0.9
    assert verdict(record(nearly, lr=4.8)) == []
    assert verdict(record(np.r_[LEARNING[:120], np.full(80, 0.2)], lr=12.0)) == []


def validated(made, loss, criterion="cross_entropy", passes=3):
    for i in range(passes):
        made.append("val_loss", "val", STEPS - passes + i + 1, loss)
    made.set_fact("validation", {"val": {"kind": "val", "primary": True, "criterion": criterion}})
    return made


RECOVERS = np.r_[LEAP[:5], LEARNING[5:]]


@pytest.mark.parametrize(("times", "fires"), [(1.6, True), (1.4, False)])
def test_behind_a_leap_a_net_that_learned_by_heart_what_is_lost_in_validation_is_no_better(times, fires):
    made = validated(record(RECOVERS, lr=2.0), times * np.log(10))
    found = verdict(made)
    assert bool(found) is fires
    if fires:
        assert found[0].summary.endswith("at step 1 and no pass of validation came below 3.68 (2.3 is chance)")
        assert found[0].evidence[1].threshold == pytest.approx(1.5 * np.log(10))
        assert found[0].margin == pytest.approx((1.6 / 1.5 - 1) / 1e-3)


@pytest.mark.parametrize(
    ("losses", "loss", "criterion"),
    [(LEARNING, 4.0, "cross_entropy"), (RECOVERS, 4.0, "l1_loss"), (RECOVERS, np.inf, "cross_entropy")],
    ids=["no leap", "another criterion", "not finite"],
)
def test_a_high_validation_loss_alone_is_no_matter_of_the_rate(losses, loss, criterion):
    assert verdict(validated(record(losses, lr=2.0), loss, criterion)) == []


def test_a_validation_loss_of_another_criterion_does_not_tell_though_a_guess_is_known_of_it():
    made = validated(record(RECOVERS, lr=2.0), 4.0, "mse_loss")
    made.append("val_spread", "val", STEPS, np.array([0.0, 1.0]))
    assert verdict(made) == []


def test_what_training_lost_is_told_before_what_validation_did():
    (found,) = verdict(validated(record(), 4.0))
    assert found.summary == verdict(record())[0].summary


def test_one_pass_of_validation_below_chance_is_enough():
    made = validated(record(RECOVERS, lr=2.0), 4.0)
    assert len(verdict(made)) == 1
    made.append("val_loss", "val", STEPS + 1, 1.0)
    assert verdict(made) == []


def test_the_lowest_pass_is_above_chance_by_its_standard_errors():
    made = validated(record(RECOVERS, lr=2.0), 4.0)
    made.append("val_group_size", "val", 0, np.ones(4))
    for step in range(STEPS - 2, STEPS + 1):
        made.append("val_sample_loss", "val", step, [2.0, 4.0, 4.0, 6.0])
    (found,) = verdict(made)
    assert found.margin == pytest.approx((4.0 - 1.5 * np.log(10)) / np.sqrt(2 * (2.0 / 4) ** 2), rel=1e-3)


def test_steps_as_long_as_half_the_weights_must_have_led_there_in_validation_too():
    good = np.r_[LEARNING[:120], np.full(80, 0.1)]
    (found,) = verdict(validated(record(good, lr=6.0), 0.6))
    assert found.evidence[1].value == pytest.approx(1 - 0.6 / np.log(10))
    assert verdict(validated(record(good, lr=6.0), 0.1)) == []
    assert verdict(validated(record(good, lr=4.5), 2.0)) == []  # of shorter ones training tells
    assert verdict(validated(record(good, lr=6.0), 0.6, "l1_loss")) == []
    assert verdict(validated(record(good, lr=6.0), 0.6, passes=2)) == []


def test_what_smoothed_labels_leave_of_the_loss_cannot_be_removed_in_validation_either():
    made = validated(record(np.r_[LEARNING[:70], np.full(130, 0.6)], lr=6.0), 0.62)
    assert len(verdict(made)) == 1
    facts = made.facts["loss"]["cross_entropy"]
    made.set_fact("loss", {"cross_entropy": {**facts, "arguments": {"label_smoothing": 0.1}}})
    assert verdict(made) == []


@pytest.mark.parametrize(("layers", "end", "said"), [(1, 2.2, True), (1, 1.0, False), (2, 1.0, True)])
def test_a_single_layer_has_a_minimum_of_its_own(layers, end, said):
    parameters, modules = chain(layers)
    losses = np.r_[np.linspace(2.3, end, 100), np.full(100, end)] + NOISE
    made = make_record(losses, np.full((STEPS, 2 * layers), RMS), parameters=parameters, modules=modules, lr=12.0)
    assert bool(verdict(made)) is said


@pytest.mark.parametrize(("high", "said"), [(1, False), (2, True)])
def test_one_high_loss_is_no_leap_two_in_a_row_are(high, said):
    """In a run that stays at chance, behind one long first step."""
    losses = 2.3 + NOISE
    losses[50 : 50 + high] = 12.0
    made = record(losses, lr=1e-3)
    made.append("lr", "default/0", [40, 55], [2.0, 1e-3])
    found = verdict(made)
    assert [d.onset_step for d in found] == ([50] if said else [])


def test_weights_that_begin_near_zero_do_not_make_the_steps_long():
    tiny = [p | {"norm": p["norm"] / 100} for p in PARAMETERS]
    table = np.full((STEPS, 2 * DEPTH), RMS)
    made = make_record(2.3 + NOISE, table, parameters=tiny, modules=MODULES, lr=0.5)
    assert verdict(made) == []
    assert len(verdict(make_record(2.3 + NOISE, table, parameters=tiny, modules=MODULES, lr=5.0))) == 1


def test_a_restart_of_the_schedule_that_recovers_is_no_fault():
    losses = np.r_[LEARNING[:100], LEARNING[20:120]]
    assert verdict(record(losses, lr=2.0)) == []


def test_the_length_of_a_step_of_adam_is_the_rate_a_weight():
    (found,) = verdict(record(optimizer="AdamW", lr=0.1, rms=1e-9))
    assert found.evidence[0].value == pytest.approx(0.1 / WEIGHT)
    assert verdict(record(optimizer="AdamW", lr=0.01, rms=1e9)) == []


def test_momentum_lengthens_the_step():
    made = record(lr=0.5)
    assert verdict(made) == []
    optimizers = made.facts["optimizers"]
    optimizers["default"]["groups"][0]["momentum"] = 0.9
    made.set_fact("optimizers", optimizers)
    assert len(verdict(made)) == 1


@pytest.mark.parametrize(("limit", "said"), [(1.0, True), (1e-4, False)])
def test_a_step_is_as_long_as_clipping_leaves_it(limit, said):
    made = record(regularisation={"clipping": {"max_norm": limit}})
    assert bool(verdict(made)) == said


def test_the_rate_is_that_of_the_step():
    """A warm-up: the first steps are short, the one before the leap is not."""
    made = record(RELAPSE, lr=1e-3)
    made.append("lr", "default/0", 110, 100.0)
    (found,) = verdict(made)
    assert found.summary.startswith("With a learning rate of 100 the update at step 11")


@pytest.mark.parametrize(("lr", "then", "at"), [(1e-3, 2.0, 121), (2.0, 1e-3, 20)], ids=["after", "long before"])
def test_long_steps_at_another_time_are_not_to_blame(lr, then, at):
    made = record(RELAPSE, lr=lr)
    made.append("lr", "default/0", at, then)
    assert verdict(made) == []


def test_an_unknown_optimiser_is_not_judged():
    with pytest.raises(NotChecked, match="a step of Adafactor is not known"):
        verdict(record(optimizer="Adafactor"))


def test_it_waits_for_enough_steps():
    with pytest.raises(NotChecked, match="only 29 steps"):
        verdict(record(LEAP[:29]))
    assert len(verdict(record(LEAP[:30]))) == 1


def test_amplification_before_any_update_is_the_cause_and_not_the_step():
    made = record()
    parameters, modules = chain(8)
    rms = np.tile(np.repeat(10 ** np.linspace(4, 0, 8), 2), (STEPS, 1))
    assert len(verdict(made)) == 1
    assert verdict(make_record(LEAP, rms, parameters=parameters, modules=modules, lr=100.0)) == []


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_the_loss_does_not_matter_where_the_step_is_as_long(scale):
    (found,) = verdict(record(scale=scale, lr=100 / scale, classes=None))
    (plain,) = verdict(record(classes=None))
    assert found.margin == pytest.approx(plain.margin, rel=1e-3)
    assert verdict(record(LEARNING, scale=scale, lr=100 / scale, classes=None)) == []
    assert len(verdict(record(optimizer="Adam", scale=scale, lr=0.1, classes=None))) == 1


def test_the_proposed_rate_makes_the_step_a_hundredth_of_the_weights():
    (found,) = verdict(record())
    assert found.remedies[0].id == "lower-learning-rate"
    assert found.remedies[0].title == "Lower the learning rate from 100 to about 0.1"
    assert [r.id for r in found.remedies[1:]] == ["warm-up", "gradient-clipping"]


def test_a_shorter_step_that_did_better_is_told_and_bounds_the_proposed_rate():
    weak = record(optimizer="Adam", lr=0.011)  # an update of 11 % of the weights
    plain = verdict(weak)[0].remedies[0].title
    (found,) = verdict(tried(weak, 1 / 64))
    assert plain == "Lower the learning rate from 0.011 to about 0.001"
    assert found.remedies[0].title == "Lower the learning rate from 0.011 to about 0.0002"
    assert "the step after 200 did best at 0.015625 times its length" in found.remedies[0].why
    assert (found.evidence[-1].value, found.evidence[-1].threshold) == (1 / 64, 1.0)


@pytest.mark.parametrize(
    ("steps", "finished", "proposed"), [(200, False, 0.01), (800, True, 0.01), (200, True, 0.02), (40, True, 0.03)]
)
def test_a_run_that_ended_after_few_steps_is_given_longer_ones(steps, finished, proposed):
    """All of them together are to come to four lengths of the weights, by no more than 3 % at a time."""
    made = record(2.3 + NOISE[:1].repeat(steps), lr=4.0)
    made.set_fact("run", {"finished": finished, "steps": steps})
    (found,) = verdict(made)
    rate = float(found.remedies[0].title.split()[-1])
    assert rate == pytest.approx(4.0 * proposed / (4.0 * RMS / WEIGHT), rel=0.1)
    assert f"about {proposed:.0%} of the weights' length" in found.remedies[0].why


def test_a_shorter_step_that_is_longer_than_what_is_proposed_is_only_told():
    (found,) = verdict(tried(record(), 0.25))
    assert found.remedies[0].title == "Lower the learning rate from 100 to about 0.1"
    assert found.evidence[-1].value == 0.25


@pytest.mark.parametrize(("best", "error"), [(0.0, 0.01), (1.0, 0.01), (8.0, 0.01), (0.25, 0.06)])
def test_what_no_shorter_step_improved_beyond_noise_is_not_told(best, error):
    (found,) = verdict(tried(record(), best, error=error))
    assert "coming step" not in found.evidence[-1].name


@pytest.mark.parametrize(("losses", "asks"), [(LEAP, True), (LEARNING, False), (LEAP[:10], False)])
def test_it_asks_for_shorter_steps_where_it_would_fire(losses, asks):
    assert [r.kind for r in RULE.asks(record(losses)) if r.kind != "lower_start"] == ["step_line"] * asks


HALF = 2.3 - 1.2 * np.arange(STEPS) / STEPS + NOISE


LOW = np.r_[2.3, LEARNING[1:] / 9]


@pytest.mark.parametrize(("losses", "first"), [(LEARNING, False), (HALF, True)])
def test_the_copy_at_a_lower_rate_comes_before_one_that_goes_on_where_little_was_learned(losses, first):
    """A copy that goes on has a priority of 0.66."""
    asked = [r.priority for r in RULE.asks(record(losses, 1.2)) if r.kind == "lower_start"]
    assert [priority > 0.66 for priority in asked] == [first] * len(asked)
    assert bool(asked) or not first


@pytest.mark.parametrize(("lr", "losses", "asks"), [(1.2, HALF, 1), (0.9, HALF, 0), (1.2, LOW, 0)])
def test_it_asks_for_copies_where_steps_are_long_and_something_is_left_to_learn(lr, losses, asks):
    assert [r.kind for r in RULE.asks(record(losses, lr))] == ["lower_start"] * asks


def with_calmer_copies(lr=1.2, before=1.1, *, losses=HALF, usual=0.9, slower=0.5, error=0.02, training=0.4, best=None):
    """A run that fell to half, and two copies that began anew, one at a fifth of the rate, and were lowered."""
    made = record(losses, lr)
    for step, loss in enumerate([before] if best is None else [best, before]):
        made.append("val_loss", "val", STEPS + step, loss)
    made.set_fact("validation", {"val": {"kind": "val", "primary": True, "criterion": "cross_entropy"}})
    row = [1.1, training, training, 0.01, 0.01, before, usual, slower, error, error]
    made.append("lower_start", "held", STEPS - 1, [0.2, *row])
    return made


@pytest.mark.parametrize(
    ("copies", "lead", "said", "cures"),
    [
        ({}, 0.6, "at 0.2 times that rate", ["lower-learning-rate", "decay-learning-rate"]),
        ({"usual": 0.3}, 0.8, "at such a rate", ["decay-learning-rate", "lower-learning-rate"]),
    ],
    ids=["slower", "lowered"],
)
def test_a_copy_whose_rate_falls_decides_where_steps_are_long(copies, lead, said, cures):
    (found,) = verdict(with_calmer_copies(**copies))
    assert found.severity == Severity.WARNING
    assert f"a copy that began again {said}, which then fell to nothing, came to a validation loss" in found.summary
    assert (found.evidence[0].value, found.evidence[0].threshold) == (pytest.approx(0.118, rel=0.02), RULE.long)
    assert found.evidence[1].value == pytest.approx(lead)
    assert ids(found) == cures
    assert "0.2" in found.remedies[cures.index("lower-learning-rate")].how
    assert verdict(with_calmer_copies(0.9, **copies)) == []
    assert verdict(record(HALF, 1.2)) == []


NO_BETTER = {
    "than the run": {"before": 0.6},
    "than the run at its best": {"best": 0.6},
    "beyond noise": {"error": 0.4},
    "in training": {"training": 1.0},
}


@pytest.mark.parametrize("how", NO_BETTER.values(), ids=NO_BETTER)
def test_a_copy_that_is_no_better_decides_nothing(how):
    assert verdict(with_calmer_copies(**how)) == []


COPIES_OF_LONG_STEPS = {
    "as far and no further": ({"training": 1.08, "slower": 1.1, "usual": 1.1}, False),
    "lower in training and in validation": ({"training": 0.97, "slower": 1.08}, True),
    "lower in training, a little higher in validation": ({"training": 0.97, "slower": 1.12, "usual": 1.2}, False),
    "far lower in training alone": ({"training": 0.8, "slower": 1.3, "usual": 1.4}, True),
    "lower in validation": ({"training": 1.12, "slower": 0.9}, True),
    "lower in validation, within noise": ({"training": 1.12, "slower": 0.9, "error": 0.2}, False),
    "lower in validation, worse in training": ({"training": 1.3, "slower": 0.9}, False),
    "they did not learn": ({"training": 1.6, "slower": 2.3, "usual": 2.3}, True),
}


@pytest.mark.parametrize(("copies", "said"), COPIES_OF_LONG_STEPS.values(), ids=COPIES_OF_LONG_STEPS)
def test_steps_that_are_too_long_all_along_did_no_harm_where_shorter_ones_come_no_further(copies, said):
    """A twentieth of the loss of chance, 0.115, counts: in training twice that unless validation gains as well."""
    assert len(verdict(with_calmer_copies(5.5, **copies))) == said


def test_a_run_that_did_not_learn_is_not_cleared_by_copies_that_did_not_either():
    stuck = 2.25 + NOISE
    assert len(verdict(with_calmer_copies(5.5, 2.25, training=1.1, slower=2.25, usual=2.25, losses=stuck))) == 1


@pytest.mark.parametrize(("lr", "said"), [(4.0, False), (5.5, True)])
def test_where_short_steps_get_nowhere_either_that_has_another_cause(lr, said):
    """A fifth of steps of 0.39 of the weights is below 0.1, of 0.54 it is not."""
    stuck = 2.3 + NOISE
    assert len(verdict(with_calmer_copies(lr, 2.3, training=1.1, slower=2.3, usual=2.3, losses=stuck))) == said


def test_how_low_an_unknown_loss_could_get_nobody_knows():
    loss = {"cross_entropy": {"function": "Contrast", "reduction": "mean", "arguments": {}}}
    for losses, said in ((HALF, 0), (2.3 + NOISE, 1)):
        made = record(losses, 4.0)
        made.set_fact("loss", loss)
        assert len(verdict(made)) == said
    made = with_calmer_copies(4.0)
    made.set_fact("loss", loss)
    (found,) = verdict(made)
    assert found.severity == Severity.ERROR, "a copy that comes further tells of what steps all along did"


def test_the_growth_and_the_overflow_that_follow_are_its_consequences():
    rms = np.full((STEPS, 2 * DEPTH), RMS)
    rms[2:50] = 1e5
    rms[50:] = np.inf
    losses = np.r_[LEAP[:50], np.full(150, np.inf)]
    made = make_record(losses, rms, parameters=PARAMETERS, modules=MODULES, lr=100.0)
    report = judge(made, Settings(select=("TW302", "TW303", "TW601"), strict=True))
    (cause,) = report.diagnoses
    assert cause.code == "TW601"
    assert {d.code for d in cause.walk()} == {"TW601", "TW302", "TW303"}


FAULTY = {
    "sgd-100": lambda p: torch.optim.SGD(p, 100.0),
    "sgd-10": lambda p: torch.optim.SGD(p, 10.0),
    "sgd-3-momentum": lambda p: torch.optim.SGD(p, 3.0, momentum=0.9),
    "adam-1": lambda p: torch.optim.Adam(p, 1.0),
}


@pytest.mark.parametrize(("lr", "codes"), [(2.0, ["TW601"]), (0.1, [])])
def test_a_net_that_is_thrown_off_and_learns_by_heart(lr, codes):
    data = split("breast_cancer", 0)
    torch.manual_seed(0)
    model, criterion = nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 2)), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr)
    with trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True, "probes": "off"}) as watch:
        saddles.train(model, optimizer, criterion, data, epochs=20, batch=16)
    end = watch.record.series("train_loss", "cross_entropy").values[-100:].mean()
    assert end < 0.2, "a fifth of what a guess costs"
    found = [d for d in watch.report.diagnoses if d.severity >= "warning"]
    assert [d.code for d in found] == codes
    assert all("no pass of validation came below" in d.summary for d in found)


@pytest.mark.parametrize("optimizer", FAULTY.values(), ids=FAULTY)
def test_fires_on_a_net_that_is_thrown_off(optimizer):
    model = mlp(3, nn.ReLU)
    (found,) = verdict(train(model, optimizer(model.parameters()), *digits(), steps=150))
    assert found.onset_step <= 10
    assert found.margin > 5


def test_the_proposed_rate_cures_it():
    model = mlp(3, nn.ReLU)
    (found,) = verdict(train(model, torch.optim.SGD(model.parameters(), 100.0), *digits(), steps=100))
    rate = float(found.remedies[0].title.split()[-1])
    fresh = mlp(3, nn.ReLU)
    made = train(fresh, torch.optim.SGD(fresh.parameters(), rate), *digits(), steps=300)
    assert verdict(made) == []
    assert made.series("train_loss", "root").values[-20:].mean() < 1.0


HEALTHY = {
    "adam": lambda p: torch.optim.Adam(p, 3e-3),
    "adam, high": lambda p: torch.optim.Adam(p, 3e-2),
    "sgd, high": lambda p: torch.optim.SGD(p, 0.5),
    "sgd with momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
}


@pytest.mark.parametrize("optimizer", HEALTHY.values(), ids=HEALTHY)
def test_silent_on_a_net_that_learns(optimizer):
    model = mlp(3, nn.ReLU)
    assert verdict(train(model, optimizer(model.parameters()), *digits(), steps=150)) == []


def test_it_accounts_for_what_long_steps_do():
    assert set(LearningRateTooHigh.explains) == {*EFFECTS, *LATER, "TW303"}
    assert {"TW204", "TW304", "TW603"} < set(EFFECTS)


@pytest.mark.parametrize("code", ["TW201", "TW202", "TW302", "TW303"])
def test_it_accounts_for_what_may_have_other_causes_only_if_it_came_first(code):
    (cause,) = verdict(record(RELAPSE))
    explains = LearningRateTooHigh.explains[code]
    assert explains(cause, cause.with_(code=code, onset_step=cause.onset_step + 1))
    assert not explains(cause, cause.with_(code=code, onset_step=cause.onset_step - 1))


def test_a_copy_is_as_sure_as_its_lead_is_beyond_what_counts():
    (found,) = verdict(with_calmer_copies(error=0.04))
    assert found.margin == pytest.approx((0.6 - found.evidence[1].threshold) / 0.04)


@pytest.mark.parametrize(("slower", "found"), [(0.95, 1), (1.01, 0)])
def test_a_calmer_copy_must_lead_by_a_twentieth_of_the_loss_of_chance(slower, found):
    assert len(verdict(with_calmer_copies(usual=2.0, slower=slower))) == found


@pytest.mark.parametrize(("lost", "found"), [(0.6, 0), (0.8, 1)])
def test_most_of_what_was_gained_must_be_lost_again(lost, found):
    low = float(LEARNING[110:120].mean())
    made = np.r_[LEARNING[:120], np.full(80, low + lost * (2.3 - low)) + NOISE[120:]]
    assert len(verdict(record(made, 1.5))) == found


def test_samples_that_are_broken_are_left_to_the_rule_on_spikes():
    spiky = RELAPSE.copy()
    spiky[[20, 40, 60, 80, 100]] += 20.0
    assert len(verdict(record(spiky))) == 1
    made = record(spiky)
    made.append("row_sizes", "train", 199, [500, 1.0, 900.0, 3, 60, 7, 100, 1, *[np.nan] * 6])
    with pytest.raises(NotChecked, match="TW604"):
        verdict(made)
