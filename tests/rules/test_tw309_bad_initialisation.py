import math

import numpy as np
import pytest
import torch
from begun_copies import CHANGES, with_copies
from scaled import table
from scaled import train as train_on_table
from synthetic_gradients import Sequence, digits, make_record, mlp, parameter
from torch import nn

import trainwatch
from trainwatch.config import Settings
from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.engine import judge, nest
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw309_bad_initialisation import BadInitialisation
from trainwatch.symptoms.losses import loss_course

RULE = BadInitialisation()
STEPS, CHANCE, FAN_IN = 100, math.log(10), 32
NOISE = 0.03 * np.random.default_rng(0).normal(size=10 * STEPS)
STUCK = CHANCE + NOISE[:STEPS]
SMALL, LARGE = [0.02] * 4, [8.0] * 4


def ending(gained, steps=STEPS):
    """Losses that begin at chance and end with this share of it gone."""
    return CHANCE * (1 - gained * np.minimum(np.arange(steps) / (0.7 * steps), 1)) + NOISE[:steps]


def wild(times, losses=STUCK):
    """The same, but for a first loss of so many times chance."""
    return np.r_[times * CHANCE, losses[1:]]


def layer(i, gain, mean=0.0, *, kind="weight", shape=(32, FAN_IN), **facts):
    """A weight whose entries have this mean, and a deviation of `gain` over the root of the fan-in."""
    std = gain / math.prod(shape[1:]) ** 0.5
    norm = math.prod(shape) ** 0.5 * math.hypot(std, mean)
    return parameter(f"layers.{i}.{kind}", kind, i, shape, norm) | {"std": std, **facts}


def record(weights=(1.0,) * 4, losses=STUCK, *, scale=1.0, finished=True, **more):
    """A run whose `weights` begin with these gains, or are facts as `layer` makes them."""
    parameters = [w if isinstance(w, dict) else layer(i, w) for i, w in enumerate(weights)]
    rms = np.full((len(losses), len(parameters)), 1e-2)
    return make_record(
        scale * np.asarray(losses), scale * rms, parameters=parameters, run={"finished": finished}, **more
    )


def constants(value, count=4, of=4):
    """`count` layers of one number, then layers as usual."""
    return [layer(i, 0.0, value) if i < count else layer(i, 1.0) for i in range(of)]


def normalised(count):
    """Facts of modules: layers of which the first `count` are each followed by a normalisation."""
    names = [name for i in range(4) for name in [f"layers.{i}", *[f"norms.{i}"] * (i < count)]]
    return [{"name": n, "type": "BatchNorm1d" if "norm" in n else "Linear", "order": i} for i, n in enumerate(names)]


def verdict(made, **thresholds):
    return list(BadInitialisation(**thresholds).check(made))


FAULTS = {
    "all zero": (record(constants(0.0)), 0.0, RULE.small, "all entries are zero"),
    "one number": (record(constants(0.3)), 0.0, RULE.small, "all entries are one number"),
    "one number but for 0.5 %": (record([layer(i, 0.0085, 0.3) for i in range(4)]), 0.0085, RULE.small, "all entries"),
    "most of the layers are one number": (record(constants(0.3, 3)), 0.0, RULE.small, "all entries are one number"),
    "far too large": (record(LARGE, wild(2)), 8.0, RULE.large, "weights begin 8 / sqrt(fan-in) large"),
    "far too large, chance unknown": (record(LARGE, classes=None), 8.0, RULE.large, "weights begin 8 / "),
    "large, and so is the first loss": (record([3.0] * 4, wild(20)), 3.0, RULE.large, "weights begin 3 / "),
    "small": (record(SMALL), 0.02, RULE.small, "weights begin 0.02 / sqrt(fan-in) small"),
    "far too small": (record([1e-6] * 4), 1e-6, RULE.small, "weights begin 1e-06 / sqrt(fan-in) small"),
}


@pytest.mark.parametrize(("made", "gain", "threshold", "text"), FAULTS.values(), ids=FAULTS)
def test_fires(made, gain, threshold, text):
    (found,) = verdict(made)
    assert found.severity == Severity.ERROR
    assert found.onset_step == 0
    assert found.margin > 10
    assert found.summary.startswith(text)
    assert found.evidence[0].value == pytest.approx(gain)
    assert found.evidence[0].threshold == threshold


