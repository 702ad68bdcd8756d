import numpy as np
import pytest
import torch
from scaled import table
from scaled import train as train_on_table
from synthetic_gradients import chain, digits, make_record, mlp, train, tried
from torch import nn

import trainwatch
from trainwatch.config import Settings
from trainwatch.diagnosis import Severity
from trainwatch.engine import judge
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.short_steps import LONG, RISEN, further
from trainwatch.rules.tw602_learning_rate_too_low import LearningRateTooLow
from trainwatch.symptoms.losses import loss_course
from trainwatch.symptoms.motion import Reach, reach_of
from trainwatch.symptoms.plateau import RESTS, STARTED

RULE = LearningRateTooLow()
STEPS, DEPTH, CHANCE = 400, 3, 2.3
RNG = np.random.default_rng(0)
NOISE = 0.03 * RNG.normal(size=1000)
STUCK = 2.3 + NOISE[:STEPS]
LEARNING = 2.3 * np.exp(-np.arange(STEPS) / 50) + NOISE[:STEPS]
PARAMETERS, MODULES = chain(DEPTH)
RMS, WEIGHT = 1e-2, 96**-0.5  # of the gradient, and of the weights at the start


def record(path=0.05, losses=STUCK, *, optimizer="SGD", scale=1.0, finished=True, rms=RMS, **more):
    """A run whose updates sum up to `path` of the weights."""
    losses = np.asarray(losses, float)
    lr = path * WEIGHT / len(losses) / (scale * rms if optimizer == "SGD" else 1.0)
    table = np.full((len(losses), 2 * DEPTH), float(rms))
    return make_record(
        scale * losses,
        scale * table,
        parameters=PARAMETERS,
        modules=MODULES,
        lr=lr,
        optimizer=optimizer,
        run={"finished": finished},
        **more,
    )


def ending(gained, steps=STEPS):
    """Losses that begin at chance, and have come to rest with this share of it gone."""
    return CHANCE * (1 - gained * np.minimum(np.arange(steps) / (0.6 * steps), 1)) + NOISE[:steps]


def falling(gained, steps=STEPS):
    """Losses that fall at one pace to the very end; this share of chance is gone in the middle of the last fifth."""
    return CHANCE * (1 - gained * np.arange(steps) / (0.9 * steps)) + NOISE[:steps]


def slowing(share, steps=STEPS):
    """Losses that would gain this share of what they have gained, 30 % of chance, in as many steps again."""
    late = np.log2(np.arange(1, steps + 1) / (0.9 * steps))
    losses = CHANCE * (1 - 0.3 * np.maximum(1 + share * late, 0)) + NOISE[:steps] / 10
    return np.r_[3 * losses[0], losses[1:]]


def verdict(made, **thresholds):
    return list(LearningRateTooLow(**thresholds).check(made))


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "RMSprop"])
@pytest.mark.parametrize("path", [0.0, 1e-7, 1e-3, 0.05, 0.3])
def test_fires_where_all_updates_together_are_short(path, optimizer):
    (found,) = verdict(record(path, optimizer=optimizer))
    assert found.severity == Severity.WARNING
    assert found.onset_step == 0
    assert found.margin > 5
    assert found.evidence[0].value == pytest.approx(path)
    assert found.evidence[0].threshold == RULE.path


def test_fires_on_the_mildest_form():
    """A path just too short, and a loss that went nearly as far as one that is let pass."""
    (found,) = verdict(record(0.9 * RULE.path, falling(0.9 * RULE.learned)))
    assert found.margin > 2


def test_the_message_says_how_far_it_went_and_what_came_of_it():
    (found,) = verdict(record(0.05))
    assert found.summary == (
        "with a learning rate of at most 0.00128 all 400 updates together are about as long as 0.05 of the weights; "
        "the loss went 2.3 at the start, 2.28 at best, 2.3 at the end (2.3 is chance)"
    )
    assert found.evidence[0].note == "SGD, lr 0.00128; usual are 2 to 60"
    assert found.evidence[1].value == pytest.approx(0.0, abs=0.01)
    assert found.evidence[1].threshold == RULE.learned
    assert [e.step for e in found.evidence] == [STEPS - 1, STEPS - 1]


SILENT = {
    "it learns": record(losses=LEARNING),
    "most of the loss is gone": record(losses=falling(0.85)),
    "it was good from the start, as in fine-tuning": record(losses=0.1 * STUCK),
    "a path of usual length that led nowhere": record(10.0),
    "few steps of usual length are a short run": record(0.3, STUCK[:30]),
    "it fell and came to rest": record(losses=ending(0.2)),
    "the end is not finite": record(losses=np.r_[STUCK[:200], np.full(200, np.inf)]),
}


