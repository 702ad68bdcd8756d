"""Scores of yes / no labels: the same numbers whatever the loss, an even subset where there are many."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainwatch
from trainwatch.capture.interception import LossCall
from trainwatch.capture.scores import MOST_CELLS, MOST_SAMPLES, EvenSubset, scored
from trainwatch.symptoms.classes import scores_of

DRAW = torch.Generator().manual_seed(0)
LOGITS = torch.randn(40, 1, generator=DRAW)
TRUTH = (torch.rand(40, 1, generator=DRAW) < 0.3).float()
PAIR = torch.cat([-LOGITS / 2, LOGITS / 2], 1)
WAYS = {
    "bce-logits": (F.binary_cross_entropy_with_logits, LOGITS, TRUTH),
    "bce-logits-flat": (F.binary_cross_entropy_with_logits, LOGITS[:, 0], TRUTH[:, 0]),
    "bce": (F.binary_cross_entropy, LOGITS.sigmoid(), TRUTH),
    "cross-entropy": (F.cross_entropy, PAIR, TRUTH[:, 0].long()),
    "cross-entropy-soft": (F.cross_entropy, PAIR, torch.cat([1 - TRUTH, TRUTH], 1)),
    "nll": (F.nll_loss, PAIR.log_softmax(1), TRUTH[:, 0].long()),
}


class Given(nn.Module):
    """Gives back what it is given, so that its outputs are known."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x * self.factor


def watched(loss, outputs, target, *, passes=1, observe=False, task=None):
    """The record of some steps and passes over the same samples."""
    model = Given()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    settings = {"quiet": True, "strict": True, "probes": "off"}
    with trainwatch.watch(model, optimizer, task=task, settings=settings) as watch:
        for _ in range(passes):
            out = model(outputs)
            value = loss(out, target)
            value.backward()
            if observe:
                watch.observe_train(value, outputs=out, targets=target)
            optimizer.step()
            with torch.no_grad():
                for x, y in zip(outputs.split(16), target.split(16), strict=True):
                    out = model(x)
                    if observe:
                        watch.observe_val(loss(out, y), outputs=out, targets=y)
                    else:
                        loss(out, y)
    return watch.record


def rows(record):
    return record.series("val_scores", "val").values[-1]


@pytest.mark.parametrize(("loss", "outputs", "target"), WAYS.values(), ids=WAYS)
def test_every_loss_over_two_classes_gives_the_same_logits(loss, outputs, target):
    record = watched(loss, outputs, target)
    np.testing.assert_allclose(rows(record)[:, 0], torch.cat([LOGITS, TRUTH], 1), rtol=1e-4, atol=1e-5)


def own(out, y):
    return (out - y).square().mean()


OBSERVED = {
    "logits": (LOGITS, TRUTH, "binary"),
    "probabilities": (LOGITS.sigmoid(), TRUTH, "binary"),
    "whole-targets-tell": (LOGITS[:, 0], TRUTH[:, 0].long(), None),
    "flags": (LOGITS[:, 0], TRUTH[:, 0] > 0.5, None),
    "a-column-against-a-row": (LOGITS, TRUTH[:, 0].long(), None),
    "two-classes": (PAIR, TRUTH[:, 0].long(), None),
}


@pytest.mark.parametrize(("outputs", "target", "task"), OBSERVED.values(), ids=OBSERVED)
def test_what_is_handed_over_is_read_by_its_shape(outputs, target, task):
    def loss(out, y):
        return (out.sum(-1) - 1.0 * y.reshape(len(y), -1)[:, 0]).square().mean()

    record = watched(loss, outputs, target, observe=True, task=task)
    np.testing.assert_allclose(rows(record)[:, 0], torch.cat([LOGITS, TRUTH], 1), rtol=1e-4, atol=1e-5)
    assert record.facts["task"] == (task or ("multiclass" if outputs is PAIR else "binary"))
    assert record.series("train_classes", "targets").values.sum(0)[1] == TRUTH.sum()


def test_a_regression_that_is_handed_over_has_no_scores():
    record = watched(own, LOGITS, TRUTH, observe=True)
    assert not record.has("val_scores")
    assert "task" not in record.facts