def test_the_message_says_how_large_where_and_what_came_of_it():
    (found,) = verdict(record([0.02] * 5))
    assert found.summary == (
        "weights begin 0.02 / sqrt(fan-in) small (layers layers.0, layers.1, layers.2 and 2 more); "
        "the loss went 2.31 at the start, 2.28 at best, 2.29 at the end (2.3 is chance)"
    )
    assert found.where == tuple(f"layers.{i}" for i in range(5))
    first, share = found.evidence[1:]
    assert (first.value, first.threshold) == (pytest.approx(STUCK[0]), pytest.approx(RULE.wild * CHANCE))
    assert (share.value, share.threshold) == (pytest.approx(0.0, abs=0.01), RULE.learned)
    assert [e.step for e in found.evidence] == [0, 0, STEPS - 1]


def test_of_constant_layers_only_those_are_named():
    (found,) = verdict(record(constants(0.3, 3)))
    assert found.where == ("layers.0", "layers.1", "layers.2")
    assert "(layers layers.0, layers.1, layers.2); the loss" in found.summary


SILENT = {
    "usual weights on a task that cannot be learned": record(),
    "usual weights and a wild first loss": record(losses=wild(20)),
    "large weights and a usual first loss": record([3.0] * 4),
    "large weights and a first loss somewhat above chance": record([3.0] * 4, wild(2)),
    "large weights that nothing compares the first loss with": record([3.0] * 4, wild(20), classes=None),
    "far too large weights that forward makes smaller": record(LARGE),
    "a gain of a fifth": record([0.2] * 4),
    "large, and it learns": record(LARGE, wild(100, ending(0.85))),
    "small, and it learns": record(SMALL, ending(0.85)),
    "one number, and it learns": record(constants(0.3), ending(0.85)),
    "residual branches and a head that begin at zero": record([1.0, 1.0, 0.0, 0.0]),
    "a single layer, begun small": record([1e-3]),
    "a single layer, begun large": record([8.0], wild(20)),
    "one large layer": record([1.0, 1.0, 1.0, 50.0], wild(20)),
    "one small layer": record([1e-3, 1.0, 1.0, 1.0]),
    "a last layer of zeros": record([1.0, layer(1, 0.0)]),
    "adapters that end in zeros": record([1.0, layer(1, 0.0), 1.0, layer(3, 0.0)]),
    "adapters that are narrow in part": record([0.1, layer(1, 0.0), 0.1, layer(3, 0.0)]),
    "one layer of zeros": record([layer(0, 0.0)]),
    "one entry": record([layer(0, 0.0, 0.3, shape=(1, 1))]),
    "layers of one entry": record([1.0, *[layer(i, 0.0, 0.3, shape=(1, 1)) for i in (1, 2)], 1.0]),
    "entries of one sign that differ": record([layer(i, 0.2, 0.3) for i in range(4)]),
}


@pytest.mark.parametrize("made", SILENT.values(), ids=SILENT)
def test_silent(made):
    assert verdict(made) == []


def squashed(times, last):
    """A regression by answers that this operation makes, with far too large weights and a first loss so many times."""
    made = record(LARGE, wild(times), task="regression")
    made.set_fact("loss", {s: facts | {"last_operation": last} for s, facts in made.facts["loss"].items()})
    return made


def test_a_squashed_answer_cannot_be_wrong_by_much():
    assert verdict(squashed(2, "Addmm")) == []
    for last in ("Sigmoid", "Softmax", "Tanh"):
        assert len(verdict(squashed(2, last))) == 1
        assert verdict(squashed(0.9 * RULE.raised, last)) == []