@pytest.mark.parametrize("made", SILENT.values(), ids=SILENT)
def test_silent(made):
    assert verdict(made) == []


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (record(0.9 * RULE.path), record(1.1 * RULE.path)),
        (record(0.9 * RULE.each * 50, STUCK[:50]), record(1.1 * RULE.each * 50, STUCK[:50])),
        (record(losses=falling(0.9 * RULE.learned)), record(losses=falling(1.1 * RULE.learned))),
        (record(losses=ending(0.9 * STARTED)), record(losses=ending(1.1 * STARTED))),
        (record(losses=slowing(1.2 * RESTS)), record(losses=slowing(0.8 * RESTS))),
    ],
    ids=["path", "each", "learned", "started", "rests"],
)
def test_each_threshold_is_where_the_rule_says(short, long):
    assert len(verdict(short)) == 1
    assert verdict(long) == []


def test_a_long_run_of_short_steps_may_still_get_far():
    assert verdict(record(1.5, 2.3 + NOISE)) == []
    assert len(verdict(record(1.5, 2.3 + NOISE), path=2.0)) == 1


def test_steps_of_half_a_thousandth_of_the_weights_are_short():
    (found,) = verdict(record(0.05, STUCK[:100]))
    assert found.evidence[0].value == pytest.approx(0.05)
    assert verdict(record(0.05, STUCK[:100]), each=1e-4) == []


def test_a_single_loss_that_is_not_finite_changes_nothing():
    assert len(verdict(record(losses=np.r_[STUCK[:200], np.inf, STUCK[201:]]))) == 1


def test_some_gain_is_not_enough():
    assert len(verdict(record(losses=falling(0.2)))) == 1


def test_a_loss_that_came_to_rest_because_the_rate_did_might_have_gone_on():
    made = record(losses=ending(0.2))
    made.append("lr", "default/0", 0.8 * STEPS, 1e-9)
    assert len(verdict(made)) == 1


def rising(rates, losses=None, path=10.0):
    """A run whose rate takes these values, as multiples of that which gives the path, one after another."""
    made = record(path, ending(0.5, len(rates)) if losses is None else losses)
    made.append("lr", "default/0", np.arange(len(rates)), np.asarray(rates) * made.series("lr", "default/0").values[0])
    return made


RAMP = np.linspace(0, 1, STEPS)


def test_fires_where_a_warm_up_was_not_over_at_the_end():
    (found,) = verdict(rising(RAMP))
    assert "0.255 the rate was still rising when the run ended; the loss went 2.3 at the start" in found.summary
    error = 1.2533 * 0.03 / (STEPS / 5) ** 0.5 / CHANCE
    assert found.margin == pytest.approx((RULE.good - 0.5) / error, rel=0.3)
    assert found.evidence[1].threshold == RULE.good
    assert len(verdict(rising(RAMP, STUCK, path=0.05))) == 1


@pytest.mark.parametrize(
    ("rates", "losses", "fires"),
    [
        (RAMP, ending(0.85), 1),
        (RAMP, ending(0.95), 0),
        (RAMP[-LONG:] - RAMP[-LONG], None, 1),
        (RAMP[-LONG + 1 :] - RAMP[-LONG], None, 0),
        (np.linspace(2 / (1.1 * RISEN) - 1, 1, STEPS), None, 1),
        (np.linspace(2 / (0.9 * RISEN) - 1, 1, STEPS), None, 0),
        (np.minimum(RAMP, 0.8), None, 0),
        (np.abs(RAMP - 0.2), None, 0),
        (RAMP[::-1], None, 0),
    ],
    ids=["not good yet", "good", "50 steps", "49 steps", "much", "a little", "over at last", "after a fall", "decay"],
)
def test_a_rate_still_rises_if_it_is_highest_at_the_end_and_far_above_that_in_mid_run(rates, losses, fires):
    assert len(verdict(rising(rates, losses))) == fires


@pytest.mark.parametrize(("path", "fires"), [(9.0, True), (11.0, False)])
def test_a_rate_that_still_rises_has_led_far_enough_where_the_path_is_of_usual_length(path, fires):
    assert bool(verdict(rising(RAMP, path=2 * path))) is fires  # the mean of the ramp is a half


def test_a_rate_that_still_rises_is_not_too_low_where_the_loss_is_no_longer_finite():
    assert verdict(rising(RAMP, np.r_[STUCK[:200], np.full(STEPS - 200, np.inf)])) == []


def test_it_is_the_end_that_counts_and_not_the_start():
    assert verdict(record(losses=np.r_[20.0, 10.0, LEARNING[2:]])) == []
    assert len(verdict(record(losses=np.r_[20.0, 10.0, STUCK[2:]]))) == 1


