"""What the network itself reaches with half of the held samples and with all of them (§17)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainwatch.probes.begun_again import begin_again, cycle, marks
from trainwatch.probes.bench import Batch, Bench, Divisible
from trainwatch.probes.evaluated import Losses, level, losses_of, mean_and_error, seen_at, to_try
from trainwatch.probes.isolation import CannotIsolate

KIND = "own_curve"
QUANTITIES = ("own_curve",)
AT_END = True
FEWEST, MOST = 100, 300  # steps of each copy: as many as the run took, within these bounds
FEWEST_SAMPLES = 12  # different ones
STEPS = 3 * FEWEST
MARKS = 6  # times that a copy is looked at: few samples are soon learned by heart


def measure(bench: Bench) -> None:
    """Let copies learn from the start, from either half of the held training samples and from all of them.

    All take as many steps; what counts of each is the look with the lowest validation loss. A row of `own_curve` is
    (different samples, mean validation loss of both halves, of all, error of their difference, loss of the network
    itself, samples scored). Two errors are two standard errors over samples, or the lead of the better half over the
    mean of both: so much more must be gained.

    Raises:
        CannotIsolate: Samples cannot be told apart, or there are too few, or no validation batch is held.
    """
    train, val = to_try(bench, "what samples are worth")
    halves, count = _halves(train)
    with bench.model() as model:
        before = losses_of(model, val)
    samples, most = sum(batch.samples for batch in val), max(batch.samples for batch in train)
    looks = MARKS * samples / most / 3  # a forward pass is worth a third of a training step
    steps = int(min(max(bench.step, FEWEST), MOST, bench.affords / 3 - looks))
    if steps < FEWEST:
        raise CannotIsolate("there was no time for so many looks at validation")
    first, second, whole = (_learned(bench, batches, val, steps) for batches in (*halves, train))
    half = (first + second) / 2
    error = np.hypot(mean_and_error(half - whole)[1], abs(float(first.mean() - second.mean())) / 4)
    row = [count, mean_and_error(half)[0], mean_and_error(whole)[0], error, mean_and_error(before)[0], len(whole)]
    bench.record.append("own_curve", "held", bench.step, row)


def _halves(batches: Sequence[Batch]) -> tuple[list[list[Batch]], int]:
    """The batches with one half of their samples, those with the other half, and how many different samples there are.

    Raises:
        CannotIsolate: See `measure`.
    """
    divisible = [batch for batch in batches if isinstance(batch, Divisible)]
    contents = [batch.contents() for batch in divisible]
    if len(divisible) < len(batches) or not all(contents):
        raise CannotIsolate("the samples of a batch cannot be told apart")
    known = sorted({sample for batch in contents for sample in batch})
    if len(known) < FEWEST_SAMPLES:
        raise CannotIsolate(f"fewer than {FEWEST_SAMPLES} different samples are held to learn from")
    order = np.random.default_rng(0).permutation(len(known))
    first = {known[i] for i in order[: len(known) // 2]}
    halves: list[list[Batch]] = [[], []]
    for batch, samples in zip(divisible, contents, strict=True):
        for half, chosen in zip(halves, (True, False), strict=True):
            rows = [i for i, sample in enumerate(samples) if (sample in first) is chosen]
            if len(rows) > 1:  # batch norm needs two
                half.append(batch.only(rows))
    if not all(halves):
        raise CannotIsolate("batches are too small to leave half of their samples out")
    return halves, len(known)


def _learned(bench: Bench, train: Sequence[Batch], val: Sequence[Batch], steps: int) -> Losses:
    """Losses of the validation batches, at their lowest, of a copy that learned from some batches."""
    with bench.learner() as (model, optimizer):
        begin_again(bench, model, optimizer)
        learning = cycle(bench, model, optimizer, train, steps)
        return min(seen_at(marks(steps, MARKS), learning, model, lambda: losses_of(model, val)), key=level)
