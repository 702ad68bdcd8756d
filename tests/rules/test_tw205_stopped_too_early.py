import numpy as np
import pytest
import torch
from sklearn import datasets
from sklearn.model_selection import train_test_split
from synthetic import fit_record
from torch import nn

import trainwatch
from trainwatch.config import Settings
from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.base import MODEST
from trainwatch.rules.tw205_stopped_too_early import StoppedTooEarly

DONE = {"steps": 200, "finished": True, "epochs": 20}


def power(exponent, length=20, floor=0.1, start=2.0):
    """A loss that falls as a power of time towards a floor."""
    return floor + (start - floor) * (1 + np.arange(1, length + 1)) ** -exponent


def late(length=20, flat=12, start=2.0, fall=0.1):
    """A loss that stands still and then falls steadily until the end."""
    return start - fall * np.clip(np.arange(length) - flat, 0, None)


def record_of(validation, training=None, **options):
    options.setdefault("run", DONE)
    return fit_record(validation, training=validation if training is None else training, **options)


def without_validation(record):
    bare = RunRecord()
    for quantity, key, series in record.items():
        if not quantity.startswith("val"):
            bare.put_series(quantity, key, series)
    for topic, value in record.facts.items():
        if topic != "validation":
            bare.set_fact(topic, value)
    return bare


def verdict(record, **thresholds):
    return list(StoppedTooEarly(**thresholds).check(record))


LOSSES = {
    "late": late(),
    "late-and-steep": late(fall=0.2),
    "straight": np.linspace(2.0, 1.2, 20),
    "as-a-logarithm": 2 - 0.35 * np.log(np.arange(1, 21)),
}


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_fires(loss, scale, noise):
    (found,) = verdict(record_of(loss, noise=noise, scale=scale))
    assert found.severity == Severity.WARNING
    assert found.margin > 2
    assert noise == 0 or found.margin < 100
    assert found.evidence[0].value > found.evidence[0].threshold


SILENT = {
    "converged": power(2.0),
    "flat-at-the-end": np.r_[np.linspace(2.0, 0.5, 10), np.full(10, 0.5)],
    "flat-all-along": np.full(20, 2.0),
    "rises-at-the-end": np.r_[np.linspace(2.0, 0.5, 15), np.linspace(0.5, 0.7, 5)],
    "little-left": power(1.0, floor=0.0, start=2.0),
    "hardly-learned": np.linspace(2.0, 1.85, 20),
}


@pytest.mark.parametrize("loss", SILENT.values(), ids=SILENT)
def test_stays_silent(loss):
    assert verdict(record_of(loss)) == []


def test_no_more_is_gained_than_is_left():
    """A loss that leapt to nothing at the end does not go on below that."""
    leapt = np.r_[np.full(14, 2.0), 1.9, 1.6, 1.0, 0.4, 0.05, 0.01]
    known = {"function": "cross_entropy", "reduction": "mean", "arguments": {"reduction": "mean"}, "classes": 10}
    assert verdict(record_of(leapt, loss={"cross_entropy": known})) == []
    assert len(verdict(record_of(leapt + 1.0, loss={"cross_entropy": known}))) == 1
    assert len(verdict(record_of(leapt))) == 1, "of another loss it is not known how low it may be"


def test_a_fall_within_its_noise_does_not_count():
    loss = LOSSES["as-a-logarithm"]
    assert verdict(record_of(loss))
    assert not verdict(record_of(loss, noise=0.2))


def test_training_that_falls_while_validation_does_not_is_no_reason_to_go_on():
    assert verdict(record_of(late(), late()))
    assert not verdict(record_of(np.r_[np.linspace(2, 1.5, 8), np.full(12, 1.5)], late()))


@pytest.mark.parametrize(("last", "said"), [(1.3, True), (1.79, False), (1.9, False)])
def test_few_passes_are_asked_to_agree_with_training(last, said):
    record = without_validation(record_of(late()))
    record.append("val_loss", "val", [100, 150, 200], [2.0, 1.8, last])
    record.set_fact("validation", {"val": {"kind": "val", "primary": True, "criterion": "cross_entropy"}})
    assert bool(verdict(record)) == said


def test_without_validation_it_takes_more():
    steep, flatter = np.linspace(2.0, 0.6, 20), LOSSES["as-a-logarithm"]
    assert verdict(record_of(flatter))
    assert not verdict(without_validation(record_of(flatter)))
    (found,) = verdict(without_validation(record_of(steep)))
    assert "memorising" in found.remedies[0].why


