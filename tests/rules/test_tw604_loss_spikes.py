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
from trainwatch.rules.tw604_loss_spikes import LossSpikes
from trainwatch.symptoms.losses import loss_course

STEPS, DEPTH = 400, 3
RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=STEPS)
LEARNING = 0.3 + 2.0 * np.exp(-np.arange(STEPS) / 50) + 0.03 * NOISE  # chance is 2.3
PARAMETERS, MODULES = chain(DEPTH)
RMS = 1e-2
TYPICAL = RMS * (3 * 32 * 32 + 3 * 32) ** 0.5  # norm of all gradients together
AT = (120, 200, 310)


def record(at=AT, *, rise=10.0, burst=1000.0, losses=LEARNING, scale=1.0, **more):
    """A run whose loss and gradient shoot up at some steps: by so much, and to so many times the typical norm."""
    losses, at = np.array(losses, float), list(at)
    table = np.full((len(losses), 2 * DEPTH), RMS)
    losses[at] += rise
    table[at] *= np.reshape(burst, (-1, 1))
    return make_record(scale * losses, table, parameters=PARAMETERS, modules=MODULES, **more)


def verdict(made, **thresholds):
    return list(LossSpikes(**thresholds).check(made))


def ids(found):
    return [r.id for r in found.remedies]


def test_fires_on_spikes_whose_gradients_dwarf_the_rest():
    (found,) = verdict(record(rise=(10.0, 30.0, 20.0)))
    assert found.severity == Severity.WARNING
    assert found.margin == pytest.approx(2)  # spikes beyond one
    assert found.onset_step == 120
    count, height, gradient, energy = found.evidence
    assert (count.value, count.note) == (3, "at steps 120, 200, 310; 0.75% of the steps")
    assert (height.value, height.step) == (pytest.approx(30 / np.log(10), rel=0.01), 200)
    assert (gradient.value, gradient.step) == (pytest.approx(1000), 200)
    assert energy.value == pytest.approx(3e6 / (3e6 + STEPS - 3))


def test_the_message_says_how_often_when_and_how_much_once():
    (found,) = verdict(record(rise=(10.0, 30.0, 20.0)))
    assert found.summary == (
        "the loss shot up 3 times, at step 200 to 30.3 among losses near 0.333; a gradient was 1e+03 times "
        "those of other steps then, and 100% of all squared gradient came with them"
    )


def test_of_many_spikes_some_are_listed():
    (found,) = verdict(record(range(20, 380, 40)))
    assert found.evidence[0].note == "at steps 20, 60, 100, 140, 180, 220 and 3 more; 2.25% of the steps"
    assert found.remedies[1].title == "Look at the batches of steps 20, 60, 100, 140, 180, 220 and 3 more"


def test_the_mildest_form_that_still_hurts():
    (found,) = verdict(record((150, 300), rise=1.4, burst=60.0))
    assert 0 < found.margin < 0.5
    assert found.evidence[1].value == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize(("burst", "margin"), [(50.5, 0.01), (75.0, 0.4), (1e9, 2.0)])
def test_the_margin_is_that_of_the_gradient_and_of_the_count(burst, margin):
    (found,) = verdict(record(burst=burst))
    assert found.margin == pytest.approx(margin, abs=0.01)


@pytest.mark.parametrize(("at", "fires"), [((), False), (AT[:1], False), (AT[:2], True)])
def test_one_spike_happens_to_every_run(at, fires):
    assert bool(verdict(record(at))) == fires
    assert verdict(record(at), count=3) == []


@pytest.mark.parametrize(("rise", "fires"), [(1.0, False), (1.3, True)])
def test_a_spike_is_as_high_as_half_of_chance(rise, fires):
    """Of 2.3, the loss of a constant guess, 43 % and 56 %."""
    assert bool(verdict(record(rise=rise))) == fires


@pytest.mark.parametrize(("noise", "fires"), [(0.1, True), (1.5, False)])
def test_a_spike_stands_out_of_the_noise(noise, fires):
    made = record(losses=LEARNING + noise * NOISE)
    assert bool(verdict(made)) == fires
    assert len(verdict(made, deviations=2.0)) == 1


@pytest.mark.parametrize(("burst", "fires"), [(45.0, False), (55.0, True)])
def test_without_a_large_gradient_there_is_no_harm(burst, fires):
    assert bool(verdict(record(burst=burst))) == fires
    assert len(verdict(record(burst=burst), gradient=20.0)) == 1


