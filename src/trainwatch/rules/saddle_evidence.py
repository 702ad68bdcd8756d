"""Evidence for a saddle point (TW401): along the direction, of shaken copies, and at the point itself."""

from __future__ import annotations

from trainwatch.diagnosis import Evidence
from trainwatch.record import RunRecord
from trainwatch.rules.begun_evidence import faster_better
from trainwatch.symptoms.curvature import Curvature, Escape
from trainwatch.symptoms.experiments import Shaken
from trainwatch.symptoms.motion import escape_time, reach_of
from trainwatch.symptoms.rest import Rest


def summary(rest: Rest, escape: Escape | None, copies: Shaken | None, shares: list[tuple[str, float]]) -> str:
    """What was found, by either way."""
    ways = []
    if escape is not None:
        named = ", ".join(f"'{name}' {share:.0%}" for name, share in shares)
        ways.append(
            f"falls by {escape.drop:.3g} within {escape.length:.3g} along a direction of negative curvature (mostly "
            f"{named})"
        )
    if copies is not None:
        ways.append(
            f"comes to {copies.shaken:.3g} in {copies.steps} more steps where the weights were shaken once, to "
            f"{copies.still:.3g} where not"
        )
    gained = f"it gained {max(rest.fall, 0.0):.2g} in the last {rest.steps} steps"
    return f"the loss rests at a saddle: {gained}, and {'; it '.join(ways)}"


def why_not(found: Curvature, gain: float) -> str:
    """What a way down lacks that is not confirmed, in words."""
    if found.escape is None:
        return (
            f"no direction curves downwards on other batches, too: the most negative curvature is "
            f"{found.smallest:.2g}, on those {found.along:.2g} +- {found.along_error:.1g}"
        )
    if found.escape.drop <= gain * found.gradient_gain:
        return (
            f"the gradient shows a way: a step along it would bring {found.gradient_gain:.2g}, one along the direction "
            f"of negative curvature {found.escape.drop:.2g}"
        )
    return "other batches do not confirm the way down beyond their noise"


def along_the_direction(found: Curvature, escape: Escape, least: float, sure: float) -> tuple[Evidence, ...]:
    """What other batches show along the direction; `least` is the fall that counts, `sure` one-sided."""
    lengths = f"at a length of {escape.length:.3g}, that of the weights is {found.weights:.3g}"
    return (
        Evidence("fall of the loss along the direction, on other batches", escape.drop, least, step=found.step,
                 note=f"+- {escape.drop_error:.1g}, {found.batches} batches; {lengths}"),
        Evidence("curvature along the direction, on other batches", found.along, 0.0, step=found.step,
                 note=f"below {found.along_below(sure):.3g} with {sure:.0%} confidence"),
        Evidence("what a step along the gradient would bring", found.gradient_gain, step=found.step),
    )  # fmt: skip


def of_shaking(copies: Shaken, least: float) -> tuple[Evidence, ...]:
    """What copies came to whose weights were shaken; `least` is the lead that counts."""
    note = f"+- {copies.error:.1g}, on held batches, after {copies.steps} steps; the worst of the shaken copies"
    return (
        Evidence("lead of shaken copies over one that was not", copies.lead, least, step=copies.step, note=note),
        Evidence("loss of a shaken copy", copies.shaken, copies.still, step=copies.step,
                 note=f"at the end of the run {copies.before:.3g}"),
    )  # fmt: skip


def at_the_point(record: RunRecord, found: Curvature, rest: Rest) -> tuple[Evidence, ...]:
    """The rest of the loss, and the ends of the spectrum."""
    return (
        Evidence("what the optimiser gained over the plateau", rest.fall, step=record.steps,
                 note=f"+- {rest.error:.1g}, in {rest.steps} steps"),
        Evidence("most negative eigenvalue", found.smallest, step=found.step,
                 note=f"within {found.smallest_bound:.1g}; {found.products} products with the Hessian"),
        Evidence("largest eigenvalue", found.largest, step=found.step, note=f"within {found.largest_bound:.1g}"),
    )  # fmt: skip


def too_slow(record: RunRecord, grown: float, ahead: float, way: float) -> bool:
    """Whether steps are too short to leave a saddle: then the rate is to blame.

    Args:
        record: The run.
        grown: E-folds along the way down that plain SGD must have had the time for.
        ahead: By which share of the loss of a constant guess a copy at a higher rate is ahead, of other optimisers.
        way: Lengths of the weights that all updates of these must sum up to, where that is known.
    """
    time, reach = record.memo(escape_time), record.memo(reach_of)
    if time is not None:
        return time < grown
    return (reach is not None and reach.total < way) or faster_better(record, ahead) is not None
