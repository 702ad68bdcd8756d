import itertools

import numpy as np
import pytest
import torch
from scaled import table
from synthetic_gradients import chain, digits, make_record, mlp
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from watched import drawn, watched

from trainwatch.config import Settings
from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.engine import judge, nest
from trainwatch.rules import NotChecked
from trainwatch.rules.tw603_oscillating_loss import OscillatingLoss
from trainwatch.symptoms.losses import loss_course
from trainwatch.symptoms.motion import reach_of
from trainwatch.symptoms.swings import swing_of

STEPS, DEPTH = 200, 3
RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=STEPS)
COURSE = 1.4 + 0.9 * np.exp(-np.arange(STEPS) / 10)  # of 2.3, the loss of chance, 39 % go
LONG = 1.4 + 0.9 * np.exp(-np.arange(2000) / 10)
RMS, WEIGHT = 1e-2, 96**-0.5  # of the gradient, and of the weights at the start: lr=4 moves them by 39 %


def swinging(size=0.2, course=COURSE, noise=0.0):
    """A loss that swings to and fro about a course, the swing as large as told, with noise as a share of it."""
    sign = (-1.0) ** np.arange(len(course))
    return course + size * (sign + noise * np.random.default_rng(1).normal(size=len(course)))


def record(losses=None, lr=4.0, *, optimizer="SGD", scale=1.0, rms=RMS, momentum=0.0, depth=DEPTH, **more):
    losses = swinging() if losses is None else np.asarray(losses)
    table = np.full((len(losses), 2 * depth), float(rms))
    parameters, modules = chain(depth)
    made = make_record(
        scale * losses, scale * table, parameters=parameters, modules=modules, lr=lr, optimizer=optimizer, **more
    )
    optimizers = made.facts["optimizers"]
    optimizers["default"]["groups"][0]["momentum"] = momentum
    made.set_fact("optimizers", optimizers)
    return made


def verdict(made, **thresholds):
    return list(OscillatingLoss(**thresholds).check(made))


def wave(half, size=0.2):
    return COURSE + size * np.cos(np.pi * np.arange(STEPS) / half)


@pytest.mark.parametrize("size", [0.1, 0.5, 5.0])
def test_fires_on_a_loss_that_swings_to_and_fro(size):
    (found,) = verdict(record(swinging(size)))
    assert found.severity == Severity.WARNING
    assert found.margin == pytest.approx(5, abs=0.2)  # half a correlation, at a standard error of 0.1
    assert found.onset_step == 99
    correlation, wide, gained, update = found.evidence
    assert correlation.value == pytest.approx(-1, abs=0.02)
    assert wide.value == pytest.approx(1.4826 * size / np.log(10), rel=0.02)
    assert gained.value == pytest.approx(1 - 1.4 / np.log(10), abs=0.02 + size / 2.3)
    assert update.value == pytest.approx(4 * RMS / WEIGHT)


def test_the_message_says_how_wide_how_often_and_why_once():
    (found,) = verdict(record())
    assert found.summary == (
        "the loss swings to the other side from one step to the next by 0.296, and the second half of the run gained "
        "0.012; an update is 0.39 times the weights' length at a learning rate of 4"
    )
    (found,) = verdict(record(wave(6)))
    assert "swings to the other side every 6 steps by 0.2" in found.summary


def test_the_mildest_form_that_still_hurts():
    mild = record(swinging(0.05, LONG - 0.7, noise=0.8), lr=3.2)
    (found,) = verdict(mild)
    correlation, wide, gained, update = (e.value for e in found.evidence)
    assert -0.7 < correlation < -0.5
    assert 0.02 < wide < 0.04
    assert 0.65 < gained < 0.75
    assert 0.3 < update < 0.32
    assert found.margin < 5


@pytest.mark.parametrize("half", [2, 5, 12, 20])
def test_fires_on_slower_swings(half):
    (found,) = verdict(record(wave(half)))
    assert 0.75 * half <= int(found.evidence[0].note.split()[0]) <= half + 1


@pytest.mark.parametrize(("noise", "fires"), [(0.8, True), (1.2, False)])
def test_the_loss_some_steps_later_must_be_the_opposite(noise, fires):
    made = record(swinging(0.2, LONG, noise))
    assert swing_of(made).correlation == pytest.approx(-1 / (1 + noise**2), abs=0.07)
    assert bool(verdict(made)) == fires
    assert len(verdict(made, opposite=0.2)) == 1
    assert verdict(made, opposite=0.8) == []


