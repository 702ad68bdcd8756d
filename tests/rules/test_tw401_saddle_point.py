"""TW401: it fires at saddles that hold a training up, and at nothing else."""

import numpy as np
import pytest
import torch
from saddles import (
    FLAT,
    SADDLES,
    Ridge,
    found,
    linear,
    mlp,
    noise,
    ridge_data,
    run,
    scaled,
    sgd,
)
from synthetic_gradients import make_record, parameter
from torch import nn

import trainwatch
from trained import split
from trainwatch.config import Settings
from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.engine import judge, nest
from trainwatch.rules import NotChecked
from trainwatch.rules.tw401_saddle_point import SaddlePoint
from trainwatch.symptoms.curvature import curvature
from trainwatch.symptoms.rest import rest_of

RULE = SaddlePoint()
KINDS = ("saddle",)
SEEDS = 5
SINKS = np.linspace(1.6, 1.0, 200)
NOISE = 0.01 * np.random.default_rng(0).normal(size=200)


# ------------------------------------------------------------------ made-up records

HESSIAN = {
    "largest": 4.0,
    "largest_bound": 0.1,
    "smallest": -2.0,
    "smallest_bound": 0.2,
    "products": 7,
    "along": -1.8,
    "along_error": 0.1,
    "slope": 0.02,
    "slope_error": 0.01,
    "batches": 8,
    "weights": 3.0,
}


def record(
    losses=None,
    *,
    at=200,
    drop=0.5,
    error=0.02,
    even=(0.02, 0.08, 0.3),
    group=None,
    escapes=None,
    copies=None,
    lr=0.1,
    **hessian,
):
    """A run that rests at 1.0 of a loss of 1.0, with a way down by `drop` at a length of 0.4."""
    losses = 1.0 + NOISE if losses is None else np.asarray(losses, float)
    made = make_record(losses, np.full((len(losses), 1), 1e-3), parameters=[parameter("0.weight")], lr=lr,
                       stream="l1_loss")  # fmt: skip
    if group:
        made.facts["optimizers"]["default"]["groups"][0].update(group)
    made.append("hessian", "held", at, list((HESSIAN | hessian).values()))
    rows = np.full((6, 6), np.nan)
    rows[0] = [0.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    for i, (length, fell, below) in enumerate(zip((0.1, 0.2, 0.4), (0.05, 0.3, 1.0), even, strict=True), 1):
        rows[i] = [length, 1 - fell * drop, 1 - fell * drop, error, -below, 0.01]
    made.append("saddle_line", "held", at, rows)
    made.append("saddle_direction", "held", at, [1.0])
    if copies is not None:
        made.append("shaken_loss", "held", 200, [150, 0.3, 1.0, 0.98, *copies])
    if escapes is not None:
        made.set_fact("escapes", escapes)
    return made


def fires(made, **thresholds):
    return len(list(SaddlePoint(**thresholds).check(made)))


def falling(fall):
    """A loss of 1.0 that falls by so much in the last third of the steps."""
    return 1.0 + NOISE - fall * np.log(np.maximum(np.arange(1, 201) * 1.5 / 200, 1)) / np.log(1.5)


def resting(gone):
    """A loss that begins at 1.0 and rests from the middle of the run on, with this share of it gone."""
    return np.r_[np.linspace(1, 1 - gone, 100), np.full(100, 1 - gone)] + NOISE / 10


def test_a_way_down_from_a_loss_at_rest_is_a_saddle():
    (diagnosis,) = RULE.check(record())
    assert diagnosis.where == ("0.weight",)
    values = [e.value for e in diagnosis.evidence]
    assert values == pytest.approx([0.5, -1.8, 0.02 / 8, values[3], -2.0, 4.0])
    assert diagnosis.evidence[0].threshold == pytest.approx(0.015, rel=0.01)
    assert diagnosis.evidence[0].step == 200
    assert diagnosis.margin > 5
    assert diagnosis.summary.endswith("(mostly '0.weight' 100%)")


# Student's t of 8 batches: 2.998 at 99 %, 2.365 at 97.5 %.
@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        (record(drop=0.016, slope=0.0, error=1e-3), record(drop=0.014, slope=0.0, error=1e-3)),
        (record(along_error=0.59), record(along_error=0.61)),
        (record(even=(0.0, 0.025, 0.3)), record(even=(0.0, 0.022, 0.3))),
        (record(error=0.19), record(error=0.24)),
        (record(slope=0.79), record(slope=0.81)),
        (record(1.0 + NOISE - np.linspace(0, 0.4, 200)), record(1.0 + NOISE - np.linspace(0, 1.6, 200))),
        (record(group={"weight_decay": 1.4}), record(group={"weight_decay": 1.6})),
        (record(drop=0.05, slope=0.0, error=1e-3, group={"weight_decay": 0.2}),
         record(drop=0.05, slope=0.0, error=1e-3, group={"weight_decay": 0.5})),
        (record(drop=0, copies=(0.9, 0.01, 0.92, 0.01)), record(drop=0, copies=(0.9, 0.01, 0.94, 0.01))),
        (record(drop=0, copies=(0.9, 0.025, 0.8, 0.025)), record(drop=0, copies=(0.9, 0.028, 0.8, 0.028))),
        (record(SINKS, drop=0, copies=(0.4, 0.01) * 2), record(SINKS, drop=0, copies=(0.9, 0.01) * 2)),
        (record(drop=0, smallest_bound=1.9, copies=(0.4, 0.01) * 2),
         record(drop=0, smallest_bound=2.1, copies=(0.4, 0.01) * 2)),
        (record(drop=0, group={"weight_decay": 1.7}, copies=(0.4, 0.01) * 2),
         record(drop=0, group={"weight_decay": 1.9}, copies=(0.4, 0.01) * 2)),
        (record(lr=0.0026), record(lr=0.0024)),
        (record(drop=0, lr=0.0026, copies=(0.4, 0.01) * 2),
         record(drop=0, lr=0.0024, copies=(0.4, 0.01) * 2)),
    ],
    ids=["drop", "sure", "sizes", "beyond", "gain", "at rest", "decay bends up", "decay takes its part", "freed",
         "errors of copies", "copies lead by more than the run gains", "curves down", "curves down, decay and all",
         "e-folds along the way down", "e-folds, of copies"],
)  # fmt: skip
def test_each_threshold_is_where_the_rule_says(inside, outside):
    assert fires(inside) == 1
    assert fires(outside) == 0