@pytest.mark.parametrize(
    ("beyond", "within"),
    [
        (record([2.1 * RULE.large] * 4, wild(2)), record([1.9 * RULE.large] * 4, wild(2))),
        (record(LARGE, wild(1.1 * RULE.raised)), record(LARGE, wild(0.9 * RULE.raised))),
        (record([2.1 * RULE.large] * 4, classes=None), record([1.9 * RULE.large] * 4, classes=None)),
        (record([1.1 * RULE.large] * 4, wild(20)), record([0.9 * RULE.large] * 4, wild(20))),
        (record([3.0] * 4, wild(1.1 * RULE.wild)), record([3.0] * 4, wild(0.9 * RULE.wild))),
        (record([0.9 * RULE.small] * 4), record([1.1 * RULE.small] * 4)),
        (record(SMALL, ending(0.95 * RULE.learned)), record(SMALL, ending(1.05 * RULE.learned))),
        (record(constants(0.3, 3)), record(constants(0.3, 2))),
    ],
    ids=["far too large", "raised", "chance unknown", "large", "wild", "small", "learned", "half of the layers"],
)
def test_each_threshold_is_where_the_rule_says(beyond, within):
    assert len(verdict(beyond)) == 1
    assert verdict(within) == []


def test_half_of_the_loss_is_not_enough():
    assert len(verdict(record(SMALL, ending(0.5)))) == 1


@pytest.mark.parametrize(("spread", "text"), [(0.0, "one number"), (0.009, "one number"), (0.011, "small")])
def test_entries_are_as_good_as_the_same_that_differ_by_one_percent(spread, text):
    (found,) = verdict(record([layer(i, 0.3 * spread * FAN_IN**0.5, 0.3) for i in range(4)]))
    assert text in found.summary


@pytest.mark.parametrize(
    ("gains", "order", "fires"),
    [
        ([0, 1, 0, 0, 1], [0, 1, 2, 3, 4], 1),
        ([0, 1, 0, 0, 1], [0, 1, 2, 4, 3], 0),
        ([0, 1, 0, 1, 0], [0, 1, 2, 4, 3], 1),
    ],
    ids=["in a row", "registered in a row", "executed in a row"],
)
def test_equal_layers_are_two_in_a_row_in_order_of_execution(gains, order, fires):
    """Else what they are given, or what they give to, differs from unit to unit, and so they do not stay equal."""
    weights = [layer(i, gain) | {"order": at} for i, (gain, at) in enumerate(zip(gains, order, strict=True))]
    assert len(verdict(record(weights))) == fires


@pytest.mark.parametrize("first", [SMALL, LARGE, constants(0.3)], ids=["small", "large", "equal"])
def test_a_layer_that_a_normalisation_follows_does_not_count(first):
    def begins(usual, modules):
        weights = [1.0 if i >= usual else w for i, w in enumerate(first)]
        return record(weights, wild(2), modules=modules)

    assert len(verdict(begins(4, ()))) == len(verdict(begins(4, normalised(2)))) == 1
    assert verdict(begins(4, normalised(2)))[0].where == ("layers.2", "layers.3")
    assert len(verdict(begins(3, ()))) == 1
    assert verdict(begins(3, normalised(3))) == []
    with pytest.raises(NotChecked, match="no weight of a layer was seen"):
        verdict(begins(4, normalised(4)))


def test_a_loss_that_only_came_back_from_a_leap_has_not_learned():
    losses = np.r_[1.0, 10 * 0.95 ** np.arange(STEPS - 1)].clip(0.9) + NOISE[:STEPS]
    assert len(verdict(record(SMALL, losses, classes=None, stream="l1_loss"))) == 1


def test_tiny_entries_that_differ_are_not_one_number():
    (found,) = verdict(record([1e-9] * 4))
    assert "small" in found.summary


def test_it_waits_for_enough_steps_and_ten_times_as_long_in_a_run_that_goes_on():
    def of(steps, **more):
        return verdict(record(SMALL, CHANCE + NOISE[:steps], **more))

    for too_few in (10, RULE.steps - 1):
        with pytest.raises(NotChecked, match=f"only {too_few} steps were seen"):
            of(too_few)
    assert len(of(RULE.steps)) == len(of(60)) == 1
    with pytest.raises(NotChecked, match=f"only {10 * RULE.steps - 1} steps were seen"):
        of(10 * RULE.steps - 1, finished=False)
    assert len(of(10 * RULE.steps, finished=False)) == 1


def test_a_loss_that_is_not_finite_need_not_be_waited_for():
    losses = np.r_[1e9, np.full(RULE.steps - 1, np.inf)]
    (found,) = verdict(record(LARGE, losses, finished=False))
    assert found.margin == 1e3
    with pytest.raises(NotChecked, match="too few"):
        verdict(record(LARGE, losses[:-1], finished=False))


