"""Fingerprints of samples: the same for the same sample, and for hardly any other."""

import pytest
import torch

from trainwatch.capture.samples import fingerprints

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