@pytest.mark.parametrize(("errors", "found"), [(2.2, 1), (1.8, 0)])
def test_a_way_down_must_beat_what_the_run_gains_by_two_standard_errors(errors, found):
    rest = rest_of(record(falling(0.4)))
    drop = rest.fall + errors * np.hypot(rest.error, 0.1)
    assert fires(record(falling(0.4), drop=drop, error=0.1)) == found


def test_the_margin_is_that_of_the_surer_way_in_standard_errors():
    rest = rest_of(record())
    down, freed = (0.5 - max(rest.fall, 0.0)) / np.hypot(rest.error, 0.02), (0.98 - 0.45 - 0.05) / 0.1
    assert margin(record()) == pytest.approx(down, rel=0.02)
    assert margin(record(drop=0, copies=(0.4, 0.1, 0.45, 0.1))) == pytest.approx(freed, rel=0.01)
    assert margin(record(copies=(0.4, 0.1, 0.45, 0.1))) == pytest.approx(down, rel=0.02)
    assert margin(record(copies=(0.4, 0.01, 0.45, 0.01))) == pytest.approx(10 * freed, rel=0.01)
    assert freed < down < 10 * freed


def margin(made):
    (diagnosis,) = RULE.check(made)
    return diagnosis.margin


@pytest.mark.parametrize(("at", "onset"), [(200, 133), (100, 33), (60, 0)])
def test_it_began_a_third_of_the_steps_before_it_was_measured(at, onset):
    (diagnosis,) = RULE.check(record(at=at))
    assert diagnosis.onset_step == onset


def test_what_is_confirmed_does_not_hang_on_the_rest_of_the_rule():
    """`trainwatch.escape` asks for that alone."""
    assert RULE.confirmed(curvature(record(along_error=0.59))) is not None
    assert RULE.confirmed(curvature(record(along_error=0.61))) is None


def test_decay_apart_from_the_gradient_is_no_curvature():
    assert fires(record(group={"weight_decay": 1.6, "decoupled_weight_decay": True})) == 1


def test_what_was_gained_since_the_measurement_counts():
    """It had left the saddle by the time that the verdict is reached, and rests again."""
    left = np.where(np.arange(200) < 110, 1.0, 0.4) + NOISE
    assert fires(record(left, at=100)) == 0
    assert fires(record(1.0 + NOISE, at=100)) == 1