@pytest.mark.parametrize(
    ("rates", "reason"),
    [([1e-3, 1e-4], "schedule"), ([1e-3, 2e-3], "schedule"), ([1e-3, 0.9e-3], None), ([1e-3, 0.0], "schedule")],
)
def test_a_rate_that_changes_late_explains_the_fall(rates, reason):
    record = record_of(late())
    record.append("lr", "default/0", [0, 150], rates)
    if reason is None:
        assert verdict(record)
        return
    with pytest.raises(NotChecked, match=reason):
        verdict(record)


def test_a_rate_that_was_lowered_long_ago_counts_unless_it_is_as_good_as_none():
    record = record_of(late())
    record.append("lr", "default/0", [0, 50], [1e-3, 1e-4])
    assert verdict(record)
    record = record_of(late())
    record.append("lr", "default/0", [0, 50], [1e-3, 1e-5])
    with pytest.raises(NotChecked):
        verdict(record)


def test_it_waits_for_the_end():
    with pytest.raises(NotChecked, match="not ended"):
        verdict(record_of(late(), run={"steps": 200, "finished": False}))


def test_it_abstains_for_several_optimisers_and_for_few_steps():
    with pytest.raises(NotChecked, match="several"):
        verdict(record_of(late(), optimizers={"a": {}, "b": {}}))
    short = RunRecord()
    short.append("train_loss", "cross_entropy", range(4), [4.0, 3.0, 2.0, 1.0])
    short.set_fact("run", DONE)
    with pytest.raises(NotChecked, match="too few"):
        verdict(short)


@pytest.mark.parametrize(("threshold", "value"), [("min_gain", 0.9), ("min_relative", 0.9), ("learned", 0.9)])
def test_each_threshold_can_silence_it(threshold, value):
    assert not verdict(record_of(LOSSES["as-a-logarithm"]), **{threshold: value})


CHANCE = {"cross_entropy": {"function": "cross_entropy", "reduction": "mean", "arguments": {}, "classes": 10}}


def kinked(fall, *, before=1.0, end=1.0, length=40):
    """A loss that fell by `before` long ago, then stood still, and falls by `fall` in the last third, straight."""
    t = np.log(np.arange(1, length + 1) / length)
    return end + before * (np.arange(length) < length / 4) + fall * np.clip(-t / np.log(1.5), 0, 1)


@pytest.mark.parametrize(
    ("fires", "silent"),
    [
        ({"fall": 0.065}, {"fall": 0.04}),
        ({"fall": 0.04, "before": 0.3}, {"fall": 0.025, "before": 0.3}),
    ],
    ids=["min_gain", "min_relative"],
)
def test_the_gain_is_a_twentieth_of_the_drop_and_three_in_a_hundred_of_what_is_left(fires, silent):
    def record(fall, **more):
        return record_of(kinked(fall, **more), run={"steps": 400, "finished": True, "epochs": 40}, spread=0.0)

    assert len(verdict(record(**fires))) == 1
    assert verdict(record(**silent)) == []


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (np.linspace(3.2, 2.15, 20), True),  # it had to learn to guess first
        (np.linspace(2.3, 2.15, 20), False),  # it began there
        (np.r_[20.0, np.linspace(2.3, 1.5, 19)], True),  # what it said at first is no merit
    ],
    ids=["near-chance", "hardly-learned", "far-below"],
)
def test_the_drop_is_that_from_chance_unless_the_loss_is_still_near_it(loss, said):
    assert bool(verdict(record_of(loss, loss=CHANCE))) is said


@pytest.mark.parametrize(("draw", "said"), [(2, True), (3, False)], ids=["clear", "lost in noise"])
def test_a_single_pass_leaves_it_to_a_training_loss_whose_fall_is_clear(draw, said):
    """Gains of 0.84 +- 0.25 and 0.22 +- 0.28, both far above what is asked."""
    record = without_validation(record_of(late() + 0.3 * np.random.default_rng(draw).standard_normal(20)))
    record.append("val_loss", "val", 200, 1.3)
    record.set_fact("validation", {"val": {"kind": "val", "primary": True, "criterion": "cross_entropy"}})
    assert bool(verdict(record)) is said


