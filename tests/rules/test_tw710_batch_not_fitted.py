import pytest
import torch
from torch import nn
from tried import CE, Forward, batch, net, only, tried

from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw710_batch_not_fitted import BatchNotFitted

X, Y = batch()


def of_nothing():
    """Its outputs are a bias, whatever the inputs."""
    return Forward(lambda s, x: s.net(x * 0).softmax(1).log(), net=net())


def test_fires_where_the_inputs_do_not_get_through():
    found = only(tried(of_nothing(), CE(), (X, Y)))
    assert (found.code, found.severity) == ("TW710", "warning")
    assert all(e.value < 0.02 for e in found.evidence)
    assert "take its loss from" in found.remedies[0].why


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("shape", ["wide", "deep", "dropout"])
def test_is_silent_on_sound_nets(shape, seed):
    torch.manual_seed(seed)
    model = {
        "wide": lambda: net(width=128),
        "deep": lambda: nn.Sequential(*(m for _ in range(3) for m in (nn.Linear(12, 12), nn.Tanh())), nn.Linear(12, 4)),
        "dropout": lambda: nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Dropout(0.8), nn.Linear(64, 4)),
    }[shape]()
    assert tried(model, CE(), batch(seed=seed), torch.optim.Adam(model.parameters(), 3e-3)).diagnoses == ()


def test_a_rate_that_does_nothing_is_a_remark():
    model = net()
    (found,) = tried(model, CE(), (X, Y), torch.optim.SGD(model.parameters(), lr=1e-6)).diagnoses
    assert (found.code, found.severity) == ("TW710", "info")
    assert "at a rate of 1e-06" in found.summary
    assert "10 * 1e-06" in found.remedies[0].how


def fit(*levels, **more):
    return [d.severity for d in BatchNotFitted().check(record_of(*levels, **more))]


def record_of(before, own, reference, chance=1.0, subject="preflight"):
    record = RunRecord()
    record.set_fact("subject", subject)
    record.set_fact("loss", {"mse_loss": {"function": "mse_loss", "reduction": "mean"}})
    for step in range(3):
        record.append("train_loss", "mse_loss", step, before)
    record.append("target_stats", "mse_loss", 0, [-1.0, 1.0, 0.0, chance**0.5, -1.0, 1.0, 0.0])
    record.append("one_batch_fit", "train", 3, [before, own, reference, 16.0])
    return record


@pytest.mark.parametrize(
    ("before", "own", "reference", "found"),
    [
        (1.0, 0.99, 0.985, ["warning"]),
        (1.0, 0.97, 0.99, []),
        (1.0, 0.976, 0.5, ["info"]),  # less than a twentieth of the way
        (1.0, 0.974, 0.5, []),
        (1.0, 0.9, 0.5, []),
        (9.0, 1.2, 1.1, ["warning"]),  # no better than a constant guess
        (9.0, 8.9, 0.1, ["info"]),
        (1.0, float("nan"), 0.99, ["warning"]),
    ],
)
def test_thresholds_do_not_hang_on_the_unit_of_the_loss(before, own, reference, found):
    for unit in (1.0, 1e6):
        assert fit(unit * before, unit * own, unit * reference, unit) == found


def test_the_lowest_loss_is_told():
    (found,) = BatchNotFitted().check(record_of(1.0, 0.985, 0.99))
    assert "take its loss from 1 to 0.985" in found.summary


def test_says_nothing_of_a_run_and_abstains_where_nothing_was_tried():
    assert fit(1.0, 1.0, 1.0, subject="run") == []
    record = RunRecord()
    record.set_fact("subject", "preflight")
    with pytest.raises(NotChecked, match="no batch was tried"):
        list(BatchNotFitted().check(record))
    record.append("train_loss", "mse_loss", 0, 1.0)
    with pytest.raises(NotChecked, match="no batch was tried"):
        list(BatchNotFitted().check(record))