def test_a_loss_that_is_not_known_to_rest_is_not_called_so():
    wild = 1.0 + 60 * NOISE
    assert fires(record(wild)) == 0
    assert fires(record(wild, drop=3.0)) == 1


def test_a_few_steps_are_no_rest():
    assert fires(record(1.0 + NOISE[:50], at=50)) == 1
    with pytest.raises(NotChecked, match="only 49 steps were seen; 50 are needed"):
        fires(record(1.0 + NOISE[:49], at=49))


def test_weights_that_were_moved_since_are_not_judged():
    done = {"step": 200, "length": 0.4, "drop": 0.5, "drop_error": 0.02}
    with pytest.raises(NotChecked, match="the weights were moved since the curvature was measured"):
        fires(record(escapes=[done]))
    (diagnosis,) = RULE.check(record(escapes=[done | {"step": 199}]))
    assert [r.already_in_use for r in diagnosis.remedies] == [True, False, False]


def test_without_a_line_it_is_silent_and_without_curvature_it_says_why():
    made = record()
    made._series.pop("saddle_line")
    assert fires(made) == 0
    bare = make_record(1.0 + NOISE, np.full((200, 1), 1e-3))
    report = judge(bare, Settings(select=("TW401",), strict=True))
    assert report.not_checked == {"TW401": "no probe measured the curvature of the loss"}
    with pytest.raises(NotChecked, match="too few steps"):
        fires(record([1.0, 1.0, 1.0]))


def test_remedies_have_the_numbers_of_the_run():
    (diagnosis,) = RULE.check(record(group={"momentum": 0.5}))
    perturb, shake, momentum = diagnosis.remedies
    assert perturb.title == "Move the weights by 0.4 along the direction of negative curvature"
    assert "lowers the loss by 0.5 +- 0.02" in perturb.why
    assert "trainwatch.escape(watch)" in perturb.how
    assert "alpha=0.004" in shake.how
    assert f"every {1 / (0.1 * 1.8):.3g} steps" in shake.why
    assert momentum.title == "Use momentum of 0.9 (now: 0.5)"
    grown = []
    for beta in (0.5, 0.9):  # heavy-ball descent along a curvature of -1.8 at a rate of 0.1
        x, v = 1.0, 0.0
        for _ in range(200):
            v = beta * v + 1.8 * x
            before, x = x, x + 0.1 * v
        grown.append(x / before)
    assert f"grows by {grown[0] - 1:.2g} of itself a step" in momentum.why
    assert f"of 0.9 by {grown[1] - 1:.2g}" in momentum.why
    assert f"take {1 / np.log(grown[1]):.3g} steps" in momentum.why


def test_what_copies_came_to_is_told_and_noise_is_proposed_as_it_was_tried():
    (diagnosis,) = RULE.check(record(drop=0, copies=(0.4, 0.01, 0.45, 0.02)))
    assert "comes to 0.45 in 150 more steps where the weights were shaken once, to 0.98 where not" in diagnosis.summary
    assert diagnosis.evidence[0].value == pytest.approx(0.53)
    assert diagnosis.evidence[0].threshold == pytest.approx(0.05, rel=0.01)
    (shake,) = diagnosis.remedies
    assert (shake.id, shake.title) == (
        "add-noise",
        "Shake the weights once with noise of 0.3 times the size of the weights",
    )
    model = mlp(4, 2)
    before = [p.clone() for p in model.parameters()]
    exec(shake.how, {"torch": torch, "model": model})
    moved = [not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True)]
    assert moved == [p.ndim > 1 for p in before]
    (both,) = RULE.check(record(copies=(0.4, 0.01, 0.45, 0.02)))
    assert [r.id for r in both.remedies] == ["perturb", "add-noise", "momentum"]
    assert "falls by 0.5 within 0.4" in both.summary


def test_momentum_is_marked_where_it_is_in_use_and_left_out_where_it_is_none():
    (diagnosis,) = RULE.check(record(group={"momentum": 0.9}))
    assert [r.already_in_use for r in diagnosis.remedies] == [False, False, True]
    made = record()
    made.facts["optimizers"]["default"]["type"] = "Adam"
    (diagnosis,) = RULE.check(made)
    assert [r.id for r in diagnosis.remedies] == ["perturb", "add-noise"]


