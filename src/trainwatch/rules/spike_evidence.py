"""What TW604 shows: where the loss shot up, what that did, which samples are to blame, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trainwatch.diagnosis import Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.robust_loss import robust_loss
from trainwatch.rules.step_remedies import clipping
from trainwatch.symptoms.spikes import FAR, Broken, Spikes

SHOWN = 6


@dataclass(frozen=True)
class Told:
    """Why spikes are a fault, in words that go on a sentence, and the numbers behind it."""

    summary: str
    evidence: tuple[Evidence, ...]


def story(spikes: Spikes) -> str:
    """How often the loss shot up, when, and how far."""
    top = int(spikes.heights.argmax())
    step, level = int(spikes.steps[top]), float(spikes.levels[top])
    loss = level + float(spikes.heights[top])
    return f"the loss shot up {len(spikes)} times, at step {step} to {loss:.3g} among losses near {level:.3g}"


def heights_told(spikes: Spikes, count: int, height: float) -> tuple[Evidence, ...]:
    """The number of spikes and the highest, beside what they must be."""
    top, n = int(spikes.heights.argmax()), len(spikes)
    return (
        Evidence("spikes of the loss", n, count, where=spikes.stream, step=int(spikes.steps[-1]),
                 note=f"at steps {_listed(spikes)}; {n / spikes.rows:.2%} of the steps"),
        Evidence("highest rise over the loss of chance", float(spikes.heights[top] / spikes.reference),
                 height, where=spikes.stream, step=int(spikes.steps[top])),
    )  # fmt: skip


def harm_told(spikes: Spikes, least: float, energy: float) -> Told:
    """What spikes brought of all gradients."""
    gradient, share = spikes.gradient, spikes.energy
    step = int(spikes.steps[int(spikes.heights.argmax())])
    return Told(
        f"a gradient was {gradient:.2g} times those of other steps then, and {share:.0%} of all squared gradient came "
        "with them",
        (
            Evidence("largest gradient over those of other steps", gradient, least, step=step),
            Evidence("share of the squared gradients", share, energy, step=int(spikes.steps[-1])),
        ),
    )


def broken_told(broken: Broken) -> Told:
    """Which samples dwarf all others."""
    places = "; ".join(f"row {row} of the batch at step {step}" for step, row in broken.places)
    return Told(
        f"the inputs of {broken.far} of {broken.samples} held training samples are up to {broken.largest:.2g} times as "
        "large as usual",
        (
            Evidence("size of an input over that of the median sample", broken.largest, FAR, where="training samples",
                     step=broken.step, note=f"root mean square; {places}"),
        ),
    )  # fmt: skip


def advice(record: RunRecord, spikes: Spikes, broken: Broken | None) -> Iterator[Remedy]:
    """To repair samples, to clip, to look at the batches, and of squared errors a loss that large ones do not rule."""
    if broken is not None:
        yield remedy("repair-samples", far=broken.far, samples=broken.samples, times=broken.largest, far_times=FAR,
                     limit=FAR * broken.median)  # fmt: skip
    if spikes.usual is not None:
        reason = "Nine in ten norms of the other steps were below it."
        yield clipping(record, spikes.usual, reason, cuts=(spikes.gradient or 1.0) * spikes.usual)
    yield remedy("look-at-spikes", steps=_listed(spikes), most=float(spikes.levels.max() + spikes.heights.min() / 2))
    function = str(record.facts.get("loss", {}).get(spikes.stream, {}).get("function"))
    if function == "mse_loss":
        yield robust_loss(record)


def _listed(spikes: Spikes) -> str:
    steps = ", ".join(str(int(s)) for s in spikes.steps[:SHOWN])
    return f"{steps} and {len(spikes) - SHOWN} more" if len(spikes) > SHOWN else steps
