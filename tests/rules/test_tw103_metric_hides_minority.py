from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from synthetic import class_record, confusion
from torch import nn
from watched import SETTINGS

import trainwatch
from trainwatch.diagnosis import Severity
from trainwatch.engine import nest
from trainwatch.rules import NotChecked, all_rules
from trainwatch.rules.tw103_metric_hides_minority import MetricHidesMinority


def verdict(record, **thresholds):
    return list(MetricHidesMinority(**thresholds).check(record))


def run(*tables, metrics=None, **facts):
    record = class_record([100, 100], tables, **facts)
    for name, value in (metrics or {}).items():
        record.append("metric", name, 10 * len(tables), value)
    return record


MISSED = confusion([900, 60], [1.0, 0.05])
HALF_MISSED = confusion([900, 60], [0.99, 0.3])
FOUND = confusion([900, 60], [0.97, 0.8])

FAULTS = {
    "never-named": (MISSED,) * 2,
    "mild: a third is found": (HALF_MISSED,) * 2,
    "several-classes": (confusion([200, 200, 200, 30], [0.97, 0.95, 0.96, 0.1]),) * 2,
    "after-a-good-pass": (FOUND, MISSED, MISSED),
    "a fifth of all": (confusion([240, 60], [1.0, 0.05]),) * 2,
}


@pytest.mark.parametrize("tables", FAULTS.values(), ids=FAULTS)
def test_fires(tables):
    (found,) = verdict(run(*tables))
    assert 0 < found.margin < 100
    assert found.severity == Severity.WARNING
    assert found.where == (str(len(tables[0]) - 1),)


SILENT = {
    "found": (FOUND,) * 2,
    "bound-too-wide": (confusion([900, 8], [1.0, 0.2]),) * 2,
    "accuracy-is-poor": (confusion([900, 60], [0.7, 0.05]),) * 2,
    "accuracy-is-poor-now": (MISSED, confusion([900, 60], [0.7, 0.05])),
    "not-rare": (confusion([900, 310], [1.0, 0.4]),) * 2,
    "found-in-one-pass": (MISSED, FOUND),
    "another-class-each-time": (
        confusion([900, 60, 60], [1.0, 0.05, 0.9]),
        confusion([900, 60, 60], [1.0, 0.9, 0.05]),
    ),
    "no-class-at-all": (np.array([[900, 0], [0, 0]]),) * 2,
}


@pytest.mark.parametrize("tables", SILENT.values(), ids=SILENT)
def test_stays_silent(tables):
    assert verdict(run(*tables)) == []


def test_abstains_where_data_are_missing():
    with pytest.raises(NotChecked, match="no validation predictions"):
        verdict(class_record([100, 100]))
    with pytest.raises(NotChecked, match="1 validation pass"):
        verdict(run(MISSED))
    with pytest.raises(NotChecked, match="tokens"):
        verdict(run(MISSED, MISSED, task="language-model"))


@pytest.mark.parametrize(("threshold", "value"), [("looks_fine", 0.99), ("ratio", 20.0), ("found", 0.1)])
def test_each_threshold_can_silence_it(threshold, value):
    assert verdict(run(MISSED, MISSED))
    assert not verdict(run(MISSED, MISSED), **{threshold: value})


def test_fewer_passes_can_be_asked_for():
    assert verdict(run(FOUND, MISSED), min_passes=1)


def test_many_rare_classes_widen_the_bound():
    """4 of 20 are below one half by a bound for one class, not by one for ten."""
    one = confusion([900, 20], [1.0, 0.25])
    assert verdict(run(one, one))
    ten = confusion([900, *[20] * 10], [1.0, 0.25, *[1.0] * 9])
    assert not verdict(run(ten, ten))


def test_classes_without_a_sample_do_not_widen_the_bound():
    one = confusion([900, 20, *[0] * 9], [1.0, 0.25, *[1.0] * 9])
    assert verdict(run(one, one))