def test_an_own_criterion_of_a_task_that_is_told():
    class Focal(nn.Module):
        def forward(self, out, y):
            p = torch.where(y > 0.5, out.sigmoid(), 1 - out.sigmoid())
            return (-((1 - p) ** 2) * p.log()).mean()

    for task, seen in (("binary", True), (None, False)):
        model, criterion = Given(), Focal()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        settings = {"quiet": True, "strict": True, "probes": "off"}
        with trainwatch.watch(model, optimizer, loss_fn=criterion, task=task, settings=settings) as watch:
            criterion(model(LOGITS), TRUTH).backward()
            optimizer.step()
            with torch.no_grad():
                criterion(model(LOGITS.clone()), TRUTH)  # other samples than those of the step
        assert watch.record.has("val_scores") is seen


def test_several_labels_keep_their_places_and_ignored_targets_their_value():
    outputs, target = torch.randn(6, 3), (torch.rand(6, 3) > 0.5).float()
    call = LossCall("binary_cross_entropy_with_logits", outputs.sum(), known=True)
    assert torch.equal(scored(call, outputs, target), torch.stack([outputs, target], -1))
    call = LossCall("cross_entropy", outputs.sum(), known=True)
    assert scored(call, PAIR[:2], torch.tensor([1, -100]))[:, 0, 1].tolist() == [1, -100]


def test_smoothed_labels_are_labels_and_shares_are_none():
    smooth = torch.tensor([[0.05, 0.95, 0.3], [0.9, 0.1, 0.7], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    call = LossCall("binary_cross_entropy_with_logits", torch.zeros(()), known=True)
    pairs = scored(call, torch.zeros(4, 3), smooth).numpy()
    np.testing.assert_array_equal(scores_of(pairs, 0)[1], [0, 1, 1, 0])
    np.testing.assert_array_equal(scores_of(pairs, 1)[1], [1, 0, 0, 1])
    assert scores_of(pairs, 2) is None


@pytest.mark.parametrize("shape", [(4, 1, 8, 8), (4, 65)], ids=["pixels", "too-many-labels"])
def test_what_is_no_label_of_a_sample_has_no_scores(shape):
    call = LossCall("binary_cross_entropy_with_logits", torch.zeros(()), known=True)
    assert scored(call, torch.randn(shape), torch.ones(shape)) is None
    assert (
        scored(LossCall("cross_entropy", torch.zeros(()), known=True), torch.randn(4, 3), torch.ones(4).long()) is None
    )


@pytest.mark.parametrize("batch", [1, 7, 4096])
@pytest.mark.parametrize(("samples", "labels"), [(100, 1), (MOST_SAMPLES, 1), (90_001, 1), (9_000, 64)])
def test_an_even_subset_is_bounded_and_does_not_depend_on_the_batches(samples, labels, batch):
    if batch == 1 and samples > MOST_SAMPLES:
        batch = 11
    kept, numbers = EvenSubset(), torch.arange(samples).reshape(-1, 1, 1).expand(-1, labels, 2)
    for rows in numbers.split(batch):
        kept.add(rows)
    found = kept.rows()[:, 0, 0]
    most = min(MOST_SAMPLES, MOST_CELLS // labels)
    assert min(samples, most // 2) <= len(found) <= most
    assert torch.equal(found, torch.arange(0, samples, int(found[1])))


def test_of_a_long_pass_no_more_memory_is_held_than_its_rows_need():
    kept = EvenSubset()
    for _ in range(12):
        kept.add(torch.zeros(MOST_SAMPLES, 1, 2))
    held = sum(part.untyped_storage().nbytes() for part in kept._kept)
    assert held <= MOST_SAMPLES * 2 * 4


def test_rows_of_different_labels_have_no_subset():
    kept = EvenSubset()
    assert kept.rows() is None
    kept.add(torch.zeros(MOST_SAMPLES, 1, 2))
    kept.add(torch.zeros(9, 3, 2))
    assert kept.rows() is None


def test_passes_of_the_powers_of_two_and_the_last_one_are_kept():
    record = watched(*WAYS["bce-logits"], passes=7)
    assert record.series("val_scores", "val").steps.tolist() == [1, 2, 4, 7]
    record = watched(*WAYS["bce-logits"], passes=4)
    assert record.series("val_scores", "val").steps.tolist() == [1, 2, 4]