def ending(gained):
    """Losses that begin at chance and end with this share of it gone."""
    return np.log(10) * (1 - gained * (1 - np.exp(-np.arange(STEPS) / 50))) + 0.03 * NOISE


@pytest.mark.parametrize(
    ("gained", "burst", "fires"), [(0.55, 45.0, 0), (0.45, 45.0, 1), (0.55, 60.0, 1), (0.0, 11.0, 1), (0.0, 9.0, 0)]
)
def test_where_little_was_learned_a_smaller_gradient_does_harm(gained, burst, fires):
    found = verdict(record(range(20, 380, 20), losses=ending(gained), burst=burst))
    assert len(found) == fires
    for one in found:
        least = 50 if gained > 0.5 else 10
        assert one.evidence[2].threshold == least
        assert one.margin == pytest.approx(np.log(burst / least), abs=0.01)


@pytest.mark.parametrize(("level", "fires"), [(2.2, 1), (0.4, 0)])
def test_what_is_not_learned_in_validation_is_not_learned(level, fires):
    """Statistics of a batch norm that the spikes have spoiled, say."""
    known = {"val": {"primary": True, "kind": "val", "criterion": "cross_entropy"}}
    made = record(range(20, 380, 20), burst=20.0, validation=known)
    for step in range(50, STEPS, 50):
        made.append("val_loss", "val", step, level)
    assert len(verdict(made)) == fires


@pytest.mark.parametrize(("others", "fires"), [(700.0, False), (400.0, True)])
def test_spikes_that_bring_a_part_of_all_gradient_only_do_no_harm(others, fires):
    """Two other steps have large gradients, and a loss like all others."""
    made = record((*AT, 340, 342), rise=(10.0,) * 3 + (0.0,) * 2, burst=(1000.0,) * 3 + (others,) * 2)
    assert bool(verdict(made)) == fires
    assert len(verdict(made, energy=0.5)) == 1


def test_the_largest_gradient_of_all_spikes_counts():
    (found,) = verdict(record(rise=(10.0, 30.0, 20.0), burst=(500.0, 3.0, 20.0)))
    assert found.evidence[2].value == pytest.approx(500)


@pytest.mark.parametrize(("max_norm", "severity"), [(900.0, Severity.INFO), (1100.0, Severity.WARNING)])
def test_gradients_that_are_clipped_already_make_it_a_remark(max_norm, severity):
    """But for a limit above the largest gradient, which clips nothing."""
    clipping = {"clipping": {"max_norm": max_norm * TYPICAL}}
    (found,) = verdict(record(regularisation=clipping))
    assert found.severity == severity
    if severity == Severity.INFO:
        assert found.remedies[0].already_in_use
    (found,) = verdict(record(regularisation={"clipping": None}))
    assert found.severity == Severity.WARNING
    assert not found.remedies[0].already_in_use


def growing_less(times):
    """Gradients that go to nothing as the run fits, and spikes so many times as large as those it began with."""
    losses, table = LEARNING.copy(), np.full((STEPS, 2 * DEPTH), RMS) * np.exp(-np.arange(STEPS) / 30)[:, None]
    losses[list(AT)] += 10
    table[list(AT)] = times * RMS
    return make_record(losses, table, parameters=PARAMETERS, modules=MODULES)


def imbalanced(rise):
    """One in a hundred is of the other class: a constant guess costs 0.056."""
    made = record(rise=rise, losses=0.02 * LEARNING, stream="binary_cross_entropy_with_logits", classes=None)
    made.append("train_classes", "targets", STEPS, [990, 10, 0])
    return made


def test_a_spike_of_a_rare_class_is_measured_by_two_equal_ones():
    (found,) = verdict(imbalanced(0.6 * np.log(2)))
    assert found.evidence[1].value == pytest.approx(0.6, abs=0.02)


def test_gradients_are_measured_by_the_largest_of_others():
    (found,) = verdict(growing_less(70.0))
    assert found.evidence[2].value == pytest.approx(70, rel=0.1)