UNSEEN = {
    "no parameters": RunRecord(),
    "an older record, without deviations": record([parameter("a.weight"), parameter("b.weight")]),
    "all are frozen": record([layer(i, 8.0, trainable=False) for i in range(4)]),
    "nothing but embeddings and norms": record([layer(0, 8.0, kind="embedding"), layer(1, 8.0, kind="norm")]),
    "nothing but vectors": record([layer(0, 8.0, shape=(32,))]),
}


@pytest.mark.parametrize("made", UNSEEN.values(), ids=UNSEEN)
def test_without_weights_there_is_no_verdict(made):
    made.append("train_loss", "root", 2 * STEPS, CHANCE)
    with pytest.raises(NotChecked, match="no weight of a layer was seen"):
        verdict(made)


@pytest.mark.parametrize(("kept", "codes"), [("train_loss", ["TW309"]), ("grad_norm", [])])
def test_a_loss_is_needed_and_a_gradient_is_not(kept, codes):
    whole, made = record(SMALL), RunRecord()
    for topic, fact in whole.facts.items():
        made.set_fact(topic, fact)
    for quantity, key, series in whole.items():
        if quantity == kept:
            made.put_series(quantity, key, series)
    report = judge(made, Settings(select=("TW309",), strict=True))
    assert [d.code for d in report.diagnoses] == codes
    assert report.not_checked == ({} if codes else {"TW309": "no training loss was seen"})
    if not codes:
        with pytest.raises(NotChecked, match="no weight of a layer was seen"):
            verdict(made)


def test_only_weights_that_are_trained_count():
    others = [layer(i, 0.0, 0.3, trainable=False) for i in range(4, 20)]
    others += [layer(i, 0.0, 0.3, kind=kind) for i, kind in enumerate(("embedding", "norm", "bias", "other"), 20)]
    assert verdict(record([*[1.0] * 4, *others])) == []
    assert len(verdict(record([*constants(0.3), *[layer(i, 1.0, trainable=False) for i in range(4, 20)]]))) == 1


def test_a_recurrent_matrix_is_a_weight():
    assert len(verdict(record([layer(0, 0.01, kind="recurrent"), layer(1, 1.2 * RULE.small)]))) == 1
    assert verdict(record([layer(0, 1.0, kind="recurrent"), layer(1, 6.0)], wild(2))) == []


def test_one_large_recurrent_matrix_is_enough_whatever_the_first_loss():
    """It is applied again and again."""
    loops = [layer(i, gain * RULE.large, kind="recurrent") for i, gain in enumerate((0.9, 1.1, 1.2))]
    (found,) = verdict(record([*loops, *[1.0] * 9]))
    assert found.summary.startswith("recurrent weights begin 2.4 / sqrt(width) large (layers layers.1, layers.2); the")
    assert (found.evidence[0].value, found.evidence[0].threshold) == (pytest.approx(1.2 * RULE.large), RULE.large)
    assert found.where == ("layers.1", "layers.2")
    assert verdict(record([loops[0], *[1.0] * 9])) == []
    assert verdict(record([loops[2], *[1.0] * 9], ending(0.85))) == []


def validated(gained, criterion="cross_entropy", passes=3, classes=10):
    """A run that learns, of small weights, with passes that have this share of chance gone at last."""
    made = record(SMALL, ending(0.85), classes=classes)
    made.append(
        "val_loss", "val", np.arange(10, 10 * passes + 1, 10), CHANCE * (1 - np.arange(passes)[::-1] / 99 - gained)
    )
    made.set_fact("validation", {"val": {"kind": "val", "primary": True, "criterion": criterion}})
    return made


def test_what_was_learned_by_heart_is_not_learned():
    (found,) = verdict(validated(0.3))
    assert found.evidence[2].value == pytest.approx(0.3 + 1 / 99)
    assert found.margin == pytest.approx(verdict(record(SMALL, ending(0.3)))[0].margin, rel=0.3)
    assert len(verdict(validated(0.95 * RULE.learned))) == 1
    for silent in (
        validated(RULE.learned),
        validated(0.3, "l1_loss"),
        validated(0.3, passes=2),
        validated(0.3, classes=None),
    ):
        assert verdict(silent) == []


