"""How many of the inputs the loss hangs on, and how alike those are: what decides between L1 and L2 (§8, §16)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from trainwatch.probes.bench import Bench
from trainwatch.probes.evaluated import losses_of, mean_and_error
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.numbers_in import batches_of_numbers, changed, inputs_of

KIND = "input_importance"
QUANTITIES = ("input_importance",)
AT_END = True
STEPS = 100  # 64 features with 4 batches each
MOST_FEATURES = 128  # each takes a forward pass
SAMPLES = 256  # in as many batches as make them up
FEWEST = 30
MOST_OF_IT = 0.9  # of the rise of the loss


def measure(bench: Bench) -> None:
    """On a copy in evaluation mode, give each feature in turn the values of other samples, and see the loss rise.

    A feature that the net has no use for may be shuffled at no price, however large its weights are; one of several
    that say the same comes out too cheap (permutation importance; Breiman 2001, Fisher et al. 2019). A rise within its
    standard error counts as none: many features that say nothing would add up to a lot.

    A row of `input_importance`, under ``val`` or ``train``, is (features, how many of them make up nine tenths of the
    sum of all rises, the median over these of the largest absolute correlation with another of them, samples).

    Raises:
        CannotIsolate: The inputs are no table of numbers, they are too many, or shuffling any raises no loss.
    """
    kind, batches = batches_of_numbers(bench)
    some = -(-SAMPLES // max(1, batches[0].samples))
    batches = batches[:some]
    x = inputs_of(batches)
    if x.ndim > 2 or x.shape[1] > MOST_FEATURES or len(x) < FEWEST:
        raise CannotIsolate(f"the inputs are no table of up to {MOST_FEATURES} numbers for {FEWEST} samples or more")
    other = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).to(x.device)]
    gains = np.zeros(x.shape[1])
    with bench.model() as model:
        before = losses_of(model, list(changed(batches, x)))
        for feature in range(x.shape[1]):
            shuffled = x.clone()
            shuffled[:, feature] = other[:, feature]
            rise, error = mean_and_error(losses_of(model, list(changed(batches, shuffled))) - before)
            gains[feature] = rise if rise > error else 0.0
    if not 0 < gains.sum() < np.inf:
        raise CannotIsolate("the loss did not rise whichever input was shuffled")
    order = np.argsort(-gains, kind="stable")
    needed = order[: int(np.searchsorted(gains[order].cumsum() / gains.sum(), MOST_OF_IT) + 1)]
    alike = _alike(x[:, needed.tolist()].float().cpu().numpy())
    bench.record.append("input_importance", kind, bench.step, [len(gains), len(needed), alike, len(x)])


def _alike(columns: np.ndarray[Any, Any]) -> float:
    """Median over columns of the largest absolute correlation with another; NaN for a single one."""
    if columns.shape[1] < 2:
        return np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.abs(np.nan_to_num(np.corrcoef(columns.T)))
    np.fill_diagonal(found, 0.0)
    return float(np.median(found.max(1)))
