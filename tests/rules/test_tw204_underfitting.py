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
from trainwatch.rules import NotChecked
from trainwatch.rules.tw204_underfitting import Underfitting

DONE = {"steps": 200, "finished": True, "epochs": 20}
STUCK = np.r_[np.linspace(2.3, 1.6, 5), np.full(15, 1.6)]
LOSS = {
    "cross_entropy": {
        "function": "cross_entropy",
        "reduction": "mean",
        "arguments": {"reduction": "mean"},
        "classes": 10,
    }
}
DROPOUT = {"regularisation": {"dropout": [{"name": "drop", "p": 0.9}]}}


def decay(coefficient, *, decoupled=True, rate=0.1, kind="AdamW"):
    group = {"lr": rate, "weight_decay": coefficient, "decoupled_weight_decay": decoupled}
    return {"optimizers": {"default": {"type": kind, "parameters": [0], "groups": [group]}}}


def layers(*widths):
    pairs = zip(widths[1:], widths[:-1], strict=True)
    shapes = [{"name": f"l{i}", "module": f"l{i}", "kind": "weight", "shape": s, "numel": 9, "order": i}
              for i, s in enumerate(pairs)]  # fmt: skip
    return {"parameters": shapes}


def record_of(loss=STUCK, training=None, **facts):
    return fit_record(loss, training=loss if training is None else training, **{"run": DONE, "loss": LOSS, **facts})


def verdict(record, **thresholds):
    return list(Underfitting(**thresholds).check(record))


CAUSES = {
    "dropout": (DROPOUT, "less-dropout"),
    "decoupled-decay": (decay(2.0), "weaker-regularisation"),
    "penalty": (decay(0.1, decoupled=False, kind="SGD"), "weaker-regularisation"),
    "penalty-in-adam": (decay(0.1, decoupled=False, kind="Adam", rate=0.01), "weaker-regularisation"),
    "narrow": (layers(64, 2, 10), "larger-model"),
}


@pytest.mark.parametrize(("facts", "cure"), CAUSES.values(), ids=CAUSES)
def test_a_cause_in_sight_makes_it_a_warning(facts, cure):
    (found,) = verdict(record_of(**facts))
    assert found.severity == Severity.WARNING
    assert found.margin > 2
    assert found.remedies[0].id == cure
    assert found.evidence[0].value == pytest.approx(1 - 1.6 / np.log(10), abs=0.02)


MILD = {
    "nothing": {},
    "some-dropout": {"regularisation": {"dropout": [{"name": "drop", "p": 0.5}]}},
    "some-decay": decay(0.1),
    "penalty-as-usual": decay(5e-4, decoupled=False, kind="SGD"),
    "decay-without-time": decay(2.0, rate=1e-4),
    "narrow-but-not-for-so-few-classes": layers(64, 4, 10),
    "narrow-last-layer": layers(64, 32, 2),
}


@pytest.mark.parametrize("facts", MILD.values(), ids=MILD)
def test_without_one_it_is_a_remark(facts):
    (found,) = verdict(record_of(**facts))
    assert found.severity == Severity.INFO


SILENT = {
    "well-learned": (np.r_[np.linspace(2.3, 0.3, 5), np.full(15, 0.3)], None),
    "still-falling": (np.linspace(2.3, 0.7, 20), None),
    "memorising": (STUCK, np.linspace(2.2, 0.1, 20)),
}


@pytest.mark.parametrize(("loss", "training"), SILENT.values(), ids=SILENT)
@pytest.mark.parametrize("facts", [{}, decay(2.0)], ids=["free", "held-back"])
def test_stays_silent(loss, training, facts):
    assert verdict(record_of(loss, training, **facts)) == []


def test_held_back_is_also_what_falls_too_slowly_to_become_good():
    falling = np.linspace(2.3, 1.6, 20)
    (found,) = verdict(record_of(falling, **decay(2.0)))
    assert found.severity == Severity.WARNING
    assert verdict(record_of(falling)) == []


NARROW = [(4, 10, "multiclass", True), (4, 2, "binary", True), (5, 10, "multiclass", False), (4, 10, None, False),
          (8, 30, "multiclass", True), (9, 100, "language-model", False)]  # fmt: skip