def asked(made):
    return [(wish.kind, wish.priority) for wish in RULE.asks(made)]


def test_it_asks_for_the_experiment_where_the_loss_rests_high_up():
    assert asked(record()) == [("saddle", 1.2), ("shaken", 0.45)]
    assert asked(record(1.0 + NOISE - np.linspace(0, 1.0, 200))) == []
    fell = np.r_[np.linspace(1, 0.05, 100), np.full(100, 0.05)] + NOISE / 10
    assert asked(record(fell)) == [("saddle", 0.3)]  # 0 may not be the least
    classes = make_record(2.3 * fell, np.full((200, 1), 1e-3), stream="cross_entropy")
    assert asked(classes) == []


@pytest.mark.parametrize(("fall", "asks"), [(0.08, True), (0.12, False)])
def test_a_loss_that_fell_by_a_tenth_lately_is_not_at_rest(fall, asks):
    assert bool(asked(record(falling(fall)))) is asks


BOTH = [("saddle", 1.2), ("shaken", 0.45)]


@pytest.mark.parametrize(
    ("gone", "known", "wishes"), [(0.88, True, BOTH), (0.92, True, []), (0.88, False, BOTH),
                                  (0.92, False, [("saddle", 0.3)])],
)  # fmt: skip
def test_where_nine_tenths_are_gone_it_looks_only_if_nobody_knows_how_low_the_loss_can_get(gone, known, wishes):
    scale, stream = (np.log(10), "cross_entropy") if known else (1.0, "l1_loss")
    assert asked(make_record(scale * resting(gone), np.full((200, 1), 1e-3), stream=stream)) == wishes


# ------------------------------------------------------------------ real trainings


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize(("data", "model", "how"), SADDLES.values(), ids=SADDLES)
def test_a_training_at_a_saddle_is_told(data, model, how, seed):
    watch = run(data, model, seed, kinds=KINDS, **how)
    assert found(RULE, watch.record) is not None
    assert found(RULE, watch.record).margin > 1


@pytest.mark.parametrize("seed", range(SEEDS))
def test_x_squared_minus_y_squared_on_its_ridge(seed):
    watch = run(ridge_data(seed), Ridge, seed, epochs=30, criterion=nn.L1Loss(), optimizer=sgd(0.05), kinds=KINDS)
    diagnosis = found(RULE, watch.record)
    assert diagnosis.where == ("both",)
    assert diagnosis.evidence[0].value == pytest.approx(1.0, abs=0.1)
    values = {e.name: e.value for e in diagnosis.evidence}
    assert values["curvature along the direction, on other batches"] == pytest.approx(-2.0, abs=0.1)
    assert values["largest eigenvalue"] == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_where_there_is_nothing_to_learn_there_is_no_saddle(seed):
    watch = run(noise(seed), lambda: mlp(10, 3, 8, nn.ReLU), seed, epochs=12, optimizer=sgd(0.02), kinds=KINDS)
    assert found(RULE, watch.record) is None


@pytest.mark.parametrize("seed", range(3))
def test_steps_that_are_too_short_are_no_saddle(seed):
    watch = run("wine", lambda: mlp(13, 3, 16), seed, epochs=20, optimizer=sgd(1e-5), kinds=KINDS)
    assert found(RULE, watch.record) is None


def test_decay_that_holds_the_weights_at_zero_is_no_saddle():
    """The criterion curves down there; what is trained on, decay included, does not."""
    model, decay = lambda: scaled(linear(10, 8, 1, end=FLAT), 3e-2), sgd(0.05, weight_decay=3.0)
    held = run("diabetes", model, epochs=20, optimizer=decay, kinds=KINDS).record
    assert RULE.confirmed(curvature(held)) is not None
    assert found(RULE, held) is None


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_scale_of_the_loss_does_not_matter(factor):
    data, model, how = SADDLES["deep linear"]
    plain = found(RULE, run(data, model, kinds=KINDS, **how).record)
    x, xv, y, yv = split(data, 0)
    larger = x, xv, factor**0.5 * y, factor**0.5 * yv
    how = how | {"optimizer": sgd(0.01 / factor)}
    other = found(RULE, run(larger, lambda: nn.Sequential(model(), Times(factor**0.5)), kinds=KINDS, **how).record)
    assert other.evidence[0].value == pytest.approx(factor * plain.evidence[0].value, rel=0.05)
    assert other.margin == pytest.approx(plain.margin, rel=0.1)