def test_the_fan_in_of_a_convolution_is_that_of_its_whole_kernel():
    kernel = (8, 4, 3, 3)
    (found,) = verdict(record([layer(i, 8.0, shape=kernel) for i in range(3)], wild(2)))
    assert found.evidence[0].value == pytest.approx(8.0)
    assert "for 36 inputs 0.236" in found.remedies[0].why
    assert verdict(record([layer(i, 1.4, shape=kernel) for i in range(3)], wild(20))) == []


def test_layers_are_named_in_order_of_execution():
    (found,) = verdict(record([layer(i, 0.02) | {"order": 3 - i} for i in range(4)]))
    assert found.where == ("layers.3", "layers.2", "layers.1", "layers.0")
    assert found.remedies[0].why.startswith("layers.3 begins")


def test_a_module_without_a_name_is_the_model():
    (found,) = verdict(record([layer(i, 0.02) | {"module": ""} for i in range(2)]))
    assert found.where == ("model", "model")
    assert "(layers model, model); the loss" in found.summary
    assert found.remedies[0].why.startswith("model begins")


def test_the_remedy_carries_the_deviations():
    (found,) = verdict(record(LARGE, wild(2)))
    (only,) = found.remedies
    assert only.id == "reinitialise"
    present, proposed = 8 / FAN_IN**0.5, (2 / FAN_IN) ** 0.5
    assert only.why.startswith(f"layers.0 begins with a deviation of {present:.3g}; for 32 inputs {proposed:.3g} keeps")
    (found,) = verdict(record([layer(0, 1.0), *constants(0.3, 4, 5)[1:]]))
    assert found.remedies[0].why.startswith("layers.1 begins with a deviation of 0; for 32 inputs 0.25 keeps")


def test_the_remedy_begins_every_layer_anew():
    layers = [nn.Linear(9, 64), nn.Conv1d(3, 64, 3), nn.Conv2d(1, 64, 3, bias=False), nn.Conv3d(1, 64, (1, 3, 3))]
    model = constant(nn.Sequential(*layers), 5.0)
    exec(verdict(record(SMALL))[0].remedies[0].how, {"torch": torch, "model": model})
    for module in layers:
        assert float(module.weight.detach().std()) == pytest.approx((2 / 9) ** 0.5, rel=0.15)
        assert module.bias is None or not module.bias.any()


def test_the_margin_is_the_lacking_gain_in_standard_errors():
    (found,) = verdict(record(SMALL, ending(0.5)))
    error = 1.2533 * 0.03 / (STEPS / 5) ** 0.5 / CHANCE
    assert found.margin == pytest.approx((RULE.learned - 0.5) / error, rel=0.3)
    (exact,) = verdict(record(SMALL, np.full(STEPS, CHANCE)))
    assert exact.margin == 1e3


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("weights", [LARGE, SMALL, constants(0.3)], ids=["large", "small", "equal"])
def test_the_scale_of_the_loss_does_not_matter(scale, weights):
    (found,) = verdict(record(weights, scale=scale, classes=None))
    (plain,) = verdict(record(weights, classes=None))
    assert found.margin == pytest.approx(plain.margin, rel=1e-3)
    assert verdict(record(weights, ending(0.9), scale=scale, classes=None)) == []


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_first_loss_is_wild_against_the_variance_of_the_targets(scale):
    def regression(first):
        losses = np.r_[first, 1 + NOISE[1:STEPS]]
        made = record([3.0] * 4, losses, scale=scale**2, stream="mse_loss", classes=None)
        made.append("target_stats", "mse_loss", 0, scale * np.array([-2.0, 2.0, 0.0, 1.0, -1.6, 1.6, 0.0]))
        return made

    assert len(verdict(regression(8.0))) == 1
    assert verdict(regression(3.0)) == []


@pytest.mark.parametrize(("task", "first", "fires"), [(None, 2, 1), ("regression", 2, 0), ("regression", 6, 1)])
def test_a_squared_loss_goes_up_with_the_square_of_what_is_too_large(task, first, fires):
    """Weights that the forward pass scales down, as equalised layers do, end in a first loss of a few times chance."""
    assert len(verdict(record(LARGE, wild(first), task=task))) == fires


