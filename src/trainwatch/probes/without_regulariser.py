"""What a regulariser costs: copies that learn from the start without it, against one that learns with it (§3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from trainwatch.probes.begun_again import begin_again, cycle, marks
from trainwatch.probes.bench import Bench
from trainwatch.probes.evaluated import MANY, Losses, compared, level, losses_of, seen_at
from trainwatch.probes.penalised import Penalised, coefficients
from trainwatch.symptoms.inventory import proximal_steps

KIND = "without_regulariser"
QUANTITIES = ("without_regulariser", "further_steps")
AT_END = True
FEWEST, MOST = 150, 400  # steps of each copy: as many as the run took, within these bounds
LOOKS = 60  # steps that the looks at the losses are worth
STEPS = 2 * FEWEST + LOOKS
MARKS = 4  # times that a copy is looked at: on a few batches the best may be long before the end
DROPOUT, DECAY, PENALTY, PROXIMAL = "dropout", "weight_decay", "penalty", "proximal"
OPTIONS = {DECAY: "weight_decay", PROXIMAL: "l1"}  # of the optimiser

Pair = tuple[Losses, Losses]  # of training batches, and of validation batches


def measure(bench: Bench) -> None:
    """Train copies from the start on held batches in turn: as the run does, and without each regulariser.

    The weights of all are drawn anew, alike, as wide as they began, and the optimiser's state is empty: what a
    regulariser has made of a net is not undone in a few steps. Rates rise to the highest of the run, and fall to
    nothing. What counts of each copy is the look with the lowest validation loss, without validation batches the last.

    A row of `without_regulariser`, under the names of what was left out (joined by ``+``), is for training batches and
    then for validation batches, in evaluation mode: (loss at the end of the run, of the copy as the run goes, of the
    copy without, standard error of the difference of the latter two, and of the first and the last). Losses are those
    of the criterion, whatever the copies learn along. What the run adds to it is known where it is an L1 or L2 term;
    anything else is left out of all copies: `further_steps` is then a row of the same kind, with the first for the
    second and the second for the third.
    """
    added = coefficients(bench.record)
    held, others = bench.batches("train", MANY), bench.held("val", MANY)
    factor = bench.loss_factor(held[0])
    train, val = ([Penalised(b, added, factor, present=False) for b in some] for some in (held, others))
    present = _present(bench, bool(added))
    steps = max(FEWEST, int(min(bench.step, MOST, (bench.affords - LOOKS) / 2)))
    with bench.model() as model:
        before = losses_of(model, train), losses_of(model, val)
    control = _after(bench, train, val, (), steps)
    if not added:
        bench.record.append("further_steps", "held", bench.step, compared(before, before, control))
    for i, left_out in enumerate([present, *((one,) for one in present if len(present) > 1)] if present else ()):
        if i and (i + 2) * steps + LOOKS > bench.affords:
            break
        without = _after(bench, train, val, left_out, steps)
        bench.record.append("without_regulariser", "+".join(left_out), bench.step, compared(before, control, without))
        if not all(_lower(a, b) for a, b in zip(without, control, strict=True)):
            break  # where all together are in nobody's way, none is alone


def _present(bench: Bench, added: bool) -> tuple[str, ...]:
    """What regularises the run and can be left out of a copy."""
    facts = bench.record.facts.get("regularisation") or {}
    proximal = proximal_steps(bench.record)
    used = {DROPOUT: facts.get(DROPOUT), DECAY: facts.get(DECAY), PENALTY: added, PROXIMAL: proximal}
    return tuple(name for name, of_run in used.items() if of_run)


def _lower(some: Losses, others: Losses) -> bool:
    return not len(some) or bool(not others.mean() <= some.mean())


def _after(
    bench: Bench, train: Sequence[Penalised], val: Sequence[Penalised], left_out: Sequence[str], steps: int
) -> Pair:
    """Losses of training and validation batches in evaluation mode of a copy that learned without something."""
    learned = [replace(batch, present=PENALTY not in left_out) for batch in train]
    with bench.learner() as (model, optimizer):
        begin_again(bench, model, optimizer)
        if DROPOUT in left_out:
            _undropped(model)
        for group in optimizer.param_groups:
            group.update({OPTIONS[name]: 0.0 for name in left_out if name in OPTIONS})
        looked_at, learning = marks(steps, MARKS if val else 1), cycle(bench, model, optimizer, learned, steps)
        looks = seen_at(looked_at, learning, model, lambda: (losses_of(model, train), losses_of(model, val)))
    return min(looks, key=lambda look: level(look[1])) if val else looks[-1]


def _undropped(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        elif isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
            module.dropout = 0.0
