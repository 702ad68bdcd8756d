"""What a lower learning rate would bring from here on: two copies that go on learning, one of them by it (§9)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainwatch.probes.bench import Batch, Bench
from trainwatch.probes.evaluated import MANY, Losses, evaluating, losses_of, mean_and_error
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.rates import present_rates, set_rates

KIND = "lower_rate"
QUANTITIES = ("lower_rate",)
AT_END = True
SHARE = 1 / 3  # of the present rate
FURTHER = 150  # steps of each copy
LOOKS, EVERY = 8, 5  # at the losses, up to the last step; at an odd distance, since what swings has even periods
STEPS = 2 * FURTHER + 150  # those, and what the looks are worth
CALM = 0.5  # of what is stable: below it steps are not held up by the curvature, and the time is saved


def measure(bench: Bench) -> None:
    """Let copies, with a copy of the optimiser's state each, go on from held batches: at the present rate, at a third.

    A row of `lower_rate` is the share of the rate, and of training and then of validation batches, in evaluation mode:
    loss of the copy at the present rate, of the one at the lower, standard error of their difference over samples. The
    losses are means over several looks, since a loss that swings from step to step may be anywhere at one of them.

    Raises:
        CannotIsolate: The model cannot be copied, or steps are not known to be near what the curvature bears.
    """
    measured = bench.record.latest("sharpness", "held")
    if measured is None or measured[0] != bench.step:
        raise CannotIsolate("how sharply the loss is curved was not measured before")
    value, _, limit, *_ = measured[1]
    if not value >= CALM * limit:
        raise CannotIsolate("steps are far within what the curvature bears: a lower rate was not tried")
    train, val = bench.batches("train", MANY), bench.held("val", MANY)
    present, lower = (_after(bench, train, val, share) for share in (1.0, SHARE))
    row = [SHARE]
    for a, b in zip(present, lower, strict=True):
        row += [mean_and_error(a)[0], mean_and_error(b)[0], mean_and_error(a - b)[1]]
    bench.record.append("lower_rate", "held", bench.step, row)


def _after(bench: Bench, train: Sequence[Batch], val: Sequence[Batch], share: float) -> tuple[Losses, Losses]:
    """Losses of the samples of training and of validation batches about a copy that learns at a share of the rate."""
    looks: list[tuple[Losses, Losses]] = []
    with bench.learner() as (model, optimizer):
        set_rates(optimizer, [share * rate for rate in present_rates(optimizer)])
        for i in range(1, FURTHER + 1):
            bench.train_step(train[i % len(train)], model, optimizer)
            if i > FURTHER - LOOKS * EVERY and (FURTHER - i) % EVERY == 0:
                with evaluating(model):
                    looks.append((losses_of(model, train), losses_of(model, val)))
    training, validation = (np.mean(kind, 0) for kind in zip(*looks, strict=True))
    return training, validation
