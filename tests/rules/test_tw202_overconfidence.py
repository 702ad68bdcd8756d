import numpy as np
import pytest
import torch
from sklearn import datasets
from sklearn.model_selection import train_test_split
from synthetic import curve, fit_record
from torch import nn

import trainwatch
from trainwatch.config import Settings
from trainwatch.diagnosis import Severity
from trainwatch.rules import NotChecked
from trainwatch.rules.tw202_overconfidence import Overconfidence

HOLDS = np.r_[np.linspace(0.2, 0.9, 8), np.full(12, 0.9)]
RISES = np.r_[np.linspace(0.2, 0.9, 8), np.linspace(0.9, 0.94, 12)]
FALLS = np.r_[np.linspace(0.2, 0.9, 8), np.linspace(0.89, 0.8, 12)]


def verdict(record, **thresholds):
    return list(Overconfidence(**thresholds).check(record))


@pytest.mark.parametrize("climb", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("accuracy", [HOLDS, RISES], ids=["holds", "rises"])
def test_fires(climb, accuracy):
    (found,) = verdict(fit_record(curve(climb=climb), accuracy=accuracy, noise=0.005))
    assert found.severity == Severity.WARNING
    assert 60 <= found.onset_step <= 100


SILENT = {
    "no-accuracy": {"validation": curve()},
    "accuracy-falls": {"validation": curve(), "accuracy": FALLS},
    "flat": {"validation": curve(climb=0.0), "accuracy": HOLDS, "noise": 0.02},
    "training-rises-too": {"validation": curve(), "training": curve(), "accuracy": HOLDS},
}


@pytest.mark.parametrize("case", SILENT.values(), ids=SILENT)
def test_stays_silent(case):
    assert verdict(fit_record(**case)) == []


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_verdict_ignores_the_scale_of_the_loss(scale):
    (found,) = verdict(fit_record(curve(), accuracy=HOLDS, scale=scale))
    assert found.onset_step == 80


def test_waits_for_enough_passes():
    with pytest.raises(NotChecked):
        verdict(fit_record(curve()[:4], accuracy=HOLDS[:4]))


def test_message():
    (found,) = verdict(fit_record(curve(), accuracy=HOLDS, spread=0.0))
    assert found.summary == (
        "validation loss rose from 0.5306 about step 80 to 1.05 while accuracy went from 86.7% to 90.0%"
    )
    assert found.evidence[-1].name == "validation accuracy now"


def test_temperature_is_measured_where_there_are_binary_scores():
    record = fit_record(curve(), accuracy=HOLDS)
    (plain,) = verdict(record)
    assert "not measured" in plain.remedies[0].why
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 500)
    targets = rng.random(500) < 1 / (1 + np.exp(-logits))
    record.append("val_scores", "val", 200, np.stack([1 / (1 + np.exp(-3 * logits)), targets], 1))
    (found,) = verdict(record)
    assert found.remedies[0].id == "temperature"
    value = float(found.remedies[0].why.split("run: ")[1].split(",")[0])
    assert value == pytest.approx(3.0, rel=0.2)


def test_smoothing_in_use_comes_last_with_the_next_step():
    used = {"label_smoothing": 0.1, "weight_decay": 0.0, "early_stopping": False}
    (found,) = verdict(fit_record(curve(), accuracy=HOLDS, regularisation=used))
    assert found.remedies[-1].id == "label-smoothing"
    assert "label_smoothing=0.2" in found.remedies[-1].how
    (fresh,) = verdict(fit_record(curve(), accuracy=HOLDS))
    assert [r.id for r in fresh.remedies] == [
        "temperature",
        "label-smoothing",
        "early-stopping",
        "stronger-regularisation",
    ]


def trained(seed, *, epochs, rate, held_out=0.7):
    x, y = datasets.load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    sets = train_test_split(x, y, test_size=held_out, random_state=seed, stratify=y)
    x, xv, y, yv = (torch.as_tensor(a) for a in sets)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer, criterion = torch.optim.Adam(model.parameters(), lr=rate), nn.CrossEntropyLoss()
    watch = trainwatch.watch(model, optimizer, settings=Settings(quiet=True, strict=True))
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            criterion(model(x[rows]), y[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            criterion(model(xv), yv)
    return watch.finish()


@pytest.mark.parametrize(("climb", "said"), [(0.0035, True), (0.0025, False)])
def test_a_fiftieth_of_the_drop_is_a_rise(climb, said):
    assert bool(verdict(fit_record(curve(climb=climb), accuracy=HOLDS))) is said


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_a_real_network_that_grows_ever_surer_of_itself(seed):
    (found,) = trained(seed, epochs=80, rate=1e-2).findings()
    assert found.code == "TW202"
    assert [c.code for c in found.consequences] == ["TW203", "TW503"]  # the remark: nothing regularises


@pytest.mark.parametrize("seed", range(3))
def test_a_real_network_that_stops_in_time(seed):
    assert not trained(seed, epochs=10, rate=2e-3, held_out=0.25).findings()
