"""What another beginning would have brought: copies that learn from usual weights, and with rectified units (§9)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from trainwatch.probes.begun_again import begin_again, best_look
from trainwatch.probes.bench import Batch, Bench
from trainwatch.probes.evaluated import Losses, compared, losses_of, to_try
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.symptoms.gradients import SQUASHING

KIND = "usual_start"
QUANTITIES = ("usual_start",)
AT_END = True
FEWEST, MOST = 60, 400  # steps of each copy: as many as the run took, within these bounds
MARKS = 5  # times that a copy is looked at: few samples are soon learned by heart
LOOKS = 60  # steps that the looks at the losses are worth
STEPS = 3 * FEWEST + LOOKS


def measure(bench: Bench) -> None:
    """Let copies learn from the start on held batches in turn: as the run began, and from usual weights.

    Usual are He's for rectified units and Glorot's for others, in hidden linear and convolutional layers; what torch
    draws by default elsewhere. Where modules of the hidden layers squash, another copy has ReLUs in their place. What
    counts of each copy is the look with the lowest validation loss. A row of `usual_start`, by ``usual`` and
    ``rectified``, is of training and then of validation batches, in evaluation mode: loss at the end of the run, of the
    copy that began as the run did, of the other, standard error of the difference of the latter two, and of the first
    and the last.

    Raises:
        CannotIsolate: There is no validation batch, or weights were learned elsewhere.
    """
    train, val = to_try(bench, "what usual weights would have brought")
    if bench.starts:
        raise CannotIsolate("weights were learned elsewhere: they are not drawn anew")
    with bench.model() as model:
        before = losses_of(model, train), losses_of(model, val)
    last, squashing = _layers(bench)
    changes = {"usual": [], **({"rectified": squashing} if squashing else {})}
    steps = max(FEWEST, int(min(bench.step, MOST, (bench.affords - LOOKS) / (1 + len(changes)))))
    as_begun = _learned(bench, train, val, steps, last, None)
    for name, replaced in changes.items():
        rectified = bool(replaced) or not squashing
        other = _learned(bench, train, val, steps, last, (replaced, rectified))
        bench.record.append("usual_start", name, bench.step, compared(before, as_begun, other))


def _layers(bench: Bench) -> tuple[str, list[str]]:
    """The module with parameters that runs last, and those before it that squash what they are given."""
    facts = bench.record.facts
    owners = {p["module"] for p in facts.get("parameters", ())}
    order = {m["name"]: m["order"] for m in facts.get("modules", ())}
    last = max(owners & order.keys(), key=lambda name: order[name], default="")
    squashing = [m["name"] for m in facts.get("modules", ()) if m["type"] in SQUASHING]
    return last, [name for name in squashing if order[name] < order.get(last, 0)]


def _learned(
    bench: Bench,
    train: Sequence[Batch],
    val: Sequence[Batch],
    steps: int,
    last: str,
    change: tuple[Sequence[str], bool] | None,
) -> tuple[Losses, Losses]:
    """Losses of training and of validation batches of a copy, from usual weights where there is a change."""
    with bench.learner() as (model, optimizer):
        begin_again(bench, model, optimizer)
        if change is not None:
            replaced, rectified = change
            for name in replaced:
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, nn.ReLU())
            _draw(model, optimizer, last, rectified)
        return best_look(bench, model, optimizer, (train, val), steps, MARKS, losses_of)


def _draw(model: nn.Module, optimizer: torch.optim.Optimizer, last: str, rectified: bool) -> None:
    """Draw usual weights for all modules that say how theirs are drawn, as far as they are trained."""
    trained = {id(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        draw = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if not own or draw is None or not all(id(p) in trained for p in own):
            continue
        draw()
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) and name != last:
            (nn.init.kaiming_normal_ if rectified else nn.init.xavier_normal_)(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
