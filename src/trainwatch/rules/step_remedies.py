"""Remedies for steps that are too long (TW302, TW304, TW601, TW603, TW604), and what came of trying other lengths."""

from __future__ import annotations

from collections.abc import Iterator

from trainwatch.diagnosis import Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.symptoms.gradients import gradients_of, largest_update, learning_rate
from trainwatch.symptoms.step_line import StepLine, step_line

UPDATE, LONG = 0.01, 0.1  # of the weights' length: a sane step, and one that is too long
WAY, MOST = 4.0, 0.03  # lengths that all steps of a short run together should come to, by steps no longer than that
SURE = 2.0  # standard errors


def shorter_steps(record: RunRecord, rate: float, ratio: float, step: int) -> Iterator[Remedy]:
    """A lower rate, warm-up and clipping, for an update of `ratio` times the weights' length at a step."""
    gradients = record.memo(gradients_of)
    assert gradients is not None
    first = largest_update(record, 0, 0)
    if first is not None:  # later ones grow with the gradients of a net that is thrown off already
        ratio = min(ratio, max(first[1], LONG))
    sane, line = sane_update(record), shorter_is_better(record)
    proposed = rate * sane / ratio
    reason = f"So an update would be about {sane:.0%} of the weights' length, not {ratio:.0%}."
    if line is not None and line.rate * line.best < proposed:
        proposed = line.rate * line.best
        reason = f"Tried on other batches, the step after {line.step} did best at {line.best:g} times its length."
    yield lower_rate(gradients.optimizer["type"], rate, proposed, reason)
    yield remedy("warm-up", steps=max(10, record.steps // 20))
    if (typical := gradients.typical_before(step + 1)) is not None:
        reason = f"It caps the steps of rare large gradients; up to step {step} nine in ten norms were below it."
        yield clipping(record, typical, reason)


def sane_update(record: RunRecord) -> float:
    """What part of the weights' length a step should be: more where a run ended after a few steps."""
    ended = record.facts.get("run", {}).get("finished") and record.steps
    return float(min(MOST, max(UPDATE, WAY / record.steps))) if ended else UPDATE


def shorter_is_better(record: RunRecord) -> StepLine | None:
    """The line along a step that did better at a part of its length, beyond noise; None where it was not tried."""
    line = record.memo(step_line)
    return line if line is not None and 0 < line.best < 1 and line.fall > SURE * line.error else None


def tried_lengths(line: StepLine | None, threshold: float) -> Iterator[Evidence]:
    """What came of steps of other lengths, if they were tried."""
    if line is not None:
        yield Evidence("the coming step does best at so many times its length", line.best, threshold, step=line.step,
                       note="on held batches that it was not computed from")  # fmt: skip


def shorter_step(record: RunRecord, step: int, ratio: float) -> Remedy:
    """A lower rate alone, for an update of `ratio` times the weights' length at a step."""
    gradients, rate = record.memo(gradients_of), learning_rate(record, step)
    assert gradients is not None
    reason = f"The update at step {step} was {ratio:.2g} times as long as the weights."
    return lower_rate(gradients.optimizer["type"], rate, rate * UPDATE / ratio, reason)


def lower_rate(optimizer: str, rate: float, proposed: float, reason: str) -> Remedy:
    """A lower rate for an optimiser of a type, and why that one."""
    return remedy("lower-learning-rate", present=f"{rate:.3g}", proposed=f"{proposed:.1g}",
                  optimizer=optimizer, reason=reason)  # fmt: skip


def clipping(record: RunRecord, max_norm: float, reason: str, *, cuts: float = 0.0) -> Remedy:
    """Clipping at a norm of this run; in use already where its limit is below what it should cut, if that is told."""
    limits = (record.facts.get("regularisation", {}).get("clipping") or {}).values()
    in_use = any(limit < cuts or not cuts for limit in limits)
    return remedy("gradient-clipping", already_in_use=in_use, max_norm=f"{max_norm:.2g}", reason=reason)