STEEP = np.r_[60.0, 25.0, 10.0, LEARNING[3:]]
SILENT = {
    "it learns": record(()),
    "gradients as large as those it began with, when others are next to nothing": growing_less(2.0),
    "a rare class": imbalanced(0.4 * np.log(2)),
    "it begins high": record((0, 1), rise=0.0, losses=STEEP),
    "it begins high, and one spike later": record((0, 1, 200), rise=(0.0, 0.0, 10.0), losses=STEEP),
    "new levels and no spikes": record(range(100, 140)),
    "a burst of the gradient alone": record(rise=0.0),
    "a loss that is not finite": record(rise=np.inf),
    "high losses of a rare class, with gradients to match": record(range(20, 400, 20), rise=3.0, burst=20.0),
    "it begins high for a single loss": record((0, 200), rise=(50.0, 10.0)),
    "restarts": record((), losses=0.3 + 2.0 * np.exp(-(np.arange(STEPS) % 80) / 20) + 0.03 * NOISE),
    "curriculum": record((), losses=0.3 + 2.0 * (1 - np.arange(STEPS) % 50 / 50) + 0.03 * NOISE),
    "noise of small batches": record((), losses=LEARNING + np.abs(NOISE)),
    "spikes of a loss near zero": record(rise=1e-3, losses=np.r_[2.3, 1e-6 * LEARNING[1:]]),
}


@pytest.mark.parametrize("made", SILENT.values(), ids=SILENT)
def test_silent(made):
    assert verdict(made) == []


def test_several_optimisers_are_not_judged():
    made = record()
    made.append("grad_norm", "other", 0, [1.0])
    with pytest.raises(NotChecked, match="several optimisers"):
        verdict(made)


def test_it_waits_for_enough_losses():
    with pytest.raises(NotChecked, match="too few losses"):
        verdict(record((20, 30), losses=LEARNING[:49]))
    assert len(verdict(record((20, 30), losses=LEARNING[:50]))) == 1


def test_without_losses_it_is_not_judged():
    with pytest.raises(NotChecked, match="no loss was seen"):
        verdict(record((), losses=np.full(STEPS, np.nan)))


def test_losses_that_are_not_finite_do_not_count():
    losses = LEARNING.copy()
    losses[[50, 60, 250]] = np.inf
    (found,) = verdict(record(losses=losses))
    assert found.evidence[0].value == 3


def test_gradients_that_are_not_finite_are_no_measure():
    assert verdict(record(burst=np.inf)) == []
    assert verdict(record(rise=(30.0, 10.0, 10.0), burst=(np.inf, 40.0, 40.0))) == []
    (found,) = verdict(record(rise=(30.0, 10.0, 10.0), burst=(np.inf, 200.0, 1000.0)))
    assert found.evidence[2].value == pytest.approx(1000)


@pytest.mark.parametrize("steps", [10_000, 30_000])
def test_a_long_run_whose_past_is_folded(steps):
    losses = 0.3 + 2.0 * np.exp(-np.arange(steps) / 50) + 0.03 * RNG.normal(size=steps)
    (found,) = verdict(record((steps - 3000, steps - 500), losses=losses))
    assert found.onset_step == steps - 3000
    assert verdict(record((), losses=losses)) == []


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_the_loss_does_not_matter_where_chance_is_not_known(scale):
    (found,) = verdict(record(scale=scale, stream="l1_loss"))
    (plain,) = verdict(record(stream="l1_loss"))
    assert [e.value for e in found.evidence] == pytest.approx([e.value for e in plain.evidence], rel=1e-4)
    assert found.margin == pytest.approx(plain.margin)
    assert verdict(record((), scale=scale, stream="l1_loss")) == []


def test_a_loss_below_zero():
    (found,) = verdict(record(losses=LEARNING - 8, stream="log_density"))
    assert found.evidence[1].value == pytest.approx(10 / 5.7, rel=0.02)
    assert verdict(record(losses=LEARNING - 8, rise=2.0, stream="log_density")) == []


def test_remedies_have_the_numbers_of_this_run():
    (found,) = verdict(record())
    assert ids(found) == ["gradient-clipping", "look-at-spikes"]
    assert found.remedies[0].title == f"Clip the gradient's norm at {TYPICAL:.2g}"
    assert f"max_norm={TYPICAL:.2g})" in found.remedies[0].how
    assert found.remedies[1].title == "Look at the batches of steps 120, 200, 310"
    assert "if loss.item() > 5.47:" in found.remedies[1].how