def test_a_loss_that_only_came_back_from_a_leap_has_not_learned():
    losses = np.r_[1.0, 10 * 0.98 ** np.arange(STEPS - 1)].clip(0.95) + NOISE[:STEPS]
    assert len(verdict(record(losses=losses, classes=None, stream="l1_loss"))) == 1


def test_it_waits_for_enough_steps():
    for too_few in (8, RULE.steps - 1):
        with pytest.raises(NotChecked, match=f"only {too_few} steps were seen; {RULE.steps} are needed"):
            verdict(record(0.001, STUCK[:too_few]))
    assert len(verdict(record(0.001, STUCK[: RULE.steps]))) == len(verdict(record(0.001, STUCK[:40]))) == 1


def test_a_run_that_goes_on_is_not_judged():
    with pytest.raises(NotChecked, match="the run has not ended"):
        verdict(record(finished=False))


def several():
    made = record()
    made.append("grad_norm", "other", np.arange(STEPS), np.ones((STEPS, 2)))
    return made


@pytest.mark.parametrize("made", [record(optimizer="Adafactor"), several()], ids=["unknown", "several"])
def test_steps_of_unknown_length_are_not_judged(made):
    with pytest.raises(NotChecked, match="the length of a step is not known"):
        verdict(made)


LACKING = {
    "train_loss": "no training loss was seen",
    "grad_norm": "no gradient was measured",
    "lr": "no learning rate was seen",
}


@pytest.mark.parametrize(("lacking", "reason"), LACKING.items(), ids=LACKING)
def test_a_record_that_lacks_a_measurement_is_not_judged(lacking, reason):
    whole, made = record(), RunRecord()
    for topic, fact in whole.facts.items():
        made.set_fact(topic, fact)
    for quantity, key, series in whole.items():
        if quantity != lacking:
            made.put_series(quantity, key, series)
    settings = Settings(select=("TW602",), strict=True)
    assert [d.code for d in judge(whole, settings).diagnoses] == ["TW602"]
    report = judge(made, settings)
    assert report.diagnoses == ()
    assert report.not_checked == {"TW602": reason}


def test_losses_that_are_not_finite_all_along_have_no_course():
    with pytest.raises(NotChecked):
        verdict(record(losses=np.full(STEPS, np.nan)))


@pytest.mark.parametrize(("share", "fires"), [(0.95, 1), (0.15, 0)], ids=["stuck", "fell"])
def test_where_chance_is_not_known_the_first_loss_is_the_measure(share, fires):
    losses = np.linspace(7.0, 7.0 * share, STEPS) + NOISE[:STEPS]
    assert len(verdict(record(losses=losses, classes=None, stream="l1_loss"))) == fires


def test_chance_under_imbalance_is_the_entropy_of_the_targets():
    """A net that has only learned how frequent the classes are has hardly moved."""
    made = record(losses=STUCK * 0.33 / 2.3)
    assert verdict(made) == []
    made.append("train_classes", "targets", STEPS, np.r_[9000, 1000, np.zeros(9)])
    assert len(verdict(made)) == 1


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_the_scale_of_the_loss_does_not_matter_where_the_steps_are_as_long(scale, optimizer):
    (found,) = verdict(record(scale=scale, optimizer=optimizer, classes=None))
    (plain,) = verdict(record(optimizer=optimizer, classes=None))
    assert found.margin == pytest.approx(plain.margin, rel=1e-3)
    assert found.evidence[0].value == pytest.approx(plain.evidence[0].value)
    assert verdict(record(losses=LEARNING, scale=scale, optimizer=optimizer, classes=None)) == []


def test_the_margin_is_the_lacking_gain_in_standard_errors():
    (found,) = verdict(record(losses=falling(0.2)))
    error = 1.2533 * 0.03 / (STEPS / 5) ** 0.5 / CHANCE
    assert found.margin == pytest.approx((RULE.learned - 0.2) / error, rel=0.3)
    (exact,) = verdict(record(losses=np.full(STEPS, CHANCE)))
    assert exact.margin == 1e3


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_the_highest_rate_of_a_schedule_is_named_and_each_step_has_its_own(optimizer):
    made = record(0.001, optimizer=optimizer)
    lr = made.facts["optimizers"]["default"]["groups"][0]["lr"]
    made.append("lr", "default/0", [100, 200], [5 * lr, lr])
    (found,) = verdict(made)
    assert found.evidence[0].value == pytest.approx(0.001 * (300 + 100 * 5) / 400)
    assert f"of at most {5 * lr:.3g} all" in found.summary
    assert f"from {5 * lr:.3g} to" in found.remedies[0].title