def test_the_metric_that_the_user_logs_is_named():
    (found,) = verdict(run(MISSED, MISSED, metrics={"val_acc": 96.0, "train_acc": 0.99}, class_names=["calm", "storm"]))
    assert found.summary == (
        "val_acc is 0.960 and the same answer for all would have 0.938, while of storm only 3 of 60 are found"
    )
    assert [e.name for e in found.evidence] == ["val_acc", "recall", "balanced accuracy", "macro-F1", "MCC"]
    assert found.evidence[1].where == "storm"
    assert "3 of 60" in found.evidence[1].note
    (remedy,) = found.remedies
    assert remedy.id == "better-metric"
    assert "Accuracy is 0.941" in remedy.why
    assert "balanced accuracy is 0.525" in remedy.why


def test_a_logged_accuracy_that_looks_fine_counts_where_the_own_one_does_not():
    poor = confusion([900, 60], [0.75, 0.05])
    assert not verdict(run(poor, poor))
    assert verdict(run(poor, poor, metrics={"accuracy": 0.9}))


def test_of_several_accuracies_the_one_that_looks_best_is_named():
    (found,) = verdict(run(MISSED, MISSED, metrics={"accuracy": 0.95, "val_acc": 0.97, "top_accuracy": 0.96}))
    assert found.summary.startswith("val_acc is 0.970")


def test_scores_of_several_labels_are_judged_at_the_first_look():
    record = class_record([100, 100], task="multilabel")
    often, rare = np.arange(600) % 2, np.arange(600) < 30
    scores = np.stack([np.where(often, 3.0, -3.0), np.full(600, -3.0)], 1)
    record.append("val_scores", "val", 10, np.stack([scores, np.stack([often, rare], 1)], 2))
    record.append("val_loss", "val", 10, 1.0)
    assert len(verdict(record)) == 1


@pytest.mark.parametrize("metric", ["val_f1", "balanced_accuracy", "auroc", "recall"])
def test_whoever_logs_a_fair_metric_sees_it(metric):
    assert verdict(run(MISSED, MISSED, metrics={"accuracy": 0.94, metric: 0.5})) == []


def test_onset_is_the_first_pass_of_the_present_miss():
    (found,) = verdict(run(MISSED, FOUND, MISSED, MISSED))
    assert found.onset_step == 30


@pytest.mark.parametrize("cause", ["TW101", "TW102", "TW104", "TW601"])
def test_why_it_is_missed_comes_first(cause):
    (found,) = verdict(run(MISSED, MISSED))
    other = all_rules()[cause]().diagnose("cause", margin=1.0)
    assert [d.code for d in nest([found, other])] == [cause]


@cache
def digits():
    x, y = load_digits(return_X_y=True)
    return torch.as_tensor(x / 16, dtype=torch.float32), torch.as_tensor(y)


def trained(seed, epochs, lr, *, several):
    """A net that says of digits whether they are a 8 or, of several labels, whether they are each of 6 to 9."""
    x, y = digits()
    y = (y[:, None] == torch.arange(6, 10)).float() if several else (y == 8).float()[:, None]
    torch.manual_seed(seed)
    order = torch.randperm(len(x))
    train, val = order[:1200], order[1200:]
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, y.shape[1]))
    optimizer, criterion = torch.optim.Adam(model.parameters(), lr), nn.BCEWithLogitsLoss()
    with trainwatch.watch(model, optimizer, settings={**SETTINGS, "probes": "off"}) as watch:
        for _ in range(epochs):
            for rows in train[torch.randperm(len(train))].split(32):
                optimizer.zero_grad()
                criterion(model(x[rows]), y[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                criterion(model(x[val]), y[val])
    return watch.record


@pytest.mark.parametrize("several", [False, True], ids=["two-classes", "several-labels"])
@pytest.mark.parametrize("seed", range(3))
def test_real_trainings(several, seed):
    """After two epochs hardly a digit is named, and nine in ten answers are right all the same."""
    (found,) = verdict(trained(seed, 2, 1e-3, several=several))
    assert found.evidence[0].value > 0.85
    assert verdict(trained(seed, 15, 1e-2, several=several)) == []
