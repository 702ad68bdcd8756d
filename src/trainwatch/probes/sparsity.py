"""The planner of sparsity: how many weights the L1 term of the run would make zero by proximal steps (§8, §16)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from trainwatch.probes.bench import Bench
from trainwatch.probes.evaluated import MANY, losses_of, mean_and_error
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.penalised import Penalised, coefficients
from trainwatch.probes.proximal import pull_of
from trainwatch.probes.proximal_path import ProximalPath
from trainwatch.probes.rates import highest_rates, set_rates

KIND = "sparsity"
QUANTITIES = ("sparsity_path", "sparsity_layers")
AT_END = True
FACTORS = (1.0, 3.0, 10.0)  # on the coefficient of the run
FIRST = 20  # steps under that coefficient: weights that hover about zero need no more to get there
FEWEST, MOST = 50, 400  # steps under each of the others: a quarter of those of the run, within these bounds
PART = 0.25
LOOKS = 40  # steps that the looks are worth
STEPS = FIRST + LOOKS  # the others are tried where there is time


def measure(bench: Bench) -> None:
    """Let a copy go on by proximal steps: under the coefficients of the run, then under multiples of them.

    What is penalised is each weight of two dimensions or more that an L1 term of the loss, or `trainwatch.prox`, acts
    on. The copy begins where the run ended, at the highest rates of the run: what was trained under that term is near
    where proximal steps lead. Each coefficient takes up what the last one made.

    The first line of `sparsity_path` is the run as it ended, the others are those coefficients: (factor, largest
    coefficient, share of exact zeros, share of those at which the gradient of the loss is within the coefficient,
    steps, loss of training batches in evaluation mode, standard error of its change from the first line, loss of
    validation batches, that of its change). Lines that there was no time for are absent. `sparsity_layers` has, in the
    same lines, the share of zeros in each of the parameters of the facts.
    """
    added = coefficients(bench.record).get("l1", {})
    train = [Penalised(b, {"l1": added}, bench.loss_factor(b), present=False) for b in bench.batches("train", MANY)]
    val = bench.held("val", MANY)
    known = [str(p["name"]) for p in bench.record.facts.get("parameters", ())]
    each = (bench.affords - STEPS) / (len(FACTORS) - 1)
    steps = int(np.clip(min(PART * bench.step, each), FEWEST, MOST))
    tried = FACTORS if each >= FEWEST else FACTORS[:1]
    with bench.learner(further=2) as (model, optimizer):
        set_rates(optimizer, highest_rates(bench.record, optimizer))
        amounts = _amounts(added, model, optimizer)
        for group in optimizer.param_groups:
            group["l1"] = 0.0  # the path shrinks by itself
        weights = {name: p for name, p in model.named_parameters() if name in amounts}
        try:
            pull_of(optimizer)
        except TypeError as reason:
            raise CannotIsolate(str(reason)) from reason
        path, largest = ProximalPath(model, optimizer, weights), max(amounts.values())
        losses = [lambda b=b: b.loss(model).mean() * bench.step_factor(b) for b in train]

        def step(n: int) -> None:
            bench.train_step(train[n % len(train)], model, optimizer)

        model.eval()
        before = losses_of(model, train), losses_of(model, val)
        lines, layers = [], []
        for factor in (0.0, *tried):
            if factor:
                path.follow(step, FIRST if factor == 1 else steps, {n: factor * c for n, c in amounts.items()})
            shares, zeros = path.zeros()
            line = [factor, factor * largest, zeros, path.kept(losses) if factor else np.nan]
            line.append(0 if not factor else FIRST if factor == 1 else steps)
            for was, kind in zip(before, (train, val), strict=True):
                now = losses_of(model, kind)
                line += [mean_and_error(now)[0], mean_and_error(now - was)[1]]
            lines.append(line)
            layers.append([shares.get(name, np.nan) for name in known])
    for quantity, table in (("sparsity_path", lines), ("sparsity_layers", layers)):
        table += [[np.nan] * len(table[0])] * (1 + len(FACTORS) - len(table))
        bench.record.append(quantity, "held", bench.step, np.array(table))


def _amounts(added: Mapping[str, float], model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Name of each weight that the run penalises -> its coefficient.

    Raises:
        CannotIsolate: It penalises none.
    """
    groups = {id(p): group.get("l1") or 0.0 for group in optimizer.param_groups for p in group["params"]}
    found = {}
    for name, p in model.named_parameters():
        amount = added.get(name, 0.0) + groups.get(id(p), 0.0)
        if p.ndim > 1 and id(p) in groups and p.requires_grad and np.isfinite(amount) and amount > 0:
            found[name] = float(amount)
    if not found:
        raise CannotIsolate("no weight is penalised by its absolute value")
    return found
