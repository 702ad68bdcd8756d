import copy

import numpy as np
import pytest
import torch
from synthetic_gradients import chain, digits, make_record, mlp
from torch import nn
from watched import drawn, watched

from trainwatch.config import Settings
from trainwatch.engine import judge
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw307_layers_near_initialisation import LayersNearInitialisation
from trainwatch.symptoms.losses import loss_course

RULE = LayersNearInitialisation()
STEPS, CHANCE = 200, 2.3
NOISE = 0.03 * np.random.default_rng(0).normal(size=STEPS)
PARAMETERS, MODULES = chain(4, biases=False)
NAMES = [p["name"] for p in PARAMETERS]


def falling(gained):
    return CHANCE * (1 - gained * np.arange(STEPS) / (0.9 * STEPS)) + NOISE


def record(
    distances=(0.002, 0.002, 1.0, 1.0),
    losses=None,
    *,
    rates=(1e-3, 1.0),
    slow=(0, 1),
    fresh=NAMES,
    optimizer="Adam",
    rms=1e-2,
    scale=1.0,
    finished=True,
    seen=STEPS,
    parameters=PARAMETERS,
):
    """Four weights that moved so far, the first two in a group with the first rate, the others with the second."""
    losses = falling(0.3) if losses is None else losses
    gradients = scale * np.broadcast_to(rms, (len(losses), 4))
    made = make_record(scale * losses, gradients, parameters=parameters, modules=MODULES, optimizer=optimizer,
                       lr=rates[0], classes=10 if scale == 1 else None,
                       run={"finished": finished, "steps": len(losses)},
                       still={name: name in fresh for name in NAMES})  # fmt: skip
    optimizers = copy.deepcopy(made.facts["optimizers"])
    (group,) = optimizers["default"]["groups"]
    members = [list(slow), [i for i in range(4) if i not in slow]]
    optimizers["default"]["groups"] = [
        group | {"lr": r, "initial_lr": r, "parameters": p} for r, p in zip(rates, members, strict=True)
    ]
    made.set_fact("optimizers", optimizers)
    made.append("lr", "default/1", 0, rates[1])
    for step in (seen // 2, seen):
        rows = np.stack([[1e-3] * 4, distances, 2 * np.array(distances), [0.5] * 4], 1)
        made.append("motion", "default", step, rows, {"every": 10})
    return made


def verdict(made, **thresholds):
    return list(LayersNearInitialisation(**thresholds).check(made))


def starved(distance=1e-4, share=1.0, losses=None, **more):
    """At one rate, plain steps: two layers that went next to nowhere."""
    more = {"optimizer": "SGD", "rates": (0.1, 0.1), "rms": np.array([1e-6, 1e-6, 1e-2, 1e-2])} | more
    return record((distance, distance, share, share), falling(0.3) if losses is None else losses, **more)


@pytest.mark.parametrize("distance", [0.0, 1e-6, 0.002, 0.04])
@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_fires_where_a_group_has_a_tiny_rate(distance, optimizer):
    (found,) = verdict(record((distance, distance, 1.0, 2.0), optimizer=optimizer))
    assert found.where == ("layers.0", "layers.2")
    assert found.onset_step == 0
    assert found.margin > 0
    assert found.evidence[0].value == pytest.approx(distance)
    assert found.evidence[1].value == pytest.approx(1.5)
    assert found.evidence[2].value == pytest.approx(0.3, abs=0.03)
    (cure,) = found.remedies
    assert cure.id == "group-learning-rate"
    assert cure.title == "Raise the learning rate of 'layers.0', 'layers.2' from 0.001 to 1"
    assert "for i in [0]:" in cure.how


def test_fires_where_plain_steps_of_one_rate_do_not_move_some_layers():
    (found,) = verdict(starved())
    (cure,) = found.remedies
    assert cure.id == "adaptive-steps"
    assert "gets 0.0001 of the gradient" in cure.why


@pytest.mark.parametrize(("gradient", "rate"), [(0.05, 5e-3), (1e-4, 1e-4), (3.0, 1e-2)])
def test_the_proposed_steps_are_as_long_as_those_of_the_layers_that_move(gradient, rate):
    (found,) = verdict(starved(rms=np.array([1e-4, 1e-4, 1.0, 1.0]) * gradient))
    assert f"lr={rate:.1g})" in found.remedies[0].how


def embeddings(**more):
    kinds = [p | {"kind": "embedding"} if i < 2 else p for i, p in enumerate(PARAMETERS)]
    return {"parameters": kinds} | more


SILENT = {
    "the net learns": record(losses=falling(0.95)),
    "the end is not finite": record(losses=np.r_[falling(0.1)[:100], np.full(100, np.inf)]),
    "they moved": record((0.06, 0.06, 2.0, 2.0)),
    "all layers are still": record((0.002,) * 4),
    "the others hardly moved": record((1e-4, 1e-4, 0.09, 0.09)),
    "they carry training": record(fresh=()),
    "they get no gradient": record(rms=np.array([0.0, 0.0, 1e-2, 1e-2])),
    "rates are alike, and steps adaptive": record(rates=(1.0, 1.0)),
    "rates are apart, distances are not": record((0.04, 0.04, 0.12, 0.12)),
    "starved, and the net learns": starved(losses=falling(0.75)),
    "starved, but not that much": starved(0.012),
    "all went next to nowhere": starved(1e-4, 0.02),
    "starved embeddings": starved(**embeddings()),
}


@pytest.mark.parametrize("made", SILENT.values(), ids=SILENT)
def test_silent(made):
    assert verdict(made) == []


@pytest.mark.parametrize(
    ("faulty", "sound"),
    [
        (record((0.048, 0.002, 1.5, 1.5)), record((0.052, 0.051, 1.5, 1.5))),
        (record((0.002, 0.002, 0.11, 0.11)), record((0.002, 0.002, 0.09, 0.09))),
        (record(rates=(1.0, 21.0)), record(rates=(1.0, 19.0))),
        (record((0.04, 0.04, 0.84, 0.84)), record((0.04, 0.04, 0.76, 0.76))),
        (record(losses=falling(0.86)), record(losses=falling(0.94))),
        (starved(0.0095), starved(0.0105)),
        (starved(0.0024, 0.25), starved(0.0026, 0.25)),
        (starved(losses=falling(0.66)), starved(losses=falling(0.74))),
    ],
    ids=["still", "moved", "apart", "apart in distance", "learned", "starved", "starved beside others", "poor"],
)
def test_each_threshold_is_where_the_rule_says(faulty, sound):
    assert len(verdict(faulty)) == 1
    assert verdict(sound) == []


def test_an_embedding_is_judged_by_its_rate():
    assert len(verdict(record(**embeddings()))) == 1


def test_only_what_looks_as_it_was_drawn_is_named():
    (found,) = verdict(record(fresh=NAMES[1:2]))
    assert found.where == ("layers.2",)


def test_a_slow_weight_that_moved_is_one_of_the_others():
    (found,) = verdict(record((0.06, 0.002, 2.0, 2.0)))
    assert found.where == ("layers.2",)
    assert found.evidence[1].value == pytest.approx(2.0)


def test_of_the_still_layers_the_one_that_went_furthest_is_shown():
    (found,) = verdict(record((0.002, 0.004, 1.0, 1.0)))
    assert (found.evidence[0].value, found.evidence[0].where) == (pytest.approx(0.004), "layers.2")


@pytest.mark.parametrize("gained", [0.3, 0.89])
def test_the_margin_is_in_standard_errors_of_the_nearer_threshold(gained):
    (found,) = verdict(made := record((0.002, 0.004, 1.0, 1.0), falling(gained)))
    course = loss_course(made)
    distance, loss = (0.05 - 0.004) / (0.05 * 0.05), (RULE.learned - course.gained) / course.gained_error
    assert found.margin == pytest.approx(min(distance, loss), rel=1e-5)
    assert (distance < loss) is (gained == 0.3)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_the_loss_does_not_matter(scale):
    assert len(verdict(record(scale=scale))) == 1
    assert verdict(record(scale=scale, losses=falling(0.95))) == []


def test_weights_that_left_their_group_are_not_judged():
    made = record()
    optimizers = copy.deepcopy(made.facts["optimizers"])
    optimizers["default"]["groups"][0]["parameters"].remove(1)
    made.set_fact("optimizers", optimizers)
    (found,) = verdict(made)
    assert found.where == ("layers.0",)


def test_it_waits_for_the_end_and_for_enough_steps():
    with pytest.raises(NotChecked, match="the run has not ended"):
        verdict(record(finished=False))
    with pytest.raises(NotChecked, match="only 49 steps"):
        verdict(record(losses=falling(0.1)[:49], seen=49))
    assert len(verdict(record(losses=falling(0.1)[:50], seen=50))) == 1


def test_weights_that_were_not_followed_to_the_end_are_not_judged():
    with pytest.raises(NotChecked, match="could not be followed"):
        verdict(record(seen=100))


def test_a_record_without_motion_says_so():
    whole, made = record(), RunRecord()
    for topic, fact in whole.facts.items():
        made.set_fact(topic, fact)
    for quantity, key, series in whole.items():
        if quantity != "motion":
            made.put_series(quantity, key, series)
    report = judge(made, Settings(select=("TW307",), strict=True))
    assert report.not_checked == {"TW307": "how far weights move was not measured"}


def grouped(optimizer, lr, factor):
    """All but the last layer at a rate of its own."""

    def make(model):
        parameters = list(model.parameters())
        groups = [{"params": parameters[:-2], "lr": factor * lr}, {"params": parameters[-2:], "lr": lr}]
        return optimizer(groups)

    return make


def fit(make, optimizer, *, seed=0, steps=200):
    torch.manual_seed(seed)
    model = make()
    return watched(model, optimizer(model), drawn(*digits(), batch=32, steps=steps, seed=seed), nn.CrossEntropyLoss())


def relu(depth=3, width=64):
    return lambda: mlp(depth, nn.ReLU, width=width)


def normal():
    """Weights drawn from a normal distribution, and biases at zero."""
    model = mlp(3, nn.ReLU)
    for layer in model[::2]:
        nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


class Quiet(nn.Module):
    """Nearly all that a net could learn lies in a branch that a factor mutes."""

    def __init__(self, factor):
        super().__init__()
        self.loud = nn.Sequential(nn.Linear(64, 2), nn.ReLU(), nn.Linear(2, 10))
        self.quiet = mlp(3, nn.ReLU)
        self.factor = factor

    def forward(self, x):
        return self.loud(x) + self.factor * self.quiet(x)


ADAM, SGD = torch.optim.Adam, torch.optim.SGD
FAULTY = {
    "adam, a thousandth": (relu(), grouped(ADAM, 1e-3, 1e-3), ("0", "2")),
    "adam, a hundredth": (relu(), grouped(ADAM, 1e-3, 1e-2), ("0", "2")),
    "adam, no rate": (relu(), grouped(ADAM, 1e-3, 0.0), ("0", "2")),
    "adam, five layers": (relu(5), grouped(ADAM, 1e-3, 1e-3), ("0", "2", "4", "6")),
    "adam, normal weights": (normal, grouped(ADAM, 1e-3, 0.0), ("0", "2")),
    "sgd, a thousandth": (relu(), grouped(SGD, 0.1, 1e-3), ("0", "2")),
    "sgd, a muted branch": (lambda: Quiet(1e-3), lambda m: SGD(m.parameters(), 0.1), ("quiet.0", "quiet.2", "quiet.4")),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("make", "optimizer", "where"), FAULTY.values(), ids=FAULTY)
def test_fires_on_a_net_whose_first_layers_stay_where_they_are(make, optimizer, where, seed):
    made = fit(make, optimizer, seed=seed)
    (found,) = verdict(made)
    assert set(found.where) == set(where)
    assert found.margin > 3


@pytest.mark.parametrize(("optimizer", "lr"), [(ADAM, 1e-3), (SGD, 0.1)], ids=["adam", "sgd"])
def test_the_proposed_rate_cures_it(optimizer, lr):
    made = fit(relu(), grouped(optimizer, lr, 1e-3), steps=300)
    (found,) = verdict(made)

    def cured(model):
        chosen = grouped(optimizer, lr, 1e-3)(model)
        exec(found.remedies[0].how, {"optimizer": chosen})
        return chosen

    again = fit(relu(), cured, steps=300)
    assert verdict(again) == []
    assert loss_course(again).gained > loss_course(made).gained + 0.5


def test_the_proposed_optimiser_cures_it():
    (found,) = verdict(fit(lambda: Quiet(1e-3), lambda m: SGD(m.parameters(), 0.1)))

    def cured(model):
        names = {"torch": torch, "model": model}
        exec(found.remedies[0].how, names)
        return names["optimizer"]

    assert verdict(fit(lambda: Quiet(1e-3), cured, steps=300)) == []


HEALTHY = {
    "adam": (relu(), lambda m: ADAM(m.parameters(), 1e-3)),
    "sgd": (relu(), lambda m: SGD(m.parameters(), 0.1)),
    "a wide net, lazy": (relu(3, 1024), lambda m: SGD(m.parameters(), 0.02)),
    "rates tenfold apart": (relu(), grouped(ADAM, 3e-3, 0.1)),
    "normal weights": (normal, lambda m: SGD(m.parameters(), 0.05, momentum=0.9)),
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("make", "optimizer"), HEALTHY.values(), ids=HEALTHY)
def test_silent_on_a_net_whose_layers_move(make, optimizer, seed):
    assert verdict(fit(make, optimizer, seed=seed)) == []


def trained():
    """A body that was trained on the same digits, under a head of its own."""
    torch.manual_seed(5)
    model = mlp(3, nn.ReLU)
    optimizer = ADAM(model.parameters(), 3e-3)
    for x, y in drawn(*digits(), batch=64, steps=300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    model[-1].reset_parameters()
    return model


@pytest.mark.parametrize("factor", [0.0, 1e-3])
def test_silent_on_a_trained_body_that_is_tuned_gently(factor):
    made = fit(trained, grouped(ADAM, 1e-3, factor), steps=60)
    assert loss_course(made).gained < RULE.learned  # so it is the weights that tell
    assert verdict(made) == []
    assert made.facts["still"] == {"0.weight": False, "2.weight": False}


def test_where_nothing_moves_it_is_the_rate_of_all():
    made = fit(relu(), lambda m: ADAM(m.parameters(), 1e-6))
    assert verdict(made) == []
    assert [d.code for d in judge(made, Settings(select=("TW307", "TW602"), strict=True)).diagnoses] == ["TW602"]


def test_short_steps_are_nested_under_it():
    (root,) = judge(fit(relu(), grouped(SGD, 0.1, 1e-3)), Settings(select=("TW307", "TW602"), strict=True)).diagnoses
    assert [d.code for d in root.walk()] == ["TW307", "TW602"]
