"""What other predictors reach on the held samples, by the criterion of the run (§3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from trainwatch.probes.bench import Bench
from trainwatch.probes.evaluated import mean_and_error
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.predictors import GUESS, Array, classifications, regressions, scaled
from trainwatch.probes.scoring import classes_in, in_form_of, scorable, scores
from trainwatch.probes.tables import rows_of, same_width

KIND = "reference"
QUANTITIES = ("reference_loss",)
AT_END = True
MOST_ROWS = 2048  # to learn from
FEWEST = 30  # samples to learn from, and samples to be scored on


def measure(bench: Bench) -> None:
    """Fit each reference to the held training samples and score it on the held validation samples as the net is scored.

    What the references predict is put into the form of the net's outputs, and the run's own criterion applied to it.
    They learn from the few held samples alone: a net that they beat could do better for sure, one that they do not
    beat may still be poor.

    A row of `reference_loss`, under the name of the reference, is (loss of the net, loss of the reference, standard
    error of their paired difference, loss of a constant guess, samples learned from, samples scored), of validation.
    """
    train, val = scorable(bench, "train"), scorable(bench, "val")
    held, tables = [rows_of(batch) for batch in train], [rows_of(batch)[0] for batch in val]
    same_width(*(x for x, _ in held), *tables)
    x, y = (np.concatenate(parts)[:MOST_ROWS] for parts in zip(*held, strict=True))
    if min(len(x), sum(map(len, tables))) < FEWEST:
        raise CannotIsolate(f"fewer than {FEWEST} samples are held for another predictor to learn from or be tried on")
    with bench.model() as model, torch.no_grad():
        outputs = [batch.predict(model) for batch in val]
        net = scores(val, outputs)
        predicted = dict(_predictions(val[0].function, x, y, tables, outputs))
        rivals = {name: scores(val, answers) for name, answers in predicted.items()}
    guess = mean_and_error(rivals.pop(GUESS))[0]
    for name, losses in rivals.items():
        levels = [mean_and_error(net)[0], mean_and_error(losses)[0], mean_and_error(net - losses)[1]]
        bench.record.append("reference_loss", name, bench.step, [*levels, guess, len(x), len(net)])


def _predictions(
    function: str, x: Array, y: Array, tables: Sequence[Array], outputs: Sequence[torch.Tensor]
) -> Iterator[tuple[str, list[torch.Tensor]]]:
    """Each reference with what it predicts of each table, in the form of the net's outputs."""
    x, tables = scaled(x, tables)
    width = classes_in(function, y, outputs)
    if width is None:
        made = regressions(x, y, tables)
    else:
        made = classifications(x, y.astype(np.int64), tables, width)
    for name, answers in made:
        yield name, [in_form_of(function, a, like) for a, like in zip(answers, outputs, strict=True)]