@pytest.mark.parametrize(("width", "classes", "task", "narrow"), NARROW)
def test_a_narrow_layer_has_a_few_units(width, classes, task, narrow):
    known = {"cross_entropy": {**LOSS["cross_entropy"], "classes": classes}}
    facts = {**layers(64, width, classes), "task": task, "loss": known, "run": DONE}
    curve = STUCK * np.log(classes) / np.log(10)
    (found,) = verdict(fit_record(curve, training=curve, **facts))
    assert (found.severity == Severity.WARNING) == narrow


def rests_at(learned):
    end = (1 - learned) * np.log(10)
    return np.r_[np.linspace(2.3, end, 5), np.full(15, end)]


@pytest.mark.parametrize(
    ("facts", "most"),
    [(DROPOUT, 0.8), (decay(2.0), 0.8), (layers(64, 2, 10), 0.8), (layers(64, 3, 10), 0.6)],
    ids=["dropout", "decay", "two units", "three units"],
)
def test_more_is_asked_of_a_net_under_dropout_or_decay_or_of_two_units(facts, most):
    (found,) = verdict(record_of(rests_at(most - 0.03), **facts))
    assert found.severity == Severity.WARNING
    assert found.evidence[0].threshold == most
    assert verdict(record_of(rests_at(most + 0.03), **facts)) == []


def test_a_fall_is_too_slow_where_it_does_not_lead_to_what_is_asked():
    """At 57 % with 19 % more to come in half as many steps: good for a net that nothing holds back."""
    falling = np.linspace(2.3, 1.0, 20)
    assert len(verdict(record_of(falling, **decay(2.0)))) == 1
    assert verdict(record_of(falling, **layers(64, 3, 10))) == []


def test_strong_dropout_makes_the_fall_slow():
    (found,) = verdict(record_of(np.linspace(2.3, 1.6, 20), **DROPOUT))
    assert found.severity == Severity.WARNING


def test_nothing_learned_and_no_cause_is_somebody_elses():
    assert verdict(record_of(np.full(20, 2.3))) == []
    assert verdict(record_of(np.full(20, 2.3), **decay(2.0)))


def test_a_gap_to_validation_is_no_underfitting():
    assert verdict(record_of(STUCK, STUCK))
    assert not verdict(record_of(STUCK, STUCK - 0.3))


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"run": {"steps": 200, "finished": False}}, "not ended"),
        ({"optimizers": {"a": {"groups": []}, "b": {"groups": []}}}, "several"),
    ],
)
def test_it_abstains(facts, reason):
    with pytest.raises(NotChecked, match=reason):
        verdict(record_of(**facts))


def test_it_abstains_where_the_loss_of_a_constant_guess_is_unknown():
    record = record_of()
    record.set_fact("loss", {})
    with pytest.raises(NotChecked, match="constant guess"):
        verdict(record)


def test_each_threshold_can_silence_it():
    assert not verdict(record_of(**DROPOUT), held=0.1)
    assert verdict(record_of(**DROPOUT), poor=0.1)
    assert not verdict(record_of(**layers(64, 3, 10)), poor=0.1)
    assert not verdict(record_of(), remark=0.1)
    for facts, threshold in (
        (DROPOUT, "strong_dropout"),
        (decay(2.0), "strong_decay"),
        (decay(0.1, decoupled=False, kind="SGD"), "strong_penalty"),
    ):
        assert verdict(record_of(**facts), **{threshold: 3.0})[0].severity == Severity.INFO


def trained(seed, *, decay=0.0, p=0.0, width=64):
    x, y = datasets.load_digits(return_X_y=True)
    x, xv, y, yv = (torch.as_tensor(a) for a in train_test_split((x / 16).astype(np.float32), y, random_state=seed))
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Dropout(p), nn.Linear(width, 10))
    optimizer, criterion = (
        torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=decay),
        nn.CrossEntropyLoss(),
    )
    watch = trainwatch.watch(model, optimizer, settings=Settings(quiet=True, strict=True))
    for _ in range(12):
        model.train()
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            criterion(model(x[rows]), y[rows]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            criterion(model(xv), yv)
    return [d.code for d in watch.finish().findings()]


@pytest.mark.parametrize("seed", range(3))
def test_real_digits(seed):
    assert trained(seed, decay=0.2)[0] == "TW204"
    assert trained(seed, decay=5e-4, p=0.3) == []
