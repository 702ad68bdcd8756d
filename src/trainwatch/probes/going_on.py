"""What further steps bring: a copy that goes on learning from held batches as the run did (§3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainwatch.probes.begun_again import schedule
from trainwatch.probes.bench import Batch, Bench
from trainwatch.probes.evaluated import Losses, evaluating, losses_of, mean_and_error, to_try
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.rates import highest_rates, present_rates, set_rates

KIND = "going_on"
QUANTITIES = ("going_on",)
AT_END = True
FEWEST, MOST = 8, 300  # steps
SHARE, CYCLE = 0.5, 1.0  # of the steps of the run; under a schedule
LOWERED = 0.7  # of its highest: a rate that is lower was brought down
LOOKS = 4  # at the losses, the last at the end
STEPS = 150


def measure(bench: Bench) -> None:
    """Let a copy with a copy of the optimiser's state go on for half as many steps again, at the present rate.

    Where a schedule has brought the rate down, it goes up to its highest once more and down to nothing, in as many
    steps as the run took. Batches that are not held teach nothing, so a copy gains less than the run would. A row of
    `going_on` is the number of steps, and of training and then of validation batches, in evaluation mode: loss at the
    end of the run, of the copy, standard error of the difference. The losses of the copy are means over looks; under a
    schedule the last one counts.

    Raises:
        CannotIsolate: There is no validation batch, or no time.
    """
    train, val = to_try(bench, "what further steps bring")
    with bench.model() as model:
        before = losses_of(model, train), losses_of(model, val)
    steps, after = _after(bench, train, val)
    row = [float(steps)]
    for old, new in zip(before, after, strict=True):
        row += [mean_and_error(old)[0], mean_and_error(new)[0], mean_and_error(old - new)[1]]
    bench.record.append("going_on", "held", bench.step, row)


def _after(bench: Bench, train: Sequence[Batch], val: Sequence[Batch]) -> tuple[int, tuple[Losses, Losses]]:
    """How many steps a copy took, and the losses of training and of validation batches after them."""
    looks: list[tuple[Losses, Losses]] = []
    with bench.learner() as (model, optimizer):
        highest, present = highest_rates(bench.record, optimizer), present_rates(optimizer)
        lowered = any(low < LOWERED * high for low, high in zip(present, highest, strict=True))
        steps = int(min(max(FEWEST, (CYCLE if lowered else SHARE) * bench.step), MOST, bench.affords))
        if steps < FEWEST:
            raise CannotIsolate("there was no time for further steps")
        rates, shares = (highest, schedule(steps)) if lowered else (present, iter([1.0] * steps))
        marks = {steps - k * max(1, steps // 20) for k in range(1 if lowered else LOOKS)}
        for i, share in enumerate(shares, start=1):
            set_rates(optimizer, [share * rate for rate in rates])
            bench.train_step(train[i % len(train)], model, optimizer)
            if i in marks:
                with evaluating(model):
                    looks.append((losses_of(model, train), losses_of(model, val)))
    training, validation = (np.mean(kind, 0) for kind in zip(*looks, strict=True))
    return steps, (training, validation)