@pytest.mark.parametrize(("others", "times"), [(range(300, 330), 1), (range(300, 350), 3)])
def test_the_cap_lets_nine_in_ten_of_the_other_steps_pass(others, times):
    """The spikes, one step in eight, do not count."""
    spikes = range(5, 300, 6)
    (found,) = verdict(record((*spikes, *others), rise=[10.0] * 50 + [0.0] * len(others),
                              burst=[1e3] * 50 + [3.0] * len(others)))  # fmt: skip
    assert float(found.remedies[0].title.split()[-1]) == pytest.approx(times * TYPICAL, rel=0.05)


@pytest.mark.parametrize(("criterion", "robust"), [("mse_loss", True), ("l1_loss", False)])
def test_a_squared_error_may_be_replaced(criterion, robust):
    (found,) = verdict(record(stream=criterion))
    assert ("robust-loss" in ids(found)) == robust
    if robust:
        assert "in place of mse_loss" in found.remedies[-1].how


THROWN_OFF = record((130, 145, 220), losses=np.r_[LEARNING[:150], 2.4 + 0.03 * NOISE[150:]], lr=1.0)


@pytest.mark.parametrize(("other", "chain"), [("TW601", ["TW601", "TW604"]), ("TW302", ["TW604", "TW302"])])
def test_steps_that_threw_the_run_off_are_the_cause_and_gradients_that_grew_are_not(other, chain):
    settings = Settings(select=(other, "TW604"), strict=True)
    (found,) = judge(THROWN_OFF, settings).diagnoses
    assert [d.code for d in found.walk()] == chain
    (found,) = judge(record(), settings).diagnoses
    assert found.code == "TW604"


EFFECTS = (
    "TW201", "TW203", "TW204", "TW205", "TW208", "TW302", "TW304", "TW305", "TW306", "TW401", "TW402", "TW602",
)  # fmt: skip


@pytest.mark.parametrize("code", EFFECTS)
def test_what_it_leads_to_is_nested_under_it(code):
    (found,) = verdict(record())
    effect = Diagnosis(code, "an effect", Severity.ERROR, "of it", onset_step=20, margin=np.inf, confidence=0.99)
    (root,) = nest([effect, found])
    assert [d.code for d in root.walk()] == ["TW604", code]
    assert set(LossSpikes.explains) == set(EFFECTS)


def broken(x, n, seed):
    """A few samples a thousand times too large."""
    x = x.clone()
    x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:n]] *= 1000
    return x


def classifier(seed):
    torch.manual_seed(seed)
    return mlp(2, nn.ReLU)


def handwriting(seed, *, lr=1e-3, optimizer=torch.optim.Adam, batch=8, steps=400, clip=None, samples=16):
    """A record, and the loss of all images before some of them were broken."""
    x, y = digits()
    model = classifier(seed)
    batches = drawn(broken(x, samples, seed), y, batch=batch, steps=steps, seed=seed)
    made = watched(model, optimizer(model.parameters(), lr), batches, nn.CrossEntropyLoss(), clip=clip)
    with torch.no_grad():
        return made, float(nn.functional.cross_entropy(model(x), y))


FAULTY = {
    "adam": {"lr": 1e-3},
    "adam, fast": {"lr": 3e-3},
    "sgd": {"lr": 3e-3, "optimizer": torch.optim.SGD, "samples": 8},
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("arguments", FAULTY.values(), ids=FAULTY)
def test_fires_on_a_handful_of_broken_samples(arguments, seed):
    made, _ = handwriting(seed, **arguments)
    (found,) = verdict(made)
    assert found.severity == Severity.WARNING
    assert found.margin > 0.5


@pytest.mark.parametrize("arguments", FAULTY.values(), ids=FAULTY)
def test_clipping_as_proposed_cures_it(arguments):
    made, faulty = handwriting(0, **arguments)
    clip = float(next(r for r in verdict(made)[0].remedies if r.id == "gradient-clipping").title.split()[-1])
    made, cured = handwriting(0, **arguments, clip=clip)
    assert all(d.severity == Severity.INFO or d.remedies[0].id == "repair-samples" for d in verdict(made))
    assert cured < (0.98 if "optimizer" in arguments else 0.6) * faulty


@pytest.mark.parametrize("seed", range(2))
def test_broken_samples_of_a_regression_want_a_robust_loss(seed):
    x, y, _, _ = table("diabetes", seed)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
    batches = drawn(broken(x, 2, seed), y, batch=8, steps=300, seed=seed)
    made = watched(model, torch.optim.Adam(model.parameters(), 1e-3), batches, nn.MSELoss())
    (found,) = verdict(made)
    assert found.margin > 2
    assert ids(found)[-1] == "robust-loss"


def trained(x, y, seed, *, model=None, batch=16, steps=200, lr=0.1, momentum=0.0, clip=None, restarts=0):
    model = classifier(seed) if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=momentum)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, restarts) if restarts else None
    batches = drawn(x, y, batch=batch, steps=steps, seed=seed)
    return watched(model, optimizer, batches, nn.CrossEntropyLoss(), clip=clip, scheduler=schedule)


