import numpy as np
import pytest
import torch
from sklearn import datasets
from sklearn.model_selection import train_test_split
from torch import nn

import trainwatch
from trainwatch.config import Settings
from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw208_constant_prediction import ConstantPrediction

EVEN = np.full(5, 40)


def one_column(totals=EVEN, column=2, others=0, right=False):
    """A table in which all but `others` samples of each class are given one class; the others are right or wrong."""
    table = np.zeros((len(totals), len(totals)))
    table[:, column] = totals
    for i in range(len(totals)):
        moved = others if i != column else 0
        table[i, column] -= moved
        table[i, i if right else (column + 1) % len(totals)] += moved
    return table


def classes_record(*tables, loss=None, criterion="cross_entropy", finished=True, arguments=()):
    record = RunRecord()
    for i, table in enumerate(tables):
        record.append("val_loss", "val", 10 * (i + 1), np.log(len(table)) if loss is None else loss)
        record.append("val_confusion", "val", 10 * (i + 1), table)
    known = {"kind": "val", "primary": True, "criterion": criterion, "arguments": dict(arguments)}
    record.set_fact("validation", {"val": known})
    record.set_fact("run", {"steps": 10 * len(tables), "finished": finished})
    return record


def regression_record(outputs, targets=1.0, *, scale=1.0, samples=100):
    record = RunRecord()
    for i, spread in enumerate(outputs):
        record.append("val_loss", "val", 10 * (i + 1), scale**2)
        record.append("val_spread", "val", 10 * (i + 1), [scale * spread, scale * targets])
    facts = {"kind": "val", "primary": True, "criterion": "mse_loss", "samples": samples}
    record.set_fact("validation", {"val": facts})
    record.set_fact("run", {"steps": 10 * len(outputs), "finished": True})
    return record


def verdict(record, **thresholds):
    return list(ConstantPrediction(**thresholds).check(record))


@pytest.mark.parametrize("tables", [[one_column()] * 2, [np.diag(EVEN), *[one_column(column=4)] * 3]])
def test_one_class_for_every_sample(tables):
    (found,) = verdict(classes_record(*tables))
    assert found.severity == Severity.WARNING
    assert 5 < found.margin < 100
    assert found.onset_step == (10 if len(tables) == 2 else 20)
    assert "100.0%" in found.summary


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_outputs_without_spread(scale):
    (found,) = verdict(regression_record([0.5, 0.01, 0.0], scale=scale))
    assert found.onset_step == 20
    assert found.evidence[0].value == 0.0
    (other,) = verdict(regression_record([0.5, 0.01, 0.0]))
    assert found.margin == pytest.approx(other.margin)


SILENT = {
    "all-classes-named": classes_record(*[np.diag(EVEN)] * 3),
    "some-other-answers": classes_record(*[one_column(others=2)] * 3),
    "few-other-answers-but-right": classes_record(*[one_column(4 * EVEN, others=1, right=True)] * 3),
    "only-the-last-pass": classes_record(np.diag(EVEN), np.diag(EVEN), one_column()),
    "only-at-first": classes_record(one_column(), one_column(), np.diag(EVEN)),
    "rare-class-told-by-its-probability": classes_record(*[one_column(np.array([970, 10]), 0)] * 3, loss=0.03),
    "one-class-is-all-there-is": classes_record(*[one_column(np.array([200, 0]), 0)] * 3, loss=0.5),
    "outputs-spread": regression_record([0.01, 0.06, 0.3]),
    "constant-at-first": regression_record([0.0, 0.0, 0.3, 0.5]),
    "hard-to-predict": regression_record([0.1, 0.1, 0.1]),
}


@pytest.mark.parametrize("record", SILENT.values(), ids=SILENT)
def test_stays_silent(record):
    assert verdict(record) == []


def test_rare_classes_never_named_at_the_loss_of_chance():
    table = one_column(np.array([900, 100]), 0)
    assert verdict(classes_record(table, table, loss=0.33))
    assert not verdict(classes_record(table, table, loss=0.25))
    assert verdict(classes_record(table, table, loss=0.25, arguments={"weight": "yes"}.items()))
    assert verdict(classes_record(table, table, loss=0.25, criterion="hinge"))
    assert not verdict(classes_record(table, table, loss=0.25, arguments={"reduction": "mean"}.items()))


def test_few_samples_are_no_evidence():
    tiny = one_column(np.array([2, 1]), 0)
    assert not verdict(classes_record(tiny, tiny))
    for few in (None, 0, 5, 19):
        with pytest.raises(NotChecked, match=f"{few or 0} validation samples"):
            verdict(regression_record([0.0] * 3, samples=few))
    assert len(verdict(regression_record([0.0] * 3, samples=20))) == 1


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (classes_record(one_column(), one_column(), finished=False), "not ended"),
        (classes_record(one_column()), "1 validation passes"),
        (classes_record(), "no validation predictions"),
    ],
)
def test_it_abstains(record, reason):
    with pytest.raises(NotChecked, match=reason):
        verdict(record)


def test_each_threshold_can_silence_it():
    record = classes_record(*[one_column(4 * EVEN, column=4, others=1)] * 3)
    assert verdict(record)
    assert not verdict(record, one_class=0.999)
    assert not verdict(record, at_chance=1.1)
    with pytest.raises(NotChecked):
        verdict(record, min_passes=4)
    assert not verdict(regression_record([0.01] * 3), spread=0.001)
    with pytest.raises(NotChecked):
        verdict(regression_record([0.01] * 3), min_samples=200)


def trained(name, fault, seed, epochs):
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = ((x - x.mean(0)) / (x.std(0) + 1e-3)).astype(np.float32)
    y = y if name == "digits" else ((y - y.mean()) / y.std()).astype(np.float32)[:, None]
    x, xv, y, yv = (torch.as_tensor(a) for a in train_test_split(x, y, random_state=seed))
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(x.shape[1], 32), nn.ReLU(), nn.Linear(32, 10 if name == "digits" else 1))
    if fault:
        nn.init.constant_(model[0].bias, -30.0)  # no unit ever fires
    criterion = nn.CrossEntropyLoss() if name == "digits" else nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    watch = trainwatch.watch(model, optimizer, settings=Settings(quiet=True, strict=True))
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            criterion(model(x[rows]), y[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            criterion(model(xv), yv)
    return {d.code for d in watch.finish().findings()}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["digits", "diabetes"])
def test_real_networks_with_and_without_dead_units(name, seed):
    assert "TW208" in trained(name, True, seed, 4)
    assert "TW208" not in trained(name, False, seed, 4)


@pytest.mark.parametrize(("spread", "found"), [(0.045, 1), (0.055, 0), (0.09, 0)])
def test_outputs_must_spread_by_a_twentieth_of_what_targets_do(spread, found):
    assert len(verdict(regression_record([spread] * 4))) == found
