"""Fingerprints of samples: the same for the same sample, and for hardly any other. Losses of samples."""

import pytest
import torch
import torch.nn.functional as F

from trainwatch.capture.interception import LossCall
from trainwatch.capture.samples import fingerprints, losses_per_sample

DRAW = torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    "rows",
    [
        torch.randint(0, 3, (4000, 16), generator=DRAW),
        torch.randint(0, 2, (4000, 64), generator=DRAW).float(),
        torch.randn(4000, 2, generator=DRAW),
        torch.randn(4000, 3, 4, 4, generator=DRAW).bfloat16(),
        torch.arange(4000),
    ],
    ids=["characters", "pixels", "points", "images", "numbers"],
)
def test_different_samples_have_different_fingerprints(rows):
    different = len(torch.unique(rows.flatten(1) if rows.ndim > 1 else rows, dim=0))
    assert len(set(fingerprints(rows, len(rows)).tolist())) == different


def test_the_order_of_entries_counts():
    """A plain weight for each place would not do: 1 at the second place would equal 2 at the first."""
    rows = torch.tensor([[2, 0, 0], [0, 1, 0], [0, 0, 2], [1, 1, 1], [0, 3, 0]])
    assert len(set(fingerprints(rows, 5).tolist())) == 5


def test_a_sample_keeps_its_fingerprint_in_another_batch():
    rows = torch.randn(8, 5, generator=DRAW)
    assert torch.equal(fingerprints(rows, 8)[3:5], fingerprints(rows[3:5], 8))
    assert len(fingerprints(rows, 2)) == 2


X, Y = torch.randn(6, 3, generator=DRAW), torch.rand(6, 3, generator=DRAW)


@pytest.mark.parametrize(
    ("function", "positional"),
    [(F.gaussian_nll_loss, (Y + 0.1, True)), (F.poisson_nll_loss, (False,)), (F.huber_loss, ("mean", 0.5)),
     (F.kl_div, (None, None, "sum", True))],
    ids=["gaussian", "poisson", "huber", "divergence"],
)  # fmt: skip
def test_losses_of_samples_are_parts_of_the_whole_whatever_it_was_given_by_position(function, positional):
    x = X.abs() + 0.1
    whole = function(x, Y, *positional)
    each = losses_per_sample(LossCall(function.__name__, whole, x, Y, positional, {}, known=True), x, Y)
    expected = whole / X.numel() if "sum" in positional else whole
    torch.testing.assert_close(each.mean(), expected)


def test_what_was_given_by_position_and_has_no_known_name_has_no_parts():
    whole = F.triplet_margin_loss(X, Y, -X, 1.0)
    assert losses_per_sample(LossCall("triplet_margin_loss", whole, X, Y, (-X, 1.0), {}, known=True), X, Y) is None