@pytest.mark.parametrize(
    ("passes", "draw"),
    [({200: 1.3}, 11), ({100: 2.0, 150: 1.8, 200: 1.3}, 3)],
    ids=["a single pass", "passes that fall"],
)
def test_a_likely_gain_is_enough_where_training_falls_clearly_or_the_last_passes_do(passes, draw):
    """Of training it is 0.50 +- 0.27 and 0.22 +- 0.28: no gain for sure."""
    record = without_validation(record_of(late() + 0.3 * np.random.default_rng(draw).standard_normal(20)))
    assert verdict(record, min_gain_unseen=0.05) == []
    record.append("val_loss", "val", [*passes], [*passes.values()])
    record.set_fact("validation", {"val": {"kind": "val", "primary": True, "criterion": "cross_entropy"}})
    assert len(verdict(record)) == 1


def test_the_threshold_without_validation_is_its_own():
    record = without_validation(record_of(np.linspace(2.0, 0.6, 20)))
    assert not verdict(record, min_gain_unseen=0.9)
    assert verdict(record, min_gain=0.9)


def test_the_remedy_gives_a_number_of_epochs():
    (found,) = verdict(record_of(late()))
    assert "epochs more" in found.summary
    assert "epochs" in found.remedies[0].title
    (found,) = verdict(record_of(late(), run={"steps": 200, "finished": True, "epochs": 0}))
    assert "steps more" in found.summary


def test_it_says_how_many_steps_pay_and_at_most_twice_the_run():
    (found,) = verdict(record_of(late()))
    assert (found.evidence[3].name, found.evidence[3].value) == ("further steps that pay", 400)
    (found,) = verdict(record_of(power(1.0), spread=0.0), min_gain=0.02, min_relative=0.0)
    assert found.evidence[3].value == 100


def findings(epochs, seed, *, schedule=False, lr=1e-3):
    x, y = datasets.load_digits(return_X_y=True)
    x, xv, y, yv = (torch.as_tensor(a) for a in train_test_split((x / 16).astype(np.float32), y, random_state=seed))
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer, criterion = torch.optim.Adam(model.parameters(), lr=lr), nn.CrossEntropyLoss()
    steps = epochs * -(-len(x) // 32)
    annealed = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) if schedule else None
    watch = trainwatch.watch(model, optimizer, settings=Settings(quiet=True, strict=True))
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            criterion(model(x[rows]), y[rows]).backward()
            optimizer.step()
            if annealed is not None:
                annealed.step()
        model.eval()
        with torch.no_grad():
            criterion(model(xv), yv)
    return watch.finish().findings()


def trained(*how, **more):
    return [d.code for d in findings(*how, **more)]


@pytest.mark.parametrize("seed", range(3))
def test_real_digits(seed):
    assert "TW205" in trained(2, seed)
    assert trained(12, seed) == []


def test_a_real_cosine_schedule_ends_too_early_where_another_cycle_gains_much():
    found = next(d for d in findings(3, 0, schedule=True) if d.code == "TW205")
    tuned = next(r for r in found.remedies if r.id == "tune-learning-rate")
    assert "larger learning rates than 0.001" in tuned.title, "not than what the schedule ended with"
    assert "TW205" not in trained(15, 0, schedule=True)


AT_REST = np.r_[np.linspace(2.0, 1.0, 10), np.full(10, 1.0)]


def gone_on(after, *, before=1.0, error=0.005, validation=AT_REST, **options):
    """A copy that went on after a run whose drop is 1."""
    record = record_of(validation, **options)
    record.append("going_on", "held", 199, [100, 1.0, 0.9, 0.01, before, after, error])
    return record


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_copy_that_goes_on_tells_what_a_curve_at_rest_does_not(scale):
    assert verdict(record_of(AT_REST, scale=scale)) == []
    given = {"before": scale, "error": 0.005 * scale, "scale": scale}
    (found,) = verdict(gone_on(0.9 * scale, **given))
    assert found.evidence[0].value == pytest.approx(0.1 * scale, rel=0.05)
    assert found.margin == MODEST
    assert "a copy that went on for 100 steps" in found.summary
    assert "from held batches alone" in found.evidence[0].note
    assert verdict(gone_on(0.98 * scale, **given)) == []


@pytest.mark.parametrize(("gain", "found"), [(0.035, 1), (0.025, 0)])
def test_a_copy_must_gain_three_in_a_hundred_of_the_drop(gain, found):
    assert len(verdict(gone_on(0.3 - gain, before=0.3, error=0.001, validation=AT_REST - 0.7))) == found


