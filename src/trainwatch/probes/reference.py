"""What other predictors reach on the held samples, by the criterion of the run (§3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from trainwatch.probes.bench import Bench
from trainwatch.probes.evaluated import MANY, mean_and_error
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.predictors import GUESS, Array, classifications, regressions, scaled

KIND = "reference"
QUANTITIES = ("reference_loss",)
AT_END = True
MOST_FEATURES = 4096
MOST_CLASSES = 32
MOST_ROWS = 2048  # to learn from
FEWEST = 30  # samples to learn from, and samples to be scored on
OVER_CLASSES = ("cross_entropy", "nll_loss")
OVER_TWO = ("binary_cross_entropy", "binary_cross_entropy_with_logits")
DISTANCES = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")


def measure(bench: Bench) -> None:
    """Fit each reference to the held training samples and score it on the held validation samples as the net is scored.

    What the references predict is put into the form of the net's outputs, and the run's own criterion applied to it.
    They learn from the few held samples alone: a net that they beat could do better for sure, one that they do not
    beat may still be poor.

    A row of `reference_loss`, under the name of the reference, is (loss of the net, loss of the reference, standard
    error of their paired difference, loss of a constant guess, samples learned from, samples scored), of validation.
    """
    train, val = _batches(bench, "train"), _batches(bench, "val")
    x, y = (np.concatenate(parts)[:MOST_ROWS] for parts in zip(*map(_table, train), strict=True))
    tables = [_table(batch)[0] for batch in val]
    if min(len(x), sum(map(len, tables))) < FEWEST:
        raise CannotIsolate(f"fewer than {FEWEST} samples are held for another predictor to learn from or be tried on")
    with bench.model() as model, torch.no_grad():
        outputs = [batch.predict(model) for batch in val]
        net = _scores(val, outputs)
        predicted = dict(_predictions(val[0].function, x, y, tables, outputs))
        scores = {name: _scores(val, answers) for name, answers in predicted.items()}
    guess = mean_and_error(scores.pop(GUESS))[0]
    for name, losses in scores.items():
        levels = [mean_and_error(net)[0], mean_and_error(losses)[0], mean_and_error(net - losses)[1]]
        bench.record.append("reference_loss", name, bench.step, [*levels, guess, len(x), len(net)])


def _batches(bench: Bench, kind: str) -> Sequence[Any]:
    """Held batches with one tensor of numbers as the input, and one class or number a sample as the target.

    Raises:
        CannotIsolate: There are none of this sort.
    """
    batches: Sequence[Any] = bench.batches(kind, MANY)
    for batch in batches:
        args: tuple[Any, ...] = getattr(batch, "args", ())
        target = getattr(batch, "target", None)
        if len(args) != 1 or batch.kwargs or not isinstance(args[0], torch.Tensor) or not args[0].is_floating_point():
            raise CannotIsolate("the model's input is not one tensor of numbers")
        if batch.function not in (*OVER_CLASSES, *OVER_TWO, *DISTANCES):
            raise CannotIsolate(f"other predictors are not scored by {batch.function}")
        if target is None or args[0].ndim < 2 or target.numel() != len(args[0]):
            raise CannotIsolate("there is not one class or number to predict for each sample")
        if args[0][0].numel() > MOST_FEATURES:
            raise CannotIsolate(f"the inputs have more than {MOST_FEATURES} features")
    return batches


def _table(batch: Any) -> tuple[Array, Array]:
    """Features, shape (n, features), and targets, shape (n,), of a batch."""
    x, y = batch.args[0].detach(), batch.target.detach().reshape(-1)
    y = y.float() if y.dtype == torch.bfloat16 else y  # which numpy does not know
    return x.float().flatten(1).cpu().numpy(), y.cpu().numpy()


def _predictions(
    function: str, x: Array, y: Array, tables: Sequence[Array], outputs: Sequence[torch.Tensor]
) -> Iterator[tuple[str, list[torch.Tensor]]]:
    """Each reference with what it predicts of each table, in the form of the net's outputs."""
    x, tables = scaled(x, tables)
    if function in DISTANCES:
        made = regressions(x, y, tables)
    else:
        width = outputs[0].shape[-1] if function in OVER_CLASSES else 2
        whole = np.isin(y, np.arange(min(width, MOST_CLASSES)))
        if width > MOST_CLASSES or not whole.all() or len(np.unique(y)) < 2:
            raise CannotIsolate(f"other predictors need 2 to {MOST_CLASSES} classes, each sample of one of them")
        made = classifications(x, y.astype(np.int64), tables, width)
    for name, answers in made:
        yield name, [_shaped(function, a, like) for a, like in zip(answers, outputs, strict=True)]


def _shaped(function: str, answers: Array, like: torch.Tensor) -> torch.Tensor:
    found = torch.as_tensor(answers, dtype=like.dtype, device=like.device)
    if function in OVER_CLASSES:
        found = found.log()
    elif function in OVER_TWO:
        found = found[:, 1] if function == "binary_cross_entropy" else found[:, 1].logit()
    return found.reshape(like.shape)


def _scores(batches: Sequence[Any], outputs: Sequence[torch.Tensor]) -> Array:
    """Loss of each sample, shape (n,)."""
    parts = [batch.losses_of(given)[1] for batch, given in zip(batches, outputs, strict=True)]
    if any(part is None for part in parts):
        raise CannotIsolate("the loss of single samples cannot be had")
    return torch.cat([part.float() for part in parts]).cpu().numpy().astype(np.float64)
