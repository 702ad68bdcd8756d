import numpy as np
import pytest
import torch
from torch import nn
from watched import SETTINGS

import trainwatch
from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked, tw104_threshold_off_best
from trainwatch.rules.tw104_threshold_off_best import ThresholdOffBest
from trainwatch.symptoms.thresholds import out_of_bag


def drawn(samples=400, rate=0.2, *, shift=0.0, apart=2.5, seed=0):
    """Logit and target of samples whose scores are calibrated, but for a shift, shape (samples, 2)."""
    rng = np.random.default_rng(seed)
    targets = rng.random(samples) < rate
    x = rng.standard_normal(samples) + apart * targets
    return np.stack([apart * x - apart**2 / 2 + np.log(rate / (1 - rate)) + shift, targets], 1)


def scored(*labels, finished=True, counts=None, criterion="binary_cross_entropy_with_logits", **facts):
    """A run whose last validation pass gave these scores."""
    record = RunRecord()
    record.append("val_loss", "val", 40, 1.0)
    record.append("val_scores", "val", 40, np.stack(labels, 1))
    if counts is not None:
        record.append("train_classes", "targets" if len(labels) == 1 else "labels", 30, np.asarray(counts, float))
    record.set_fact("validation", {"val": {"kind": "val", "primary": True, "criterion": criterion}})
    for topic, value in {"run": {"finished": finished, "steps": 40}, **facts}.items():
        record.set_fact(topic, value)
    return record


def verdict(record, **thresholds):
    return list(ThresholdOffBest(**thresholds).check(record))


def weighted(**arguments):
    return {"binary_cross_entropy_with_logits": {"arguments": arguments}}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shift", [-2.0, -1.5, 3.0])
def test_fires_on_shifted_scores(shift, seed):
    record = scored(drawn(1000, shift=shift, seed=seed))
    (found,) = verdict(record)
    assert found.margin > 0
    assert found.where == ("1",)
    assert (found.evidence[1].value < 0.5) is (shift < 0)


def test_fires_on_a_network_that_names_nothing_but_ranks_well():
    (found,) = verdict(scored(drawn(shift=-9.0)))
    assert found.summary.startswith("1: F1 is 0.000 at a threshold of 0.5 and 0.8")


SILENT = {
    **{f"calibrated-{seed}": [drawn(seed=seed)] for seed in range(4)},
    "calibrated-and-few": [drawn(200, 0.16)],
    "shifted-a-little": [drawn(shift=-0.5)],
    "tells-nothing": [drawn(apart=0.01, rate=0.3, shift=-3)],
    "all-right": [drawn(apart=9, shift=-3)],
    "several-labels": [drawn(rate=r, seed=i) for i, r in enumerate((0.1, 0.2, 0.3, 0.4, 0.5))],
}


@pytest.mark.parametrize("labels", SILENT.values(), ids=SILENT)
def test_stays_silent(labels):
    assert verdict(scored(*labels)) == []


def test_the_run_must_have_ended():
    with pytest.raises(NotChecked, match="not ended"):
        verdict(scored(drawn(shift=-2), finished=False))


@pytest.mark.parametrize("flip", [False, True], ids=["positives", "negatives"])
def test_thirty_of_each_are_needed(flip):
    pairs = drawn(2000, shift=-2)
    if flip:
        pairs = np.stack([-pairs[:, 0] - 2, 1 - pairs[:, 1]], 1)
    rare = np.flatnonzero(pairs[:, 1] == (not flip))
    for kept, enough in ((29, False), (30, True)):
        some = scored(np.delete(pairs, rare[kept:], 0))
        if enough:
            verdict(some)
        else:
            with pytest.raises(NotChecked, match="30 positives"):
                verdict(some)


def test_a_record_without_labels_is_not_judged():
    record = RunRecord()
    record.set_fact("run", {"finished": True})
    with pytest.raises(NotChecked):
        verdict(record)


@pytest.mark.parametrize(("threshold", "value"), [("min_gain", 0.5), ("min_errors", 20.0)])
def test_each_threshold_can_silence_it(threshold, value):
    record = scored(drawn(shift=-2))
    assert verdict(record)
    assert not verdict(record, **{threshold: value})


@pytest.mark.parametrize("apart", [0.8, 1.0])
def test_poor_scores_have_no_good_threshold(apart):
    """Calibrated, and hard to tell: the F1 of a low threshold is higher, since it names nearly every sample."""
    record = scored(drawn(2000, 0.25, apart=apart))
    assert not verdict(record)
    assert verdict(record, skill=0.05)


def test_scores_that_go_two_fifths_of_the_way_have_a_good_threshold():
    record = scored(drawn(400, shift=-2, apart=1.5))
    assert verdict(record)
    assert not verdict(record, skill=0.45)


def test_a_gain_within_its_error_is_none():
    pairs = drawn(170, 0.25, shift=-1.2, seed=8)
    (found,) = verdict(scored(pairs), min_errors=0.5)
    assert 0 < found.margin < 2
    assert not verdict(scored(pairs))


def test_many_labels_widen_the_errors():
    """What stands out alone by a little does not among sixty."""
    pairs = drawn(160, 0.3, shift=-1.75, seed=1)
    assert verdict(scored(pairs))
    assert not verdict(scored(pairs, *(drawn(160, 0.3, apart=6, seed=i) for i in range(2, 61))))


def test_labels_that_cannot_gain_are_not_resampled(monkeypatch):
    """Resampling takes most of the time of a look."""
    tried = []
    monkeypatch.setattr(tw104_threshold_off_best, "out_of_bag", lambda c: tried.append(c.label) or out_of_bag(c))
    verdict(scored(drawn(1000, seed=1), drawn(1000, shift=-2, seed=2), drawn(1000, apart=9, seed=3)))
    assert tried == [1]