def test_a_short_run_needs_more_of_a_correlation():
    """Of three losses that sum up to nothing, repeated, any two neighbours correlate by -0.5."""
    thirds = COURSE[:80] + 0.2 * np.resize([-1.0, 0.0, 1.0], 80)
    assert swing_of(record(thirds)).correlation == pytest.approx(-0.5, abs=0.03)
    assert verdict(record(thirds), opposite=0.4) == []
    assert len(verdict(record(thirds), opposite=0.4, errors=2.5)) == 1
    assert len(verdict(record(swinging()[:80]))) == 1


@pytest.mark.parametrize(("size", "fires"), [(0.027, False), (0.036, True)])
def test_a_small_swing_does_no_harm(size, fires):
    """Deviations of 1.7 % and of 2.3 % of the loss of a constant guess."""
    assert bool(verdict(record(swinging(size)))) == fires


@pytest.mark.parametrize(("end", "fires"), [(0.55, False), (0.65, True)])
def test_a_run_that_ended_well_was_not_harmed(end, fires):
    """76 % and 72 % of the loss of a constant guess are gone; single losses of either run are far from its end."""
    assert bool(verdict(record(swinging(0.2, COURSE - 1.4 + end)))) == fires


@pytest.mark.parametrize(("lr", "fires"), [(2.8, False), (3.3, True)])
def test_short_steps_are_not_to_blame(lr, fires):
    """Updates of 27 % and 32 % of the weights, on average."""
    assert bool(verdict(record(lr=lr))) == fires


@pytest.mark.parametrize(("fall", "fires"), [(0.5, True), (1.2, False)])
def test_a_loss_that_falls_by_more_than_it_swings_is_on_its_way(fall, fires):
    slope = np.linspace(fall, -fall, STEPS)
    made = record(swinging(0.5, COURSE + 1 + slope))
    assert swing_of(made).fall == pytest.approx(fall, abs=0.05)
    assert bool(verdict(made)) == fires
    rising = swinging(0.5, COURSE - slope)
    assert "the second half of the run gained 0;" in verdict(record(rising))[0].summary


def test_the_length_of_a_step_of_adam_is_the_rate_a_weight():
    (found,) = verdict(record(optimizer="AdamW", lr=0.04, rms=1e-9))
    assert found.evidence[3].value == pytest.approx(0.04 / WEIGHT)
    assert verdict(record(optimizer="AdamW", lr=0.02, rms=1e9)) == []


def test_momentum_lengthens_the_step():
    assert verdict(record(lr=0.4)) == []
    (found,) = verdict(record(lr=0.4, momentum=0.9))
    assert found.evidence[3].value == pytest.approx(4 * RMS / WEIGHT)


def test_single_wild_updates_are_not_to_blame():
    """Two in a hundred are a thousand times as long as the others, which are short."""
    rms = np.full((STEPS, 1), 0.5 * RMS)
    rms[50::100] *= 1000
    made = make_record(swinging(), rms, lr=4.0)
    assert made.memo(reach_of).total / STEPS == pytest.approx(2 * 1.1 * RMS / WEIGHT, rel=0.1)
    assert verdict(made) == []
    assert len(verdict(made, update=0.2)) == 1


SILENT = {
    "it learns": record(2.3 * np.exp(-np.arange(STEPS) / 50) + 0.03 * NOISE),
    "noise of small batches": record(COURSE + 0.4 * NOISE),
    "noise whose neighbours are alike": record(COURSE + 0.3 * np.convolve(NOISE, np.ones(5), "same")),
    "a swing that died out": record(np.r_[swinging()[:100], COURSE[100:] + 0.01 * NOISE[100:]]),
    "a slow wave": record(COURSE + 0.3 * np.cos(np.arange(STEPS) / 25)),
    "one transient spike": record(np.r_[COURSE[:150], 30.0, COURSE[151:]] + 0.03 * NOISE),
    "a loss of zero": record(np.zeros(STEPS)),
    "swings of a loss near zero": record(1e-6 * swinging()),
}


@pytest.mark.parametrize("made", SILENT.values(), ids=SILENT)
def test_silent(made):
    assert verdict(made) == []


def test_a_loss_that_begins_at_zero_is_no_measure():
    with pytest.raises(NotChecked, match="no training loss was seen that swings could be compared with"):
        verdict(record(np.r_[0.0, swinging()[1:]], stream="l1_loss"))


