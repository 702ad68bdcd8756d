"""What inputs of mean 0 and deviation 1 would have brought: two copies that learn from the start (§10)."""

from __future__ import annotations

import torch

from trainwatch.probes import standardised
from trainwatch.probes.bench import Bench, Exchangeable
from trainwatch.probes.evaluated import compared, losses_of, to_try
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.standardised import exchangeable, learned, scale_of

KIND = "standard_inputs"
QUANTITIES = (KIND,)
AT_END = True
STEPS = standardised.STEPS


def measure(bench: Bench) -> None:
    """Let copies learn from the start on held batches in turn: on the inputs of the run, and on standardised ones.

    Columns of tables, channels of images and the last axis of sequences are standardised by the held training batches.
    Rates rise to the highest of the run and fall to nothing; of each copy the look with the lowest validation loss
    counts. A row of `standard_inputs` is of training and then of validation batches, in evaluation mode: loss at the
    end of the run, of the copy on its inputs, of the other, standard error of the difference of the latter two, and of
    the first and the last.

    Raises:
        CannotIsolate: The inputs are no numbers, or cannot be replaced, or there is no validation batch.
    """
    sides = [exchangeable(some) for some in to_try(bench, "what standardised inputs would have brought")]
    inputs = [_input_of(batch) for batch in sides[0]]
    axis = 1 if inputs[0].ndim in (2, 4, 5) else -1
    scale = scale_of(inputs, axis)
    train, val = ([batch.exchanged(_input_of(batch), scale.of(_input_of(batch))) for batch in some] for some in sides)
    with bench.model() as model:
        before = losses_of(model, sides[0]), losses_of(model, sides[1])
    usual = learned(bench, (sides[0], sides[1]), losses_of)
    other = learned(bench, (train, val), losses_of)
    bench.record.append(KIND, "held", bench.step, compared(before, usual, other))


def _input_of(batch: Exchangeable) -> torch.Tensor:
    """The first tensor that the model is given.

    Raises:
        CannotIsolate: It is not one of numbers.
    """
    first = next((tensor for role, _, tensor in batch.tensors() if role == "input"), None)
    if first is None or not first.is_floating_point() or first.ndim < 2:
        raise CannotIsolate("the first input is no tensor of numbers")
    return first
