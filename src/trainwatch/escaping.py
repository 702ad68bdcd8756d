"""A step off a saddle, on the live weights: the one thing that trainwatch changes, and only where it is asked to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from trainwatch.capture.interception import unheard
from trainwatch.capture.ranks import several_processes
from trainwatch.capture.run_capture import RunCapture
from trainwatch.probes import saddle
from trainwatch.probes.bench import Bench
from trainwatch.probes.isolation import CannotIsolate, unwrapped
from trainwatch.rules import Rule
from trainwatch.rules.saddle_evidence import why_not
from trainwatch.rules.tw401_saddle_point import SaddlePoint
from trainwatch.symptoms.curvature import curvature


@dataclass(frozen=True)
class Escaped:
    """What `trainwatch.escape` did.

    Attributes:
        moved: Whether the weights were moved.
        length: How far, in the units of the weights; 0 where they were not.
        drop: By how much the loss fell on held batches that the direction was not taken from.
        drop_error: Its standard error over those batches.
        reason: Why nothing was done, otherwise empty.
    """

    moved: bool
    length: float = 0.0
    drop: float = 0.0
    drop_error: float = 0.0
    reason: str = ""


def leave_saddle(capture: RunCapture, bench: Bench, rules: Sequence[Rule]) -> Escaped:
    """Measure the curvature anew and, where TW401 confirms a way down, move the live weights along it.

    Args:
        capture: Of the run, with one model.
        bench: For the probe of that model.
        rules: As they are set for the run.
    """
    if several_processes():
        return Escaped(False, reason="other processes hold the same weights, and would move elsewhere")
    try:
        with unheard():
            direction = saddle.direction_of(bench)
    except CannotIsolate as reason:
        return Escaped(False, reason=str(reason))
    found = bench.record.memo(curvature)
    assert found is not None
    rule = next((rule for rule in rules if isinstance(rule, SaddlePoint)), SaddlePoint())
    way = rule.confirmed(found)
    if way is None:
        return Escaped(False, reason=why_not(found, rule.gain))
    (model,) = capture.models.values()
    move(model, direction, way.length)
    capture.note_jump()
    fact = {"step": bench.step, "length": way.length, "drop": way.drop, "drop_error": way.drop_error}
    bench.record.set_fact("escapes", [*bench.record.facts.get("escapes", ()), fact])
    return Escaped(True, way.length, way.drop, way.drop_error)


def move(model: nn.Module, direction: Mapping[str, torch.Tensor], length: float) -> None:
    """Move a model's parameters in place, tied ones once.

    Args:
        model: The live model, in a wrapper or not.
        direction: Parameter -> its part of a unit vector, as the probe names them.
        length: How far.
    """
    named = dict(unwrapped(model).named_parameters())
    with torch.no_grad():
        for name, part in direction.items():
            named[name].add_(part.to(named[name]), alpha=length)