def test_a_late_spike_does_not_hide_a_swing():
    """It would tilt the straight line, and the loss seem to rise or fall."""
    for place, factor in itertools.product((105, -5), (10.0, 1e6)):
        losses = swinging()
        losses[place] *= factor
        (found,) = verdict(record(losses))
        assert found.evidence[0].value < -0.55
        assert abs(swing_of(record(losses)).fall) < 0.1


@pytest.mark.parametrize(
    ("epochs", "batches"), [(None, None), (200, None), (100, 2), (67, 3), (37, 5), (33, None), (20, None)]
)
def test_few_batches_of_an_epoch_make_a_loss_that_swings_by_itself(epochs, batches):
    """What one of them lacks the others have. But a single one has no others, nor does it vary."""
    odd = np.repeat(np.random.default_rng(3).normal(size=STEPS // 2), 2) * (-1.0) ** np.arange(STEPS)
    made = record(COURSE + 0.3 * odd, run={"epochs": epochs, "finished": True})
    assert swing_of(made).correlation == pytest.approx(-0.45, abs=0.05)
    if batches is None:
        assert len(verdict(made, opposite=0.4)) == 1
        return
    with pytest.raises(NotChecked, match=f"an epoch of {batches} batches makes a loss that swings by itself"):
        verdict(made, opposite=0.4)
    assert len(verdict(made, opposite=0.4, batches=2)) == 1


def test_a_schedule_may_make_the_loss_swing_on_purpose():
    made = record()
    made.append("lr", "default/0", [50, 100], [2.0, 3.6])
    assert len(verdict(made)) == 1
    for step in range(140, 200, 10):
        made.append("lr", "default/0", step, 1.2 if step % 20 else 3.6)
    with pytest.raises(NotChecked, match="the learning rate changed in the last third"):
        verdict(made)


def test_batches_in_a_fixed_order_repeat_themselves_every_epoch():
    """Only neighbours are compared then."""
    fixed = {"train": {"shuffled": False}}
    assert len(verdict(record(wave(5)))) == 1
    assert verdict(record(wave(5), loaders=fixed)) == []
    assert len(verdict(record(loaders=fixed))) == 1


def test_an_unknown_optimiser_is_not_judged():
    with pytest.raises(NotChecked, match="the length of a step is not known"):
        verdict(record(optimizer="Adafactor"))


def test_a_run_without_losses_or_with_several_optimisers_is_not_judged():
    made = record()
    made.append("grad_norm", "other", 0, [1.0])
    with pytest.raises(NotChecked, match="not known for these optimisers"):
        verdict(made)
    with pytest.raises(NotChecked):
        verdict(record(np.full(STEPS, np.nan)))


def test_it_waits_for_enough_losses():
    with pytest.raises(NotChecked, match="too few losses, or some that are not finite"):
        verdict(record(swinging()[:60]))
    assert len(verdict(record(swinging()[:64]))) == 1


def test_losses_that_are_not_finite_count_where_the_swing_is_looked_for():
    early, late = swinging(), swinging()
    early[20:30], late[150] = np.inf, np.inf
    assert len(verdict(record(early))) == 1
    with pytest.raises(NotChecked, match="not finite"):
        verdict(record(late))


def test_a_loss_below_zero():
    (found,) = verdict(record(swinging(0.1, COURSE - 5), stream="log_density"))
    assert found.evidence[1].value == pytest.approx(0.1 * 1.4826 / 2.6, rel=0.02)
    assert found.evidence[2].value == pytest.approx(1.0 / 2.6, rel=0.02)


@pytest.mark.parametrize("steps", [10_000, 30_000])
def test_a_long_run_whose_past_is_folded(steps):
    course = 1.4 + 0.9 * np.exp(-np.arange(steps) / 10)
    losses = swinging(0.2, course)
    (found,) = verdict(record(losses))
    assert found.margin > 20
    losses[steps // 2 :] = 1.4 + 0.05 * RNG.normal(size=steps - steps // 2)
    assert verdict(record(losses)) == []


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_the_loss_does_not_matter_where_the_step_is_as_long(scale):
    (found,) = verdict(record(scale=scale, lr=4 / scale, classes=None))
    (plain,) = verdict(record(classes=None))
    assert found.margin == pytest.approx(plain.margin, rel=1e-3)
    assert [e.value for e in found.evidence] == pytest.approx([e.value for e in plain.evidence], rel=1e-3)
    assert verdict(record(scale=scale, lr=2 / scale, classes=None)) == []


def test_the_proposed_rate_makes_the_step_a_twentieth_of_the_weights():
    (found,) = verdict(record(lr=10.0))  # updates of 98 %
    assert [r.id for r in found.remedies] == ["lower-learning-rate", "decay-learning-rate"]
    assert found.remedies[0].title == "Lower the learning rate from 10 to about 0.5"
    assert "about 0.05 times the weights' length" in found.remedies[0].why
    assert "T_max=200)" in found.remedies[1].how


@pytest.mark.parametrize(("lr", "proposed"), [(0.8, "0.2"), (1e4, "1e+02")])
def test_the_proposed_rate_is_a_fraction_of_the_present_one(lr, proposed):
    """A fourth of it at most, a hundredth at least."""
    (found,) = verdict(record(lr=lr), update=0.05)
    assert found.remedies[0].title.endswith(f" to about {proposed}")


@pytest.mark.parametrize(
    ("half", "momentum", "proposed"), [(6, 0.9, 0.7), (3, 0.9, 0.7), (2, 0.9, None), (6, 0.75, 0.25), (6, 0.65, None)]
)
def test_momentum_is_to_blame_where_it_is_high_and_half_a_swing_takes_several_steps(half, momentum, proposed):
    titles = {r.id: r.title for r in verdict(record(wave(half), momentum=momentum))[0].remedies}
    wanted = proposed and f"Lower the momentum from {momentum} to about {proposed}"
    assert titles.get("lower-momentum") == wanted


JUDGES = Settings(select=("TW601", "TW603"), strict=True)


def test_steps_that_are_too_long_are_the_cause():
    """A single layer, which has a minimum of its own, swings without that."""
    (cause,) = judge(record(), JUDGES).diagnoses
    assert [d.code for d in cause.walk()] == ["TW601", "TW603"]
    assert [d.code for d in judge(record(depth=1), JUDGES).diagnoses] == ["TW603"]


EFFECTS = ("TW203", "TW204", "TW205", "TW206", "TW208")


@pytest.mark.parametrize("code", EFFECTS)
def test_what_came_of_it_is_nested_under_it(code):
    (found,) = verdict(record())
    effect = Diagnosis(code, "an effect", Severity.ERROR, "of it", onset_step=20, margin=np.inf, confidence=0.99)
    (root,) = nest([effect, found])
    assert [d.code for d in root.walk()] == ["TW603", code]
    assert set(OscillatingLoss.explains) == set(EFFECTS)


def regressor(hidden, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(10, hidden), nn.ReLU(), nn.Linear(hidden, 1)) if hidden else nn.Linear(10, 1)


def sgd(model, lr, **arguments):
    return torch.optim.SGD(model.parameters(), lr, **arguments)


def whole_set(hidden, lr, *, seed=0, scale=1.0, decay=False):
    """The diabetes table in a single batch, under an absolute error, its targets and the last layer scaled as told."""
    x, y, _, _ = table("diabetes", seed)
    model = regressor(hidden, seed)
    optimizer = sgd(model, lr)
    with torch.no_grad():
        for parameter in [*model.parameters()][-2:]:
            parameter *= scale
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS) if decay else None
    return watched(model, optimizer, [(x, scale * y)] * STEPS, nn.L1Loss(), scheduler=schedule)


TOO_HIGH = [0.55, 2.0, 5.0]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("lr", TOO_HIGH)
def test_fires_on_steps_of_an_absolute_error_that_leap_over_the_minimum(lr, seed):
    made = whole_set(0, lr, seed=seed)
    (found,) = verdict(made)
    assert found.margin > 2
    (cause,) = judge(made, JUDGES).diagnoses
    assert [d.code for d in cause.walk()] == (["TW603"] if loss_course(made).gained > 0.1 else ["TW601", "TW603"])


@pytest.mark.parametrize("lr", TOO_HIGH)
def test_the_proposed_rate_cures_it(lr):
    faulty = whole_set(0, lr)
    rate = float(verdict(faulty)[0].remedies[0].title.split()[-1])
    cured = whole_set(0, rate)
    assert verdict(cured) == []
    assert loss_course(cured).end < 0.9 * loss_course(faulty).end


@pytest.mark.parametrize("lr", TOO_HIGH)
def test_a_rate_that_decays_cures_it(lr):
    cured = whole_set(0, lr, decay=True)
    with pytest.raises(NotChecked, match="the loss follows the schedule"):
        verdict(cured)
    assert loss_course(cured).end < 0.9 * loss_course(whole_set(0, lr)).end


@pytest.mark.parametrize("lr", [0.3, 1.0])
def test_silent_on_a_net_whose_steps_are_long_but_no_good_part_of_its_weights(lr):
    made = whole_set(32, lr)
    assert swing_of(made).correlation < -0.4
    assert verdict(made) == []


@pytest.mark.parametrize("scale", [10.0, 1e3])
def test_the_unit_of_the_targets_does_not_matter_where_the_rate_has_it_too(scale):
    """An absolute error has the same gradient in any unit."""
    (found,) = verdict(whole_set(0, 2.0 * scale, scale=scale))
    (plain,) = verdict(whole_set(0, 2.0))
    assert found.margin == pytest.approx(plain.margin, rel=0.05)
    assert verdict(whole_set(0, 0.1 * scale, scale=scale)) == []


def classifier(seed):
    torch.manual_seed(seed)
    return mlp(2, nn.ReLU)


def small_batches(seed):
    model = classifier(seed)
    return watched(model, sgd(model, 0.2), drawn(*digits(), batch=4, steps=200, seed=seed), nn.CrossEntropyLoss())


def small_batches_of_a_regression(seed):
    """Most of the loss is noise of the targets, and no training takes it away."""
    x, y, _, _ = table("diabetes", seed)
    model = regressor(0, seed)
    return watched(model, sgd(model, 0.1), drawn(x, y, batch=4, steps=200, seed=seed), nn.L1Loss())


def momentum(seed):
    model = classifier(seed)
    batches = drawn(*digits(), batch=16, steps=200, seed=seed)
    return watched(model, sgd(model, 0.05, momentum=0.9), batches, nn.CrossEntropyLoss())


def wrong_labels(seed):
    """Steps of Adam that are long enough to be blamed, and a loss that stays high."""
    x, y = digits()
    draw = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(y), generator=draw) < 0.6
    y = torch.where(wrong, torch.randint(0, 10, y.shape, generator=draw), y)
    model = classifier(seed)
    batches = drawn(x, y, batch=32, steps=200, seed=seed)
    return watched(model, torch.optim.Adam(model.parameters(), 1e-2), batches, nn.CrossEntropyLoss())


def sorted_by_class(seed):
    x, y = digits()
    order = torch.argsort(y, stable=True)
    loader = DataLoader(TensorDataset(x[order], y[order]), 60)
    model = classifier(seed)
    batches = itertools.chain.from_iterable(itertools.repeat(loader, 7))
    return watched(model, sgd(model, 0.2), batches, nn.CrossEntropyLoss())


def clipped(seed):
    model = classifier(seed)
    batches = drawn(*digits(), batch=8, steps=200, seed=seed)
    return watched(model, sgd(model, 0.3), batches, nn.CrossEntropyLoss(), clip=1.0)


def few_batches(seed):
    """Four of them make an epoch: what one of them lacks the others have."""
    x, y, _, _ = table("diabetes", seed)
    model = regressor(0, seed)
    loader = DataLoader(TensorDataset(x, y), 84, shuffle=True)
    batches = itertools.chain.from_iterable(itertools.repeat(loader, 50))
    return watched(model, sgd(model, 0.1), batches, nn.L1Loss())


HEALTHY = [small_batches, small_batches_of_a_regression, momentum, wrong_labels, sorted_by_class, clipped]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("training", HEALTHY)
def test_silent_on_a_net_that_learns(training, seed):
    assert verdict(training(seed)) == []


@pytest.mark.parametrize("seed", range(2))
def test_an_epoch_of_few_batches_is_not_judged(seed):
    made = few_batches(seed)
    assert swing_of(made).correlation < -0.2
    with pytest.raises(NotChecked, match="an epoch of 4 batches"):
        verdict(made)


@pytest.mark.parametrize("seed", range(2))
def test_warm_restarts_are_not_judged(seed):
    model = classifier(seed)
    optimizer = sgd(model, 1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 20)
    batches = drawn(*digits(), batch=32, steps=200, seed=seed)
    made = watched(model, optimizer, batches, nn.CrossEntropyLoss(), scheduler=schedule)
    with pytest.raises(NotChecked, match="the learning rate changed"):
        verdict(made)