def test_what_a_copy_gains_counts_from_the_best_pass_on_and_beyond_its_error():
    worse = np.r_[AT_REST[:-1], 1.09]
    assert verdict(gone_on(0.99, before=1.09, validation=worse, training=AT_REST)) == []
    assert verdict(gone_on(0.9, before=1.09, validation=worse, training=AT_REST)) != []
    assert verdict(gone_on(0.9, error=0.04)) == []
    assert verdict(gone_on(float("nan"))) == []


def test_under_a_schedule_another_cycle_must_gain_more():
    with pytest.raises(NotChecked, match="rate changed"):
        verdict(slowed(record_of(AT_REST)))
    assert verdict(slowed(gone_on(0.91, error=0.001))) == []
    assert verdict(gone_on(0.91, error=0.001)) != []
    assert verdict(slowed(gone_on(0.89, error=0.001))) != []


def test_under_a_schedule_the_fall_itself_tells_nothing():
    falling = {"before": 1.3, "validation": late()}
    assert len(verdict(gone_on(1.29, **falling))) == 1
    assert verdict(slowed(gone_on(1.29, **falling))) == []


def slowed(record):
    record.append("lr", "default/0", np.arange(200), np.linspace(0.1, 0.0, 200))
    return record


def asked(record):
    return [wish.kind for wish in StoppedTooEarly().asks(record)]


def test_it_asks_for_a_copy_unless_the_loss_surely_rests_or_nothing_was_learned():
    assert asked(record_of(late())) == ["going_on"]
    assert asked(record_of(np.r_[2.0, np.full(40, 1.0)], run={**DONE, "steps": 410})) == []
    assert asked(record_of(np.full(20, 2.0))) == []
    assert asked(record_of(late(flat=15, fall=0.035))) == []  # 7 % of the first loss is gone
    assert asked(record_of(late(flat=15, fall=0.06))) == ["going_on"]
    assert asked(without_validation(record_of(late()))) == []


RESTING = [1.0, 0.5, 0.5, 0.5]  # a training loss that tells nothing
FALLING = [1.1, 0.7, 0.5, 0.35]


def few(validation, **options):
    run = {"steps": 10 * len(validation), "finished": True, "epochs": len(validation)}
    return record_of(validation, RESTING[: len(validation)], run=run, **options)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_few_passes_over_the_same_samples_tell_what_the_training_loss_does_not(scale):
    (found,) = verdict(few(FALLING, scale=scale))
    assert found.where == ("val",)
    assert found.summary.startswith("the validation loss was still falling")
    first, second = np.log(1.5) * -np.diff(FALLING)[-2:] / np.log([3 / 2, 4 / 3])
    assert found.evidence[0].value == pytest.approx(scale * min(first, second) * min(1, second / first), rel=0.05)


STILL = {
    "the last pass is higher": [1.1, 0.7, 0.4, 0.45],
    "the fall before it stopped": [1.1, 0.7, 0.72, 0.55],
    "it flattens out": [1.1, 0.5, 0.36, 0.33],
    "two passes": [1.1, 0.7],
}


@pytest.mark.parametrize("validation", STILL.values(), ids=STILL)
def test_a_few_passes_that_promise_little_are_no_fault(validation):
    assert verdict(few(validation)) == []


def test_nor_are_passes_over_other_samples_or_within_the_error_of_the_same_ones():
    assert verdict(few(FALLING, paired=False)) == []
    made = few(FALLING)
    steps, rows = made.series("val_sample_loss", "val").history()
    swing = 3.0 * np.where(np.arange(rows.shape[1]) % 2, 1, -1)  # every other sample rises in the last pass
    parted = without_validation(made)
    parted.set_fact("validation", made.facts["validation"])
    for quantity, key, series in made.items():
        if quantity.startswith("val") and quantity != "val_sample_loss":
            parted.put_series(quantity, key, series)
    for step, row in zip(steps, rows, strict=True):
        parted.append("val_sample_loss", "val", int(step), row + (swing if step == steps[-1] else 0.0))
    assert verdict(parted) == []


def test_a_net_that_has_learned_next_to_nothing_has_another_fault():
    barely = late(flat=15, fall=0.035)  # 7 % of the first loss is gone
    assert verdict(record_of(barely)) == []
    assert verdict(record_of(barely), learned=0.05)
    assert verdict(record_of(late(flat=15, fall=0.06)))
