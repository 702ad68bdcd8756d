"""What a regulariser costs: some steps on a copy without it, against the same steps on a copy as it is (§3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trainwatch.probes.bench import Batch, Bench
from trainwatch.probes.evaluated import MANY, losses_of, mean_and_error
from trainwatch.probes.rates import highest_rates, set_rates

KIND = "without_regulariser"
QUANTITIES = ("without_regulariser", "further_steps")
AT_END = True
ENOUGH = 150  # steps of each copy: weights that decay has shrunk need some to grow
STEPS = 2 * ENOUGH + 60  # of both copies, and of the looks at their losses
SHRUNK = 0.3  # of the length that weights began with: shorter ones are as good as gone
DROPOUT, DECAY = "dropout", "weight_decay"

Losses = NDArray[np.float64]
Pair = tuple[Losses, Losses]  # of training batches, and of validation batches


def measure(bench: Bench) -> None:
    """Train copies on held batches in turn: as the run goes, and without each regulariser.

    All begin with the same random numbers, which a copy leaves as they were, and use the run's optimiser with its
    state, at rates that fall from the highest of the run to nothing: the noise of the last steps is no part of it.

    A row of `without_regulariser`, under the names of what was left out (joined by ``+``), is for training batches and
    then for validation batches, in evaluation mode: (loss at the end of the run, after steps as it goes, after steps
    without, standard error of the difference of the latter two, and of the first and the last). The steps follow the
    criterion alone, so a term that the run adds to its loss is left out of all of them: `further_steps` is a row of the
    same kind, with the first for the second and the second for the third.
    """
    train, val = bench.batches("train", MANY), bench.held("val", MANY)
    present = _present(bench)
    with bench.model() as model:
        before = losses_of(model, train), losses_of(model, val)
    control = _after(bench, train, val, ())
    bench.record.append("further_steps", "held", bench.step, _compared(before, before, control))
    for left_out in [present, *((one,) for one in present if len(present) > 1)] if present else ():
        without = _after(bench, train, val, left_out)
        bench.record.append("without_regulariser", "+".join(left_out), bench.step, _compared(before, control, without))
        if not without[0].mean() < control[0].mean():
            break  # where both together are in nobody's way, neither is alone


def _present(bench: Bench) -> tuple[str, ...]:
    """What regularises the run and can be left out of a copy."""
    facts = bench.record.facts.get("regularisation") or {}
    return tuple(name for name in (DROPOUT, DECAY) if facts.get(name))


def _after(bench: Bench, train: Sequence[Batch], val: Sequence[Batch], left_out: Sequence[str]) -> Pair:
    """Losses of training and validation batches in evaluation mode after steps without something."""
    with bench.learner() as (model, optimizer):
        rates = highest_rates(bench.record, optimizer)
        if DROPOUT in left_out:
            _undropped(model)
        if DECAY in left_out:
            _undecayed(bench, model, optimizer)
        for i in range(ENOUGH):
            set_rates(optimizer, [rate * (1 - i / ENOUGH) for rate in rates])
            bench.train_step(train[i % len(train)], model, optimizer)
        model.eval()
        return losses_of(model, train), losses_of(model, val)


def _undecayed(bench: Bench, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Switch decay off, and draw weights anew that it has pulled to next to nothing, as wide as they began.

    Such weights hardly have a gradient: left alone, they would need far more steps to recover.
    """
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    began = {p["name"]: p for p in bench.record.facts.get("parameters", ()) if p["kind"] != "bias"}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in began or float(parameter.norm()) >= SHRUNK * float(began[name]["norm"]):
                continue
            square, std = float(began[name]["norm"]) ** 2 / parameter.numel(), float(began[name]["std"])
            parameter.normal_(max(0.0, square - std**2) ** 0.5, std)  # gains of norms began at 1
            for value in optimizer.state[parameter].values():
                if isinstance(value, torch.Tensor):
                    value.zero_()  # what was learned of vanished gradients makes the first steps far too long


def _undropped(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        elif isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
            module.dropout = 0.0


def _compared(before: Pair, control: Pair, without: Pair) -> list[float]:
    row: list[float] = []
    for three in zip(before, control, without, strict=True):  # of training, then of validation batches
        errors = [mean_and_error(three[i] - three[2])[1] for i in (1, 0)]
        row += [*(mean_and_error(losses)[0] for losses in three), *errors]
    return row
