"""Several losses in one step: of tasks with other classes, and terms within the model beside a loss outside."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainwatch

SETTINGS = {"quiet": True, "strict": True, "probes": "off", "flush_every": 10}
X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
Y = X.argmax(1)
YES = (X[:, 0] > 0).float()


def train(model, loss, steps=30):
    """Passes of two batches of training, and one of the first 20 samples of validation."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    watch = trainwatch.watch(model, optimizer, settings=SETTINGS)
    for _ in range(steps):
        for rows in torch.arange(64).split(32):
            optimizer.zero_grad()
            loss(model, rows).backward()
            optimizer.step()
        with torch.no_grad():
            loss(model, torch.arange(20))
    report = watch.finish()
    assert not watch.record.faults
    return watch.record, report


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.kind, self.yes = nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(8, 1)

    def forward(self, x):
        hidden = self.body(x).tanh()
        return self.kind(hidden), self.yes(hidden).squeeze(1)


def both(model, rows):
    kind, yes = model(X[rows])
    return F.cross_entropy(kind, Y[rows]) + F.binary_cross_entropy_with_logits(yes, YES[rows])


def two_kinds(model, rows):
    kind, _ = model(X[rows])
    return F.cross_entropy(kind, Y[rows]) + F.cross_entropy(kind[:, :2], Y[rows] % 2)


@pytest.mark.parametrize("loss", [both, two_kinds])
def test_classes_are_those_of_the_task_that_comes_first(loss):
    record, report = train(Heads(), loss)
    counts = record.series("train_classes", "targets").values
    assert counts.shape[1] == 4 + 1
    np.testing.assert_array_equal(counts.sum(0)[:4], 30 * np.bincount(Y, minlength=4))
    (size,) = record.keys("batches_without_class")
    assert record.series("batches_without_class", size).values.shape[1] == 4 + 1
    assert len(record.series("train_loss", "cross_entropy").steps) == 60
    assert "TW000" not in {d.code for d in report.diagnoses}


class Codebook(nn.Module):
    """Rounds what it puts out, and what that costs is a term of the loss."""

    def __init__(self, returns):
        super().__init__()
        self.net, self.returns = nn.Linear(4, 4), returns

    def forward(self, x):
        out = self.net(x)
        term = F.mse_loss(out.reshape(-1, 1), out.detach().round().reshape(-1, 1))
        return self.returns(out, term)


def test_a_term_within_the_model_is_not_mixed_with_the_loss_of_its_kind_outside():
    def loss(model, rows):
        out, term = model(X[rows])
        return F.mse_loss(out, X[rows]) + term

    record, _ = train(Codebook(lambda out, term: (out, term)), loss)
    facts = record.facts["validation"]
    assert [(f["criterion"], f["samples"], f["passes"]) for f in facts.values()] == [("mse_loss", 20, 30)]


def test_a_model_that_returns_its_loss_is_taken_by_that_though_another_is_added():
    def loss(model, rows):
        found = model(X[rows])
        extra = F.mse_loss(found["out"], X[rows]) if torch.is_grad_enabled() else 0.0
        return found["loss"] + extra

    record, _ = train(Codebook(lambda out, term: {"loss": term, "out": out}), loss)
    (facts,) = record.facts["validation"].values()
    assert (facts["criterion"], facts["passes"]) == ("mse_loss", 30)


def test_a_term_of_another_kind_leaves_the_loss_within_the_model_what_it_is():
    def loss(model, rows):
        out, term = model(X[rows])
        return term + (F.l1_loss(out, X[rows]) if torch.is_grad_enabled() else 0.0)

    record, _ = train(Codebook(lambda out, term: (out, term)), loss)
    (facts,) = record.facts["validation"].values()
    assert (facts["criterion"], facts["passes"]) == ("mse_loss", 30)


def test_a_single_validation_sample_tells_of_nothing_but_itself():
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    watch = trainwatch.watch(model, optimizer, settings=SETTINGS)
    wrong = torch.tensor([(int(Y[63]) + 1) % 4])
    for step in range(200):
        optimizer.zero_grad()
        F.cross_entropy(model(X[:63]), Y[:63]).backward()
        optimizer.step()
        if step % 10 == 9:
            with torch.no_grad():
                F.cross_entropy(model(X[63:]), wrong)
    report = watch.finish()
    assert report.findings() == []
    assert "a single sample" in report.not_checked["TW208"]
    assert "TW201" in report.not_checked