REMEDIES = {
    "the factor that lacks, adam": ("Adam", 1e-5, 400 * 1e-5 / WEIGHT, "0.003"),
    "the factor that lacks, sgd": ("SGD", 0.002, 0.2, "0.1"),
    "not above what is safe for adam": ("Adam", 1e-5, 50 * 1e-5 / WEIGHT, "0.01"),
    "not above what is safe for sgd": ("SGD", 0.001, 0.01, "0.3"),
    "threefold where the rate is high already": ("SGD", 1.0, 0.05, "3"),
}


@pytest.mark.parametrize(("optimizer", "rate", "path", "proposed"), REMEDIES.values(), ids=REMEDIES)
def test_the_proposed_rate_brings_the_path_to_ten_times_the_weights(optimizer, rate, path, proposed):
    steps = round(path * WEIGHT / rate) if optimizer == "Adam" else STEPS
    (found,) = verdict(record(path, STUCK[:steps], optimizer=optimizer, rms=path * WEIGHT / steps / rate))
    (only,) = found.remedies
    assert only.id == "higher-learning-rate"
    assert only.title == f"Raise the learning rate from {rate:.3g} to {proposed}"
    assert only.how.endswith(f'    group["lr"] = {proposed}  # was {rate:.3g}')
    assert f"sum up to {path:.2g} of the weights' length, in sound runs to about 10 times it" in only.why


def braked(epsilon, optimizer="Adam", path=3.0):
    """Gradients of 0.01 a weight beside an epsilon."""
    made = record(path, optimizer=optimizer, rms=0.01)
    known = made.facts["optimizers"]["default"]
    made.set_fact("optimizers", {"default": {**known, "groups": [{**known["groups"][0], "eps": epsilon}]}})
    return made


@pytest.mark.parametrize(("epsilon", "kept"), [(1.0, "0.0099"), (0.5, "0.02")])
def test_a_large_epsilon_makes_steps_short_and_is_named(epsilon, kept):
    assert verdict(braked(1e-8)) == []
    (found,) = verdict(braked(epsilon))
    (only,) = found.remedies
    assert only.id == "smaller-epsilon"
    assert f"from {epsilon:g} to 1e-8" in only.title
    assert f"beside 0.01 a weight, that leaves {kept} of the steps" in only.why
    assert only.how.endswith(f'group["eps"] = 1e-8  # was {epsilon:g}')


@pytest.mark.parametrize(("epsilon", "optimizer"), [(0.01, "Adam"), (1e-6, "Adam"), (1.0, "SGD")])
def test_an_epsilon_that_takes_little_away_is_no_remedy(epsilon, optimizer):
    """One as large as the gradient takes half."""
    (found,) = verdict(braked(epsilon, optimizer, path=0.05))
    assert [r.id for r in found.remedies] == ["higher-learning-rate"]


@pytest.mark.parametrize(("optimizer", "proposed"), [("SGD", "0.3"), ("Adam", "0.01")])
def test_where_the_rate_is_zero_a_high_one_is_proposed(optimizer, proposed):
    (found,) = verdict(record(0.0, optimizer=optimizer))
    assert found.remedies[0].title == f"Raise the learning rate from 0 to {proposed}"


@pytest.mark.parametrize(("best", "fires"), [(0, 0), (1, 0), (4, 0), (8, 1), (512, 1)])
def test_steps_are_too_short_only_if_longer_ones_were_found_to_be_better(best, fires):
    found = verdict(tried(record(), best))
    assert len(found) == fires
    if found:
        said = found[0].evidence[-1]
        assert (said.value, said.threshold, said.step) == (best, RULE.enough, STEPS)


@pytest.mark.parametrize(("error", "fires"), [(0.04, 1), (0.06, 0)])
def test_longer_steps_must_be_better_by_two_standard_errors(error, fires):
    assert len(verdict(tried(record(), 64, error=error))) == fires


def test_the_proposed_rate_is_no_higher_than_what_was_found_to_be_best():
    (found,) = verdict(tried(record(0.05), 16))
    assert found.remedies[0].title == "Raise the learning rate from 0.00128 to 0.02"