@pytest.mark.parametrize("scale", [1e-2, 1e2])
def test_the_scale_of_the_weights_does_not_matter(scale):
    how = {"epochs": 30, "criterion": nn.L1Loss(), "kinds": KINDS}
    plain = found(RULE, run(ridge_data(0), Ridge, optimizer=sgd(0.05), **how).record)
    other = found(RULE, run(ridge_data(0), lambda: Ridge(scale), optimizer=sgd(0.05 * scale**2), **how).record)
    assert other.evidence[0].value == pytest.approx(plain.evidence[0].value, rel=0.01)
    assert other.margin == pytest.approx(plain.margin, rel=0.1)


def test_what_it_explains_and_what_explains_it():
    """Weights that begin too small are the cause; at a saddle, the rate is not to blame for short steps."""
    data, model, how = SADDLES["tanh near zero"]
    causes = {d.code: d for d in run(data, model, 1, **how).report.diagnoses}
    assert "TW401" in [d.code for d in causes["TW309"].walk()]
    data, model, how = SADDLES["deep linear"]
    causes = {d.code: d for d in run(data, model, **how).report.diagnoses}
    assert "TW602" in [d.code for d in causes["TW401"].walk()]


@pytest.mark.parametrize(
    ("optimizer", "faster", "found"), [("Adam", 0.9, 1), ("Adam", 0.6, 0), ("SGD", 0.6, 1)], ids=str
)
def test_of_other_optimisers_no_copy_at_a_higher_rate_gets_past_it(optimizer, faster, found):
    """It is ahead of the run, which rests at 1.0; what plain SGD had the time for is known."""
    made = record()
    made.facts["optimizers"]["default"]["type"] = optimizer
    made.append("val_loss", "val", np.arange(9, 200, 10), np.ones(20))
    made.set_fact("validation", {"val": {"kind": "val", "primary": True, "criterion": "l1_loss", "paired": True}})
    made.append("higher_rate", "held", 200, [5.0, 1.0, 1.0, faster, 0.01, 0.01, 1.0, 1.0, faster, 0.01, 0.01])
    assert fires(made, freed=0.2) == found


@pytest.mark.parametrize(
    ("optimizer", "way", "found"), [("Adam", 1.1, 1), ("Adam", 0.9, 0), ("SGD", 0.9, 1), ("Adafactor", 0.9, 1)], ids=str
)
def test_others_must_have_gone_as_far_as_the_weights_are_long(optimizer, way, found):
    made = record(lr=way / 1959.6)  # of Adam
    made.facts["optimizers"]["default"]["type"] = optimizer
    assert fires(made, grown=0.0) == found


@pytest.mark.parametrize("seed", range(3))
def test_hardly_a_step_is_no_rest_at_a_saddle(seed):
    """A hundredth of a fitting rate, which falls along a cosine to a slope that is as good as flat."""
    x, x_val, y, y_val = split("breast_cancer", seed)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer, criterion = torch.optim.AdamW(model.parameters(), 1e-5), nn.CrossEntropyLoss()
    falls = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 15 * 14)
    with trainwatch.watch(model, optimizer, loss_fn=criterion, settings={"quiet": True, "strict": True}) as watch:
        for _ in range(15):
            model.train()
            for rows in torch.randperm(len(x)).split(32):
                optimizer.zero_grad()
                criterion(model(x[rows]), y[rows]).backward()
                optimizer.step()
                falls.step()
            model.eval()
            with torch.no_grad():
                criterion(model(x_val), y_val)
    (found,) = [d for d in watch.report.diagnoses if d.code in ("TW401", "TW602")]
    assert found.code == "TW602"


@pytest.mark.parametrize("code", ["TW301", "TW302", "TW304", "TW305", "TW306", "TW308", "TW309", "TW601", "TW604"])
def test_what_brought_the_weights_to_rest_there_is_the_cause(code):
    cause = Diagnosis(code, "cause", Severity.WARNING, "of it", margin=1.0)
    rest = Diagnosis("TW401", "saddle-point", Severity.WARNING, "at rest", margin=9.0)
    (root,) = nest([rest, cause])
    assert [d.code for d in root.walk()] == [code, "TW401"]