EFFECTS = "TW203 TW204 TW205 TW206 TW208 TW301 TW302 TW303 TW304 TW305 TW601 TW602 TW603 TW604"


@pytest.mark.parametrize("code", EFFECTS.split())
def test_what_it_leads_to_is_nested_under_it(code):
    (found,) = verdict(record(SMALL))
    effect = Diagnosis(code, "an effect", Severity.ERROR, "of it", onset_step=20, margin=math.inf, confidence=0.99)
    (root,) = nest([effect, found])
    assert [d.code for d in root.walk()] == ["TW309", code]


def test_a_fault_of_another_kind_stands_beside_it():
    (found,) = verdict(record(SMALL))
    other = Diagnosis("TW101", "class-imbalance", Severity.WARNING, "a cause of its own", confidence=0.9)
    assert {d.code for d in nest([other, found])} == {"TW101", "TW309"}


def fit(model, make, data=None, criterion=None, *, steps=100, seed=0):
    """Train under a watch, on the digits unless told, and give back (report, record)."""
    x, y = data or digits()
    optimizer = make([p for p in model.parameters() if p.requires_grad])
    criterion, draw = criterion or nn.CrossEntropyLoss(), torch.Generator().manual_seed(seed)
    with trainwatch.watch(model, optimizer, loss_fn=criterion, settings={"quiet": True, "strict": True}) as watch:
        for _ in range(steps):
            rows = torch.randint(len(x), (32,), generator=draw)
            optimizer.zero_grad()
            criterion(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return watch.report, watch.record


def last_loss(made):
    return made.series("train_loss", made.keys("train_loss")[0]).values[-20:].mean()


def adam(lr):
    return lambda p: torch.optim.Adam(p, lr)


def sgd(lr):
    return lambda p: torch.optim.SGD(p, lr)


LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def begun(model, gain):
    for module in model.modules():
        if isinstance(module, LAYERS):
            nn.init.normal_(module.weight, std=gain / module.weight[0].numel() ** 0.5)
            nn.init.zeros_(module.bias)
    return model


def constant(model, value):
    for p in model.parameters():
        nn.init.constant_(p, value)
    return model


def conv(cell=nn.Conv2d, *shape):
    shape = shape or (1, 8, 8)
    return nn.Sequential(
        nn.Unflatten(1, shape), cell(shape[0], 8, 3), nn.ReLU(), cell(8, 8, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(2 * 4 ** len(shape), 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip


FAULTY = {
    "zeros": (lambda: constant(mlp(3, nn.ReLU), 0.0), adam(3e-3)),
    "zeros, tanh": (lambda: constant(mlp(3, nn.Tanh), 0.0), sgd(0.1)),
    "one number": (lambda: constant(mlp(3, nn.ReLU), 0.1), adam(3e-3)),
    "large": (lambda: begun(mlp(5, nn.ReLU), 8.0), adam(3e-3)),
    "large, thrown off": (lambda: begun(mlp(5, nn.ReLU), 5.0), sgd(0.1)),
    "large, mild": (lambda: begun(mlp(3, nn.ReLU), 5.0), adam(1e-3)),
    "small": (lambda: begun(mlp(5, nn.ReLU), 0.01), sgd(0.1)),
    "small, mild": (lambda: begun(mlp(3, nn.ReLU), 0.04), sgd(0.1)),
    "convolutions of zeros": (lambda: constant(conv(nn.Conv1d, 8, 8), 0.0), adam(3e-3)),
    "small convolutions": (lambda: begun(conv(), 0.03), sgd(0.1)),
}


@pytest.mark.parametrize(("make", "optimizer"), FAULTY.values(), ids=FAULTY)
def test_fires_on_a_net_that_cannot_start_and_the_remedy_cures_it(make, optimizer):
    (found,) = verdict(fit(make(), optimizer)[1])
    assert found.margin > 2
    fresh = make()
    exec(found.remedies[0].how, {"torch": torch, "model": fresh})
    _, made = fit(fresh, optimizer)
    assert verdict(made) == []
    assert last_loss(made) < 0.4 * CHANCE
    proposed = float(found.remedies[0].why.split(" inputs ")[1].split()[0])
    first = next(m for m in fresh.modules() if isinstance(m, LAYERS))
    assert float(first.weight.detach().std()) == pytest.approx(proposed, rel=0.3)


CHAINS = {
    "it vanishes": (lambda: begun(mlp(5, nn.ReLU), 0.02), {"TW301"}),
    "it explodes": (lambda: begun(mlp(5, nn.ReLU), 5.0), {"TW302", "TW303"}),
}


@pytest.mark.parametrize(("make", "effects"), CHAINS.values(), ids=CHAINS)
def test_it_is_the_root_of_what_a_report_finds(make, effects):
    _, made = fit(make(), sgd(0.1))
    (root,) = judge(made, Settings(select=("TW309", *effects), strict=True)).diagnoses
    assert root.code == "TW309"
    assert {d.code for d in root.walk()} == {"TW309", *effects}


def with_zeros(model):
    """With a last layer of zeros."""
    nn.init.zeros_(model[-1].weight)
    return model


def orthogonal():
    model = mlp(4, nn.Tanh)
    for module in model[::2]:
        nn.init.orthogonal_(module.weight)
    return model


HEALTHY = {
    "torch's default": (lambda: mlp(3, nn.ReLU), adam(3e-3)),
    "default and deep": (lambda: mlp(6, nn.ReLU), adam(2e-3)),
    "default, sgd": (lambda: mlp(2, nn.ReLU), sgd(0.3)),
    "kaiming": (lambda: begun(mlp(5, nn.ReLU), 2**0.5), adam(1e-3)),
    "kaiming, sgd": (lambda: begun(conv(), 2**0.5), sgd(0.1)),
    "xavier": (lambda: begun(mlp(5, nn.Tanh), 1.0), adam(1e-3)),
    "orthogonal": (orthogonal, adam(1e-3)),
    "a deviation of 0.02": (lambda: begun(mlp(3, nn.ReLU), 0.16), adam(3e-3)),
    "a last layer of zeros": (lambda: with_zeros(mlp(3, nn.ReLU)), adam(3e-3)),
    "standard normal under batch norm": (lambda: begun(mlp(2, nn.ReLU, nn.BatchNorm1d), 8.0), adam(1e-2)),
    "large, but it learns": (lambda: begun(mlp(3, nn.ReLU), 5.0), sgd(0.1)),
    "lstm": (lambda: Sequence(nn.LSTM, 4), adam(1e-2)),
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("make", "optimizer"), HEALTHY.values(), ids=HEALTHY)
def test_silent_on_a_net_that_learns(make, optimizer, seed):
    torch.manual_seed(seed)
    report, _ = fit(make(), optimizer, steps=150, seed=seed)
    assert "TW309" not in report.not_checked
    assert "TW309" not in {d.code for root in report.diagnoses for d in root.walk()}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("name", "criterion", "head"), [("wine", nn.CrossEntropyLoss(), 3), ("diabetes", nn.MSELoss(), 1)]
)
def test_silent_on_a_table_even_if_noise_bounds_what_can_be_learned(name, criterion, head, seed):
    report, made = train_on_table(table(name, seed), criterion, head=head, seed=seed)
    assert verdict(made) == []
    assert "TW309" not in report.not_checked


class Adapted(nn.Module):
    """A frozen layer with an adapter that begins at zero."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(False)
        self.down, self.up = nn.Linear(inputs, 4, bias=False), nn.Linear(4, outputs, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class Equalised(nn.Linear):
    """Weights of a deviation of 1, which forward divides by the root of the fan-in."""

    def forward(self, x):
        return nn.functional.linear(x, self.weight / self.in_features**0.5, self.bias)


class Branch(nn.Module):
    """A residual branch that begins at zero, as Fixup has it."""

    def __init__(self, width):
        super().__init__()
        self.down, self.up = nn.Linear(width, width), constant(nn.Linear(width, width), 0.0)

    def forward(self, x):
        return x + self.up(torch.relu(self.down(x)))


def net(layer, *norm):
    """Three layers; a class of normalisation follows the first two."""
    hidden = [m for inputs in (10, 64) for m in (layer(inputs, 64), *(n(64) for n in norm), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(64, 1))


def wide(model, std):
    """With weights of this deviation in all layers but the last."""
    for module in list(model)[:-1]:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
    return model


NOISY = {
    "one weight": lambda: nn.Linear(1, 1),
    "a linear model from zeros": lambda: constant(nn.Linear(10, 1), 0.0),
    "a last layer of zeros": lambda: with_zeros(nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))),
    "a last layer of zeros behind batch norm": lambda: with_zeros(net(nn.Linear, nn.BatchNorm1d)),
    "adapters": lambda: nn.Sequential(Adapted(10, 32), nn.ReLU(), Adapted(32, 1)),
    "large under batch norm": lambda: wide(net(nn.Linear, nn.BatchNorm1d), 2.0),
    "residual branches that begin at zero": lambda: with_zeros(
        nn.Sequential(nn.Linear(10, 32), nn.ReLU(), *[Branch(32) for _ in range(3)], nn.Linear(32, 1))
    ),
    "a linear model begun small": lambda: begun(nn.Linear(10, 1), 0.003),
    "equalised learning rate": lambda: wide(net(Equalised), 1.0),
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("make", NOISY.values(), ids=NOISY)
def test_silent_on_unusual_weights_where_noise_bounds_what_can_be_learned(make, seed):
    torch.manual_seed(seed)
    x, y, _, _ = table("diabetes", seed)
    model = make()
    x = x.roll(-2, 1)[:, : next(model.parameters()).shape[1]]  # the body mass index is first
    report, made = fit(model, adam(0.02), (x, y), nn.MSELoss(), seed=seed)
    assert 0.1 < made.memo(loss_course).gained < RULE.learned
    assert verdict(made) == []
    assert "TW309" not in report.not_checked


def test_silent_where_usual_weights_are_stopped_early():
    _, made = fit(mlp(5, nn.ReLU), sgd(0.1), steps=40)
    assert last_loss(made) > 0.9 * CHANCE
    assert verdict(made) == []


@pytest.mark.parametrize(("gained", "fires"), [(0.03, False), (0.01, True)])
def test_before_training_a_small_start_counts_only_where_the_steps_remove_nothing(gained, fires):
    few = CHANCE * (1 - gained * np.minimum(np.arange(40) / 28, 1))
    tried = record(SMALL, few, subject="preflight")
    assert len(verdict(tried)) == fires
    assert len(verdict(record(SMALL, few))) == 1  # of a run
    assert len(verdict(record(constants(0.3), few, subject="preflight"))) == 1  # units stay equal all the same


@pytest.mark.parametrize(("gain", "limit"), [(0.2, "modest"), (3.0, "ample")])
def test_unusual_weights_are_named_where_a_copy_from_usual_ones_leads(gain, limit):
    made = with_copies(record([gain] * 4, ending(0.9)), "usual")
    (found,) = verdict(made)
    assert found.severity == Severity.WARNING
    assert "a copy with usual weights came to a validation loss of 0.4, where another came to 1.3" in found.summary
    assert found.evidence[0].threshold == getattr(RULE, limit)
    assert found.evidence[-1].value == pytest.approx(0.7)
    assert found.evidence[-1].threshold == pytest.approx(RULE.led * CHANCE, rel=0.05)
    assert verdict(record([gain] * 4, ending(0.9))) == []


@pytest.mark.parametrize("how", CHANGES.values(), ids=CHANGES)
def test_a_copy_from_usual_weights_that_does_not_lead_decides_nothing(how):
    assert verdict(with_copies(record([0.2] * 4, ending(0.9)), "usual", **how)) == []


def test_of_usual_weights_no_copy_says_that_they_are_not():
    assert verdict(with_copies(record([0.6] * 4, ending(0.9)), "usual")) == []
    assert verdict(with_copies(record([0.2] * 4, ending(0.9)), "rectified")) == []


@pytest.mark.parametrize(
    ("gain", "gained", "asks"),
    [(0.2, 0.9, 1), (3.0, 0.9, 1), (0.6, 0.9, 0), (1.4, 0.9, 0), (0.2, 0.995, 0)],
)
def test_copies_are_asked_for_where_weights_are_unusual_and_something_is_left_to_learn(gain, gained, asks):
    wishes = list(RULE.asks(record([gain] * 4, ending(gained))))
    assert [wish.kind for wish in wishes] == ["usual_start"] * asks
    assert list(RULE.asks(record([gain], ending(gained)))) == []