def test_what_was_tried_early_does_not_speak_for_the_run():
    assert len(verdict(tried(record(), 1, at=STEPS // 2))) == 1


def test_what_was_tried_at_a_rate_that_had_come_down_does_not_speak_for_the_run():
    made = record()
    made.append("lr", "default/0", STEPS - 50, 0.1 * float(made.series("lr", "default/0").values[0]))
    assert len(verdict(tried(made, 1))) == 1


@pytest.mark.parametrize(("best", "fires"), [(4, 0), (8, 1)])
def test_a_warm_up_that_got_to_the_right_rate_was_not_too_long(best, fires):
    assert len(verdict(tried(rising(np.linspace(0, 1, STEPS)), best, error=1.0))) == fires


ASKS = {
    "steps are short": (record(), True),
    "half a warm-up": (record(5.0), True),
    "steps are long": (record(20.0), False),
    "it has learned": (record(losses=LEARNING), False),
    "an unknown optimiser": (record(optimizer="Adafactor"), False),
}


@pytest.mark.parametrize(("made", "asks"), ASKS.values(), ids=ASKS)
def test_it_asks_for_the_experiment_where_it_would_settle_something(made, asks):
    assert [request.kind for request in RULE.asks(made)] == ["step_line", "higher_rate"] * asks


def test_where_little_is_left_to_gain_it_asks_for_nothing():
    nearly = record(losses=CHANCE * np.exp(-np.arange(STEPS) / 60) + 0.2)
    assert [request.kind for request in RULE.asks(nearly)] == ["higher_rate"]
    assert list(RULE.asks(nearly)) != list(LearningRateTooLow(best=0.9).asks(nearly)) == []


@pytest.mark.parametrize(("gained", "asks"), [(0.94, True), (0.96, False)])
def test_where_all_but_a_twentieth_is_gone_it_asks_for_no_copies_nor_for_what_they_found(gained, asks):
    losses = ending(gained) / 10 + 0.9 * CHANCE * (1 - gained)
    assert [request.kind for request in LearningRateTooLow().asks(record(losses=losses))] == ["higher_rate"] * asks
    assert bool(verdict(with_copies(losses=losses))) is asks


def with_copies(path=1.5, *, before=1.1, usual=1.3, higher=0.5, error=0.02, training=0.4, losses=None, steps=STEPS):
    """A run that fell to half and two copies that began anew."""
    losses = CHANCE * (1 - 0.5 * np.arange(STEPS) / STEPS) if losses is None else losses
    made = record(path, losses)
    made.append("val_loss", "val", STEPS, before)
    made.set_fact("validation", {"val": {"kind": "val", "primary": True, "criterion": "cross_entropy"}})
    row = [before, usual, training, 0.01, 0.01, before, usual, higher, error, error]
    made.append("higher_rate", "held", STEPS - 1, [5.0, *row, steps])
    return made


WEAK = {"losses": 0.98 * STUCK, "before": 2.25, "usual": 2.25, "training": 2.24}


@pytest.mark.parametrize(
    ("path", "steps", "lead", "error", "fires"),
    [
        (0.6, STEPS, 0.0, 0.01, False),  # three times the weights, as in sound runs, and no better for it
        (0.6, STEPS, 0.015, 0.01, False),
        (0.6, STEPS, 0.025, 0.01, True),
        (0.6, STEPS, 0.025, 0.05, False),
        (0.6, STEPS / 2, 0.0, 0.01, True),
        (0.3, STEPS, 0.0, 0.01, True),
        (0.6, np.nan, 0.0, 0.01, True),
    ],
)
def test_where_a_copy_went_as_far_as_sound_runs_and_gained_nothing_there_is_nothing_to_gain(
    path, steps, lead, error, fires
):
    made = with_copies(path, higher=2.25 - lead * CHANCE, error=error, steps=steps, **WEAK)
    assert bool(verdict(made)) is fires


def scheduled(kept=100, low=0.001, path=1.5, **how):
    """A run whose rate falls to next to nothing after some steps, and two copies whose rate lasts."""
    made = with_copies(path, **{"losses": 0.98 * STUCK, "before": 2.2, "usual": 0.6, "higher": 0.5, **how})
    key = next(iter(made.keys("grad_norm")))
    rate = made.facts["optimizers"]["default"]["groups"][0]["lr"]
    made.append("lr", f"{key}/0", 0, rate)
    made.append("lr", f"{key}/0", kept, low * rate)
    return made


def test_a_rate_that_a_schedule_took_away_is_told_as_that():
    (found,) = verdict(scheduled())
    assert "from step 100 of 400 on; a copy whose rate lasted came to a validation loss of 0.6" in found.summary
    assert found.evidence[0].value == pytest.approx(1.6)
    assert "CosineAnnealingLR(optimizer, 400)" in found.remedies[0].how
    assert "below a hundredth of that from step 100 on" in found.remedies[0].why


@pytest.mark.parametrize(("path", "cures"), [
    (2.1, ["slower-schedule"]),  # of the weights' length, had it lasted
    (1.9, ["slower-schedule", "higher-learning-rate"]),
])  # fmt: skip
def test_a_higher_rate_as_well_is_proposed_only_where_one_that_lasts_would_be_too_low(path, cures):
    (found,) = verdict(scheduled(path=path))
    assert [r.id for r in found.remedies] == cures


@pytest.mark.parametrize(("error", "margin"), [(0.02, 2 + (1.6 - 0.05 * 2.254) / 0.02), (1e-9, 1e3)])
def test_its_margin_is_how_surely_the_copy_leads(error, margin):
    (found,) = verdict(scheduled(error=error))
    assert found.margin == pytest.approx(margin, rel=1e-2)


@pytest.mark.parametrize(("steps", "told"), [(LONG - 1, False), (LONG, True)])
def test_a_schedule_of_few_steps_is_not_judged(steps, told):
    made = scheduled(losses=0.98 * STUCK[:steps], kept=10)
    assert any("whose rate lasted" in d.summary for d in verdict(made)) is told


LASTING = {
    "a rate that falls in the second half": {"kept": 250},
    "a tenth is left of the rate": {"low": 0.02},
    "a copy that is no better in validation": {"usual": 2.15},
    "a copy that is better within noise": {"error": 1.0},
    "a copy that is no better in training": {"before": 0.6},
}


@pytest.mark.parametrize("how", LASTING.values(), ids=LASTING)
def test_a_schedule_is_not_blamed(how):
    assert not any("whose rate lasted" in d.summary for d in verdict(scheduled(**how)))


def test_a_copy_at_five_times_the_rate_decides_alone():
    (found,) = verdict(with_copies())
    assert found.evidence[0].value == pytest.approx(0.6)
    assert found.evidence[0].threshold == pytest.approx(0.05 * CHANCE, rel=0.05)
    assert found.margin == pytest.approx(2 + (0.6 - found.evidence[0].threshold) / 0.02)
    assert "a copy with 5 times the learning rate came to a validation loss of 0.5, where" in found.summary
    rate = found.remedies[0]
    assert rate.id == "higher-learning-rate"


NO_BETTER = {
    "than the other copy": {"usual": 0.55},
    "than the run": {"before": 0.55},
    "beyond noise": {"error": 0.4},
    "in training": {"training": 1.2},
    "by a twentieth in training": {"training": 1.0},
}


@pytest.mark.parametrize("how", NO_BETTER.values(), ids=NO_BETTER)
def test_a_copy_that_is_no_better_decides_nothing(how):
    assert verdict(with_copies(**how)) == []


@pytest.mark.parametrize(("path", "fires"), [(0.3, True), (1.5, False)])
def test_the_shorter_the_steps_the_less_a_copy_need_gain(path, fires):
    losses = CHANCE * (1 - 0.8 * np.arange(STEPS) / STEPS)
    made = with_copies(path, before=0.46, usual=0.6, higher=0.38, training=0.3, error=0.005, losses=losses)
    assert bool(verdict(made)) == fires


@pytest.mark.parametrize(
    ("path", "lead", "fires"), [(0.36, 0.035, True), (0.44, 0.035, False), (0.3, 0.023, True), (0.3, 0.017, False)]
)
def test_where_a_step_is_below_a_thousandth_of_the_weights_a_fiftieth_of_the_loss_of_chance_is_lead_enough(
    path, lead, fires
):
    losses = CHANCE * (1 - 0.85 * np.arange(STEPS) / STEPS)
    made = with_copies(path, before=0.46, higher=0.46 - lead * CHANCE, training=0.1, error=0.005, losses=losses)
    assert bool(verdict(made)) is fires


@pytest.mark.parametrize(("each", "fires"), [(0.0038, True), (0.0042, False)])
def test_where_an_update_is_longer_than_four_thousandths_of_the_weights_a_copy_does_not_decide(each, fires):
    assert bool(verdict(with_copies(each * STEPS))) is fires


def test_where_a_copy_was_better_its_rate_is_proposed():
    (found,) = verdict(with_copies())
    present = with_copies().facts["optimizers"]["default"]["groups"][0]["lr"]
    assert f"{5 * present:.1g}" in found.remedies[0].title + found.remedies[0].how


def with_passes(made, losses):
    """With ten validation passes that all name one class of ten."""
    for at, loss in zip(range(STEPS // 10, STEPS + 1, STEPS // 10), losses, strict=True):
        made.append("val_loss", "val", at, loss)
        made.append("val_sample_loss", "val", at, loss + 0.01 * np.arange(-32, 33))
        made.append("val_confusion", "val", at, np.eye(10)[[0] * 10] * 20)
    made.append("val_group_size", "val", 0, np.ones(65))
    made.set_fact("validation", {"val": {"kind": "val", "primary": True, "criterion": "cross_entropy", "paired": True}})
    return made


def sagging(path):
    return record(path, np.r_[np.linspace(2.3, 2.1, 50), 2.1 + NOISE[: STEPS - 50]], regularisation={})


EFFECTS = {
    "TW203": lambda path: with_passes(record(path), [2.3, 2.0, 1.7, 1.4, 1.5, 1.7, 1.9, 2.0, 2.1, 2.2]),
    "TW204": sagging,
    "TW205": lambda path: record(path, np.linspace(2.3, 1.6, STEPS) + NOISE[:STEPS]),
    "TW208": lambda path: with_passes(record(path), np.full(10, 2.3)),
}


@pytest.mark.parametrize(("code", "make"), EFFECTS.items(), ids=EFFECTS)
def test_what_it_leads_to_is_nested_under_it(code, make):
    settings = Settings(select=("TW602", code), strict=True)
    (cause,) = judge(make(0.05), settings).diagnoses
    assert cause.code == "TW602"
    assert [d.code for d in cause.consequences] == [code]
    assert [d.code for d in judge(make(20.0), settings).diagnoses] == [code]


FAULTY = {
    "sgd": lambda p: torch.optim.SGD(p, 1e-4),
    "sgd, mild": lambda p: torch.optim.SGD(p, 1e-2),
    "momentum": lambda p: torch.optim.SGD(p, 1e-5, momentum=0.9),
    "momentum, mild": lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, 1e-6),
    "adam, mild": lambda p: torch.optim.Adam(p, 3e-5),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-6),
    "no rate at all": lambda p: torch.optim.SGD(p, 0.0),
    "no rate at all, two groups": lambda p: torch.optim.Adam([{"params": [q]} for q in p], 0.0),
}


@pytest.mark.parametrize("make", FAULTY.values(), ids=FAULTY)
def test_fires_on_a_net_that_hardly_moves_and_the_proposed_rate_cures_it(make):
    model = mlp(3, nn.ReLU)
    (found,) = verdict(train(model, make(model.parameters()), *digits(), steps=300))
    assert found.margin > 10
    assert found.evidence[1].value < 0.1
    model = mlp(3, nn.ReLU)
    optimizer = make(model.parameters())
    exec(found.remedies[0].how, {"optimizer": optimizer})
    made = train(model, optimizer, *digits(), steps=300)
    assert verdict(made) == []
    assert made.series("train_loss", "root").values[-50:].mean() < 0.8


def test_fires_on_a_warm_up_that_is_as_long_as_the_run():
    model = mlp(3, nn.ReLU)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 200)
    (found,) = verdict(train(model, optimizer, *digits(), steps=200, scheduler=warm_up))
    assert "the rate was still rising" in found.summary


def test_a_warm_up_that_ends_cures_that():
    def slow(step):
        return step / 2000

    model = mlp(3, nn.ReLU)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    endless = torch.optim.lr_scheduler.LambdaLR(optimizer, slow)
    (found,) = verdict(train(model, optimizer, *digits(), steps=200, scheduler=endless))
    (shorter,) = found.remedies
    assert shorter.title == "End the warm-up after 20 steps"
    assert "after 200 steps, at 0.00995" in shorter.why
    model = mlp(3, nn.ReLU)
    names = {"optimizer": torch.optim.SGD(model.parameters(), 0.1), "torch": torch}
    exec(shorter.how.partition("# after each")[0], names)
    made = train(model, names["optimizer"], *digits(), steps=200, scheduler=names["warm_up"])
    assert verdict(made) == []
    assert made.series("lr", "default/0").values[-1] == pytest.approx(0.1)


HEALTHY = {
    "adam": lambda p: torch.optim.Adam(p, 3e-3),
    "adam, low": lambda p: torch.optim.Adam(p, 5e-4),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.1),
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "sgd with momentum": lambda p: torch.optim.SGD(p, 0.02, momentum=0.9),
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("optimizer", HEALTHY.values(), ids=HEALTHY)
def test_silent_on_a_net_that_learns(optimizer, seed):
    torch.manual_seed(seed)
    model = mlp(3, nn.ReLU)
    assert verdict(train(model, optimizer(model.parameters()), *digits(), steps=200, seed=seed)) == []


def test_silent_on_a_run_of_few_steps():
    model = mlp(3, nn.ReLU)
    made = train(model, torch.optim.Adam(model.parameters(), 1e-3), *digits(), steps=25)
    assert made.series("train_loss", "root").values[-5:].mean() > 0.6 * CHANCE
    assert verdict(made) == []


def test_silent_on_careful_fine_tuning():
    model = mlp(3, nn.ReLU)
    train(model, torch.optim.Adam(model.parameters(), 3e-3), *digits(), steps=300)
    assert verdict(train(model, torch.optim.Adam(model.parameters(), 1e-5), *digits(), steps=100)) == []


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("name", "criterion", "head"), [("wine", nn.CrossEntropyLoss(), 3), ("diabetes", nn.MSELoss(), 1)]
)
def test_silent_on_a_table_even_if_noise_bounds_what_can_be_learned(name, criterion, head, seed):
    report, made = train_on_table(table(name, seed), criterion, head=head, seed=seed)
    assert verdict(made) == []
    assert "TW602" not in report.not_checked


def diabetes(model, lr, steps, seed, noise=0.0):
    """The record of gradient descent under a watch, with normal noise on the targets as large as told."""
    x, y, _, _ = table("diabetes", seed)
    y = y + noise * torch.randn(y.shape)
    optimizer, criterion = torch.optim.SGD(model.parameters(), lr), nn.MSELoss()
    with trainwatch.watch(model, optimizer, loss_fn=criterion, settings={"quiet": True, "strict": True}) as watch:
        for _ in range(steps):
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
    return watch.record


@pytest.mark.parametrize("seed", range(2))
def test_silent_on_a_probe_whose_frozen_body_is_among_the_optimisers_parameters(seed):
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()).requires_grad_(False)
    model = nn.Sequential(body, nn.Linear(64, 1))
    made = diabetes(model, 0.02, 200, seed)
    whole = sum(p["norm"] ** 2 for p in made.facts["parameters"] if p["kind"] == "weight") ** 0.5
    assert made.memo(reach_of).total * made.facts["parameters"][-2]["norm"] < RULE.path * whole
    assert made.memo(loss_course).gained < RULE.learned
    assert verdict(made) == []


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("lr", "fires"), [(0.004, 0), (1e-6, 1)], ids=["settled", "stuck"])
def test_silent_on_a_wide_net_that_took_short_steps_to_the_noise(lr, fires, seed):
    torch.manual_seed(seed)
    made = diabetes(nn.Sequential(nn.Linear(10, 512), nn.ReLU(), nn.Linear(512, 1)), lr, 400, seed, noise=1.2)
    assert made.memo(reach_of).total < RULE.path
    assert made.memo(loss_course).gained < RULE.learned
    assert len(verdict(made)) == fires


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("width", "lr"),
    [(512, 4e-3), *(pytest.param(width, lr, marks=pytest.mark.long) for width, lr in [(2048, 1e-3), (1024, 2e-3)])],
)
def test_the_experiment_clears_a_wide_net_that_took_short_steps_to_the_noise(width, lr, seed):
    """From its path alone it would be accused."""
    verdicts = []
    for probes in ({"step_line": 10**9}, "off"):  # once, at the end, however slow the machine is
        torch.manual_seed(seed)
        x, y, _, _ = table("diabetes", seed)
        y = y + 2 * torch.randn(y.shape)
        model = nn.Sequential(nn.Linear(10, width), nn.ReLU(), nn.Linear(width, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr)
        with trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True, "probes": probes}) as watch:
            for _ in range(600):
                rows = torch.randint(len(x), (64,))
                optimizer.zero_grad()
                nn.functional.mse_loss(model(x[rows]), y[rows]).backward()
                optimizer.step()
        verdicts.append(bool(verdict(watch.record)))
    assert verdicts == [False, True]


