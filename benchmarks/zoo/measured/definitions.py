"""What is meant by each fault that has a degree: a number of a plain training, 1 at the least that is called one.

Faults by construction (wrong wiring, wrong labels, values that are missing) need no measurement.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from torch import Tensor, nn

from benchmarks.zoo.measured.plain import Plain, first, outputs
from benchmarks.zoo.measured.told import Classes, classes, thresholds
from benchmarks.zoo.scenario import Model

Definition = Callable[[Plain], float]
DEFINITIONS: dict[str, Definition] = {}
BORDER = 0.8  # from here to 1 it is neither true nor untrue of a run
BROKEN = 2.0  # of a run whose numbers are no numbers
BEGINNING = ("init", "gain", "zero_last", "gate_bias", "gate_gain", "shift", "branch")  # words of a model
HELD_BACK = ("dropout", "residual", "frozen", "pretrained", "pretrained_on", "adapter", "body_frozen")
CLASSIFYING = ("cross_entropy", "nll", "bce_logits", "multi_margin")


def defines(*codes: str) -> Callable[[Definition], Definition]:
    def put(definition: Definition) -> Definition:
        DEFINITIONS.update(dict.fromkeys(codes, definition))
        return definition

    return put


def degree(run: Plain, code: str) -> float | None:
    """How far a run has a fault: 1 and more where it does; None where it cannot be told by training plainly."""
    if code not in DEFINITIONS:
        return None
    value = DEFINITIONS[code](run)
    return value if math.isfinite(value) else None


# ---------------------------------------------------------------- classes


@defines("TW101")
def rare_classes_neglected(run: Plain) -> float:
    """Recall of a class with less than a third of an even share is 0.1 below the others', or below that of weights."""
    told = classes(run.course)
    if told is None or not told.rare:
        return math.nan if told is None or told.untold else 0.0
    gap = max(told.others - told.recall[c] for c in told.rare)
    weighed = classes(_evened(run, told).course)
    assert weighed is not None
    return max(gap, *(weighed.recall[c] - told.recall[c] for c in told.rare)) / 0.1


@defines("TW102")
def one_class_takes_all(run: Plain) -> float:
    """0.97 of the answers are one class, where no class has 0.95 of the samples."""
    told = classes(run.course)
    if told is None:
        return math.nan
    return 0.0 if max(told.validation) >= 0.95 else max(told.answers) / 0.97


@defines("TW103")
def accuracy_hides_a_class(run: Plain) -> float:
    """Accuracy is 0.75 and more, and a rare class is found in less than half of its samples."""
    told = classes(run.course)
    if told is None or (told.untold and not told.rare):
        return math.nan
    if not told.rare or told.accuracy < 0.75:
        return 0.0
    return (1 - min(told.recall[c] for c in told.rare)) / 0.5


@defines("TW104")
def another_threshold_is_better(run: Plain) -> float:
    """F1 or balanced accuracy of two classes, or of a label, would be 0.05 better at the best threshold."""
    return thresholds(run.course) / 0.05


@defines("TW105")
def batches_lack_classes(run: Plain) -> float:
    """Beside its first sample's a step sees half as many classes as it would if samples were drawn at random."""
    y, kinds = run.course.sets.y_train, np.array(run.course.kinds)
    if not (y.dtype == torch.int64 or set(y.unique().tolist()) <= {0.0, 1.0}) or not len(kinds):
        return math.nan
    shares = np.unique(y.numpy(), return_counts=True)[1] / y.numel()
    expected = (1 - (1 - shares) ** kinds[:, 1:]).sum(1)
    return 0.5 * float((expected.mean() - 1) / max(kinds[:, 0].mean() - 1, 0.01))


# ---------------------------------------------------------------- data


@defines("TW106")
def labels_are_wrong(run: Plain) -> float:
    """3 % of the training labels are another class's; told by construction."""
    data, others = run.scenario.data, 1 - 1 / max(2, run.course.sets.outputs)
    return BROKEN if data.labels != "right" else max(data.flips, data.label_noise * others) / 0.03


@defines("TW107")
def inputs_are_not_scaled(run: Plain) -> float:
    """Standardised inputs end 0.05 of a guess's loss lower in training, or 0.03 better in score."""
    data, course = run.scenario.data, run.course
    if (data.scale, data.multiply, data.offset) == ("standard", 1, 0) or data.name in ("text", "words"):
        return 0.0
    scaled = run.but(data={"scale": "standard", "multiply": 1.0, "offset": 0.0}).course
    gained = (
        0.0 if run.scenario.model.kind == "autoencoder" else (_or_guess(run) - scaled.train[-1]) / run.guess[0] / 0.05
    )
    return float(np.nanmax([gained, (scaled.score[-1] - course.score[-1]) / 0.03]))


