"""Whether a run is stuck at a saddle: a direction of negative curvature from some batches, tried on others (§13)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import nn

from trainwatch.probes.bench import Batch, Bench
from trainwatch.probes.curvature import DIFFERENCES, Hessian, Loss
from trainwatch.probes.evaluated import mean_and_error
from trainwatch.probes.hessian import spectrum_ends
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.lanczos import Ritz
from trainwatch.probes.plane import STEPS as FOR_PLANE
from trainwatch.probes.plane import loss_plane, losses_at
from trainwatch.record.series import Array

KIND = "saddle"
QUANTITIES = ("hessian", "saddle_line", "saddle_direction", "loss_plane")
STEPS = 200  # 15 products of a third of the batches take about 110, curvature and lines on the others the rest
MANY, APART = 12, 3  # batches held; every third is one that the direction is taken from
PRODUCTS = 40
VECTORS = 32  # of the basis, where memory allows
WORKING = 8  # vectors at work besides, and the four that a basis takes at least
NEAR, FLAT = 0.25, 1e-3  # bounds that will do, as a share of the value and of the largest eigenvalue
REACH = 4 / 3  # of the plane to either side, in lengths at which the line is lowest: its fourth place is that
FIRST, SIZES = 1e-3, 10  # predicted change of the loss at the first size, as a share of it; each size is twice the last


@dataclass(frozen=True)
class SaddleTest:
    """A direction taken from some batches (A), and what others (B) show of it.

    Attributes:
        largest, largest_bound: Eigenvalue of the Hessian on A, and within how much of it there is one.
        smallest, smallest_bound: Curvature of A along the direction, the most negative that was found, and the same.
        products: Products of the Hessian with a vector that it took.
        method: How they were made.
        curvatures: Of each batch of B along the direction, shape (b,).
        slopes: Product of the gradients of A and of each batch of B, shape (b,): their mean is the squared norm of the
            true gradient without the noise of either.
        line: For lengths along the direction, from 0 on: the length, the loss of A and of B there, standard error of
            the change of the latter, mean change of B's loss over both sides, its standard error; shape (sizes, 6).
            None where no direction of negative curvature was found, or B has none along it.
        plane: Losses of A over the plane of the direction and the eigenvector of the largest eigenvalue, shape (10, 10)
            (see `loss_plane`): along the direction to just beyond the length that the line is lowest at, along the
            other until the eigenvalue promises a rise as large as that fall, but no further. None where the line does
            not fall, or it was not asked for.
        direction: Parameter -> its part of the unit vector, which points to the side where A's loss is lower.
    """

    largest: float
    largest_bound: float
    smallest: float
    smallest_bound: float
    products: int
    method: str
    curvatures: Array
    slopes: Array
    line: Array | None
    plane: Array | None
    direction: dict[str, torch.Tensor] = field(repr=False)


def measure(bench: Bench) -> None:
    """On a copy in evaluation mode, look for negative curvature and try the loss along it.

    Held training batches are divided: a third gives the direction, the others confirm or refute it.
    """
    direction_of(bench)


def direction_of(bench: Bench) -> dict[str, torch.Tensor]:
    """As `measure`: what was recorded, and the direction that it is of, parameter -> its part of the unit vector.

    Raises:
        CannotIsolate: It cannot be measured without touching the training.
    """
    batches = bench.batches("train", MANY)
    first, second = batches[::APART], [b for i, b in enumerate(batches) if i % APART]
    if len(second) < 2:
        raise CannotIsolate(f"{len(batches)} batches are held: a direction from one cannot be tried on two others")
    with bench.model(further=WORKING) as model:
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not named:
            raise CannotIsolate("no parameter requires gradients")
        source, judge = ([partial(_mean, batch, model) for batch in part] for part in (first, second))
        found = saddle_test(source, judge, named, memory=bench.memory, plane=bench.affords >= STEPS + FOR_PLANE)
    weights = float(torch.stack(torch._foreach_norm([p.detach() for p in named.values()])).norm())
    ends = (found.largest, found.largest_bound, found.smallest, found.smallest_bound, found.products)
    row = (*ends, *mean_and_error(found.curvatures), *mean_and_error(found.slopes), len(second), weights)
    bench.record.append("hessian", "held", bench.step, row, {"method": found.method})
    if found.line is not None:
        bench.record.append("saddle_line", "held", bench.step, found.line)
        share = [found.direction.get(p["name"]) for p in bench.record.facts.get("parameters", ())]
        squares = [np.nan if part is None else float(part.square().sum()) for part in share]
        bench.record.append("saddle_direction", "held", bench.step, squares)
    if found.plane is not None:
        bench.record.append("loss_plane", "held", bench.step, found.plane)
    return found.direction


def saddle_test(
    first: Sequence[Loss],
    second: Sequence[Loss],
    named: Mapping[str, torch.Tensor],
    *,
    memory: int,
    plane: bool = False,
) -> SaddleTest:
    """Find the most negative curvature of some losses and try it on others.

    Args:
        first: Losses that the direction is taken from, without arguments, of the parameters.
        second: Those that judge it, of other samples; at least two.
        named: Parameters, which are moved in place and put back.
        memory: Bytes for vectors and kept graphs.
        plane: Also find the losses over a plane.

    Raises:
        NoCurvature: The Hessian cannot be measured.
    """
    parameters = list(named.values())
    entries = sum(p.numel() * p.element_size() for p in parameters)
    spare = memory - WORKING * entries
    vectors = max(4, min(VECTORS, spare // 2 // max(1, entries)))
    hessian = Hessian(first, parameters, memory=max(0, spare - vectors * entries))
    gradient = hessian.gradient()
    found, (direction,), (steepest,) = spectrum_ends(
        hessian, answered, smallest=1, largest=1, most_vectors=vectors, most_products=PRODUCTS
    )
    hessian.release()
    direction /= direction.norm()
    judge = Hessian(second, parameters, memory=0)
    if hessian.method == DIFFERENCES:
        judge.use_differences()
    curvatures, slopes = np.full(len(second), np.nan), np.full(len(second), np.nan)
    for i, (other, product) in enumerate(judge.apart(direction)):
        curvatures[i], slopes[i] = float(product @ direction), float(other @ gradient)
    smallest, largest = float(found.values[0]), float(found.values[-1])
    line = table = None
    if smallest < -hessian.rounding * found.radius and curvatures.mean() < 0:
        side, line = _line(hessian, first, second, direction, smallest)
        direction *= side
        if plane and hessian.size > 1:
            table = _plane(hessian, first, direction, steepest / steepest.norm(), largest, line)
    return SaddleTest(
        largest=largest,
        largest_bound=float(found.bounds[-1]),
        smallest=smallest,
        smallest_bound=float(found.bounds[0]),
        products=hessian.products,
        method=hessian.method,
        curvatures=curvatures,
        slopes=slopes,
        line=line,
        plane=table,
        direction=dict(zip(named, hessian.split(direction), strict=True)),
    )


def answered(ritz: Ritz) -> bool:
    """Both ends are known roughly, or nothing of note is negative: any direction of negative curvature will do."""
    low, high = float(ritz.values[0]), float(ritz.values[-1])
    flat = low - float(ritz.bounds[0]) > -FLAT * ritz.radius
    near = flat or float(ritz.bounds[0]) <= -NEAR * low
    return ritz.complete or (near and float(ritz.bounds[-1]) <= NEAR * high)


def _line(
    hessian: Hessian, first: Sequence[Loss], second: Sequence[Loss], direction: torch.Tensor, curvature: float
) -> tuple[float, Array]:
    """The side on which A's loss is lower, and the losses along it; lengths grow as long as A's loss falls."""

    def losses(length: float) -> tuple[float, Array]:
        found = losses_at(hessian, [*first, *second], direction, length)
        return float(found[: len(first)].mean()), found[len(first) :]

    start, others = losses(0.0)
    length = float(np.sqrt(2 * FIRST * (abs(start) or 1.0) / -curvature))
    lengths, of_first, of_second = [0.0], [(start, start)], [(others, others)]
    for _ in range(SIZES):
        (plus, plus_others), (minus, minus_others) = losses(length), losses(-length)
        if not np.isfinite([plus, minus, *plus_others, *minus_others]).all():
            break
        lengths.append(length)
        of_first.append((plus, minus))
        of_second.append((plus_others, minus_others))
        lowest = [min(both) for both in of_first[-3:]]
        if len(lowest) == 3 and lowest[0] < lowest[1] < lowest[2]:
            break
        length *= 2
    tried: Array = np.array(of_first)
    changes: Array = np.array(of_second) - others
    side = int(np.argmin(tried.min(0)))
    rows = np.full((SIZES + 1, 6), np.nan)
    for row, x, loss, change in zip(rows, lengths, tried, changes, strict=False):
        mean, error = mean_and_error(change[side])
        row[:] = x, loss[side], others.mean() + mean, error, *mean_and_error(change.mean(0))
    return 1.0 - 2.0 * side, rows


def _plane(
    hessian: Hessian,
    first: Sequence[Loss],
    direction: torch.Tensor,
    steepest: torch.Tensor,
    largest: float,
    line: Array,
) -> Array | None:
    lowest = line[np.nanargmin(line[:, 1])]
    reach, fall = REACH * float(lowest[0]), float(line[0, 1] - lowest[1])
    if not fall > 0:
        return None
    width = min(reach, (2 * fall / largest) ** 0.5) if largest > 0 else reach  # a rise beyond the fall would hide it
    return loss_plane(hessian, first, direction, steepest, reach, width)


def _mean(batch: Batch, model: nn.Module) -> torch.Tensor:
    return batch.loss(model).mean()