def test_fires_under_a_watch_until_its_remedy_was_followed():
    rate, losses = 1e-4, []
    for _ in range(3):
        report, made = train_on_table(table("wine", 0), nn.CrossEntropyLoss(), lr=rate)
        losses.append(float(made.series("val_loss", "val").values[-1]))
        found = verdict(made)
        if not found:
            break
        assert "TW602" in {d.code for root in report.diagnoses for d in root.walk()}
        rate = float(found[0].remedies[0].title.split()[-1])
    assert not found
    assert losses[0] > 1
    assert losses[-1] < 0.5 * losses[0]
    assert len(losses) > 1


@pytest.mark.parametrize(
    ("total", "optimizer", "rate", "proposed"),
    [
        (1.0, "SGD", 0.001, 0.005),  # five times the rate was tried, and makes a path of 5 lengths
        (0.2, "SGD", 0.001, 0.01),  # of 1 length: twice that
        (0.01, "SGD", 0.001, 0.025),  # as many times again, and no more
        (0.0, "SGD", 0.001, 0.005),
        (0.01, "SGD", 0.02, 0.3),  # the highest of plain steps
        (0.01, "Adam", 0.001, 0.01),  # and of adaptive ones
        (0.01, "SGD", 0.1, 0.5),  # never below what was tried
    ],
)
def test_a_path_that_would_still_be_short_takes_more_than_was_tried(total, optimizer, rate, proposed):
    assert further(Reach(total, STEPS, rate, optimizer), 5.0) == pytest.approx(proposed)