@defines("TW108")
def targets_are_not_scaled(run: Plain) -> float:
    """R2 is 0.03 higher with standardised targets."""
    if run.scenario.data.target == "standard":
        return 0.0
    now = run.course.score[-1]
    return (run.but(data={"target": "standard"}).course.score[-1] - (now if math.isfinite(now) else 0.0)) / 0.03


@defines("TW109")
def validation_is_drawn_otherwise(run: Plain) -> float:
    """A forest tells validation from training samples by an area of 0.75 (0.5 is chance), or classes are renumbered."""
    if run.scenario.data.val_turn:
        return 1.0
    sets = run.course.sets
    a, b = (x.flatten(1)[:500].numpy() for x in (sets.x_train, sets.x_val))
    n = min(len(a), len(b))
    x, side = np.nan_to_num(np.r_[a[:n], b[:n]]), np.r_[np.zeros(n), np.ones(n)]
    forest = RandomForestClassifier(40, random_state=0)
    told = cross_val_predict(forest, x, side, cv=3, method="predict_proba")[:, 1]
    return (float(roc_auc_score(side, told)) - 0.5) / 0.25


# ---------------------------------------------------------------- generalisation


def _risen(run: Plain) -> float:
    """How far validation ends above its lowest loss, by means of three looks: the lowest of many is low by luck."""
    if not run.course.finite or run.scenario.loop.restore:
        return 0.0
    curve = np.array(run.course.val[1:])
    curve = np.convolve(curve, np.ones(3) / 3, "valid") if len(curve) >= 6 else curve
    risen, low = float(curve[-1] - curve.min()), abs(float(curve.min()))
    return min(risen / (0.05 * low), risen / (0.01 * run.guess[1]))


@defines("TW201")
def overfitted(run: Plain) -> float:
    """Validation ends 5 % above its lowest loss, and 0.01 of a guess's, with training below 0.8 of it."""
    risen = _risen(run)
    return risen if run.course.train[-1] < 0.8 * run.course.val[-1] else min(risen, BORDER)


@defines("TW202")
def too_sure(run: Plain) -> float:
    """The loss of validation rises as in TW201, and its score does not fall by 0.01 with it."""
    risen, score = _risen(run), run.course.score
    if run.scenario.loss.name not in CLASSIFYING:
        return 0.0
    best = 1 + int(np.argmin(run.course.val[1:]))
    return risen if score[-1] >= score[best] - 0.01 else min(risen, BORDER)


@defines("TW203")
def best_pass_is_past(run: Plain) -> float:
    """The score of validation fell by 0.02 since its best pass, which is chosen by the other half of the samples."""
    a, b = np.array(run.course.score_halves[1:]).T
    if not (np.isfinite(a).any() and np.isfinite(b).any()):
        return 0.0
    return float((b[np.nanargmax(a)] - b[-1]) + (a[np.nanargmax(b)] - a[-1])) / 2 / 0.02


@defines("TW204")
def underfitted(run: Plain) -> float:
    """A larger net, more passes or another rate get 0.15 of a guess's loss lower in training, 0.05 in validation."""
    (train, val), course = run.guess, run.course
    if not course.finite or course.train[-1] < 0.15 * train:
        return 0.0
    others = [o.course for o in (_larger(run), _longer(run), *_at_rates(run, 0.2, 5.0, 20.0)) if o.course.finite]
    gained = max((course.train[-1] - o.train[-1] for o in others), default=0.0) / (0.15 * train)
    return min(gained, max((course.val[-1] - min(o.val[1:]) for o in others), default=0.0) / (0.05 * val))


@defines("TW205")
def stopped_too_early(run: Plain) -> float:
    """Five times the passes take a tenth of what was learned off the best validation loss, or add 0.05 to the score."""
    if not run.course.finite:
        return 0.0
    now, later, guessed = run.course, _longer(run).course, run.guess[1]
    low, lower = min(now.val[1:]), float(np.nanmin(later.val[1:]))
    if low < 0.085 * guessed and max(now.score[1:]) >= 0.95:
        return 0.0
    by_score = (
        (np.nanmax(later.score[1:]) - np.nanmax(now.score[1:])) / 0.05 if np.isfinite(now.score[1:]).any() else 0.0
    )
    return max((low - lower) / max(0.1 * (guessed - low), 0.02 * guessed), float(by_score))


