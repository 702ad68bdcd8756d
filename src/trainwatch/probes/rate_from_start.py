"""What another learning rate would have brought: two copies that learn from the start, one of them by it (§9)."""

from __future__ import annotations

from collections.abc import Sequence

from trainwatch.probes.begun_again import begin_again, cycle
from trainwatch.probes.bench import Batch, Bench
from trainwatch.probes.evaluated import Losses, compared, losses_of, to_try

FEWEST, MOST = 60, 600  # steps of each copy: as many as the run took, within these bounds
LOOKS = 20  # steps that the looks at the losses are worth
STEPS = 2 * FEWEST + LOOKS


def compare(bench: Bench, quantity: str, factor: float) -> None:
    """Let copies learn from the start on held batches in turn: by the rate of the run, and by a factor times that.

    Rates rise to their highest and fall to nothing; both copies begin alike. A row of the quantity is the factor on
    the rate, and of training and then of validation batches, in evaluation mode: loss at the end of the run, of the
    copy at the run's rate, of the other, standard error of the difference of the latter two, and of the first and the
    last; then the steps that each copy took.

    Raises:
        CannotIsolate: There is no validation batch: few samples that are learned by heart would tell nothing.
    """
    train, val = to_try(bench, "what another rate would have brought")
    with bench.model() as model:
        before = losses_of(model, train), losses_of(model, val)
    steps = max(FEWEST, int(min(bench.step, MOST, (bench.affords - LOOKS) / 2)))
    usual, other = (_learned(bench, train, val, times, steps) for times in (1.0, factor))
    bench.record.append(quantity, "held", bench.step, [factor, *compared(before, usual, other), steps])


def _learned(
    bench: Bench, train: Sequence[Batch], val: Sequence[Batch], factor: float, steps: int
) -> tuple[Losses, Losses]:
    """Losses of training and of validation batches of a copy that learned at so many times the rate."""
    with bench.learner() as (model, optimizer):
        begin_again(bench, model, optimizer)
        for _ in cycle(bench, model, optimizer, train, steps, factor):
            pass
        model.eval()
        return losses_of(model, train), losses_of(model, val)
