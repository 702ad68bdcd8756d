"""What the net makes of its inputs: which of them it needs, and what becomes of it where they change a little (§17)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from trainwatch.probes.bench import Bench
from trainwatch.probes.evaluated import mean_and_error
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.predictors import Array
from trainwatch.probes.scoring import classes_in, in_form_of, scorable, scores
from trainwatch.probes.tables import rows_of, same_width, table_of

KIND = "prior"
QUANTITIES = ("input_change", "feature_importance", "linear_probe", "weight_spread")
AT_END = True
MOST_ROWS = 512
FEATURES = 64  # up to which each is tried alone
TILT = 15.0  # degrees
NOISE = 0.1  # of the spread of each feature

Inputs = torch.Tensor
Change = Callable[[Inputs], Inputs]


def measure(bench: Bench) -> None:
    """Look at held validation batches in evaluation mode, as they are and changed.

    Rows: `input_change`, under the name of the change, (loss as it is, loss changed, standard error of the
    difference, share of right predictions as it is, changed; the latter two absent for numbers).
    `feature_importance` (FEATURES,): by how much the loss rises where one feature is shuffled among the samples.
    `linear_probe`: (loss of a linear model of the inputs, fitted to the held training samples, loss of the net,
    standard error of the difference). `weight_spread`: root mean square of the trained weights.
    """
    val = scorable(bench, "val")
    first = val[0].args[0]
    with bench.model() as model, torch.no_grad():
        outputs = [batch.predict(model) for batch in val]
        plain, right = scores(val, outputs), _right(val, outputs)
        for name, change in _changes(first):
            changed = [_with(batch, change(batch.args[0])).predict(model) for batch in val]
            losses = scores(val, changed)
            levels = [mean_and_error(plain)[0], mean_and_error(losses)[0], mean_and_error(losses - plain)[1]]
            bench.record.append("input_change", name, bench.step, [*levels, right, _right(val, changed)])
        if first.ndim == 2 and first.shape[1] <= FEATURES:
            row = _importance(model, val, plain.mean())
            bench.record.append("feature_importance", "val", bench.step, row)
        weights = [p.detach().float().reshape(-1) for p in model.parameters() if p.ndim > 1 and p.requires_grad]
        if weights:
            spread = float(torch.cat(weights).square().mean().sqrt())
            bench.record.append("weight_spread", "end", bench.step, spread)
        _linear(bench, val, outputs, plain)


def _with(batch: Any, inputs: Inputs) -> Any:
    return replace(batch, args=(inputs,), versions=())


def _right(batches: Sequence[Any], outputs: Sequence[torch.Tensor]) -> float:
    """Share of right predictions; absent where numbers are predicted."""
    hits: list[torch.Tensor] = []
    for batch, output in zip(batches, outputs, strict=True):
        if batch.function in ("cross_entropy", "nll_loss"):
            hits.append(output.argmax(-1).reshape(-1) == batch.target.reshape(-1))
        elif batch.function.startswith("binary"):
            turn = 0.0 if batch.function.endswith("logits") else 0.5
            hits.append((output.reshape(-1) > turn) == (batch.target.reshape(-1) > 0.5))
    return float(torch.cat(hits).float().mean()) if hits else np.nan


def _changes(inputs: Inputs) -> Iterator[tuple[str, Change]]:
    """Changes that leave the class of most things as it is: of images (n, channels, height, width), or of rows."""
    if inputs.ndim == 4:
        yield "shift", lambda x: torch.roll(x, 1, -1)
        yield "flip", lambda x: x.flip(-1)
        yield "rotation", _tilted
    elif inputs.ndim == 2:
        yield "noise", _noisy


def _tilted(images: Inputs) -> Inputs:
    turn = np.deg2rad(TILT)
    matrix = images.new_tensor([[np.cos(turn), -np.sin(turn), 0.0], [np.sin(turn), np.cos(turn), 0.0]])
    grid = nn.functional.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _noisy(rows: Inputs) -> Inputs:
    drawn = torch.Generator().manual_seed(0)
    noise = torch.randn(rows.shape, generator=drawn).to(rows)
    return rows + NOISE * rows.std(0, unbiased=False) * noise


def _importance(model: nn.Module, batches: Sequence[Any], level: float) -> Array:
    row = np.full(FEATURES, np.nan)
    for i in range(batches[0].args[0].shape[1]):
        drawn = torch.Generator().manual_seed(i)
        shuffled = []
        for batch in batches:
            inputs = batch.args[0].clone()
            order = torch.randperm(len(inputs), generator=drawn).to(inputs.device)
            inputs[:, i] = inputs[order, i]
            shuffled.append(_with(batch, inputs).predict(model))
        row[i] = scores(batches, shuffled).mean() - level
    return row


def _linear(bench: Bench, val: Sequence[Any], outputs: Sequence[torch.Tensor], net: Array) -> None:
    """Score a linear model, as regularised as cross-validation on the training samples finds best."""
    from sklearn import linear_model, pipeline, preprocessing

    scorable(bench, "train")
    train, function = table_of(bench, "train", MOST_ROWS), val[0].function
    tables = [rows_of(batch)[0] for batch in val]
    try:
        width = classes_in(function, train.y, outputs)
        same_width(train.x, *tables)
    except CannotIsolate:
        return  # the rest was measured all the same
    if width is None:
        ridge = linear_model.RidgeCV(np.geomspace(1e-2, 1e4, 13))
        fitted = pipeline.make_pipeline(preprocessing.StandardScaler(), ridge).fit(train.x, train.y)
        answers = [fitted.predict(table) for table in tables]
    else:
        logistic = linear_model.LogisticRegression(C=0.1, max_iter=200)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of one that has not quite converged the loss is close enough
            fitted = pipeline.make_pipeline(preprocessing.StandardScaler(), logistic).fit(train.x, train.y.astype(int))
        answers = []
        for table in tables:
            spread = np.full((len(table), width), 1e-6)
            spread[:, fitted.classes_] += fitted.predict_proba(np.nan_to_num(table))
            answers.append(spread / spread.sum(1, keepdims=True))
    losses = scores(val, [in_form_of(function, a, like) for a, like in zip(answers, outputs, strict=True)])
    row = [mean_and_error(losses)[0], mean_and_error(net)[0], mean_and_error(losses - net)[1]]
    bench.record.append("linear_probe", "inputs", bench.step, row)