@defines("TW206")
def regularised_too_much(run: Plain) -> float:
    """Without penalties, decay, proximal steps and dropout validation ends 0.05 of a guess's loss lower."""
    s = run.scenario
    if not (s.loss.l1 or s.optimizer.weight_decay or s.optimizer.prox or s.model.dropout):
        return 0.0
    free = run.but(loss={"l1": 0.0}, optimizer={"weight_decay": 0.0, "prox": 0.0}, model={"dropout": 0.0}).course
    return (_or_guess(run, val=True) - free.val[-1]) / run.guess[1] / 0.05


@defines("TW207")
def too_few_samples(run: Plain) -> float:
    """Twice the samples lower the best validation loss by a tenth, where training gets below half of it."""
    course, data, loop = run.course, run.scenario.data, run.scenario.loop
    if not course.finite:
        return 0.0
    n, low = len(course.sets.x_train), min(course.val[1:])
    if min(course.train[1:]) >= 0.5 * low:
        return 0.3
    passes = max(1, loop.epochs // 2) if n > 300 else loop.epochs
    more = run.but(data={"train": 2 * n}, loop={"epochs": passes}).course
    if len(more.sets.x_train) >= 1.7 * n:
        return (1 - float(np.nanmin(more.val[1:])) / low) / 0.1
    if data.keep or data.without:
        return math.nan
    half = run.but(data={"train": n // 2}, loop={"epochs": 2 * loop.epochs}).course
    return (1 - low / float(np.nanmin(half.val[1:]))) / 0.1


@defines("TW208")
def outputs_alike(run: Plain) -> float:
    """Outputs deviate by less than 0.02 (probabilities), or 0.05 of what targets do."""
    if not run.course.finite:
        return BROKEN
    output, wanted = run.course.outputs, run.course.wanted
    if wanted.dtype == torch.int64:
        return math.sqrt(0.02 / max(float(output.softmax(1).std(0).mean()), 1e-9))
    if run.scenario.loss.name == "bce_logits":
        return math.sqrt(0.02 / max(float(output.sigmoid().std(0).mean()), 1e-9))
    return math.sqrt(0.05 / max(float(output.std(0).mean() / wanted.std(0).mean()), 1e-9))


@defines("TW501")
def sum_of_absolute_weights_by_gradient(run: Plain) -> float:
    """An L1 term is part of the loss, so that weights hover about zero; told by construction."""
    return BROKEN if run.scenario.loss.l1 else 0.0


# ---------------------------------------------------------------- gradients and units


@defines("TW301")
def gradients_vanish(run: Plain) -> float:
    """The median gradient of the first weights is below a thousandth of the last ones', or above a hundred times."""
    layers = np.array(run.course.layers)
    if len(run.course.weights) < 2 or run.scenario.loop.freeze_after or not len(layers):
        return 0.0
    with np.errstate(all="ignore"):
        ratio = layers[:, 0] / layers[:, -1]
    values = [float(np.nanmedian(ratio[: max(1, len(ratio) // 5)])), float(np.nanmedian(ratio))]
    if not all(map(math.isfinite, values)):
        return math.nan
    return math.sqrt(max(1e-3 / max(min(values), 1e-12), max(values) / 100))


@defines("TW302")
def gradients_explode(run: Plain) -> float:
    """A gradient is ten times the median one, and the run ends above a guess, or broken."""
    norms = np.array(run.course.norms)
    if not run.course.finite:
        return BROKEN
    if len(norms) < 6 or not np.median(norms) > 0:
        return math.nan
    far = float(norms[5:].max() / np.median(norms)) / 10
    return far if run.course.train[-1] > 1.1 * run.guess[0] else min(far, 1.0) * 0.5


@defines("TW303")
def no_numbers(run: Plain) -> float:
    """A weight, an input or a loss is no number."""
    return 0.0 if run.course.finite else BROKEN


def _units(run: Plain, kinds: tuple[type[nn.Module], ...], idle: Callable[[nn.Module, Tensor], Tensor]) -> float:
    """Largest share of units of a layer of some kinds that are idle; `idle` tells it by units of (samples, units)."""

    def share(module: nn.Module, values: Tensor) -> float:
        values = values.movedim(1, -1) if values.ndim == 4 else values
        return float(idle(module, values.reshape(-1, values.shape[-1])).float().mean())

    return max(_of_layers(run, run.course.model, kinds, share), default=0.0)


def _of_layers(
    run: Plain, model: nn.Module, kinds: tuple[type[nn.Module], ...], told: Callable[[nn.Module, Tensor], float]
) -> list[float]:
    """What is told of the output of each layer of some kinds, in order, on some training samples."""
    found: list[float] = []
    hooks = [
        m.register_forward_hook(
            lambda module, _, out: found.append(told(module, out[0] if isinstance(out, tuple) else out))
        )
        for m in model.modules()
        if isinstance(m, kinds)
    ]
    outputs(model, run.course.sets.x_train[:600])
    for hook in hooks:
        hook.remove()
    return found


@defines("TW304")
def units_are_dead(run: Plain) -> float:
    """Half of the units of a layer give zero for every sample."""
    return _units(run, (nn.ReLU, nn.ReLU6), lambda _, v: (v <= 0).all(0)) / 0.5


@defines("TW305")
def units_are_saturated(run: Plain) -> float:
    """Half of the units of a layer lie on a flat end for most samples."""

    def flat(module: nn.Module, v: Tensor) -> Tensor:
        ends = (v > 0.95) | (v < 0.05) if isinstance(module, (nn.Sigmoid, nn.Hardsigmoid)) else v.abs() > 0.95
        return ends.float().mean(0) > 0.5

    return _units(run, (nn.Tanh, nn.Hardtanh, nn.RNN, nn.Sigmoid, nn.Hardsigmoid), flat) / 0.5


@defines("TW307")
def layers_stay_as_drawn(run: Plain) -> float:
    """A weight moves by less than 0.05 of its size and a tenth of what another does; frozen, the run ends as well."""
    before, after = (dict(m.named_parameters()) for m in (run.course.before, run.course.model))
    moved = {n: float((after[n] - before[n]).norm() / (before[n].norm() + 1e-12)) for n in run.course.weights}
    if len(moved) < 2 or not run.course.finite:
        return 0.0
    still = min(moved, key=lambda n: moved[n])
    far = min(min(0.1 * max(moved.values()), 0.05) / max(moved[still], 1e-9), 3.0)
    if far < BORDER:
        return far
    return far if _without(run, still).end <= run.end + 0.01 * run.guess[0] else 0.3


@defines("TW308")
def clipped_at_every_step(run: Plain) -> float:
    """Nine in ten steps are clipped, and without the limit training ends 0.05 of a guess's loss lower."""
    limit = run.scenario.loop.clip
    if not limit:
        return 0.0
    if np.mean(np.array(run.course.norms) >= 0.99 * limit) < 0.9:
        return 0.4
    return (run.end - run.but(loop={"clip": 0.0}).end) / run.guess[0] / 0.05


@defines("TW309")
def begun_badly(run: Plain) -> float:
    """The first loss is twice a guess's, or layers' outputs differ a hundredfold in deviation, or a usual beginning
    ends 0.05 of a guess's loss lower.
    """
    hidden = _of_layers(run, run.course.before, (nn.Linear, nn.Conv2d), lambda _, out: float(out.std()))[:-1]
    apart = max(hidden) / max(min(hidden), 1e-30) / 100 if len(hidden) > 1 else 0.0
    usual = run.but(model={name: getattr(Model(), name) for name in BEGINNING})
    gained = 0.0 if usual.scenario == run.scenario else (min(run.end, 1e9) - usual.end) / run.guess[0] / 0.05
    return max(run.course.train[0] / (2 * run.guess[0]), math.sqrt(apart), gained)


# ---------------------------------------------------------------- curvature


@defines("TW401", "TW402")
def lies_where_nothing_is_learned(run: Plain) -> float:
    """Above 0.9 of a guess's loss, and 200 steps from weights that were shaken end a tenth of it lower."""
    if not run.course.finite or run.course.train[-1] < 0.9 * run.guess[0]:
        return 0.0
    return (run.end - _shaken(run).end) / run.guess[0] / 0.1


@defines("TW403")
def steps_beyond_stability(run: Plain) -> float:
    """The rate times the largest curvature is at what plain steps can be stable with (2 and twice the momentum)."""
    spec = run.scenario.optimizer
    if spec.name != "SGD" or run.scenario.loop.clip or not run.course.finite:
        return math.nan  # the steps of others are not along the gradient
    return _curvature(run) * spec.lr / (2 * (1 + spec.momentum))


# ---------------------------------------------------------------- steps


SHORTER, LONGER = (0.2, 0.05), (5.0, 20.0)  # rates that a run's own is held against


def _gain_of_rate(run: Plain, factors: tuple[float, ...]) -> float:
    """What the best of some rates gains in what training made small, by 0.05 of a guess's loss."""
    if run.end < 0.05 * run.guess[0]:
        return 0.0
    end = min(other.end for other in _at_rates(run, *factors))
    return min((min(run.end, 1e9) - end) / run.guess[0] / 0.05, 1e3)


@defines("TW601")
def steps_too_long(run: Plain) -> float:
    """A fifth or a twentieth of the rate ends 0.05 of a guess's loss lower, or beats a guess in validation alone."""
    gain, guessed = _gain_of_rate(run, SHORTER), run.guess[1]
    if run.course.finite and min(run.course.val[1:]) > guessed:  # thrown off, it may fit its samples, and no others
        low = min(min(other.course.val[1:]) for other in _at_rates(run, *SHORTER))
        gain = max((guessed - low) / guessed / 0.05, gain)
    return gain


@defines("TW602")
def steps_too_short(run: Plain) -> float:
    """Five or twenty times the rate ends 0.05 of a guess's loss lower."""
    return _gain_of_rate(run, LONGER) if run.course.finite else 0.0


@defines("TW603")
def loss_swings(run: Plain) -> float:
    """From step to step the loss of a batch changes three times as much as batches differ, and by 0.05 of a guess's."""
    course, scenario = run.course, run.scenario
    last = np.diff(course.batches[2 * len(course.batches) // 3 :])
    n, batch = len(course.sets.x_train), scenario.loop.batch
    if len(last) < 5 or batch < n < 3 * batch or not course.finite:
        return math.nan
    x, y, still = course.sets.x_train, course.sets.y_train, [0.0]  # a batch of all samples does not differ
    if batch < n:
        order = torch.randperm(n, generator=torch.Generator().manual_seed(run.seed)).split(batch)[: n // batch][:40]
        with torch.no_grad():
            still = [float(course.loss_fn(outputs(course.model, x[rows]), y[rows])) for rows in order]
    noise = float(np.std(still)) * math.sqrt(2) + 0.003 * run.guess[0]
    return min(float(np.std(last)) / noise / 3, float(np.std(last)) / run.guess[0] / 0.05)


@defines("TW604")
def loss_leaps(run: Plain) -> float:
    """Three batches have five times the median loss of the ten before and after, and half of a guess's at least."""
    losses, count = np.array(run.course.batches), 0
    for i in range(10, len(losses) - 1):
        around = np.median(np.r_[losses[i - 10 : i], losses[i + 1 : i + 11]])
        count += bool(losses[i] >= 5 * around and losses[i] > 0.5 * run.guess[0])
    return count / 3


# ---------------------------------------------------------------- wiring


@defines("TW705")
def weights_are_left_out(run: Plain) -> float:
    """A weight that gradients reach, or of a net that was not trained before any weight, stays to the bit as drawn."""
    course, model = run.course, run.scenario.model
    if model.unregistered:
        return BROKEN
    before, after = (dict(m.named_parameters()) for m in (course.before, course.model))
    reached = np.nansum(np.array(course.layers), axis=0) if course.layers else np.zeros(len(course.weights))
    named = [name for name, norm in zip(course.weights, reached, strict=True) if norm > 0]
    if not model.pretrained:
        named += [name for name, p in before.items() if p.ndim > 1 and not p.requires_grad]
    return BROKEN * any(torch.equal(before[name], after[name]) for name in named)


@defines("TW706")
def net_is_linear(run: Plain) -> float:
    """Outputs of two layers or more are linear in inputs: those at the middle of two samples lie in the middle."""
    course = run.course
    x = course.sets.x_train[:200]
    if len(course.weights) < 2 or not x.is_floating_point() or not course.finite:
        return 0.0
    one, other, middle = (first(outputs(course.model, some)) for some in (x, x.flip(0), (x + x.flip(0)) / 2))
    off = float((middle - (one + other) / 2).std() / (one.std() + 1e-30))
    return BROKEN if off < 1e-4 else 0.0


# ---------------------------------------------------------------- other trainings


def _at_rates(run: Plain, *factors: float) -> list[Plain]:
    return [run.but(optimizer={"lr": factor * run.scenario.optimizer.lr}) for factor in factors]


def _longer(run: Plain) -> Plain:
    loop = run.scenario.loop
    return run.but(loop={"epochs": 5 * loop.epochs, "steps": 5 * loop.steps, "patience": 0, "restore": False})


def _larger(run: Plain) -> Plain:
    """A net of thrice the width, 64 at least, begun as usual, with nothing that holds it back and a usual rate."""
    model, loop = run.scenario.model, run.scenario.loop
    bent = model.activation if model.activation not in ("none", "Sigmoid", "Hardsigmoid") else "ReLU"
    return run.but(
        model={
            "kind": "mlp" if model.kind == "highway" else model.kind,
            "hidden": tuple(min(256, max(64, 3 * h)) for h in model.hidden[:3]) or (64,),
            "activation": bent,
            **{name: getattr(Model(), name) for name in (*BEGINNING, *HELD_BACK)},
        },
        loss={"l1": 0.0},
        optimizer={"name": "Adam", "lr": 3e-3, "momentum": 0.0, "weight_decay": 0.0, "rates": {}, "prox": 0.0,
                   "parameters": "all", "schedule": "cosine"},
        loop={"epochs": min(60, max(20, loop.epochs)), "steps": 0, "clip": 0.0, "clip_value": 0.0, "freeze_after": 0,
              "zero_grad": "before", "train_mode": "train", "keep_frozen": False, "patience": 0, "restore": False,
              "order": "shuffled", "batch": min(50, max(20, loop.batch))},
    )  # fmt: skip


def _evened(run: Plain, told: Classes) -> Plain:
    """Classes weigh alike in the loss, or where it has no weights, are drawn alike."""
    if run.scenario.loss.name in ("cross_entropy", "nll", "bce_logits") and min(told.training) > 0:
        return run.but(loss={"weights": "inverse", "positive": 0.0})
    return run.but(loop={"order": "balanced"})


def _shaken(run: Plain) -> Plain:
    """Goes on for 200 steps from the weights that a run ended with, under noise of 0.3 of their deviation."""
    scenario, n = run.scenario, len(run.course.sets.x_train)
    shaken = copy.deepcopy(run.course.model)
    generator = torch.Generator().manual_seed(run.seed)
    with torch.no_grad():
        for p in (p for p in shaken.parameters() if p.requires_grad):
            spread = float(p.std()) if p.numel() > 1 else 0.0
            p.add_(0.3 * torch.randn(p.shape, generator=generator) * (spread if spread > 1e-3 else 0.1))
    loop = replace(scenario.loop, epochs=max(1, 200 * scenario.loop.batch // n), steps=0, patience=0, restore=False)
    goes_on = replace(scenario, loop=loop, optimizer=replace(scenario.optimizer, schedule="none"))
    return Plain(goes_on, run.seed, lambda _: shaken.train())


def _without(run: Plain, weight: str) -> Plain:
    """The same with a weight frozen."""

    def frozen(model: nn.Module) -> nn.Module:
        model.get_parameter(weight).requires_grad_(False)
        return model

    return Plain(run.scenario, run.seed, frozen)


def _or_guess(run: Plain, val: bool = False) -> float:
    """The last loss, or of a run that broke what a guess costs."""
    last = (run.course.val if val else run.course.train)[-1]
    return last if math.isfinite(last) else run.guess[val]


def _curvature(run: Plain, samples: int = 800, rounds: int = 25) -> float:
    """The eigenvalue of the Hessian of largest magnitude, by power iteration."""
    course = run.course
    model = course.model.eval()
    parameters = [p for p in model.parameters() if p.requires_grad]
    loss = course.loss_fn(model(course.sets.x_train[:samples]), course.sets.y_train[:samples])
    gradient = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    used = [(p, g) for p, g in zip(parameters, gradient, strict=True) if g is not None]
    generator, value = torch.Generator().manual_seed(0), 0.0
    vector = [torch.randn(p.shape, generator=generator) for p, _ in used]
    for _ in range(rounds):
        size = math.sqrt(sum(float((v * v).sum()) for v in vector)) + 1e-30
        vector = [v / size for v in vector]
        along = torch.stack([(g * v).sum() for (_, g), v in zip(used, vector, strict=True)]).sum()
        curved = torch.autograd.grad(along, [p for p, _ in used], retain_graph=True, allow_unused=True)
        product = [torch.zeros_like(p) if c is None else c for (p, _), c in zip(used, curved, strict=True)]
        value = sum(float((c * v).sum()) for c, v in zip(product, vector, strict=True))
        vector = product
    return value
