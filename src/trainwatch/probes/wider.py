"""What wider layers would have brought: copies that learn from the start, one as it is and a wider one (§3)."""

from __future__ import annotations

import torch

from trainwatch.probes.begun_again import begin_again, best_look
from trainwatch.probes.bench import Bench, Exchangeable
from trainwatch.probes.evaluated import compared, losses_of, to_try
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.widening import bytes_of, narrowest, widen

KIND = "wider"
QUANTITIES = (KIND,)
AT_END = True
FEWEST, MOST = 60, 400  # steps of each copy: as many as the run took, within these bounds
TIMES, MOST_TIMES = 4, 16  # as wide, and at most where layers have a few units:
UNITS = 32  # so many are the least, then
KEPT = 4  # tensors of the size of each weight: itself, its gradient, two moments
MARKS = 5  # times that a copy is looked at
LOOKS = 60  # steps that the looks at the losses are worth
STEPS = (1 + TIMES) * FEWEST + LOOKS


def measure(bench: Bench) -> None:
    """Let copies learn from the start on held batches in turn: as wide as the run's model, and wider.

    All layers between input and output are made wider alike, and drawn as torch does. Rates rise to the highest of the
    run and fall to nothing; of each copy the look with the lowest validation loss counts. A row of `wider` is of
    training and then of validation batches, in evaluation mode: loss at the end of the run, of the copy as it is, of
    the wider one, standard error of the difference of the latter two, and of the first and the last; then how many
    times as wide.

    Raises:
        CannotIsolate: There is no validation batch, weights were learned elsewhere, the model rebuilds its inputs, or
            it is not known how it is made wider.
    """
    train, val = to_try(bench, "what a wider model would have brought")
    if bench.starts:
        raise CannotIsolate("weights were learned elsewhere: a wider model has none such")
    ran = [m["name"] for m in sorted(bench.record.facts.get("modules", ()), key=lambda m: m["order"])]
    with bench.model() as model:
        if isinstance(train[0], Exchangeable) and _rebuilds(train[0]):
            raise CannotIsolate("the model rebuilds what it is given: how narrow it is is meant")
        times = min(max(TIMES, -(-UNITS // narrowest(model, ran))), MOST_TIMES)
        if KEPT * bytes_of(model, ran, times) > bench.memory:
            raise CannotIsolate("a wider model takes more than probe_memory allows")
        before = losses_of(model, train), losses_of(model, val)
    steps = max(FEWEST, int(min(bench.step, MOST, (bench.affords - LOOKS) / (1 + TIMES))))
    with bench.learner() as (model, optimizer):
        begin_again(bench, model, optimizer)
        usual = best_look(bench, model, optimizer, (train, val), steps, MARKS, losses_of)
    with bench.learner() as (model, optimizer):
        model = widen(model, optimizer, ran, times)
        try:
            losses_of(model, train[:1])
        except Exception as error:
            raise CannotIsolate(f"a wider model cannot be run: {type(error).__name__}") from error
        other = best_look(bench, model, optimizer, (train, val), steps, MARKS, losses_of)
    bench.record.append(KIND, "held", bench.step, [*compared(before, usual, other), times])


def _rebuilds(batch: Exchangeable) -> bool:
    """Whether a target is what the model is given."""
    tensors = [(role, t) for role, _, t in batch.tensors()]
    wanted = [t for role, t in tensors if role == "target"]
    given = [t for role, t in tensors if role == "input"]
    return any(x.numel() == y.numel() and torch.equal(x.reshape(-1), y.reshape(-1)) for x in given for y in wanted)
