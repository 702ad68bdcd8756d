"""What of a pretrained model can stay frozen: copies learn from its start with more or less of it trained (§11)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainwatch.probes.begun_again import cycle, forget, marks, put_back
from trainwatch.probes.bench import Batch, Bench
from trainwatch.probes.evaluated import MANY, Losses, level, losses_of, mean_and_error, seen_at
from trainwatch.probes.isolation import CannotIsolate

KIND = "frozen_part"
QUANTITIES = ("learned_frozen",)
AT_END = True
FEWEST, MOST = 50, 300  # steps of each copy: as many as the run took, within these bounds
PARTS = (0.25, 0.5, 0.75)  # of the modules, from the input on; besides, none and all but the last one
FEWER = (0.5,)  # where there is no time for all of them
LOOKS = 8  # steps that the looks at the losses of a copy are worth
STEPS = (2 + len(FEWER)) * (FEWEST + LOOKS)
MARKS = 4  # times that a copy is looked at: its lowest counts


def measure(bench: Bench) -> None:
    """Let copies learn from the weights of the start on held batches in turn, with the first modules frozen.

    The optimiser's state is empty, rates rise to the highest of the run and fall to nothing. Frozen modules are in
    evaluation mode. What counts of each copy is the look with the lowest validation loss. Where time is short, fewer
    parts are tried. A row of `learned_frozen` is (modules frozen, validation loss, standard error of its paired
    difference from the first row), of which the first is the copy with nothing frozen. The fact `freezable` names the
    modules in order of execution.

    Raises:
        CannotIsolate: No weights of the start are kept, or not all that are trained, or no validation batch is held.
    """
    if not bench.starts:
        raise CannotIsolate("the weights that it began with look as if they were drawn at random")
    if bench.record.facts.get("start_weights", {}).get("left_out"):
        raise CannotIsolate("the model is too large to keep all of its weights at the start")
    train, val = bench.batches("train", MANY), bench.held("val", MANY)
    if not val:
        raise CannotIsolate("no validation batch is held to see what a frozen part costs")
    modules = _in_order(bench)
    all_of_them, fewer = (_counts(parts, len(modules)) for parts in (PARTS, FEWER))
    counts = all_of_them if bench.affords >= len(all_of_them) * (FEWEST + LOOKS) else fewer
    steps = max(FEWEST, int(min(bench.step, MOST, bench.affords / len(counts) - LOOKS)))
    losses = [_after(bench, train, val, modules[:count], steps) for count in counts]
    bench.record.set_fact("freezable", modules)
    rows = [
        (c, mean_and_error(some)[0], mean_and_error(some - losses[0])[1])
        for c, some in zip(counts, losses, strict=True)
    ]
    bench.record.append("learned_frozen", "held", bench.step, np.array(rows))


def _counts(parts: Sequence[float], modules: int) -> list[int]:
    """How many of the modules are frozen in each copy."""
    return sorted({min(round(share * modules), modules - 1) for share in (0, *parts, 1)})


def _in_order(bench: Bench) -> list[str]:
    """The modules that are trained, as they are executed."""
    owners = {name.rpartition(".")[0] for name in bench.starts}
    facts = sorted(bench.record.facts.get("parameters", ()), key=lambda p: p["order"])
    return list(dict.fromkeys(p["module"] for p in facts if p["module"] in owners))


def _after(bench: Bench, train: Sequence[Batch], val: Sequence[Batch], frozen: Sequence[str], steps: int) -> Losses:
    """Losses of the validation batches, at their lowest, of a copy that learned with some modules frozen."""
    with bench.learner() as (model, optimizer):
        put_back(bench, model)
        forget(optimizer)
        kept = [model.get_submodule(name) for name in frozen]
        for module in kept:
            module.eval()
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
        learning = cycle(bench, model, optimizer, train, steps)
        return min(seen_at(marks(steps, MARKS), learning, model, lambda: losses_of(model, val)), key=level)