def test_message_and_evidence():
    record = scored(drawn(1000, shift=-2), counts=[800, 200, 0], class_names=["calm", "storm"])
    (found,) = verdict(record)
    assert found.severity == Severity.WARNING
    assert found.where == ("storm",)
    gain, best, precise, sensitive = found.evidence
    assert gain.threshold == 0.05
    assert gain.step == 40
    assert "of 1000" in gain.note
    assert best.threshold == 0.5
    assert "half of their F1" in best.note
    assert "0.2" in best.note
    assert precise.name == "threshold for a precision of 0.9"
    assert "recall is" in precise.note
    assert precise.value > best.value > sensitive.value
    (remedy,) = found.remedies
    assert remedy.id == "move-threshold"
    assert f"{best.value:.3g}" in remedy.title
    assert "0.2, the share of positives" in remedy.why
    predicted = torch.sigmoid(torch.tensor(record.series("val_scores", "val").values[-1][:, 0, 0])) > best.value
    threshold = float(remedy.how.split()[2])
    assert threshold == pytest.approx(best.value, rel=1e-3)
    assert predicted.sum() > 0


@pytest.mark.parametrize(
    ("criterion", "code"),
    [
        ("binary_cross_entropy_with_logits", "torch.sigmoid(model(x)) >"),
        ("binary_cross_entropy", "predicted = model(x) >"),
        ("cross_entropy", "model(x).softmax(1)[:, 1] >"),
        ("nll_loss", "model(x).exp()[:, 1] >"),
    ],
)
def test_the_code_reads_scores_as_the_loss_does(criterion, code):
    (found,) = verdict(scored(drawn(shift=-2), criterion=criterion))
    moved = found.remedies[0]
    assert code in moved.how
    assert code.replace("predicted =", "return") in moved.lightning
    compile(moved.how, "remedy", "exec")
    compile(moved.lightning, "remedy", "exec")


def test_labels_that_gain_are_named_and_all_have_a_threshold():
    labels = [drawn(1000, seed=1), drawn(1000, shift=-2, seed=2), drawn(1000, seed=3), drawn(1000, shift=-4, seed=4)]
    record = scored(*labels, counts=[200, 200, 200, 200, 1000], class_names=["a", "b", "c", "d"])
    (found,) = verdict(record)
    assert found.where == ("d", "b")
    assert "1 more of 4 labels" in found.summary
    assert "torch.tensor([0.5, 0." in found.remedies[0].how


def shifted_by(weight):
    return scored(drawn(1000, shift=float(np.log(weight))), loss=weighted(pos_weight=weight))


def test_weights_in_use_are_corrected_in_place_of_the_threshold():
    """Ten times too much weight: a tenth of it brings the best threshold of calibrated scores to half of their F1."""
    (found,) = verdict(shifted_by(10.0))
    (remedy,) = found.remedies
    assert remedy.id == "retune-weights"
    assert "twice" in remedy.why
    assert "weights or a sampler" in found.evidence[1].note
    proposed = float(remedy.how.partition("pos_weight=torch.tensor([")[2].partition("]")[0])
    best = found.evidence[1].value
    assert proposed == pytest.approx(10 * (1 - best) / best, rel=1e-3)
    compile(remedy.how, "remedy", "exec")


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (
            {"loss": {"cross_entropy": {"arguments": {"weight": [0.5, 5.0]}}}},
            "CrossEntropyLoss(weight=torch.tensor([1.0, ",
        ),
        ({"loss": weighted(pos_weight="a tensor")}, "multiply the loss's weights"),
        ({"loaders": {"train": {"sampler": "WeightedRandomSampler"}}}, "multiply the sampler's weights"),
    ],
    ids=["per-class", "not-read", "sampler"],
)
def test_every_way_of_weighting_forbids_moving_the_threshold(facts, code):
    (found,) = verdict(scored(drawn(1000, shift=3), **facts))
    (remedy,) = found.remedies
    assert remedy.id == "retune-weights"
    assert code in remedy.how


def trained(seed, *, weight=1.0, outputs=1, kept=1.0):
    """A small network on two clouds of points that overlap, one of them rare; positives weigh `weight` times more."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    y = (rng.random(1600) < 0.2).astype(np.float32)
    x = rng.standard_normal((1600, 6)).astype(np.float32) + 1.2 * y[:, None]
    x[:, 3:] -= 1.2 * y[:, None]
    x, y = torch.as_tensor(x), torch.as_tensor(y)[:, None]
    train = np.flatnonzero((rng.random(800) < kept) | (y[:800, 0].numpy() < 0.5))
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, outputs))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    if outputs == 1:
        criterion = nn.BCEWithLogitsLoss(pos_weight=None if weight == 1 else torch.tensor(weight))
    else:
        y = y[:, 0].long()
        criterion = nn.CrossEntropyLoss(weight=None if weight == 1 else torch.tensor([1.0, weight]))
    with trainwatch.watch(model, optimizer, settings={**SETTINGS, "probes": "off"}) as watch:
        for _ in range(12):
            for rows in torch.as_tensor(train)[torch.randperm(len(train))].split(32):
                optimizer.zero_grad()
                criterion(model(x[rows]), y[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                criterion(model(x[800:]), y[800:])
    return watch.record


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("outputs", [1, 2])
def test_real_trainings(seed, outputs):
    assert verdict(trained(seed, outputs=outputs)) == []
    (found,) = verdict(trained(seed, outputs=outputs, weight=30.0))
    assert found.evidence[1].value > 0.6
    assert found.remedies[0].id == "retune-weights"
    (found,) = verdict(trained(seed, outputs=outputs, kept=0.2))
    assert found.evidence[1].value < 0.4
    assert found.remedies[0].id == "move-threshold"
