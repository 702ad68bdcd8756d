"""What a forest reaches with a quarter, a half and all of the held samples (§17)."""

from __future__ import annotations

import numpy as np
import torch

from trainwatch.probes.bench import Bench
from trainwatch.probes.evaluated import mean_and_error
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.predictors import Array, forest
from trainwatch.probes.scoring import classes_in, in_form_of, scorable, scores
from trainwatch.probes.tables import Table, rows_of, same_width, table_of

KIND = "learning_curve"
QUANTITIES = ("learning_curve",)
AT_END = True
MOST_ROWS = 512
FEWEST = 24  # to learn from, six in a quarter, and to be scored on
PARTS = (4, 2, 1)  # so many disjoint parts of the samples, each learned from alone
SPLITS = (1, 2, 1)  # so many times, each time divided anew


def measure(bench: Bench) -> None:
    """Fit forests to disjoint parts of the held training samples and score them on the held validation samples.

    They are scored by the run's own criterion, in the unit of its loss. A predictor that begins anew with each part
    tells what samples are worth; the losses of a run while it trains tell what steps are worth as well.

    A row of `learning_curve` is (samples, mean loss of a quarter of them, of a half, of all, standard error of the
    second step, loss of the net, of a constant guess, samples scored), of validation.
    """
    scorable(bench, "train")
    train, val = table_of(bench, "train", MOST_ROWS), scorable(bench, "val")
    tables = [rows_of(batch)[0] for batch in val]
    same_width(train.x, *tables)
    if min(len(train), sum(map(len, tables))) < FEWEST:
        raise CannotIsolate(f"fewer than {FEWEST} different samples are held to learn from or to be tried on")
    function = val[0].function
    with bench.model() as model, torch.no_grad():
        outputs = [batch.predict(model) for batch in val]
        net = scores(val, outputs)
        width = classes_in(function, train.y, outputs)

        def scored(answers: list[Array]) -> Array:
            return scores(val, [in_form_of(function, a, like) for a, like in zip(answers, outputs, strict=True)])

        losses = [
            np.stack([scored(forest(some.x, some.y, tables, width)) for some in _shares(train, parts, times)])
            for parts, times in zip(PARTS, SPLITS, strict=True)
        ]
        guess = scored([_constant(train.y, len(table), width) for table in tables])
    quarter, half, whole = (draws.mean(0) for draws in losses)
    of_samples = mean_and_error(half - whole)[1]
    of_draws = float(losses[1].mean(1).std(ddof=1)) / len(losses[1]) ** 0.5
    levels = [mean_and_error(of)[0] for of in (quarter, half, whole)]
    error = float(np.hypot(of_samples, of_draws))
    row = [len(train), *levels, error, mean_and_error(net)[0], mean_and_error(guess)[0], len(net)]
    bench.record.append("learning_curve", "forest", bench.step, row)


def _shares(table: Table, parts: int, times: int) -> list[Table]:
    """So many disjoint parts of a table, drawn at random so many times."""
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(table)) for _ in range(times)]
    return [table.of(np.sort(rows)) for order in orders for rows in np.array_split(order, parts)]


def _constant(y: Array, n: int, width: int | None) -> Array:
    """The mean, or the shares of the classes, for every one of n samples."""
    if width is None:
        return np.full(n, y.mean())
    counts = np.bincount(y.astype(np.int64), minlength=width) + 1e-3
    return np.tile(counts / counts.sum(), (n, 1))