def rare_class(seed):
    """One in seventy is a 3, and the others are not."""
    x, y = digits()
    kept = (y != 3) | (torch.rand(len(y), generator=torch.Generator().manual_seed(seed)) < 0.13)
    return trained(x[kept], (y[kept] == 3).long(), seed, batch=8)


def one_transient_spike(seed):
    x, y = digits()
    batches = list(drawn(x, y, batch=16, steps=200, seed=seed))
    batches[150] = (1000 * batches[150][0], batches[150][1])
    model = classifier(seed)
    return watched(model, torch.optim.Adam(model.parameters(), 3e-3), batches, nn.CrossEntropyLoss())


def sorted_by_class(seed):
    x, y = digits()
    order = torch.argsort(y, stable=True)
    model = classifier(seed)
    batches = [*DataLoader(TensorDataset(x[order], y[order]), 16)] * 3
    return watched(model, torch.optim.SGD(model.parameters(), 0.1), batches, nn.CrossEntropyLoss())


def wrong_labels(seed):
    """One in a hundred is wrong: batches with such a sample have a loss like no other."""
    x, y = digits()
    draw = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(y), generator=draw) < 0.01
    y = torch.where(wrong, torch.randint(0, 10, y.shape, generator=draw), y)
    return trained(x, y, seed, batch=4, steps=400)


HEALTHY = {
    "small batches": lambda seed: trained(*digits(), seed, batch=4),
    "momentum": lambda seed: trained(*digits(), seed, lr=0.05, momentum=0.9),
    "warm restarts": lambda seed: trained(*digits(), seed, lr=0.5, restarts=50),
    "clipping": lambda seed: trained(*digits(), seed, lr=0.3, clip=0.5),
    "rare class": rare_class,
    "wrong labels": wrong_labels,
    "one transient spike": one_transient_spike,
    "sorted by class": sorted_by_class,
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("training", HEALTHY.values(), ids=HEALTHY)
def test_silent_on_a_net_that_learns(training, seed):
    made = training(seed)
    assert verdict(made) == []
    assert loss_course(made).gained > 0.5


def with_broken(far=3, largest=900.0, **made):
    made = record(**made)
    made.append("row_sizes", "train", 399, [500, 1.0, largest, far, 120, 7, 200, 1, *[np.nan] * 6])
    return made


MILD = {"rise": 1.5, "burst": 1.5}  # spikes whose gradients would be no harm


def test_spikes_of_broken_samples_need_no_large_gradient():
    assert verdict(record(**MILD)) == []
    (found,) = verdict(with_broken(**MILD))
    assert found.severity == Severity.WARNING
    assert "the inputs of 3 of 500 held training samples are up to 9e+02 times as large as usual" in found.summary
    assert found.evidence[2].value == 900
    assert "row 7 of the batch at step 120; row 1 of the batch at step 200" in found.evidence[2].note
    assert found.margin == pytest.approx(2)
    assert ids(found) == ["repair-samples", "gradient-clipping", "look-at-spikes"]
    assert "3 of 500 training samples" in found.remedies[0].why
    assert "size > 30 " in found.remedies[0].how


@pytest.mark.parametrize(("far", "severity"), [(1, Severity.INFO), (2, Severity.WARNING)])
def test_clipping_does_not_mend_samples_that_are_broken_in_number(far, severity):
    clipped = {"clipping": {"max_norm": 0.1}}
    (found,) = verdict(with_broken(far=far, regularisation=clipped))
    assert found.severity == severity


def test_broken_samples_that_do_no_harm_are_left_alone():
    assert verdict(with_broken(rise=0.0, burst=1.0)) == []
    assert verdict(with_broken(at=(120,), **MILD)) == []
    assert verdict(with_broken(far=0, **MILD)) == []


def test_it_asks_for_broken_samples_where_there_are_spikes():
    assert [wish.kind for wish in LossSpikes().asks(record())] == ["row_sizes"]
    assert list(LossSpikes().asks(record(rise=0.0))) == []
